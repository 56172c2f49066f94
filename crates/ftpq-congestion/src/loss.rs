//! What the link loses by itself, and what the queue loses.
//!
//! While the queue is drained nothing overflows: what is lost then, the link loses. What is lost
//! beyond that at other times is lost to a full queue.

/// Bytes lost and delivered, recent ones counting more.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    lost: f64,
    delivered: f64,
}

impl Count {
    fn all(self) -> f64 {
        self.lost + self.delivered
    }

    fn share(self) -> f64 {
        if self.all() > 0.0 { self.lost / self.all() } else { 0.0 }
    }

    fn age(&mut self, by: f64) {
        self.lost *= by;
        self.delivered *= by;
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ledger {
    drained: Count,
    queued: Count,
}

/// What of the drained count is left after each cycle: a memory of some twenty cycles, since each adds little.
const MEMORY_DRAINED: f64 = 0.95;
/// The same of the other: the last two or three cycles.
const MEMORY_QUEUED: f64 = 0.6;
/// Datagrams in a count before it says anything.
const ENOUGH: f64 = 64.0;
/// Datagrams that may have been lost without having been counted yet.
const UNSEEN: f64 = 4.0;
/// Loss of this share is nobody's concern.
const TOLERATED: f64 = 0.005;

impl Ledger {
    pub(crate) fn delivered(&mut self, bytes: u64, drained: bool) {
        self.count(drained).delivered += bytes as f64;
    }

    pub(crate) fn lost(&mut self, bytes: u64, drained: bool) {
        self.count(drained).lost += bytes as f64;
    }

    pub(crate) fn next_cycle(&mut self) {
        self.drained.age(MEMORY_DRAINED);
        self.queued.age(MEMORY_QUEUED);
    }

    /// Forgets what was lost to the queue, after something was done about it.
    pub(crate) fn forgive(&mut self) {
        self.queued = Count::default();
    }

    /// Share that the link loses by itself; None before enough was sent.
    pub(crate) fn random(&self, datagram: u64) -> Option<f64> {
        (self.drained.all() >= ENOUGH * datagram as f64).then(|| self.drained.share())
    }

    /// Bytes of a window that the link may well lose by itself.
    pub(crate) fn expected(&self, window: u64, datagram: u64) -> u64 {
        let unseen = UNSEEN * datagram as f64;
        let share = (self.drained.lost + unseen) / (self.drained.all() + unseen);
        (2.0 * share * window as f64) as u64
    }

    /// Whether a queue loses more than the link, beyond what chance would explain.
    pub(crate) fn overflows(&self, datagram: u64) -> bool {
        let datagram = datagram as f64;
        let Some(random) = self.random(datagram as u64) else { return false };
        let queued = self.queued.share();
        let spread = |count: Count| queued.max(0.001) * datagram / count.all().max(datagram);
        let chance = 3.0 * (spread(self.drained) + spread(self.queued)).sqrt();
        self.queued.all() >= ENOUGH * datagram && queued > random + TOLERATED + chance
    }

    fn count(&mut self, drained: bool) -> &mut Count {
        if drained { &mut self.drained } else { &mut self.queued }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(drained: (u64, u64), queued: (u64, u64)) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.lost(drained.0, true);
        ledger.delivered(drained.1, true);
        ledger.lost(queued.0, false);
        ledger.delivered(queued.1, false);
        ledger
    }

    #[test]
    fn loss_that_does_not_depend_on_the_queue_is_the_links() {
        assert!(!ledger((30, 970), (350, 9650)).overflows(1));
        assert!(!ledger((50, 950), (500, 9500)).overflows(1));
        assert!(!ledger((0, 1000), (30, 9970)).overflows(1), "little");
        assert!(!ledger((0, 20), (5, 95)).overflows(1), "not enough was seen");
    }

    #[test]
    fn loss_that_does_is_the_queues() {
        assert!(ledger((0, 1000), (300, 9700)).overflows(1));
        assert!(ledger((20, 1980), (600, 9400)).overflows(1));
    }
}
