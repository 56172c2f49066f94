//! Among those who fill the queue: the window of CUBIC (RFC 9438).

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Compete {
    epoch: Instant,
    /// Datagrams: where the window is to level out, and where it started.
    max: f64,
    start: f64,
    /// What was sent before that has had its answer.
    cut_at: Instant,
    /// The highest round-trip time of a round's fastest packet: a full queue.
    highest: Duration,
    rounds: i32,
}

/// RFC 9438, 4.1: growth.
const C: f64 = 0.4;
/// RFC 9438, 4.6: what is left of the window after a loss.
pub(crate) const BETA: f64 = 0.7;
/// RFC 9438, 4.3: datagrams per round trip with which NewReno's rate is matched.
const FRIENDLY: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Growth per round trip at least. CUBIC takes its time on long paths, and whoever lost ground would not regain it.
const STEADY: f64 = 1.03;
/// Rounds of it, so that it stays finite.
const STEADY_ROUNDS: i32 = 1000;

impl Compete {
    pub(crate) fn new(now: Instant, window: u64, max: u64, mtu: u64) -> Self {
        let datagrams = |bytes: u64| bytes as f64 / mtu as f64;
        Self {
            epoch: now,
            max: datagrams(max.max(window)),
            start: datagrams(window),
            cut_at: now,
            highest: Duration::ZERO,
            rounds: 0,
        }
    }

    /// The window a round later.
    pub(crate) fn grow(&mut self, now: Instant, rtt: Duration, mtu: u64) -> u64 {
        let time = now.saturating_duration_since(self.epoch).as_secs_f64();
        let rtt = rtt.as_secs_f64().max(1e-6);
        let k = ((self.max - self.start) / C).cbrt();
        let cubic = C * (time + rtt - k).powi(3) + self.max;
        let friendly = self.start + FRIENDLY * time / rtt;
        self.rounds = (self.rounds + 1).min(STEADY_ROUNDS);
        let steady = self.start * STEADY.powi(self.rounds);
        (cubic.max(friendly).max(steady) * mtu as f64) as u64
    }

    pub(crate) fn saw(&mut self, rtt: Duration) {
        self.highest = self.highest.max(rtt);
    }

    /// Whether a packet sent at that time was lost to a full queue, and nothing was done about it yet.
    pub(crate) fn congested(&self, sent: Instant, rtt: Duration, min_rtt: Duration) -> bool {
        let half = min_rtt.saturating_add(self.highest.saturating_sub(min_rtt) / 2);
        sent > self.cut_at && rtt >= half
    }

    /// Answers a loss; the new window.
    pub(crate) fn cut(&mut self, now: Instant, window: u64, mtu: u64) -> u64 {
        let datagrams = window as f64 / mtu as f64;
        // Fast convergence: who is losing ground makes room for the newcomer.
        self.max = if datagrams < self.max { datagrams * (1.0 + BETA) / 2.0 } else { datagrams };
        self.start = datagrams * BETA;
        (self.epoch, self.cut_at, self.rounds) = (now, now, 0);
        (window as f64 * BETA) as u64
    }
}
