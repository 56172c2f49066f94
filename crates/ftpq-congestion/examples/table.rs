//! Prints what each controller makes of each scenario: the table in `docs/congestion.md`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../tests/sim/mod.rs"]
mod sim;

use ftpq_congestion::Config;
use sim::{Algorithm, scenarios::*};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ours = Algorithm::Ours(Config::default());
    let filter = args.first().cloned().unwrap_or_default();
    let only_ours = args.iter().any(|a| a == "ours");
    let trace = args.iter().any(|a| a == "trace");
    let algos: Vec<(&str, Algorithm)> = if only_ours {
        vec![("ours", ours.clone())]
    } else {
        vec![
            ("ours", ours.clone()),
            ("Cubic", Algorithm::Cubic),
            ("NewReno", Algorithm::NewReno),
            ("Bbr", Algorithm::Bbr),
        ]
    };
    for s in all() {
        if !s.name.contains(&filter) && filter != "-" {
            continue;
        }
        print!("{:42}", s.name);
        for (_, a) in &algos {
            let o = s.run(a.clone());
            let f = &o.flows[0];
            let bdp = s.link.bdp();
            print!(
                " | {:7.2} drop {:5.2}% q {:4.2}/{:4.2}",
                o.goodput(),
                f.dropped_share() * 100.0,
                o.queue_mean() / bdp,
                o.queue_max as f64 / bdp
            );
            if only_ours {
                print!(" {:?}", f.report.map(|r| (r.phase, r.bandwidth * 8 / 1000, r.min_rtt, r.random_loss)));
            }
            if trace {
                println!();
                let n = (o.end.as_secs_f64() * 10.0) as usize;
                for i in 0..n {
                    let t = |i: usize| seconds(i as f64 / 10.0);
                    println!(
                        "{:4.1} {:7.2} q {:.2}",
                        i as f64 / 10.0,
                        o.rate(0, t(i), t(i + 1)),
                        o.queue_between(t(i), t(i + 1)) / bdp
                    );
                }
            }
        }
        println!();
    }
    if args.iter().any(|a| a == "returns") {
        for (name, link) in returns() {
            print!("{name:40}");
            for remembered in [None, Some(REMEMBERED)] {
                for mib in [1.0, 8.0, 64.0] {
                    let config = Config { remembered, ..Config::default() };
                    let flow = sim::Flow::new(Algorithm::Ours(config)).of((mib * 1048576.0) as u64);
                    let o = sim::run(link.clone(), &[flow], seconds(60.0));
                    print!(
                        " | {:4.0} ms {:4.1}% q {:4.2}",
                        o.flows[0].took.unwrap().as_secs_f64() * 1e3,
                        o.flows[0].dropped_share() * 100.0,
                        o.queue_max as f64 / link.bdp()
                    );
                }
            }
            println!();
        }
    }
    if args.iter().any(|a| a == "pairs") {
        for (n, other) in [("ours", ours.clone()), ("Cubic", Algorithm::Cubic), ("NewReno", Algorithm::NewReno)] {
            for (mbit, ms, until) in [(50.0, 30.0, 40.0), (20.0, 20.0, 30.0), (100.0, 50.0, 60.0)] {
                for p in pairs(&ours, &other, mbit, ms, until) {
                    if !p.name.contains(args.get(2).map_or("", |s| s)) {
                        continue;
                    }
                    let o = p.run();
                    print!(
                        "{n:8} {:48} share {:5.1}% sum {:5.1}% q {:.2}",
                        p.name,
                        p.share(&o) * 100.0,
                        (o.rate(0, seconds(8.0), seconds(until)) + o.rate(1, seconds(8.0), seconds(until))) / mbit
                            * 100.0,
                        o.queue_mean() / p.link.bdp()
                    );
                    print!(
                        "  {:?} drops {:.2}% {:.2}%",
                        o.flows[0].report.map(|r| (r.phase, r.min_rtt)),
                        o.flows[0].dropped_share() * 100.0,
                        o.flows[1].dropped_share() * 100.0
                    );
                    println!();
                    if trace {
                        for i in 0..(until as usize * 2) {
                            let t = |i: usize| seconds(i as f64 / 2.0);
                            println!(
                                "{:4.1} {:7.2} {:7.2} q {:.2}",
                                i as f64 / 2.0,
                                o.rate(0, t(i), t(i + 1)),
                                o.rate(1, t(i), t(i + 1)),
                                o.queue_between(t(i), t(i + 1)) / p.link.bdp()
                            );
                        }
                    }
                }
            }
        }
    }
}
