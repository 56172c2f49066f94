//! `cargo bench --package ftpq-congestion`: what the controller adds to each datagram, on a path of 300 Mbit/s and
//! 50 ms that it has filled. No sockets; the clock is the path's.

#![allow(clippy::unwrap_used)] // a path that cannot be filled has nothing to measure

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ftpq_congestion::{Bulk, Config, Phase, Report};
use quinn_proto::congestion::{Controller, ControllerFactory};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = datagrams, reports
}
criterion_main!(benches);

/// Bytes of a datagram on an Ethernet.
const DATAGRAM: u64 = 1452;

/// What the path takes for one of them at 300 Mbit/s.
const EACH: Duration = Duration::from_nanos(DATAGRAM * 8 * 1_000_000_000 / 300_000_000);

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Datagrams that are acknowledged together, as ftpq's ends do it.
const TOGETHER: usize = 10;

/// Datagrams acknowledged before anything is measured: twenty seconds of the path.
const FILLING: usize = 500_000;

/// Ten datagrams that are acknowledged, and as many that are sent instead. Rounds end and queues are drained on the
/// way, as in any transfer.
fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("datagrams at 300 Mbit/s, 50 ms");
    group.throughput(Throughput::Elements(TOGETHER as u64));
    for (name, lost) in [("sent and acknowledged", None), ("one in a hundred lost", Some(100))] {
        let mut path = Path::filled(lost);
        group.bench_function(name, |bencher| bencher.iter(|| path.step()));
        path.check();
    }
    group.finish();
}

/// What is asked for when a connection ends, and by whoever wants to know what limited it.
fn reports(criterion: &mut Criterion) {
    let path = Path::filled(None);
    criterion.bench_function("report", |bencher| bencher.iter(|| Report::of(black_box(&*path.bulk))));
}

/// A sender, and a path, which may lose one datagram in so many.
struct Path {
    bulk: Box<Bulk>,
    now: Instant,
    /// When the last datagram will have passed.
    busy_until: Instant,
    /// When each was sent, when word of it is back, and whether it is lost.
    in_flight: VecDeque<(Instant, Instant, bool)>,
    sent: u64,
    lost: Option<u64>,
}

impl Path {
    fn filled(lost: Option<u64>) -> Self {
        let now = Instant::now();
        let bulk = Arc::new(Config::default()).build(now, DATAGRAM as u16).into_any().downcast().unwrap();
        let mut path = Self { bulk, now, busy_until: now, in_flight: VecDeque::new(), sent: 0, lost };
        (0..FILLING / TOGETHER).for_each(|_| path.step());
        path.check();
        path
    }

    /// Sends what the window lets go, then takes the next acknowledgement.
    fn step(&mut self) {
        while (self.in_flight.len() as u64 + 1) * DATAGRAM <= self.bulk.window() {
            self.busy_until = self.busy_until.max(self.now) + EACH;
            self.sent += 1;
            let is_lost = self.lost.is_some_and(|every| self.sent.is_multiple_of(every));
            self.in_flight.push_back((self.now, self.busy_until + ROUND_TRIP, is_lost));
            self.bulk.on_sent(self.now, DATAGRAM, self.sent);
        }
        let mut lost = None;
        for (sent, back, is_lost) in self.in_flight.drain(..TOGETHER.min(self.in_flight.len())) {
            self.now = back;
            if is_lost {
                lost = Some(sent);
            } else {
                self.bulk.acknowledge(back, sent, DATAGRAM);
            }
        }
        self.bulk.on_end_acks(self.now, self.in_flight.len() as u64 * DATAGRAM, false, None);
        if let Some(sent) = lost {
            self.bulk.on_congestion_event(self.now, sent, false, DATAGRAM);
        }
    }

    /// Whether it does what is to be measured: fills the path, and little more.
    fn check(&self) {
        let report = Report::of(&*self.bulk).unwrap();
        assert!(report.filled && !matches!(report.phase, Phase::Startup | Phase::Resume), "{report:?}");
        let product = DATAGRAM * (ROUND_TRIP.as_nanos() / EACH.as_nanos()) as u64;
        assert!((product / 2..product * 2).contains(&self.bulk.window()), "{} of {product}", self.bulk.window());
    }
}
