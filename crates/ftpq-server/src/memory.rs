//! The budget for buffers: what all connections of a server may make it hold.
//!
//! A connection takes its worst case from the budget before it gets windows and streams: at first what it
//! needs to say who it is, which is also enough for one that is idle. Who sends commands gets more: all
//! that is of use while there is plenty, the less the less is left. So the budget is never exceeded,
//! however hostile the peers, and those that come late find something, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ftpq_proto::limits::FRAME_MAX;
use ftpq_transport::tuning::{STREAMS_MIN, Windows};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::COMMANDS;

/// What is left, in KiB.
#[derive(Debug)]
pub(crate) struct Memory {
    left: Arc<Semaphore>,
    all: u64,
    /// See [`Memory::decide`].
    deciding: Mutex<()>,
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
        Self { left: Arc::new(Semaphore::new(all as usize)), all, deciding: Mutex::default() }
    }

    /// For a connection that has just come, or is idle; `None` if there is nothing left.
    pub(crate) fn least(&self) -> Option<OwnedSemaphorePermit> {
        self.take(cost(&LEAST))
    }

    /// Whether more than half is left.
    pub(crate) fn is_plenty(&self) -> bool {
        self.left() > self.all / 2
    }

    /// Held while it is decided how much somebody gets, until it is counted as held: connections of one key may
    /// ask on several threads.
    pub(crate) fn decide(&self) -> MutexGuard<'_, ()> {
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a connection that does something, of a client whose connections hold so many KiB beyond their
    /// least; `None` if it must do with that.
    pub(crate) fn more(&self, held: u64) -> Option<Share> {
        let fair = if self.is_plenty() { self.left() / 2 } else { self.left() / 16 };
        // A key has a quarter, and each of its connections half of what the others left of that.
        let fair = fair.min((self.all / 4).saturating_sub(held) / 2);
        // Some is left for those who come late: a connection that finds nothing for its least is not let in.
        let fair = fair.min(self.left().saturating_sub(self.all / 4));
        let smaller = (0..LEVELS).map(|times| Windows::FULL.halved(times));
        let windows = smaller.into_iter().find(|windows| cost(windows) <= fair)?;
        Some(Share { permit: self.take(cost(&windows))?, windows })
    }

    /// For what somebody may send who returns and is not known yet; `None` if less than three quarters are left: who
    /// is there already does not have less for it.
    pub(crate) fn early(&self) -> Option<OwnedSemaphorePermit> {
        let Windows { receive, streams, .. } = Windows::RETURNING;
        let size = (u64::from(receive) + u64::from(streams) * STREAM).div_ceil(KIB);
        let fair = self.left().saturating_sub(self.all / 4 * 3);
        if size > fair { None } else { self.take(size) }
    }

    /// So many bytes more for a connection that has [`more`](Self::more), of a client whose connections hold so many
    /// KiB beyond their least; `None` if it must do with what it has. Half of the budget stays for those who
    /// have less.
    pub(crate) fn wider(&self, bytes: u64, held: u64) -> Option<OwnedSemaphorePermit> {
        let size = bytes.div_ceil(KIB);
        let fair = (self.all / 4).saturating_sub(held).min(self.left().saturating_sub(self.all / 2));
        if size > fair { None } else { self.take(size) }
    }

    /// KiB.
    pub(crate) fn left(&self) -> u64 {
        self.left.available_permits() as u64
    }

    fn take(&self, kib: u64) -> Option<OwnedSemaphorePermit> {
        self.left.clone().try_acquire_many_owned(kib.try_into().ok()?).ok()
    }
}

impl Share {
    /// KiB.
    pub(crate) fn size(&self) -> u64 {
        self.permit.num_permits() as u64
    }
}

/// The most, in KiB, that a connection with these windows can make the server hold. Handlers that hold
/// large parts of bodies take those from a budget of their own.
fn cost(windows: &Windows) -> u64 {
    let commands = u64::from(windows.streams).min(COMMANDS as u64);
    (u64::from(windows.receive) + windows.send + commands * STREAM).div_ceil(KIB)
}

/// What every connection has once its client is known.
pub(crate) const LEAST: Windows = Windows { streams: STREAMS_MIN, ..Windows::UNSETTLED };

