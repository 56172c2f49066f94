//! After the start: a small queue, drained now and then; or a share of somebody else's.

use std::time::{Duration, Instant};

use crate::{
    compete::Compete,
    control::{Bulk, Mode},
    round::{product, scale},
};

/// Where in its cycle a connection is.
#[derive(Clone, Debug)]
pub(crate) struct Cruise {
    step: Step,
    /// The window while draining.
    drained: u64,
    /// The window after that.
    after: u64,
    /// Rounds in which no queue showed, one after the other.
    eager: u32,
    /// Rounds to go in which a longer queue may be our own doing.
    grown: u32,
    /// Rounds to go in which the window grows slowly.
    gentle: u32,
    /// Rounds with far more of a queue than is ours.
    crowded: u32,
    /// More than our own queue is being drained.
    deep: bool,
    /// Round-trip time before draining.
    before: Duration,
    /// Bytes of the queue that are ours at the most, since it overflowed.
    cap: u64,
    /// The largest window of the last rounds.
    peak: u64,
    answered: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Steady(u32),
    Draining(u32),
    /// What was sent while draining is being acknowledged.
    Settling,
}

/// Rounds between two drained ones: an eleventh of the time is spent on looking.
const STEADY: u32 = 8;
/// The same among competitors, where looking costs a share.
const STEADY_COMPETING: u32 = 60;
/// Of what fills the empty path, what is left in flight to drain the queue.
const DRAINED: f64 = 0.92;
/// The same after a queue was left: so little that what others of our kind keep there would drain too.
const DRAINED_DEEP: f64 = 0.65;
/// Windows that quinn's pacer sends in a round trip.
const PACE: f64 = 1.25;
/// Parts of the round-trip time by which a drained path may be slower than the empty one.
const EMPTY_PART: u32 = 16;
/// Parts of the round-trip time by which it falls when those who share a queue drain theirs.
const RESPONSE_PART: u32 = 32;
/// Queue in datagrams: this times the root of what fills the path. As with the buffers of routers, the
/// root is enough; and who has less has relatively more, which is what makes shares equal.
const SHARE: f64 = 3.0;
/// At most this part of what fills the path ...
const SHARE_PART: u64 = 4;
/// ... or its half, if that is no more datagrams than these: quinn sends ten in a burst, and its peer
/// acknowledges as many at once, so a shorter queue cannot be told from none ...
const SHARE_FEW: u64 = 10;
/// ... but always so many datagrams.
const SHARE_MIN: u64 = 4;
/// After an overflow, it is not halved below this, for the same reason.
const SHARE_CAPPED_MIN: u64 = 6;
/// Growth of the window after one, two and three rounds without a queue. After more it doubles, as at the start.
const EAGER: [f64; 3] = [1.05, 1.25, 1.5];
/// Rounds after such growth until its queue has been seen and corrected.
const GROWN: u32 = 4;
/// Rounds without a queue that do not count where a queue overflowed lately.
const EAGER_CAPPED: u32 = 4;
/// What is left of the window after a loss in a queue that is not ours alone.
const SHARED_BETA: f64 = 0.7;
/// Rounds after it in which the window grows no faster than by [`GENTLE_GAIN`]: those who share the queue
/// have given way too, and need the time to come back.
const GENTLE: u32 = 32;
const GENTLE_GAIN: f64 = 1.01;
/// Share of a window whose loss is answered at once, beyond twice what the link loses by itself.
const HEAVY: f64 = 0.1;

impl Cruise {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            step: Step::Steady(STEADY),
            drained: 0,
            after: 0,
            eager: 0,
            grown: 0,
            gentle: 0,
            crowded: 0,
            deep: false,
            before: Duration::ZERO,
            cap: u64::MAX,
            peak: 0,
            answered: now,
        }
    }

    pub(crate) fn draining(&self) -> bool {
        matches!(self.step, Step::Draining(_))
    }

    /// Halves what is ours of the queue.
    pub(crate) fn yield_share(&mut self, share: u64, mtu: u64) {
        self.cap = (share / 2).max(SHARE_CAPPED_MIN * mtu);
    }

    pub(crate) fn answered(&mut self, now: Instant) {
        self.answered = now;
    }

    /// Leaves the cycle where it was.
    pub(crate) fn restart(&mut self) {
        (self.step, self.eager) = (Step::Steady(STEADY), 0);
    }

    /// Whether the loss of what was sent then has not been answered yet.
    pub(crate) fn is_news(&self, sent: Instant) -> bool {
        sent > self.answered
    }
}

