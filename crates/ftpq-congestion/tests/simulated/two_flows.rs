//! Two flows on one link: what share each gets.

use ftpq_congestion::Config;

use crate::sim::{
    Algorithm, Flow, Link, run,
    scenarios::{pairs, seconds},
};

/// The first, ours, gets from `least` to `most` of what both get, in percent, whoever comes first. Sawtooths
/// take seconds, so the bounds are wider than what the table shows of longer times.
fn check(other: &Algorithm, mbit: f64, millis: f64, until: f64, least: f64, most: f64) {
    for pair in pairs(&Algorithm::Ours(Config::default()), other, mbit, millis, until) {
        let outcome = pair.run();
        let percent = pair.share(&outcome) * 100.0;
        assert!((least..=most).contains(&percent), "{}: {percent:.1} %", pair.name);
        let rate: f64 = (0..2).map(|flow| outcome.rate(flow, seconds(8.0), seconds(until))).sum();
        assert!(rate > 0.9 * mbit, "{}: {rate:.1} Mbit/s together", pair.name);
    }
}

#[test]
fn two_of_ours_share() {
    check(&Algorithm::Ours(Config::default()), 50.0, 30.0, 25.0, 17.0, 80.0);
}

#[test]
fn beside_cubic_neither_starves() {
    check(&Algorithm::Cubic, 50.0, 30.0, 25.0, 17.0, 80.0);
}

#[test]
fn beside_new_reno_neither_starves() {
    check(&Algorithm::NewReno, 50.0, 30.0, 25.0, 17.0, 80.0);
}

#[test]
fn four_of_ours_share_and_leave_the_queue_short() {
    let flow = |start| Flow::new(Algorithm::Ours(Config::default())).from(seconds(start));
    let link = Link::new(100.0, 40.0);
    let outcome = run(link.clone(), &[flow(0.0), flow(1.0), flow(2.0), flow(3.0)], seconds(40.0));
    let rates: Vec<f64> = (0..4).map(|flow| outcome.rate(flow, seconds(8.0), seconds(40.0))).collect();
    assert!(rates.iter().all(|rate| (5.0..50.0).contains(rate)), "{rates:?}");
    assert!(outcome.queue_between(seconds(8.0), seconds(40.0)) < 0.75 * link.bdp());
}