/// Bytes that a command makes the server hold: one frame at its largest, or a small block of a body.
const STREAM: u64 = FRAME_MAX as u64;

/// So often windows are halved; from there on the least is as good.
const LEVELS: u32 = 8;

const KIB: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * KIB;

    #[test]
    fn shares_shrink_and_the_budget_holds() {
        let memory = Memory::new(512 * MIB);
        let mut shares = vec![memory.more(0).unwrap()];
        assert_eq!(shares[0].windows, Windows::FULL);
        while let Some(share) = memory.more(0) {
            assert!(share.windows.receive <= shares[shares.len() - 1].windows.receive);
            shares.push(share);
        }
        let more = shares.len();
        let late: Vec<_> = std::iter::from_fn(|| memory.least()).collect();
        let taken: u64 = shares.iter().map(Share::size).sum();
        assert!(more > 10 && late.len() > 20, "{more}, {}", late.len());
        assert!(taken + late.len() as u64 * cost(&LEAST) <= 512 * KIB, "{taken} KiB");
        drop((shares, late));
        assert_eq!(memory.more(0).unwrap().windows, Windows::FULL);
    }

    /// However many keys take all that they can get.
    #[test]
    fn those_who_come_late_find_their_least() {
        let memory = Memory::new(256 * MIB);
        let _shares: Vec<_> = std::iter::from_fn(|| memory.more(0)).collect();
        let late: Vec<_> = std::iter::from_fn(|| memory.least()).collect();
        assert!(late.len() as u64 >= 64 * KIB / cost(&LEAST), "{}", late.len());
    }

    #[test]
    fn the_idle_take_little() {
        let memory = Memory::new(256 * MIB);
        let shares: Vec<_> = std::iter::from_fn(|| memory.least()).collect();
        assert!(shares.len() > 600, "{}", shares.len());
    }

    #[test]
    fn one_key_does_not_take_all() {
        let memory = Memory::new(512 * MIB);
        let (mut held, mut shares) = (0, Vec::new());
        while let Some(share) = memory.more(held) {
            held += share.size();
            shares.push(share);
        }
        assert!(held <= 128 * KIB, "{held} KiB");
        assert_eq!(memory.more(0).unwrap().windows, Windows::FULL);
    }

    /// With the least, on a long path, a transfer would take hours.
    #[test]
    fn several_connections_of_one_key_have_more_than_the_least() {
        for (budget, connections) in [(512 * MIB, 7), (256 * MIB, 6), (128 * MIB, 6)] {
            let memory = Memory::new(budget);
            let (mut held, mut shares) = (0, Vec::new());
            for _ in 0..connections {
                let share = memory.more(held).expect("something for each");
                held += share.size();
                shares.push(share.windows.receive);
            }
            assert!(shares[1] >= shares[0] / 4 && shares[connections - 1] >= 4 * LEAST.receive, "{shares:?}");
        }
    }

    /// However many connections fill the longest paths there are.
    #[test]
    fn wider_windows_leave_half_of_the_budget_to_others() {
        let memory = Memory::new(256 * MIB);
        let first = memory.more(0).unwrap();
        let mut held = first.size();
        let mut wider: Vec<_> = std::iter::from_fn(|| {
            let permit = memory.wider(MIB, held)?;
            held += permit.num_permits() as u64;
            Some(permit)
        })
        .collect();
        // One key has its quarter, and another one finds what there is for everybody.
        assert_eq!(held, 64 * KIB);
        let second = memory.more(0).unwrap();
        assert!(second.windows.receive >= Windows::FULL.receive / 2, "{:?}", second.windows);
        wider.extend(std::iter::from_fn(|| memory.wider(MIB, 0)));
        assert!(memory.left() >= 128 * KIB - MIB / KIB && memory.left() <= 128 * KIB, "{} KiB", memory.left());
        assert!(memory.wider(1, 64 * KIB).is_none());
        let others: Vec<_> = std::iter::from_fn(|| memory.more(0)).collect();
        let late: Vec<_> = std::iter::from_fn(|| memory.least()).collect();
        assert!(others.len() > 10 && late.len() as u64 >= 64 * KIB / cost(&LEAST), "{}, {}", others.len(), late.len());
        drop((first, second, wider, others, late));
        assert_eq!(memory.left(), 256 * KIB);
    }
}
