//! Files on their way into room that was set aside for them.

use std::sync::Arc;

use async_trait::async_trait;
use ftpq_proto::{Digest, Extents, Holes, RemotePath, UploadId};
use ftpq_storage::{Bytes, HeldExtent, Problem, Publish, Staging, Storage, StorageError, Upload, Usage, holding};

use super::{
    Turn, cover,
    ledger::Ledger,
    reservation::{Books, Reservation},
};

/// A file that is written in one go.
pub(super) struct CountedUpload {
    pub(super) path: RemotePath,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) upload: Box<dyn Upload>,
    pub(super) room: Arc<Reservation>,
    /// Nobody knows its size: how much was set aside for bytes of it that have not come yet.
    pub(super) ahead: Option<u64>,
    /// It takes a name that is free.
    pub(super) adds: bool,
    /// Its folders are made with it, if they are missing then.
    pub(super) parents: bool,
}

#[async_trait]
impl Upload for CountedUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        if let Some(ahead) = &mut self.ahead {
            let len = block.len() as u64;
            if *ahead < len {
                let lacking = len - *ahead;
                // Near the limit, no more than what has come.
                let step = lacking.max(STEP);
                let grown = match self.room.grow(bytes(step)).await {
                    Err(Problem::OverQuota(_)) => self.room.grow(bytes(lacking)).await.map(|()| lacking),
                    grown => grown.map(|()| step),
                };
                *ahead += grown.map_err(|problem| StorageError::new(&self.path, problem))?;
            }
            *ahead -= len;
        }
        self.upload.write(block).await
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let Self { path, storage, upload, room, ahead, adds, parents } = *self;
        room.shrink(bytes(ahead.unwrap_or(0)));
        let folders = if parents { path.parent() } else { RemotePath::root() };
        let still = cover(&*storage, &folders, &room).await.map_err(|problem| StorageError::new(&path, problem))?;
        room.may_be_there();
        let committed = holding(Arc::new((still, room.clone())), upload.commit(expected)).await;
        room.ended(committed.as_ref().map(drop), adds);
        committed
    }
}

/// A file for which there is no room, and which may be there already: its bytes are not needed to tell.
pub(super) struct AgainUpload {
    pub(super) path: RemotePath,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) size: u64,
    /// What is to be said if it is not.
    pub(super) over: Problem,
}

#[async_trait]
impl Upload for AgainUpload {
    async fn write(&mut self, _: Bytes) -> Result<(), StorageError> {
        Ok(())
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        match self.storage.holds(&self.path, self.size, expected).await? {
            true => Ok(expected),
            false => Err(StorageError::new(&self.path, self.over)),
        }
    }
}

/// A file that is written by extents. All of it has been counted since it was begun.
pub(super) struct CountedStaging {
    pub(super) staging: Arc<dyn Staging>,
    pub(super) turn: Turn,
    pub(super) books: Books,
}

#[async_trait]
impl Staging for CountedStaging {
    fn id(&self) -> UploadId {
        self.staging.id()
    }

    fn extents(&self) -> Extents {
        self.staging.extents()
    }

    fn overwrites(&self) -> bool {
        self.staging.overwrites()
    }

    fn held(&self, from: u32) -> Vec<HeldExtent> {
        self.staging.held(from)
    }

    async fn write(&self, index: u32, holes: Holes) -> Result<Box<dyn Upload>, StorageError> {
        self.staging.write(index, holes).await
    }

    async fn prove(&self, index: u32, digest: Digest) -> Result<bool, StorageError> {
        self.staging.prove(index, digest).await
    }

    async fn settle(&self) {
        self.staging.settle().await;
    }

    async fn commit(&self, publish: Publish) -> Result<Digest, StorageError> {
        // Whoever begins it anew at the same time must see either what is kept, or that it has gone.
        let turn = self.turn.clone().lock_owned().await;
        let what = Usage { bytes: self.extents().size(), entries: 1 };
        let ledgers: Vec<_> = self.books.ledgers().cloned().collect();
        ledgers.iter().for_each(|ledger| ledger.begin_publishing(what));
        let publishing = Publishing { ledgers, what, replaces: self.overwrites() };
        holding(Arc::new((turn, publishing)), self.staging.commit(publish)).await
    }
}

/// While it is held, something that is counted already may be getting its name.
struct Publishing {
    ledgers: Vec<Arc<Ledger>>,
    what: Usage,
    replaces: bool,
}

impl Drop for Publishing {
    fn drop(&mut self) {
        for ledger in &self.ledgers {
            ledger.end_publishing(self.what);
            if self.replaces {
                ledger.freed();
            }
        }
    }
}

fn bytes(bytes: u64) -> Usage {
    Usage { bytes, entries: 0 }
}

/// Bytes that are set aside at a time for what has no known size.
const STEP: u64 = 1024 * 1024;
