//! Copying files and trees from one storage to another: the one way, in every direction.
//!
//! A tree is walked while it is copied (`tree.rs`). Files are copied side by side (`file.rs`), limited by
//! their number and by the bytes they may hold in buffers; large ones go by extents, which are kept when
//! everything else is lost (`large.rs`). Folders are made before what is in them is needed, by the
//! receiver. One file that fails does not stop the others. `pipe.rs` is for what has no name here.
//!
//! A link stays a link, with the target that it has, if that leads to something in the tree; a copy of
//! it elsewhere would lead out of the copy. `links.rs` is for who wants what links lead to instead. The
//! mode and time of a folder are set when all that is in it is there.
//!
//! What is interrupted, because the connection or the server went away, is done again, for as long
//! as anything new moves at least now and then. This is the only place that tries again; a
//! [`Remote`](crate::Remote) makes one attempt to connect for each time it is asked for something.

mod ahead;
mod extent;
mod file;
mod folders;
mod large;
mod links;
mod persistence;
mod pipe;
mod tree;
mod waits;

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ftpq_proto::{RemotePath, Status};
use ftpq_storage::{Problem, Storage, StorageError};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

use self::{
    file::{Copied, FileCopy, Room},
    persistence::{Pause, Persistence},
    tree::Walk,
    waits::Waits,
};
pub use self::{
    links::Followed,
    pipe::{Input, Output, Pipe, PipeError},
    waits::Waited,
};
use crate::{
    limits,
    progress::{FileId, Progress},
    session::CallError,
};

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Replace files that are there.
    pub overwrite: bool,
    /// Keep modification times and permission bits.
    pub preserve: bool,
    /// Copy what links lead to, within the storage that they are in, instead of the links.
    pub follow_links: bool,
    /// Leave files alone that are there, without an error.
    pub keep_existing: bool,
    /// Make missing folders above the target.
    pub parents: bool,
    /// Files in flight at the most, and extents of one file being sent.
    pub parallel: u32,
    /// Extents of one file being sent at the most, for each connection: [`EXTENTS_PER_CONNECTION`]. With those that only
    /// wait for their answers there are fewer than twice as many.
    pub extents: u32,
    /// Go on with what earlier runs have left of a large file.
    pub resume: bool,
    /// How long to try again what is interrupted while nothing new moves. Zero: an interruption is
    /// an error.
    pub retry_for: Duration,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that are there now: verified and durable.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that were kept from an earlier run, and were not sent by this one.
    pub resumed: u64,
    /// Folders that were made or were there.
    pub folders: u64,
    /// Links that are there now, as links.
    pub links: u64,
    /// What was left out: see [`LeftOut`].
    pub skipped: u64,
    /// Files that were there and were left alone, as asked for.
    pub kept: u64,
    /// Files and folders that failed.
    pub failed: u64,
}

/// Why something in a tree is not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A device, FIFO or socket.
    Special,
    /// A link whose target may be outside the tree, or, where links are followed, outside the storage.
    LeadsOut,
    /// A link to a folder that holds it, or to itself, where links are followed.
    Loop,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftOut::Special => "special file",
            LeftOut::LeadsOut => "a link that leads out of the tree",
            LeftOut::Loop => "a loop of links",
        })
    }
}

/// A copy did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct CopyError {
    /// On which side.
    pub side: Side,
    /// What, and on which path there.
    pub error: StorageError,
}

/// One side of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the files come from.
    Source,
    /// Where they go to.
    Target,
}

impl Side {
    fn of(self, error: StorageError) -> CopyError {
        CopyError { side: self, error }
    }
}

impl CopyError {
    /// The same for programs.
    pub fn status(&self) -> Status {
        self.error.status()
    }

    /// Whether nothing else can succeed either.
    pub fn is_fatal(&self) -> bool {
        match self.status() {
            Status::NoSpace | Status::OverQuota => self.side == Side::Target,
            Status::NotAuthorised => true,
            _ => self.call_error().is_some_and(|error| {
                error.is_interruption() || error.is_connecting() || matches!(error, CallError::TooMany(_))
            }),
        }
    }

    /// Whether the connection or the server went away, so that the same may succeed on a new one.
    pub fn is_interruption(&self) -> bool {
        // A storage of this machine, too, may have let go of an upload: it is begun again.
        let no_upload = matches!(self.error.problem, Problem::NoUpload);
        no_upload || self.call_error().is_some_and(CallError::is_interruption)
    }