impl Bulk {
    /// Bytes of the queue that are to be ours.
    pub(crate) fn share(&self) -> u64 {
        let product = product(self.model.bandwidth.get(), self.model.min_rtt());
        let share = SHARE * (product as f64 * self.mtu as f64).sqrt();
        let few = (product / 2).clamp(SHARE_MIN * self.mtu, SHARE_FEW * self.mtu);
        let most = (product / SHARE_PART).max(few);
        (share as u64).clamp(SHARE_MIN * self.mtu, most).min(self.cruise.cap)
    }

    /// Lets the queue drain for a round.
    pub(crate) fn drain(&mut self, base: u64, after: u64, inside_round: bool) {
        self.cruise.step = Step::Draining(if inside_round { 2 } else { 1 });
        (self.cruise.after, self.cruise.deep, self.cruise.eager) = (after, false, 0);
        self.cruise.before = self.model.round.rtt.unwrap_or(self.model.rtt());
        self.drain_to((base as f64 * DRAINED) as u64);
    }

    /// The same, deeper.
    fn drain_deep(&mut self, base: u64) {
        self.cruise.step = Step::Draining(1);
        (self.cruise.deep, self.cruise.eager) = (true, 0);
        self.drain_to((base as f64 * DRAINED_DEEP) as u64);
    }

    /// The window is this, and while draining it stays so.
    fn drain_to(&mut self, window: u64) {
        self.set_window(window);
        self.cruise.drained = self.window;
    }

    /// Keeps up the rate once so much is in flight as draining leaves. quinn's pacer divides by the round-trip time, and
    /// that is for another round the one of the queue which has gone.
    pub(crate) fn keep_pace(&mut self, in_flight: u64) {
        let rate = product(self.model.bandwidth.get(), self.model.rtt()) as f64 * DRAINED / PACE;
        let paced = if in_flight <= self.cruise.drained { rate as u64 } else { 0 };
        self.set_window(self.cruise.drained.max(paced));
    }

    /// The window that decides how much is in flight.
    pub(crate) fn window_in_force(&self) -> u64 {
        if self.cruise.draining() { self.cruise.drained } else { self.window }
    }

    pub(crate) fn cruise_round(&mut self, now: Instant) {
        self.cruise.grown = self.cruise.grown.saturating_sub(1);
        match self.cruise.step {
            Step::Draining(rounds) if rounds > 1 => {
                self.cruise.step = Step::Draining(rounds - 1);
                self.correct_base();
            }
            Step::Draining(_) => {
                self.cruise.step = Step::Settling;
                self.set_window(self.cruise.after);
            }
            Step::Settling => self.judge(now),
            Step::Steady(rounds) => {
                self.cruise.step = Step::Steady(rounds.saturating_sub(1));
                self.steady(now, rounds <= 1);
            }
        }
    }

    /// A queue was seen as it began, and only what came out of it since tells all that the path carries. Not where it
    /// overflowed: there is no room for a mistake. Nor among competitors, to whom something was given.
    fn correct_base(&mut self) {
        let base = product(self.model.bandwidth.get(), self.model.min_rtt());
        let drained = (base as f64 * DRAINED) as u64;
        let alone = matches!(self.mode, Mode::Cruise) && self.cruise.cap == u64::MAX;
        if alone && drained > self.cruise.drained {
            self.cruise.after = self.cruise.after.max(base.saturating_add(self.share()));
            self.drain_to(drained);
        }
    }

    /// What a drained queue shows: whether it drained, and what the link loses.
    fn judge(&mut self, now: Instant) {
        let min_rtt = self.model.min_rtt();
        let round = self.model.round;
        let Some(rtt) = round.rtt else { return };
        let noise = self.model.jitter.min(min_rtt / EMPTY_PART).saturating_add(self.model.delay(2 * self.mtu));
        let empty = rtt <= min_rtt + min_rtt / EMPTY_PART + noise;
        if empty {
            self.mode = Mode::Cruise;
        } else if !self.cruise.deep {
            return self.drain_deep(scale(round.window, min_rtt, rtt));
        } else if rtt + self.cruise.before / RESPONSE_PART + noise >= self.cruise.before {
            // Nothing has changed: this is no queue but the path, which has become longer.
            self.model.path_is(now, rtt);
            self.mode = Mode::Cruise;
        } else if matches!(self.mode, Mode::Cruise) {
            self.mode = Mode::Compete(Compete::new(now, self.window, self.cruise.peak, self.mtu));
        }
        let competing = matches!(self.mode, Mode::Compete(_));
        self.cruise.step = Step::Steady(if competing { STEADY_COMPETING } else { STEADY });
        self.cruise.crowded = 0;
        self.settle_losses();
    }

    /// Once per cycle: whether our queue is what overflows.
    fn settle_losses(&mut self) {
        if self.model.ledger.overflows(self.mtu) {
            self.cruise.yield_share(self.share(), self.mtu);
            self.model.ledger.forgive();
        } else if self.cruise.cap < u64::MAX {
            let cap = self.cruise.cap.saturating_add(self.cruise.cap / 8);
            self.cruise.cap = u64::MAX;
            self.cruise.cap = if cap < self.share() { cap } else { u64::MAX };
        }
        self.model.ledger.next_cycle();
    }

