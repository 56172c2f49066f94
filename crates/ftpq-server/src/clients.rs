//! What is counted of each key, over all of its connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use ftpq_handler::Room;
use ftpq_transport::{Fingerprint, tuning::Windows};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    limits::Limits,
    memory::{Memory, Share},
};

/// The clients that are connected.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: Limits,
    /// Half of the memory: the other half is for connections.
    room: Room,
    by_key: Mutex<HashMap<Fingerprint, Weak<Client>>>,
}

/// One key, while it has a connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// The memory that its connections hold beyond their least, in KiB.
    held: AtomicU64,
    /// Turns for costly commands.
    pub(crate) costly: Arc<Semaphore>,
    /// For what is held of its bodies.
    pub(crate) room: Room,
}

/// A connection's part in its client.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) client: Arc<Client>,
    more: OnceLock<Share>,
    /// What it took after that.
    wider: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Clients {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), room: Room::new(limits.memory / 2), by_key: Mutex::default() }
    }

    /// Counts one more connection of `key`; `None` if it has too many.
    pub(crate) fn enter(&self, key: Fingerprint) -> Option<Member> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, client| client.strong_count() > 0);
        let client = by_key.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let costly = Arc::new(Semaphore::new(self.limits.costly_per_key as usize));
            let room = self.room.part(self.limits.memory / 8);
            let client = Arc::new(Client { held: AtomicU64::new(0), costly, room });
            by_key.insert(key, Arc::downgrade(&client));
            client
        });
        // Each of its members holds it, and so does this function.
        let members = Arc::strong_count(&client) - 1;
        let (more, wider) = (OnceLock::new(), Mutex::default());
        (members < self.limits.connections_per_key as usize).then(|| Member { client, more, wider })
    }
}

impl Member {
    /// Whether this connection has more than the least.
    pub(crate) fn has_more(&self) -> bool {
        self.more.get().is_some()
    }

    /// Takes more memory for this connection, once. Returns the windows that it may have with it.
    pub(crate) fn grow(&self, memory: &Memory) -> Option<Windows> {
        if self.more.get().is_some() {
            return None;
        }
        let _decision = memory.decide();
        let share = memory.more(self.client.held.load(Ordering::Relaxed))?;
        let (size, windows) = (share.size(), share.windows);
        self.more.set(share).ok()?;
        self.client.held.fetch_add(size, Ordering::Relaxed);
        Some(windows)
    }

    /// Takes the memory that windows need to grow from the first to the second, once there was
    /// [`more`](Self::grow). It is given back at the connection's end: what its peer may send by then cannot be
    /// taken back. Returns whether there was enough.
    pub(crate) fn widen(&self, from: Windows, to: Windows, memory: &Memory) -> bool {
        let bytes = u64::from(to.receive).saturating_sub(from.receive.into()) + to.send.saturating_sub(from.send);
        if self.more.get().is_none() {
            return false;
        }
        let _decision = memory.decide();
        let Some(permit) = memory.wider(bytes, self.client.held.load(Ordering::Relaxed)) else { return false };
        self.client.held.fetch_add(permit.num_permits() as u64, Ordering::Relaxed);
        let mut wider = self.wider.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *wider {
            Some(before) => before.merge(permit),
            none => *none = Some(permit),
        }
        true
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let wider = self.wider.get_mut().unwrap_or_else(PoisonError::into_inner);
        let wider = wider.as_ref().map_or(0, |permit| permit.num_permits() as u64);
        let held = self.more.get().map_or(0, Share::size) + wider;
        self.client.held.fetch_sub(held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use ftpq_transport::{
        Identity,
        tuning::{CONNECTION_WINDOW_MAX, SEND_WINDOW_MAX},
    };

    use super::*;
    use crate::memory::LEAST;

    #[test]
    fn a_key_has_so_many_connections_and_others_have_their_own() {
        let [key, other] = [(); 2].map(|()| Identity::generate().unwrap().fingerprint());
        let clients = Clients::new(&Limits { connections_per_key: 2, ..Limits::default() });
        let members = [clients.enter(key).unwrap(), clients.enter(key).unwrap()];
        assert!(clients.enter(key).is_none());
        assert!(clients.enter(other).is_some());
        drop(members);
        assert!(clients.enter(key).is_some());
    }

    #[test]
    fn a_connection_grows_once_and_gives_back_what_it_took() {
        let key = Identity::generate().unwrap().fingerprint();
        let (clients, memory) = (Clients::new(&Limits::default()), Memory::new(1 << 29));
        let [one, two] = [clients.enter(key).unwrap(), clients.enter(key).unwrap()];
        assert_eq!(one.grow(&memory), Some(Windows::FULL));
        assert_eq!(one.grow(&memory), None);
        two.grow(&memory).unwrap();
        let client = one.client.clone();
        drop((one, two));
        assert_eq!(client.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn windows_grow_with_memory_for_all_that_they_hold() {
        let key = Identity::generate().unwrap().fingerprint();
        let (clients, memory) = (Clients::new(&Limits::default()), Memory::new(1 << 29));
        let most = Windows { receive: CONNECTION_WINDOW_MAX, send: SEND_WINDOW_MAX, ..Windows::FULL };
        let growth = u64::from(most.receive - Windows::FULL.receive) + most.send - Windows::FULL.send;
        let member = clients.enter(key).unwrap();
        // Not before it has what everybody gets.
        assert!(!member.widen(LEAST, most, &memory));
        member.grow(&memory).unwrap();
        let held = || member.client.held.load(Ordering::Relaxed);
        let before = held();
        assert!(member.widen(Windows::FULL, most, &memory));
        assert_eq!(held(), before + growth / 1024);
        // That was the quarter of one key.
        let second = clients.enter(key).unwrap();
        assert!(!second.widen(Windows::FULL, most, &memory) && !member.widen(Windows::FULL, most, &memory));
        let client = member.client.clone();
        drop((member, second));
        assert_eq!(client.held.load(Ordering::Relaxed), 0);
        assert!(memory.wider(1 << 27, 0).is_some(), "all of it came back");
    }
}
