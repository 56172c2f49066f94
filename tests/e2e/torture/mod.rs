//! Torture: faults at random moments, and afterwards a look at every byte.
//!
//! Each case has a short form, which runs with all other tests, and a long one (`FTPQ_TORTURE=long`);
//! `cargo xtask torture` runs either. What is random comes from one seed, which a test that fails
//! names; `FTPQ_SEED` sets it. It repeats what was chosen, not how the processes raced.

mod disk;
mod flood;
mod hogs;
mod kills;
mod links;
mod networks;
mod oracle;
mod restarts;
mod revocation;
mod slow;
mod versions;

use std::{env, ops::Range, thread};

use crate::support::Random;

/// One case, as it runs.
struct Torture {
    name: &'static str,
    seed: u64,
    long: bool,
    random: Random,
}

impl Torture {
    fn of(name: &'static str) -> Self {
        let given = env::var("FTPQ_SEED").ok().filter(|seed| !seed.is_empty());
        let seed = given.map_or_else(Random::seed, |seed| seed.parse().expect("FTPQ_SEED is a number"));
        let long = match env::var("FTPQ_TORTURE").as_deref() {
            Ok("long") => true,
            Ok("" | "short") | Err(_) => false,
            Ok(other) => panic!("FTPQ_TORTURE is short or long, not {other:?}"),
        };
        Self { name, seed, long, random: Random::new(seed) }
    }

    /// The number of rounds.
    fn rounds(&self, short: u64, long: u64) -> Range<u64> {
        0..if self.long { long } else { short }
    }

    /// Rounds until `done` has come so far, one at the least.
    fn until<'a>(&self, done: impl Fn() -> u64 + 'a, short: u64, long: u64) -> impl Iterator<Item = ()> + 'a {
        let wanted = self.rounds(short, long).end;
        let mut begun = false;
        std::iter::from_fn(move || (!std::mem::replace(&mut begun, true) || done() < wanted).then_some(()))
    }
}

impl Drop for Torture {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}: FTPQ_SEED={} reproduces this", self.name, self.seed);
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
