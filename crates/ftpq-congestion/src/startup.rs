//! From nothing to the rate of the path: when to double, when to stop, where to start.

use std::time::{Duration, Instant};

use crate::{Remembered, round::Round, round::product};

#[derive(Clone, Debug, Default)]
pub(crate) struct Startup {
    /// Bytes per second of the round that was last much faster than the one before.
    rate: u64,
    /// Rounds since then.
    flat: u32,
    pub(crate) resume: Resume,
}

/// A start from what is remembered, as in draft-ietf-tsvwg-careful-resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Waits for the first round-trip time.
    Reconnaissance(Remembered),
    /// The window has jumped. What is sent later is to show whether it grows up to the remembered one.
    Unvalidated { since: Instant, window: u64 },
    /// The normal course of things.
    #[default]
    Normal,
}

/// Why doubling ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A queue grows.
    Queue,
    /// Rounds without more speed.
    Flat,
    /// More is lost than a bad link loses.
    Loss,
}

/// A queue shows when the fastest of the last packets takes this part of the round trip longer. With HyStart's
/// eighth, a queue of one product overflowed.
const DELAY_PART: u32 = 16;
/// Clocks and schedulers are no finer.
const DELAY_MIN: Duration = Duration::from_micros(500);
/// Speed that counts as more: BBR's quarter.
const GROWTH: f64 = 1.25;
/// Rounds without it: BBR's three.
const FLAT: u32 = 3;
/// Share of a window. Bad links lose up to a twentieth; doubling into a full queue loses half of what is sent.
const LOSS: f64 = 0.12;
/// Datagrams; fewer are chance.
const LOSS_MIN: u64 = 8;
/// Of the remembered product, what the window jumps to: half, as the draft says, is safe if the path has
/// half of its rate left, and one doubling from all of it.
const JUMP: f64 = 0.5;
/// The round trip must be within these parts of the remembered one, in quarters.
const SIMILAR: (u32, u32) = (2, 7);
/// What a handshake's cryptography may add.
const SIMILAR_SLACK: Duration = Duration::from_millis(5);

impl Startup {
    pub(crate) fn new(remembered: Option<Remembered>) -> Self {
        let resume = remembered.map_or(Resume::Normal, Resume::Reconnaissance);
        Self { resume, ..Self::default() }
    }

    /// The window to jump to, if the path looks like the remembered one.
    pub(crate) fn jump(&mut self, now: Instant, rtt: Duration) -> Option<u64> {
        let Resume::Reconnaissance(path) = self.resume else { return None };
        let (least, most) = (path.min_rtt / 4 * SIMILAR.0, path.min_rtt / 4 * SIMILAR.1 + SIMILAR_SLACK);
        if rtt < least || rtt > most {
            self.resume = Resume::Normal;
            return None;
        }
        let window = product(path.bandwidth, path.min_rtt.min(rtt));
        self.resume = Resume::Unvalidated { since: now, window };
        Some((window as f64 * JUMP) as u64)
    }

    /// Whether the fastest of the last packets shows a queue.
    pub(crate) fn queue(&self, recent: Duration, min_rtt: Duration, jitter: Duration) -> bool {
        recent > min_rtt.saturating_add((min_rtt / DELAY_PART).max(DELAY_MIN).max(2 * jitter))
    }

    /// Whether a loss shows that nothing more fits, where so many bytes were delivered since the start. Before any
    /// were, the queue was not what lost them: whoever has not heard the end of the handshake drops what follows it.
    pub(crate) fn overflow(&self, round: &Round, delivered: u64, window: u64, mtu: u64) -> bool {
        let least = LOSS_MIN * mtu;
        delivered >= least && round.lost >= least && round.lost as f64 > LOSS * window as f64
    }

    /// Whether rounds have passed without more speed.
    pub(crate) fn end_round(&mut self, round: &Round) -> bool {
        if !round.filled {
            return false;
        }
        if round.rate as f64 >= self.rate as f64 * GROWTH {
            (self.rate, self.flat) = (round.rate, 0);
        } else {
            self.flat += 1;
        }
        self.flat >= FLAT
    }
}
