//! The scenarios: one flow on links of all kinds, and two flows on one link.

use std::time::Duration;

use super::{Algorithm, App, Change, Flow, Link, Outcome, run};

/// One flow on one link.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) link: Link,
    /// Mebibytes; 0: as much as goes.
    pub(crate) file: f64,
    /// Seconds at the most.
    pub(crate) limit: f64,
    pub(crate) app: App,
}

impl Scenario {
    fn new(name: &'static str, link: Link, file: f64, limit: f64) -> Self {
        Self { name, link, file, limit, app: App::Bulk }
    }

    pub(crate) fn run(&self, algorithm: Algorithm) -> Outcome {
        let mut flow = Flow::new(algorithm);
        flow.app = self.app;
        if self.file > 0.0 {
            flow.bytes = (self.file * 1024.0 * 1024.0) as u64;
        }
        run(self.link.clone(), &[flow], seconds(self.limit))
    }
}

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// One flow, by name.
pub(crate) fn one(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).unwrap()
}

/// One flow.
pub(crate) fn all() -> Vec<Scenario> {
    let slow_then_bulk = App::Slow { rate: 250e3, until: seconds(3.0) };
    let pause = App::Pause { from: seconds(2.0), until: seconds(5.0) };
    let link = Link::new;
    vec![
        Scenario::new("300 Mbit/s, 50 ms", link(300.0, 50.0), 128.0, 20.0),
        Scenario::new("300 Mbit/s, 50 ms, 0.1 % loss", link(300.0, 50.0).loss(0.1), 128.0, 20.0),
        Scenario::new("300 Mbit/s, 50 ms, 1 % loss", link(300.0, 50.0).loss(1.0), 128.0, 20.0),
        Scenario::new("300 Mbit/s, 150 ms, 0.5 % loss", link(300.0, 150.0).loss(0.5), 96.0, 20.0),
        Scenario::new("100 Mbit/s, 50 ms, 1 % loss", link(100.0, 50.0).loss(1.0), 48.0, 20.0),
        Scenario::new("100 Mbit/s, 50 ms, 5 % loss", link(100.0, 50.0).loss(5.0), 48.0, 20.0),
        Scenario::new("100 Mbit/s, 30 ms, buffer 0.1", link(100.0, 30.0).buffer(0.1), 48.0, 20.0),
        Scenario::new("100 Mbit/s, 30 ms, buffer 0.5", link(100.0, 30.0).buffer(0.5), 48.0, 20.0),
        Scenario::new("100 Mbit/s, 30 ms, buffer 4", link(100.0, 30.0).buffer(4.0), 48.0, 20.0),
        Scenario::new("100 Mbit/s, 30 ms, jitter 10 ms", link(100.0, 30.0).jitter(10.0), 48.0, 20.0),
        Scenario::new("50 Mbit/s, 40 ms, jitter 30 ms", link(50.0, 40.0).jitter(30.0), 24.0, 20.0),
        Scenario::new(
            "100 Mbit/s, 40 ms, loss 20 % for 0.2 s",
            link(100.0, 40.0).change(2.0, Change::Loss(0.2)).change(2.2, Change::Loss(0.0)),
            48.0,
            20.0,
        ),
        Scenario::new("1 Gbit/s, 1 ms", link(1000.0, 1.0), 64.0, 2.0),
        Scenario::new("1 Gbit/s, 20 ms, 0.1 % loss", link(1000.0, 20.0).loss(0.1), 96.0, 4.0),
        Scenario::new("10 Gbit/s, 0.2 ms", link(10_000.0, 0.2), 128.0, 1.0),
        Scenario::new("10 Mbit/s, 600 ms", link(10.0, 600.0), 24.0, 60.0),
        Scenario::new("10 Mbit/s, 600 ms, 1 % loss", link(10.0, 600.0).loss(1.0), 24.0, 60.0),
        Scenario::new("64 kbit/s, 200 ms, buffer 4", link(0.064, 200.0).buffer(4.0), 0.125, 60.0),
        Scenario::new("2 Mbit/s, 60 ms, 2 % loss", link(2.0, 60.0).loss(2.0), 4.0, 60.0),
        Scenario {
            app: slow_then_bulk,
            ..Scenario::new("100 Mbit/s, 40 ms, slow at first", link(100.0, 40.0), 0.0, 6.0)
        },
        Scenario { app: pause, ..Scenario::new("100 Mbit/s, 40 ms, paused", link(100.0, 40.0), 0.0, 8.0) },
        Scenario::new("200 to 50 Mbit/s, 40 ms", link(200.0, 40.0).change(3.0, Change::Rate(50e6)), 0.0, 8.0),
        Scenario::new(
            "50 to 200 Mbit/s, 40 ms",
            link(50.0, 40.0).buffer(4.0).change(3.0, Change::Rate(200e6)),
            0.0,
            8.0,
        ),
        Scenario::new(
            "100 Mbit/s, 30 to 90 ms",
            link(100.0, 30.0).change(3.0, Change::Rtt(Duration::from_millis(90))),
            0.0,
            16.0,
        ),
        Scenario::new(
            "100 Mbit/s, 40 ms, away 2 s",
            link(100.0, 40.0).change(2.0, Change::Loss(1.0)).change(4.0, Change::Loss(0.0)),
            0.0,
            9.0,
        ),
    ]
}