    fn steady(&mut self, now: Instant, drain: bool) {
        let round = self.model.round;
        let Some(rtt) = round.rtt else { return };
        if !round.filled {
            return; // the application sets the pace; nothing is learnt of the path
        }
        let min_rtt = self.model.min_rtt();
        let base = scale(round.window, min_rtt, rtt);
        if let Mode::Compete(mut compete) = self.mode {
            compete.saw(rtt);
            let window = compete.grow(now, rtt, self.mtu);
            self.mode = Mode::Compete(compete);
            self.set_window(window.max(self.window).min(self.window + self.window / 4));
            self.cruise.peak = self.cruise.peak.max(self.window);
            if drain {
                self.drain(base, self.window, false);
            }
            return;
        }
        self.cruise.peak = (self.cruise.peak - self.cruise.peak / 32).max(self.window);
        let share = self.share();
        if rtt > min_rtt + min_rtt / 2 + 2 * self.model.delay(share) {
            self.cruise.crowded += 1;
        } else {
            self.cruise.crowded = 0;
        }
        let window = self.aim(base, round.window, share);
        if matches!(self.mode, Mode::Startup) {
            return;
        }
        if self.cruise.crowded >= 2 {
            self.model.bandwidth.keep(2);
            return self.drain(base, base.saturating_add(share), false);
        }
        if drain {
            return self.drain(base, window, false);
        }
        self.set_window(window);
    }

    /// The window for the next round: what fills the path, and our share of the queue.
    fn aim(&mut self, base: u64, sent_with: u64, share: u64) -> u64 {
        let target = base.saturating_add(share);
        let queue = sent_with.saturating_sub(base);
        if self.cruise.gentle > 0 {
            self.cruise.gentle -= 1;
            let most = (self.window as f64 * GENTLE_GAIN) as u64;
            return if target < self.window { self.window.midpoint(target) } else { target.min(most) };
        }
        let seen = sent_with >= self.window - self.window / 8;
        if queue < share / 4 && !seen {
            return self.window; // larger than what was measured, which was too small
        }
        if queue < share / 4 {
            let capped = if self.cruise.cap < u64::MAX { EAGER_CAPPED } else { 0 };
            let step = self.cruise.eager.saturating_sub(capped) as usize;
            let Some(gain) = EAGER.get(step) else {
                self.start_again();
                return self.window;
            };
            self.cruise.eager = self.cruise.eager.saturating_add(1);
            self.cruise.grown = GROWN;
            return target.max((self.window as f64 * gain) as u64);
        }
        self.cruise.eager = 0;
        if target < self.window { self.window.midpoint(target) } else { target.min(self.window + self.window / 4) }
    }

    pub(crate) fn cruise_loss(&mut self, now: Instant, sent: Instant, marked: bool) {
        let round = self.model.round;
        let (rtt, min_rtt, window) = (self.model.rtt(), self.model.min_rtt(), self.window_in_force());
        if let Mode::Compete(mut compete) = self.mode {
            if compete.congested(sent, rtt, min_rtt) {
                let after = compete.cut(now, window, self.mtu);
                self.mode = Mode::Compete(compete);
                self.drain(scale(after, min_rtt, rtt).min(after), after, true);
            }
            return;
        }
        let random = self.model.ledger.random(self.mtu).unwrap_or(0.02);
        let heavy = round.lost as f64 > window as f64 * (HEAVY + 2.0 * random) && round.lost >= 8 * self.mtu;
        if !self.cruise.is_news(sent) {
            return;
        }
        let share = self.share();
        if !(heavy || marked) {
            // Our own queue would not be as long.
            let ours = min_rtt / (2 * EMPTY_PART) + self.model.delay(share) * 5 / 4;
            let unexpected = round.lost > self.model.ledger.expected(window, self.mtu);
            if unexpected && self.cruise.grown == 0 && self.model.recent_rtt() > min_rtt + ours {
                self.cruise.answered = now;
                self.cruise.gentle = GENTLE;
                let left = (window as f64 * SHARED_BETA) as u64;
                self.cruise.after = self.cruise.after.min(left);
                self.drain_to(left);
            }
            return;
        }
        self.cruise.answered = now;
        self.cruise.yield_share(share, self.mtu);
        let base = scale(window, min_rtt, rtt);
        let kept = (window as f64 * (1.0 - round.loss().min(0.5))) as u64;
        let after = base.saturating_add(share / 2).min(kept).max(window / 2);
        self.drain(base.min(after), after, true);
    }
}
