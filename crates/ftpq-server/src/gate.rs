//! Who gets as far as a handshake, and what is kept for those whom nobody knows yet.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ftpq_transport::tuning::Windows;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    limits::{Limits, RETURNING_AT_ONCE},
    memory::Memory,
    penalties::{Network, Offence, Penalties},
    returning::Returning,
};

/// The way in.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    memory: Memory,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections.
    all: u32,
    /// Those on which nobody is known yet.
    unknown: u32,
    /// The same by network.
    by_network: HashMap<Network, u32>,
    /// Those that may have sent more before they were known, by network.
    early: HashMap<Network, u32>,
    penalties: Penalties,
    returning: Returning,
}

/// What becomes of a connection attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may go on.
    Enter(Pass),
    /// It must prove its address first.
    Retry,
    /// It is told that it may not.
    Refuse,
    /// It gets no answer.
    Ignore,
}

/// A connection's place. Given up when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    network: Network,
    /// What it may hold, whoever it is.
    _least: OwnedSemaphorePermit,
    /// For what more it may send before it is known, as one that returns.
    early: Option<OwnedSemaphorePermit>,
    /// Nobody is known there yet.
    unknown: bool,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        // The other half is for what handlers hold of bodies.
        let memory = Memory::new(limits.memory / 2);
        Self { limits, memory, state: Mutex::default() }
    }

    /// What becomes of an attempt from `address`, which may be forged unless `validated`.
    pub(crate) fn judge(self: &Arc<Self>, address: IpAddr, validated: bool) -> Verdict {
        let network = Network::of(address);
        let mut state = self.lock();
        if state.penalties.holds(network, Instant::now()) {
            return Verdict::Refuse;
        }
        // Those who have proved their address find room where a flood has taken all, also one in their name.
        let room = |limit: u32| if validated { limit.saturating_mul(2) } else { limit };
        // But never all: a part is for those who are known.
        let unknown = room(self.limits.unknown).min(self.limits.connections - self.limits.connections / 4);
        if state.unknown >= unknown {
            return Verdict::Ignore;
        }
        if state.unknown >= self.limits.retry_from && !validated {
            return Verdict::Retry;
        }
        if state.all >= self.limits.connections {
            return Verdict::Refuse;
        }
        let here = state.by_network.get(&network).copied().unwrap_or(0);
        if here >= room(self.limits.unknown_per_network) {
            // Those who are there may have been forged, and who is really there proves it.
            return if validated { Verdict::Refuse } else { Verdict::Retry };
        }
        let Some(least) = self.memory.least() else {
            return if validated { Verdict::Refuse } else { Verdict::Ignore };
        };
        let early_here = state.early.get(&network).copied().unwrap_or(0);
        let returns = early_here < RETURNING_AT_ONCE && state.returning.knows(network, Instant::now());
        let early = returns.then(|| self.memory.early()).flatten();
        if early.is_some() {
            *state.early.entry(network).or_default() += 1;
        }
        state.all += 1;
        state.unknown += 1;
        *state.by_network.entry(network).or_default() += 1;
        Verdict::Enter(Pass { gate: self.clone(), network, _least: least, early, unknown: true })
    }

    /// Blames the network of `address`. Returns for how long it is kept out, if that begins with this.
    pub(crate) fn blame(&self, address: IpAddr, offence: Offence) -> Option<(Network, Duration)> {
        let network = Network::of(address);
        if !self.limits.penalties || (network.is_loopback() && !self.limits.penalise_loopback) {
            return None;
        }
        Some((network, self.lock().penalties.add(network, offence, Instant::now())?))
    }

    /// The budget of all connections.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// What its client may send before it is known.
    pub(crate) fn windows(&self) -> Windows {
        if self.early.is_some() { Windows::RETURNING } else { Windows::UNSETTLED }
    }

    /// The connection has memory for `windows` of its own. What it may have after that: what was granted before cannot
    /// be taken back.
    pub(crate) fn cover(&mut self, windows: Windows) -> Windows {
        let Windows { receive, streams, .. } = Windows::RETURNING;
        if windows.receive >= receive && windows.streams >= streams && self.early.take().is_some() {
            leave(&mut self.gate.lock().early, self.network);
        }
        if self.early.is_none() {
            return windows;
        }
        Windows { receive: windows.receive.max(receive), streams: windows.streams.max(streams), ..windows }
    }

    /// Somebody is known there, and may come back.
    pub(crate) fn known(&mut self) {
        let mut state = self.gate.lock();
        state.returning.note(self.network, Instant::now());
        if std::mem::take(&mut self.unknown) {
            state.forget_unknown(self.network);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if self.unknown {
            state.forget_unknown(self.network);
        }
        if self.early.is_some() {
            leave(&mut state.early, self.network);
        }
        state.all -= 1;
    }
}

