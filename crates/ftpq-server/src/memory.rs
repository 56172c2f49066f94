//! The budget for buffers: what all connections of a server may make it hold.
//!
//! Every connection takes its worst case from the budget before it gets its windows and streams. While
//! there is plenty, that is a full share; the less is left, the smaller the share, down to one that
//! still works. So the budget is never exceeded, one key cannot take all of it, and a newcomer finds
//! something left.

use std::sync::Arc;

use ftpq_transport::tuning::{UNSETTLED_STREAMS, UNSETTLED_WINDOW, Windows};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is left, in KiB.
#[derive(Debug)]
pub(crate) struct Memory {
    left: Arc<Semaphore>,
    all: u64,
}

/// Some of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    permit: OwnedSemaphorePermit,
    /// What it is enough for.
    pub(crate) windows: Windows,
}

impl Memory {
    /// So many bytes for connections.
    pub(crate) fn new(bytes: u64) -> Self {
        let all = (bytes / KIB).min(u64::from(u32::MAX));
        Self { left: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// For a connection on which nobody is known yet; `None` if there is nothing left.
    pub(crate) fn for_unknown(&self) -> Option<Share> {
        let streams = UNSETTLED_STREAMS;
        self.take(Windows { receive: UNSETTLED_WINDOW, send: UNSETTLED_WINDOW.into(), streams })
    }

    /// For a connection of a client that holds so many KiB already; `None` if there is nothing left.
    pub(crate) fn for_client(&self, held: u64) -> Option<Share> {
        // A quarter of what is left: the next ones find something, too.
        let fair = (self.left.available_permits() as u64 / 4).min((self.all / 4).saturating_sub(held));
        let smaller = (0..LEVELS).map(|times| Windows::FULL.halved(times));
        let fitting = smaller.into_iter().find(|windows| cost(windows) <= fair);
        self.take(fitting.unwrap_or(Windows::FULL.halved(LEVELS)))
    }

    fn take(&self, windows: Windows) -> Option<Share> {
        let permit = self.left.clone().try_acquire_many_owned(cost(&windows).try_into().ok()?).ok()?;
        Some(Share { permit, windows })
    }
}

impl Share {
    /// KiB.
    pub(crate) fn size(&self) -> u64 {
        self.permit.num_permits() as u64
    }
}

/// The most, in KiB, that a connection with these windows can make the server hold, bodies beyond their
/// first block's part aside: those take from the budget as they go.
fn cost(windows: &Windows) -> u64 {
    (u64::from(windows.receive) + windows.send + u64::from(windows.streams) * STREAM).div_ceil(KIB)
}

/// Bytes that a stream makes the server hold at the least: a request of ordinary size, a small block of a
/// body, and what belongs to the stream itself.
const STREAM: u64 = 24 * 1024;

/// After so many halvings nothing gets smaller.
const LEVELS: u32 = 8;

const KIB: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * KIB;

    #[test]
    fn shares_shrink_and_the_budget_holds() {
        let memory = Memory::new(256 * MIB);
        let first = memory.for_client(0).unwrap();
        assert_eq!(first.windows, Windows::FULL);
        let mut shares = vec![first];
        while let Some(share) = memory.for_client(0) {
            assert!(share.windows.receive <= shares[shares.len() - 1].windows.receive);
            shares.push(share);
        }
        let taken: u64 = shares.iter().map(Share::size).sum();
        assert!(taken <= 256 * KIB, "{taken} KiB");
        assert!(shares.len() > 100, "{} connections", shares.len());
        assert!(memory.for_client(0).is_none());
        drop(shares);
        assert_eq!(memory.for_client(0).unwrap().windows, Windows::FULL);
    }

    #[test]
    fn one_key_does_not_take_all() {
        let memory = Memory::new(256 * MIB);
        let (mut held, mut shares) = (0, Vec::new());
        for _ in 0..32 {
            let share = memory.for_client(held).unwrap();
            held += share.size();
            shares.push(share);
        }
        assert!(held < 64 * KIB + 32 * 512, "{held} KiB");
        assert_eq!(memory.for_client(0).unwrap().windows, Windows::FULL);
    }
}
