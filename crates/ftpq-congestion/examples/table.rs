//! Prints what each controller makes of each scenario: the tables in `docs/congestion.md`.
//! An argument selects scenarios by a part of their names; `seeds` shows what ten rolls of the dice make of some.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../tests/simulated/sim/mod.rs"]
mod sim;

use ftpq_congestion::Config;
use sim::{Algorithm, Flow, run, scenarios};

fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    if part == "seeds" {
        return seeds();
    }
    one_flow(&part);
    two_flows(&part);
    returns(&part);
}

fn ours() -> Algorithm {
    Algorithm::Ours(Config::default())
}

fn seeds() {
    for name in [
        "300 Mbit/s, 50 ms, 0.1 % loss",
        "300 Mbit/s, 50 ms, 1 % loss",
        "300 Mbit/s, 150 ms, 0.5 % loss",
        "100 Mbit/s, 50 ms, 1 % loss",
        "100 Mbit/s, 50 ms, 5 % loss",
        "1 Gbit/s, 20 ms, 0.1 % loss",
        "2 Mbit/s, 60 ms, 2 % loss",
    ] {
        print!("{name}:");
        for seed in 1..=10 {
            let mut s = scenarios::one(name);
            s.link.seed = seed;
            print!(" {:.1}", s.run(ours()).goodput());
        }
        println!();
    }
}

fn one_flow(part: &str) {
    println!("| link (queue of 1 product, if not said) | ftpq | Cubic | NewReno | BBR of quinn |");
    println!("|---|---:|---:|---:|---:|");
    for scenario in scenarios::all().iter().filter(|scenario| scenario.name.contains(part)) {
        print!("| {}", scenario.name);
        for algorithm in [ours(), Algorithm::Cubic, Algorithm::NewReno, Algorithm::Bbr] {
            let outcome = scenario.run(algorithm);
            let (goodput, queue) = (outcome.goodput(), outcome.queue_mean() / scenario.link.bdp());
            let digits = if goodput < 10.0 { 2 } else { usize::from(goodput < 1000.0) };
            let dropped = outcome.flows[0].dropped_share() * 100.0;
            print!(" | {goodput:.digits$}; {dropped:.1} %; {queue:.2}");
        }
        println!(" |");
    }
}

fn two_flows(part: &str) {
    println!("\n| link | beside ftpq | beside Cubic | beside NewReno |\n|---|---:|---:|---:|");
    for (mbit, millis, until) in [(50.0, 30.0, 40.0), (20.0, 20.0, 30.0), (100.0, 50.0, 60.0)] {
        let others = [ours(), Algorithm::Cubic, Algorithm::NewReno];
        let pairs = others.map(|other| scenarios::pairs(&ours(), &other, mbit, millis, until));
        for index in 0..pairs[0].len() {
            if !pairs[0][index].name.contains(part) {
                continue;
            }
            print!("| {}", pairs[0][index].name);
            for pair in pairs.iter().map(|pairs| &pairs[index]) {
                print!(" | {:.0} %", pair.share(&pair.run()) * 100.0);
            }
            println!(" |");
        }
    }
}

fn returns(part: &str) {
    println!("\n| the path now | 1 MiB | 8 MiB | 64 MiB |\n|---|---:|---:|---:|");
    for (name, link) in scenarios::returns().into_iter().filter(|(name, _)| name.contains(part)) {
        print!("| {name}");
        for mib in [1, 8, 64] {
            let took = [None, Some(scenarios::REMEMBERED)].map(|remembered| {
                let flow = Flow::new(Algorithm::Ours(Config { remembered, ..Config::default() })).of(mib << 20);
                let outcome = run(link.clone(), &[flow], scenarios::seconds(60.0));
                let millis = outcome.flows[0].took.unwrap_or(outcome.end).as_millis();
                format!("{millis} ms ({:.1} %)", outcome.flows[0].dropped_share() * 100.0)
            });
            print!(" | {} → {}", took[0], took[1]);
        }
        println!(" |");
    }
}