/// Ours and another on one link.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) link: Link,
    pub(crate) flows: [Flow; 2],
    /// Seconds: when shares are counted, from and to.
    pub(crate) counted: (f64, f64),
}

impl Pair {
    pub(crate) fn run(&self) -> Outcome {
        run(self.link.clone(), &self.flows, seconds(self.counted.1))
    }

    /// Share of the first.
    pub(crate) fn share(&self, outcome: &Outcome) -> f64 {
        outcome.share(seconds(self.counted.0), seconds(self.counted.1))
    }
}

/// `first` beside `other`, who comes at the same time, later or earlier, for buffers of 0.5, 1 and 2.
pub(crate) fn pairs(first: &Algorithm, other: &Algorithm, mbit: f64, millis: f64, until: f64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for buffer in [0.5, 1.0, 2.0] {
        for (when, ours, theirs) in [("together", 0.0, 0.5), ("ours first", 0.0, 5.0), ("theirs first", 5.0, 0.0)] {
            pairs.push(Pair {
                name: format!("{mbit} Mbit/s, {millis} ms, buffer {buffer}, {when}"),
                link: Link::new(mbit, millis).buffer(buffer),
                flows: [Flow::new(first.clone()).from(seconds(ours)), Flow::new(other.clone()).from(seconds(theirs))],
                counted: (8.0, until),
            });
        }
    }
    pairs
}

/// A path that was 300 Mbit/s at 50 ms when it was last used, and what it is now.
pub(crate) fn returns() -> Vec<(&'static str, Link)> {
    let link = |mbit: f64, millis: f64| {
        let link = Link::new(mbit, millis);
        let buffer = 300e6 / 8.0 * 0.05 / link.bdp();
        link.buffer(buffer)
    };
    vec![
        ("the same", link(300.0, 50.0)),
        ("the same, 1 % loss", link(300.0, 50.0).loss(1.0)),
        ("half the rate", link(150.0, 50.0)),
        ("a quarter of the rate", link(75.0, 50.0)),
        ("a tenth of the rate", link(30.0, 50.0)),
        ("a tenth of the rate and of the buffer", link(30.0, 50.0).buffer(1.0)),
        ("twice the rate", link(600.0, 50.0)),
        ("80 ms", link(300.0, 80.0)),
        ("120 ms", link(300.0, 120.0)),
        ("20 ms", link(300.0, 20.0)),
    ]
}

/// What was remembered of it.
pub(crate) const REMEMBERED: ftpq_congestion::Remembered =
    ftpq_congestion::Remembered { bandwidth: 36_600_000, min_rtt: Duration::from_millis(50) };