    /// Whether a server that is alive did not answer in time.
    fn is_stall(&self) -> bool {
        matches!(self.call_error(), Some(CallError::Stalled))
    }

    fn call_error(&self) -> Option<&CallError> {
        match &self.error.problem {
            Problem::Remote { error, .. } => error.downcast_ref(),
            _ => None,
        }
    }
}

/// Copying between two storages: where from, where to, how, and who watches.
pub struct Copy {
    from: Arc<dyn Storage>,
    to: Arc<dyn Storage>,
    options: Options,
    progress: Arc<dyn Progress>,
    next_id: AtomicU64,
    persistence: Persistence,
    /// Bytes that all files in flight may hold in buffers, in KiB.
    memory: Arc<Semaphore>,
    files: Arc<Semaphore>,
    waits: Waits,
}

impl Copy {
    /// Prepares to copy.
    pub fn new(
        from: Arc<dyn Storage>,
        to: Arc<dyn Storage>,
        options: Options,
        progress: Arc<dyn Progress>,
    ) -> Arc<Self> {
        Arc::new(Self {
            from,
            to,
            options,
            progress,
            next_id: AtomicU64::new(0),
            persistence: Persistence::new(options.retry_for),
            memory: Arc::new(Semaphore::new(limits::BUFFERS_KIB as usize)),
            files: Arc::new(Semaphore::new(options.parallel.max(1) as usize)),
            waits: Waits::default(),
        })
    }

    /// What its files have waited for so far.
    pub fn waited(&self) -> Waited {
        self.waits.so_far()
    }

    /// Copies the file `source` to `target`.
    pub async fn file(&self, source: &RemotePath, target: &RemotePath) -> Result<Summary, CopyError> {
        self.one(source, target, None).await
    }

    /// Copies `files`, each from the first path to the second, side by side. What comes of each is handed to
    /// `ended`; an error of that ends all of it.
    pub async fn files<E>(
        &self,
        files: Vec<(RemotePath, RemotePath)>,
        mut ended: impl FnMut(Result<Summary, CopyError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let copies = stream::iter(files).map(async |(source, target)| {
            // The semaphore is never closed.
            let room = self.memory.clone().acquire_many_owned(Room::weight_of(0)).await.ok();
            self.one(&source, &target, room.map(Room::new)).await
        });
        let mut copies = pin!(copies.buffer_unordered(self.options.parallel.max(1) as usize));
        while let Some(copied) = copies.next().await {
            ended(copied)?;
        }
        Ok(())
    }

    async fn one(&self, source: &RemotePath, target: &RemotePath, room: Option<Room>) -> Result<Summary, CopyError> {
        let id = self.next_id();
        let copied = FileCopy::new(self, id, source, target, room).run().await;
        match copied {
            Ok(Copied { bytes, resumed }) => {
                self.progress.finished(id);
                Ok(Summary { files: 1, bytes, resumed, ..Summary::default() })
            }
            Err(error) if self.may_stay(&error) => {
                self.progress.finished(id);
                Ok(Summary { kept: 1, ..Summary::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Copies the folder `source` with all it holds to the folder `target`, into which it is merged
    /// if it is there. `Err` only where nothing can go on; single failures are counted.
    pub async fn tree(self: &Arc<Self>, source: &RemotePath, target: &RemotePath) -> Result<Summary, CopyError> {
        Walk::new(self.clone()).run(source.clone(), target.clone()).await
    }

    /// How many extents of one file may be on their way now: there may be more connections later.
    fn extents_in_flight(&self) -> usize {
        let Options { parallel, extents, .. } = self.options;
        let width = self.from.width().max(self.to.width());
        (parallel as usize).min(width.saturating_mul(extents as usize)).max(1)
    }

    fn next_id(&self) -> FileId {
        FileId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn may_stay(&self, error: &CopyError) -> bool {
        self.options.keep_existing && error.side == Side::Target && error.status() == Status::Exists
    }
}

/// Where `path` leads if it is a link, and what stands there.
pub async fn follow(storage: &dyn Storage, path: &RemotePath) -> Result<Followed, StorageError> {
    let entry = storage.stat(path).await?;
    match &entry.target {
        Some(target) => links::follow(storage, &path.parent(), target).await,
        None => Ok(Followed::To(path.clone(), entry)),
    }
}

/// Extents being sent that fill a connection's windows: more would only be sent again after a cut.
pub const EXTENTS_PER_CONNECTION: u32 = 4;

#[cfg(test)]
mod tests;
