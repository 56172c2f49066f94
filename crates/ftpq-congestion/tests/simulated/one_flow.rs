//! One flow on one link: how fast, how much lost, how long a queue.

use std::time::Duration;

use ftpq_congestion::{Config, Phase};

use crate::sim::{
    Algorithm, App, Outcome,
    scenarios::{Scenario, one, seconds},
};

fn ours(scenario: &Scenario) -> Outcome {
    scenario.run(Algorithm::Ours(Config::default()))
}

/// At least this goodput in Mbit/s; at most this share of packets dropped by the queue, in percent.
fn check(name: &str, goodput: f64, dropped: f64) -> Outcome {
    let outcome = ours(&one(name));
    let percent = outcome.flows[0].dropped_share() * 100.0;
    assert!(outcome.goodput() >= goodput, "{name}: {:.1} Mbit/s", outcome.goodput());
    assert!(percent <= dropped, "{name}: {percent:.2} % dropped");
    outcome
}

#[test]
fn a_clean_link_is_filled_and_its_queue_stays_short() {
    let name = "300 Mbit/s, 50 ms";
    let outcome = check(name, 258.0, 1.0);
    let queue = outcome.queue_between(seconds(1.0), outcome.end) / one(name).link.bdp();
    assert!(queue < 0.25, "{queue}");
    let steady = outcome.rate(0, seconds(1.0), seconds(3.5));
    assert!(steady > 0.97 * 0.95 * 300.0, "{steady}: headers take a twentieth");
}

/// quinn's pacer still goes by the round-trip time of the queue that has just left, and what a path holds is not known
/// while its queue begins.
#[test]
fn the_queue_of_the_start_is_drained_without_idling_the_link() {
    for (name, rtt, least) in [("300 Mbit/s, 50 ms", 0.05, 250.0), ("300 Mbit/s, 150 ms, 0.5 % loss", 0.15, 225.0)] {
        let mut scenario = one(name);
        (scenario.link.loss, scenario.file, scenario.limit) = (0.0, 0.0, 4.0);
        let outcome = ours(&scenario);
        let rate = |from: f64| outcome.rate(0, seconds(from), seconds(from + rtt));
        let full = (0..200).map(|step| f64::from(step) * 0.01).find(|at| rate(*at) > 270.0).unwrap();
        let after: Vec<f64> = (1..=8).map(|round| rate(full + rtt * f64::from(round))).collect();
        assert!(after.iter().all(|rate| *rate > least), "{name}: {after:?}");
    }
}

#[test]
fn random_loss_does_not_slow_it_down() {
    check("300 Mbit/s, 50 ms, 0.1 % loss", 255.0, 1.0);
    check("300 Mbit/s, 50 ms, 1 % loss", 240.0, 1.0);
    check("300 Mbit/s, 150 ms, 0.5 % loss", 185.0, 2.0);
    let report = check("100 Mbit/s, 50 ms, 1 % loss", 85.0, 1.0).flows[0].report.unwrap();
    assert!(report.random_loss.is_some_and(|loss| (4_000..20_000).contains(&loss)), "{report:?}");
    check("100 Mbit/s, 50 ms, 5 % loss", 80.0, 1.0);
    check("1 Gbit/s, 20 ms, 0.1 % loss", 750.0, 1.0);
}

#[test]
fn whatever_the_dice_say() {
    for seed in 2..5 {
        let mut scenario = one("300 Mbit/s, 50 ms, 1 % loss");
        (scenario.link, scenario.file) = (scenario.link.seed(seed), 64.0);
        let goodput = ours(&scenario).goodput();
        assert!(goodput > 210.0, "seed {seed}: {goodput}");
    }
}

/// Where the end of the handshake is lost, the other side drops the whole first flight. That is no full queue, and costs
/// the time until it is sent again, but no start from four datagrams.
#[test]
fn a_handshake_that_loses_its_end_costs_no_start_from_nothing() {
    let mut slowest = Duration::ZERO;
    for seed in 1..=24 {
        let mut scenario = one("300 Mbit/s, 150 ms, 0.5 % loss");
        (scenario.link, scenario.file) = (scenario.link.loss(3.0).seed(seed), 1.0);
        slowest = slowest.max(ours(&scenario).flows[0].took.unwrap());
    }
    assert!(slowest < seconds(3.0), "{slowest:?}");
}

