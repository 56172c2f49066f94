//! Room that was set aside, and what becomes of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ftpq_proto::Status;
use ftpq_storage::{Problem, StorageError, Usage};

use super::ledger::{Ledger, Quota};

/// The accounts that something counts in: the user's own, with its limits, and those of other roots.
pub(super) struct Books {
    pub(super) own: Option<(Arc<Ledger>, Quota)>,
    pub(super) others: Vec<Arc<Ledger>>,
}

impl Books {
    pub(super) fn ledgers(&self) -> impl Iterator<Item = &Arc<Ledger>> {
        self.own.iter().map(|(ledger, _)| ledger).chain(&self.others)
    }

    /// Sets `room` aside, if the user's quota has it.
    pub(super) async fn reserve(self, room: Usage) -> Result<Arc<Reservation>, Problem> {
        if let Some((ledger, quota)) = &self.own {
            ledger.reserve(quota, room).await?;
        }
        // From here to the end nothing waits: what was reserved is in the hands of the one that gives it back.
        self.others.iter().for_each(|ledger| ledger.note(room));
        let counts = self.ledgers().map(|ledger| ledger.counts()).collect();
        let amounts = Amounts { reserved: room, ..Amounts::default() };
        Ok(Arc::new(Reservation { books: self, counts, amounts: Mutex::new(amounts) }))
    }
}

/// Room that was set aside. Dropped, what may be there by then stays taken, and the rest is given back. Whoever
/// makes it appear holds it until that has ended: see [`ftpq_storage::holding`].
pub(super) struct Reservation {
    books: Books,
    /// For each of the books.
    counts: Vec<u64>,
    amounts: Mutex<Amounts>,
}

#[derive(Default)]
struct Amounts {
    /// For the thing itself.
    reserved: Usage,
    /// For folders above it, which may be there in any case.
    folders: u64,
    /// Whether the thing may be there.
    there: bool,
    /// Whether all of it is.
    exact: bool,
}

impl Reservation {
    /// Sets more aside.
    pub(super) async fn grow(&self, more: Usage) -> Result<(), Problem> {
        self.take(more).await?;
        let mut amounts = self.lock();
        amounts.reserved = amounts.reserved.plus(more);
        Ok(())
    }

    /// Gives back what is not needed.
    pub(super) fn shrink(&self, less: Usage) {
        let mut amounts = self.lock();
        amounts.reserved = amounts.reserved.minus(less);
        self.books.ledgers().for_each(|ledger| ledger.settle(less, Usage::default(), true, 0));
    }

    /// For how many folders it is enough.
    pub(super) fn folders(&self) -> u64 {
        self.lock().folders
    }

    /// Sets aside what so many folders need, in all.
    pub(super) async fn cover_folders(&self, folders: u64) -> Result<(), Problem> {
        let lacking = folders.saturating_sub(self.folders());
        self.take(entries(lacking)).await?;
        self.lock().folders += lacking;
        Ok(())
    }

    /// The thing may appear at any moment from now on.
    pub(super) fn may_be_there(&self) {
        self.lock().there = true;
    }

    /// How making it appear has ended; it `adds` to what is there, if it replaces nothing and is not there already.
    pub(super) fn ended(&self, how: Result<(), &StorageError>, adds: bool) {
        let mut amounts = self.lock();
        match how {
            Ok(()) => amounts.exact = adds && amounts.folders == 0,
            Err(error) if matches!(error.status(), Status::Exists | Status::IsFolder) => amounts.there = false,
            Err(_) => {}
        }
    }

    pub(super) fn books(&self) -> &Books {
        &self.books
    }

    async fn take(&self, more: Usage) -> Result<(), Problem> {
        if let Some((ledger, quota)) = &self.books.own {
            ledger.reserve(quota, more).await?;
        }
        self.books.others.iter().for_each(|ledger| ledger.note(more));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Amounts> {
        self.amounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Amounts { reserved, folders, there, exact } =
            std::mem::take(self.amounts.get_mut().unwrap_or_else(PoisonError::into_inner));
        let folders = entries(folders);
        let stays = if there { reserved.plus(folders) } else { folders };
        for (ledger, counts) in self.books.ledgers().zip(&self.counts) {
            ledger.settle(reserved.plus(folders), stays, exact, *counts);
        }
    }
}

/// Dropped, tells the books that something may have become less.
pub(super) struct Freeing(pub(super) Books);

impl Drop for Freeing {
    fn drop(&mut self) {
        self.0.ledgers().for_each(|ledger| ledger.freed());
    }
}

fn entries(entries: u64) -> Usage {
    Usage { bytes: 0, entries }
}
