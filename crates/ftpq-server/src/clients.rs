//! What is counted of each key, over all of its connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use ftpq_transport::Fingerprint;
use tokio::sync::Semaphore;

use crate::{limits::Limits, memory::Share};

/// The clients that are connected.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: Limits,
    by_key: Mutex<HashMap<Fingerprint, Weak<Client>>>,
}

/// One key, while it has a connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// The memory that its connections hold, in KiB.
    held: AtomicU64,
    /// Turns for costly commands.
    pub(crate) turns: Arc<Semaphore>,
}

/// A connection's part in its client.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) client: Arc<Client>,
    pub(crate) share: Share,
}

impl Clients {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, by_key: Mutex::default() }
    }

    /// Counts one more connection of `key`, which gets what `share` makes of the KiB that the others hold;
    /// `None` if it has too many, or there is no memory.
    pub(crate) fn enter(&self, key: Fingerprint, share: impl FnOnce(u64) -> Option<Share>) -> Option<Member> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, client| client.strong_count() > 0);
        let client = by_key.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turns = Arc::new(Semaphore::new(self.limits.costly_per_key as usize));
            let client = Arc::new(Client { held: AtomicU64::new(0), turns });
            by_key.insert(key, Arc::downgrade(&client));
            client
        });
        // This one holds it, too, and each of its members.
        if Arc::strong_count(&client) > self.limits.connections_per_key as usize {
            return None;
        }
        let share = share(client.held.load(Ordering::Relaxed))?;
        client.held.fetch_add(share.size(), Ordering::Relaxed);
        Some(Member { client, share })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.client.held.fetch_sub(self.share.size(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use ftpq_transport::Identity;

    use super::*;
    use crate::memory::Memory;

    #[test]
    fn a_key_has_so_many_connections_and_others_have_their_own() {
        let [key, other] = [(); 2].map(|()| Identity::generate().unwrap().fingerprint());
        let clients = Clients::new(Limits { connections_per_key: 2, ..Limits::default() });
        let memory = Memory::new(1 << 30);
        let enter = |key| clients.enter(key, |held| memory.for_client(held));
        let members = [enter(key).unwrap(), enter(key).unwrap()];
        assert!(enter(key).is_none());
        assert!(enter(other).is_some());
        assert_eq!(members[0].client.held.load(Ordering::Relaxed), members[0].share.size() + members[1].share.size());
        drop(members);
        assert!(enter(key).is_some());
    }
}
