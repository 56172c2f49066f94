//! Starting from what is remembered of a path, which may have changed since.

use std::time::Duration;

use ftpq_congestion::{Config, Phase};

use crate::sim::{
    Algorithm, App, Flow, Outcome, run,
    scenarios::{REMEMBERED, returns, seconds},
};

/// 8 MiB, without and with memory.
fn both(name: &str) -> [Outcome; 2] {
    let (_, link) = returns().into_iter().find(|(path, _)| *path == name).unwrap();
    [None, Some(REMEMBERED)].map(|remembered| {
        let flow = Flow::new(Algorithm::Ours(Config { remembered, ..Config::default() })).of(8 << 20);
        run(link.clone(), &[flow], seconds(20.0))
    })
}

fn took(outcome: &Outcome) -> Duration {
    outcome.flows[0].took.unwrap()
}

#[test]
fn a_known_path_is_full_after_two_round_trips() {
    for name in ["the same", "the same, 1 % loss"] {
        let [fresh, known] = both(name);
        assert!(took(&known) + Duration::from_millis(100) < took(&fresh), "{name}: {:?}", took(&known));
        assert_eq!(known.flows[0].dropped, 0, "{name}");
    }
}

#[test]
fn a_path_that_has_become_worse_costs_little() {
    for name in ["half the rate", "a quarter of the rate", "a tenth of the rate"] {
        let [fresh, known] = both(name);
        assert!(took(&known) < took(&fresh).mul_f64(1.15), "{name}: {:?} {:?}", took(&fresh), took(&known));
        assert!(known.flows[0].dropped_share() < 0.02, "{name}");
    }
    let [fresh, known] = both("a tenth of the rate and of the buffer");
    assert!(took(&known) < took(&fresh).mul_f64(1.15));
    assert!(known.flows[0].dropped_share() < 0.1);
}

#[test]
fn another_path_is_not_taken_for_the_known_one() {
    for name in ["120 ms", "20 ms"] {
        let [fresh, known] = both(name);
        assert_eq!(took(&known), took(&fresh), "{name}");
    }
}

#[test]
fn what_was_learnt_can_be_remembered() {
    let [fresh, _] = both("the same");
    let path = fresh.flows[0].report.unwrap().remember().unwrap();
    assert!((33_000_000..38_000_000).contains(&path.bandwidth), "{path:?}");
    assert!((50..55).contains(&path.min_rtt.as_millis()), "{path:?}");
}

/// As whoever only acknowledges what the other end uploads: that one's queue is not a path that is full.
#[test]
fn a_trickle_beside_a_full_queue_teaches_nothing() {
    let trickle = App::Slow { rate: 50e3, until: seconds(60.0) };
    let flows = [
        Flow::new(Algorithm::Cubic).from(seconds(0.2)),
        Flow { app: trickle, ..Flow::new(Algorithm::Ours(Config::default())) },
    ];
    let outcome = run(returns()[0].1.clone(), &flows, seconds(5.0));
    let report = outcome.flows[1].report.unwrap();
    assert_eq!((report.phase, report.remember()), (Phase::Startup, None), "{report:?}");
}
