//! Turns at a staged file, for those who must not wait on a thread: threads that may block are few, and all
//! share them.
//!
//! Whoever works on a staged file on such a thread has its turn here first. So the locks in `stage.rs`, which keep
//! the file right, find nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Shared by those who work on extents, held alone by whoever publishes or takes over.
    file: Arc<RwLock<()>>,
    /// Of the extents that somebody works on or waits for.
    extents: Mutex<HashMap<u32, Arc<AsyncMutex<()>>>>,
    /// How many extents are being written.
    writing: Arc<watch::Sender<usize>>,
}

/// Held while an extent is being written: from before its first byte until it is there, or given up.
pub(super) struct Writing(Arc<watch::Sender<usize>>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Held while somebody works on one extent.
pub(super) struct ExtentTurn {
    _extent: OwnedMutexGuard<()>,
    _file: OwnedRwLockReadGuard<()>,
}

impl Turns {
    /// For work on one extent.
    pub(super) async fn extent(&self, index: u32) -> ExtentTurn {
        let extent = {
            let mut extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
            extents.retain(|_, extent| Arc::strong_count(extent) > 1);
            extents.entry(index).or_default().clone()
        };
        ExtentTurn { _extent: extent.lock_owned().await, _file: self.file.clone().read_owned().await }
    }

    /// For somebody who begins to write an extent.
    pub(super) fn writing(&self) -> Writing {
        self.writing.send_modify(|count| *count += 1);
        Writing(self.writing.clone())
    }

    /// Waits until nobody writes an extent, or until `done`, which is asked whenever one has ended.
    pub(super) async fn settled(&self, done: impl Fn() -> bool) {
        // The sender lives as long as this.
        let _ = self.writing.subscribe().wait_for(|count| *count == 0 || done()).await;
    }

    /// For work on the whole.
    pub(super) async fn file(&self) -> OwnedRwLockWriteGuard<()> {
        self.file.clone().write_owned().await
    }
}