impl State {
    fn forget_unknown(&mut self, network: Network) {
        self.unknown -= 1;
        leave(&mut self.by_network, network);
    }
}

/// One less of a network.
fn leave(counts: &mut HashMap<Network, u32>, network: Network) {
    if let Some(count) = counts.get_mut(&network) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEWHERE: &str = "192.0.2.1";

    fn gate(limits: Limits) -> Arc<Gate> {
        Arc::new(Gate::new(limits))
    }

    fn enter(gate: &Arc<Gate>, address: &str, validated: bool) -> Option<Pass> {
        match gate.judge(address.parse().unwrap(), validated) {
            Verdict::Enter(pass) => Some(pass),
            _ => None,
        }
    }

    fn numbered(number: u32) -> String {
        format!("198.51.{}.{}", number / 256, number % 256)
    }

    #[test]
    fn many_unknown_ones_must_prove_their_address_and_more_are_dropped() {
        let gate = gate(Limits { retry_from: 2, unknown: 4, ..Limits::default() });
        let passes: Vec<_> = (0..2).map(|number| enter(&gate, &numbered(number), false).unwrap()).collect();
        let judge = |address: &str, validated| gate.judge(address.parse().unwrap(), validated);
        assert!(matches!(judge(SOMEWHERE, false), Verdict::Retry));
        let proved: Vec<_> = (2..4).map(|number| enter(&gate, &numbered(number), true).unwrap()).collect();
        assert!(matches!(judge(SOMEWHERE, false), Verdict::Ignore));
        assert!(matches!(judge(SOMEWHERE, true), Verdict::Enter(_)));
        drop((passes, proved));
        assert!(matches!(judge(SOMEWHERE, false), Verdict::Enter(_)));
        assert!(gate.lock().by_network.is_empty() && gate.lock().all == 0);
    }

    #[test]
    fn one_network_gets_so_many_places_for_those_who_are_unknown() {
        let gate = gate(Limits { unknown_per_network: 2, ..Limits::default() });
        let mut first = enter(&gate, SOMEWHERE, false).unwrap();
        let _second = enter(&gate, SOMEWHERE, false).unwrap();
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), false), Verdict::Retry));
        assert!(enter(&gate, "192.0.2.2", false).is_some());
        // Who is known takes no place from the others behind the same address.
        first.known();
        let _third = enter(&gate, SOMEWHERE, false).unwrap();
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), false), Verdict::Retry));
        // Anybody can send first packets in a network's name: who is really there finds room beside them.
        let proved: Vec<_> = std::iter::from_fn(|| enter(&gate, SOMEWHERE, true)).collect();
        assert_eq!(proved.len(), 2);
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), true), Verdict::Refuse));
    }

    #[test]
    fn those_who_return_may_send_more_and_it_is_counted() {
        let gate = gate(Limits::default());
        let mut first = enter(&gate, SOMEWHERE, false).unwrap();
        assert_eq!(first.windows(), Windows::UNSETTLED);
        first.known();
        drop(first);
        let left = gate.memory.left();
        let stranger = enter(&gate, "192.0.2.2", false).unwrap();
        let least = left - gate.memory.left();
        drop(stranger);
        let mut passes: Vec<_> = (0..RETURNING_AT_ONCE + 2).map(|_| enter(&gate, SOMEWHERE, false).unwrap()).collect();
        let windows: Vec<_> = passes.iter().map(Pass::windows).collect();
        let (early, others) = windows.split_at(RETURNING_AT_ONCE as usize);
        assert!(early.iter().all(|windows| *windows == Windows::RETURNING), "{windows:?}");
        assert!(others.iter().all(|windows| *windows == Windows::UNSETTLED), "{windows:?}");
        let taken = left - gate.memory.left();
        let each = (taken - windows.len() as u64 * least) / early.len() as u64;
        assert!(each > u64::from(Windows::RETURNING.receive) / 1024, "{each} KiB");
        // It keeps its place among them until it has as much of its own, known or not.
        passes[0].known();
        let small = Windows::FULL.halved(5);
        assert_eq!(passes[0].cover(small), Windows { send: small.send, ..Windows::RETURNING });
        assert_eq!(left - gate.memory.left(), taken);
        assert_eq!(enter(&gate, SOMEWHERE, false).unwrap().windows(), Windows::UNSETTLED);
        assert_eq!(passes[0].cover(Windows::FULL), Windows::FULL);
        assert_eq!(left - gate.memory.left(), taken - each);
        assert_eq!(passes[0].cover(small), small);
        assert_eq!(enter(&gate, SOMEWHERE, false).unwrap().windows(), Windows::RETURNING);
        drop(passes);
        assert_eq!(gate.memory.left(), left);
        assert!(gate.lock().early.is_empty());
    }

    #[test]
    fn those_who_return_send_no_more_where_memory_is_short() {
        let gate = gate(Limits::default());
        enter(&gate, SOMEWHERE, false).unwrap().known();
        let early: Vec<_> = std::iter::from_fn(|| gate.memory.early()).collect();
        assert_eq!(enter(&gate, SOMEWHERE, false).unwrap().windows(), Windows::UNSETTLED);
        // However many there are, or are forged: others find plenty.
        assert!(gate.memory.is_plenty());
        drop(early);
        assert_eq!(enter(&gate, SOMEWHERE, false).unwrap().windows(), Windows::RETURNING);
    }

    #[test]
    fn those_whom_nobody_knows_do_not_take_all_connections() {
        let gate = gate(Limits { connections: 8, unknown: 8, ..Limits::default() });
        let mut passes: Vec<_> = (0..6).map(|number| enter(&gate, &numbered(number), true).unwrap()).collect();
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), true), Verdict::Ignore));
        passes.iter_mut().take(2).for_each(Pass::known);
        let mut more: Vec<_> = (6..8).map(|number| enter(&gate, &numbered(number), true).unwrap()).collect();
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), true), Verdict::Ignore));
        more.iter_mut().for_each(Pass::known);
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), true), Verdict::Refuse));
    }

    #[test]
    fn where_no_memory_is_left_those_who_are_there_are_told() {
        let gate = gate(Limits { memory: 1 << 20, ..Limits::default() });
        let _only = enter(&gate, &numbered(0), true).unwrap();
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), false), Verdict::Ignore));
        assert!(matches!(gate.judge(SOMEWHERE.parse().unwrap(), true), Verdict::Refuse));
    }

    #[test]
    fn there_is_an_end_to_all_connections() {
        let gate = gate(Limits { connections: 1, ..Limits::default() });
        let mut only = enter(&gate, SOMEWHERE, true).unwrap();
        only.known();
        assert!(matches!(gate.judge("192.0.2.2".parse().unwrap(), true), Verdict::Refuse));
    }

    #[test]
    fn a_network_that_earned_it_is_kept_out_and_others_are_not() {
        let bad: IpAddr = SOMEWHERE.parse().unwrap();
        let gate = gate(Limits::default());
        assert!(gate.blame(bad, Offence::BadTicket).is_some());
        assert!(matches!(gate.judge(bad, true), Verdict::Refuse));
        assert!(enter(&gate, "192.0.2.2", true).is_some());
        let forgiving = Arc::new(Gate::new(Limits { penalties: false, ..Limits::default() }));
        assert!(forgiving.blame(bad, Offence::BadTicket).is_none());
        assert!(enter(&forgiving, SOMEWHERE, true).is_some());
        let own: IpAddr = "::1".parse().unwrap();
        assert!(gate.blame(own, Offence::BadTicket).is_none());
    }
}