#[test]
fn buffers_of_all_sizes() {
    check("100 Mbit/s, 30 ms, buffer 0.1", 75.0, 4.5);
    check("100 Mbit/s, 30 ms, buffer 0.5", 88.0, 1.5);
    let deep = check("100 Mbit/s, 30 ms, buffer 4", 88.0, 0.0);
    let bdp = one("100 Mbit/s, 30 ms, buffer 4").link.bdp();
    assert!(deep.queue_between(seconds(1.0), deep.end) < 0.5 * bdp);
}

#[test]
fn jitter_and_bursts_of_loss() {
    check("100 Mbit/s, 30 ms, jitter 10 ms", 80.0, 1.0);
    check("50 Mbit/s, 40 ms, jitter 30 ms", 33.0, 1.0);
    check("100 Mbit/s, 40 ms, loss 20 % for 0.2 s", 78.0, 1.0);
}

#[test]
fn fast_and_slow_and_far() {
    check("1 Gbit/s, 1 ms", 900.0, 1.0);
    check("10 Gbit/s, 0.2 ms", 8_500.0, 5.0); // quinn's timers are longer than this path
    check("10 Mbit/s, 600 ms", 7.8, 2.0);
    check("10 Mbit/s, 600 ms, 1 % loss", 7.5, 2.0);
    check("2 Mbit/s, 60 ms, 2 % loss", 1.5, 8.0);
    check("64 kbit/s, 200 ms, buffer 4", 0.045, 35.0); // the initial window alone is nine seconds' worth
}

/// Where the pacer never lets the window be full, it must grow all the same.
#[test]
fn the_start_does_not_matter_where_there_is_no_network() {
    for packets in [10, 32, 64, 128] {
        let config = Config { initial_window: packets * 1452, ..Config::default() };
        let goodput = one("10 Gbit/s, 0.2 ms").run(Algorithm::Ours(config)).goodput();
        assert!(goodput > 8_000.0, "{packets}: {goodput}");
    }
}

#[test]
fn an_application_that_sends_little_teaches_nothing_wrong() {
    for (name, from, to) in [("100 Mbit/s, 40 ms, slow at first", 4.0, 6.0), ("100 Mbit/s, 40 ms, paused", 5.5, 8.0)] {
        let outcome = ours(&one(name));
        let rate = outcome.rate(0, seconds(from), seconds(to));
        assert!(rate > 88.0, "{name}: {rate}");
    }
}

#[test]
fn the_rate_of_the_path_is_known_although_the_application_slows_down() {
    let mut scenario = one("1 Gbit/s, 20 ms, 0.1 % loss");
    (scenario.file, scenario.limit) = (0.0, 4.0);
    scenario.app = App::Fade { from: seconds(0.5), rate: 100e3 };
    let report = ours(&scenario).flows[0].report.unwrap();
    let mbit = report.remember().unwrap().bandwidth as f64 * 8e-6;
    assert!(mbit > 900.0, "{mbit}");
}

#[test]
fn what_changes_is_followed_within_seconds() {
    for (name, from, to, least) in [
        ("200 to 50 Mbit/s, 40 ms", 3.5, 8.0, 45.0),
        ("50 to 200 Mbit/s, 40 ms", 4.5, 8.0, 185.0),
        ("100 Mbit/s, 30 to 90 ms", 6.0, 16.0, 80.0),
        ("100 Mbit/s, 40 ms, away 2 s", 7.0, 9.0, 88.0),
    ] {
        let outcome = ours(&one(name));
        let rate = outcome.rate(0, seconds(from), seconds(to));
        assert!(rate > least, "{name}: {rate}");
        let report = outcome.flows[0].report.unwrap();
        assert!(!matches!(report.phase, Phase::Startup | Phase::Resume), "{name}: {report:?}");
    }
}

#[test]
fn same_seed_same_result() {
    let scenario = one("100 Mbit/s, 50 ms, 1 % loss");
    let (first, second) = (ours(&scenario), ours(&scenario));
    assert_eq!(first.flows[0].took, second.flows[0].took);
    assert_eq!(first.flows[0].packets, second.flows[0].packets);
}

/// The simulation must show what is wrong with the others, or it proves nothing.
#[test]
fn cubic_starves_where_packets_are_lost() {
    let mut scenario = one("100 Mbit/s, 50 ms, 1 % loss");
    scenario.limit = 4.0;
    assert!(scenario.run(Algorithm::Cubic).goodput() < 20.0);
    assert!(one("100 Mbit/s, 30 ms, buffer 0.5").run(Algorithm::Cubic).goodput() > 80.0);
}
