//! Room for what is held of bodies on their way: bounded for each client, and for all together.

use std::sync::Arc;

use ftpq_storage::BLOCK;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much of bodies may be held at a time. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    /// In KiB.
    all: Arc<Semaphore>,
    /// One client's part of it.
    own: Arc<Semaphore>,
}

/// Some of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Room {
    /// Room for so many bytes. All of it is one client's own.
    pub fn new(bytes: u64) -> Self {
        let all = semaphore(bytes);
        Self { own: all.clone(), all }.part(bytes)
    }

    /// A part of so many bytes: whoever has it takes from the whole, but no more than that.
    #[must_use]
    pub fn part(&self, bytes: u64) -> Self {
        Self { all: self.all.clone(), own: semaphore(bytes) }
    }

    /// Room for blocks of `block` bytes, without waiting: one is being filled while the one before is
    /// on its way to or from the disk.
    pub(crate) fn try_hold(&self, block: usize) -> Option<Held> {
        let own = self.own.clone().try_acquire_many_owned(units(block)).ok()?;
        Some(Held { _all: self.all.clone().try_acquire_many_owned(units(block)).ok()?, _own: own })
    }
}

fn units(block: usize) -> u32 {
    (block * 2).div_ceil(1024).try_into().unwrap_or(u32::MAX)
}

/// At least enough for one body.
fn semaphore(bytes: u64) -> Arc<Semaphore> {
    let kib = (bytes / 1024).min(u64::from(u32::MAX)) as usize;
    Arc::new(Semaphore::new(kib.max(units(BLOCK) as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_its_part_and_all_together_not_more_than_there_is() {
        let block = 256 * 1024;
        let all = Room::new(8 * block as u64);
        let [one, two] = [all.part(4 * block as u64), all.part(8 * block as u64)];
        let held = [one.try_hold(block).unwrap(), one.try_hold(block).unwrap()];
        assert!(one.try_hold(block).is_none());
        let others = [two.try_hold(block).unwrap(), two.try_hold(block).unwrap()];
        assert!(two.try_hold(block).is_none());
        drop(others);
        assert!(one.try_hold(block).is_none(), "that was not its own");
        drop(held);
        assert!(one.try_hold(block).is_some());
    }
}
