//! Where files are: the [`Storage`] trait, and [`LocalFs`], a folder of this machine.
//!
//! Servers store what they are sent through it, clients read and write their own side of a transfer
//! through it, and a client's view of a server is one as well. So one way of copying serves every
//! direction, and every path goes through the same confinement and every file through the same
//! publishing.
//!
//! # Promises of every storage
//! - No path leads out of it, no link is followed, and none is made that leads out. Only regular files
//!   are read or written.
//! - A file appears under its name whole, verified and durable, or not at all. What is being
//!   written is visible to nobody.
//! - What is kept of a large file is kept by extents that are durable, and is trusted only after its
//!   digest was proved.
//! - A file that changes while it is read is an error, never a mix of two versions.

mod blocking;
mod error;
mod hash;
mod local;
pub mod own_file;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
pub use blocking::{Held, holding};
pub use bytes::Bytes;
pub use error::{Problem, StorageError};
pub use ftpq_proto::commands::begin::HeldExtent;
use ftpq_proto::{Digest, Entry, Extents, Holes, LinkTarget, RemotePath, Timestamp, UploadId, Version};
pub use hash::{BodyHasher, join};
pub use local::LocalFs;

/// Bytes of file that are read, hashed, sent and written at a time. Large enough for one system
/// call and one digest update to cost little per byte, small enough to stay in a core's cache.
pub const BLOCK: usize = 256 * 1024;

/// What is kept of a file that was not finished is kept for so long: a weekend, and some days to
/// notice.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A tree of files and folders.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// What stands at `path`. A link is described, not followed.
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError>;

    /// The entries of the folder `path`, unsorted.
    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError>;

    /// Opens the regular file `path`: all its bytes in one go.
    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError>;

    /// The same for a file of at most `up_to` bytes, its holes left out. A larger one is only described.
    async fn open_up_to(&self, path: &RemotePath, up_to: u64) -> Result<Opened, StorageError>;

    /// Opens the extent `index` of a file that was described before: [`Problem::Changed`] if it is not the same
    /// any more. Holes are left out, and the digest is that of the extent.
    async fn open_extent(&self, file: &Pinned, index: u32) -> Result<Box<dyn Reader>, StorageError>;

    /// The digest of the extent `index`, without its bytes.
    async fn extent_digest(&self, file: &Pinned, index: u32) -> Result<Digest, StorageError> {
        let mut reader = self.open_extent(file, index).await?;
        while reader.next_block().await?.is_some() {}
        reader.finish().await
    }

    /// Begins a file that will stand at `path`, written in one go.
    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError>;

    /// Begins a file that will stand at `path`, written by extents, or goes on with what is kept of it.
    /// `None` if it is there already, as [`LargeFile::same`] says.
    async fn begin(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Arc<dyn Staging>>, StorageError>;

    /// The same, with the first extent on its way before anybody knows what is kept. It has no holes. `None` where
    /// that gains nothing: then nothing was begun.
    async fn begin_with_first(&self, _: &RemotePath, _: LargeFile) -> Result<Option<Beginning>, StorageError> {
        Ok(None)
    }

    /// What `begin` returned to `owner` as `upload`, for those who can only be told its name.
    /// [`Problem::NoUpload`] once it has ended.
    async fn staging(
        &self,
        path: &RemotePath,
        owner: Digest,
        upload: UploadId,
    ) -> Result<Arc<dyn Staging>, StorageError>;

    /// Bytes that what is kept for [`begin`](Self::begin) with the same arguments counts for in
    /// [`usage`](Self::usage); `None` if nothing is.
    async fn unfinished(&self, path: &RemotePath, _: &LargeFile) -> Result<Option<u64>, StorageError> {
        Err(StorageError::new(path, NOT_COUNTED))
    }

    /// Whether a file of this size and content stands at `path`, durably. Reads it to tell.
    async fn holds(&self, path: &RemotePath, _size: u64, _: Digest) -> Result<bool, StorageError> {
        Err(StorageError::new(path, NOT_COUNTED))
    }

    /// Counts all that is here, what is kept of unfinished files too. What changes meanwhile may be counted
    /// or not; what is moved meanwhile may be missed.
    async fn usage(&self) -> Result<Usage, StorageError> {
        Err(StorageError::new(&RemotePath::root(), NOT_COUNTED))
    }

    /// Removes what is kept of files that nobody has gone on with for `age`. Returns how many.
    async fn sweep(&self, age: Duration) -> Result<u64, StorageError>;

    /// Closes what is open of uploads by extents that nobody uses, or that were removed. To be called now and then.
    async fn close_idle(&self) {}

    /// Makes a folder; with `parents`, also those above it, and an existing one is fine.
    async fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), StorageError>;

    /// Makes a link at `path` that holds `target`. Refused where it would lead out of this storage, and
    /// never in the place of a folder.
    async fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), StorageError>;

    /// Sets mode and time of the folder `path`.
    async fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), StorageError>;

    /// Removes a file, a link or an empty folder; with `recursive`, a folder with all it holds.
    /// Returns how many things went.
    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError>;

    /// Moves `from` to `to` in one step. Without `overwrite`, nothing may stand at `to`.
    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError>;

    /// Whether each question takes a round trip over a network.
    fn is_far(&self) -> bool {
        false
    }

    /// Over how many connections it is reached now: so many times as much is worth having on its way.
    fn width(&self) -> usize {
        1
    }

    /// The folder `path` as a storage of its own, which cannot see what is above.
    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError>;
}

/// A folder's entries, a page at a time.
#[async_trait]
pub trait Listing: Send {
    /// The next entries, at most [`ftpq_proto::limits::LIST_PAGE_MAX`]; `None` after the last.
    async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, StorageError>;

    /// After the last page: whether the one entry was what stands at the path itself, which is no folder. A server
    /// lists files, too.
    fn is_itself(&self) -> bool {
        false
    }
}

/// A file being read at one version.
#[async_trait]
pub trait Reader: Send {
    /// The version that is read, of the whole file.
    fn info(&self) -> FileInfo;

    /// The parts that are left out: zeros that take no room, and time, as they are part of the digest. Where there
    /// are some, nothing is done between the calls of [`next_block`](Self::next_block) and [`finish`](Self::finish).
    fn holes(&self) -> &Holes;

    /// Blocks that were not begun yet have no more than so many bytes. Where that is less than [`BLOCK`], memory
    /// is scarce, and nothing need be held that was not asked for. A wish: some storages cannot choose.
    fn limit_blocks(&mut self, _most: usize) {}

    /// The next bytes that are in no hole, at most [`BLOCK`]; `None` after the last.
    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError>;

    /// After the last block: the digest of all of them and the holes between, once it is sure that the
    /// file did not change meanwhile.
    async fn finish(self: Box<Self>) -> Result<Digest, StorageError>;
}

/// A file or extent being written. Dropped before [`commit`](Self::commit) returned, it counts for nothing.
#[async_trait]
pub trait Upload: Send {
    /// Appends `block`, behind the holes that come next. May return before it is written, unless there are holes; an
    /// error then comes with a later call.
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError>;

    /// If the length is the announced one and the digest is `expected`: makes a file durable and visible in
    /// one step, an extent durable. Returns the digest of what was written.
    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError>;
}

/// A file being written by extents. Dropped, what is durable of it stays, for the next
/// [`begin`](Storage::begin) of the same owner.
#[async_trait]
pub trait Staging: Send + Sync {
    /// Its name for [`Storage::staging`].
    fn id(&self) -> UploadId;

    /// How it is cut.
    fn extents(&self) -> Extents;

    /// Whether it will replace what stands at its path.
    fn overwrites(&self) -> bool;

    /// The extents that are there, in order, from the extent `from` on: at most
    /// [`ftpq_proto::limits::HELD_PAGE_MAX`], and none only where no more are.
    fn held(&self, from: u32) -> Vec<HeldExtent>;

    /// Begins the extent `index`, whether or not it is there.
    async fn write(&self, index: u32, holes: Holes) -> Result<Box<dyn Upload>, StorageError>;

    /// Whether the extent `index` is there and its digest is this: all of it is read to tell.
    async fn prove(&self, index: u32, digest: Digest) -> Result<bool, StorageError>;

    /// Waits for the extents that are being written, until all are there. What nobody writes is not waited for.
    async fn settle(&self);

    /// Makes the file visible in one step, if all extents are there and their joined digest is the
    /// expected one, which is returned.
    async fn commit(&self, publish: Publish) -> Result<Digest, StorageError>;
}

/// A large file that is being begun while its first extent is on its way.
pub struct Beginning {
    /// Takes the first extent. It fails where that is not wanted; why is told by [`begun`](Self::begun).
    pub first: Box<dyn Upload>,
    /// What became of it. Until that is known, it must be polled beside `first`.
    pub begun: Pin<Box<dyn Future<Output = Result<Option<Begun>, StorageError>> + Send>>,
}

/// A large file that was begun while its first extent was on its way.
pub struct Begun {
    /// What [`Storage::begin`] returns.
    pub staging: Arc<dyn Staging>,
    /// Whether the first extent is taken: not if it is kept.
    pub takes_first: bool,
}

/// A file that was opened for copying.
pub enum Opened {
    /// All of it.
    Whole(Box<dyn Reader>),
    /// It is larger than was asked for: to be read by extents.
    Large(FileInfo),
}

/// One version of a large file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Where it is.
    pub path: RemotePath,
    /// Which version.
    pub version: Version,
    /// How it is cut.
    pub extents: Extents,
}

/// A version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes.
    pub size: u64,
    /// Differs whenever the contents may differ.
    pub version: Version,
    /// It has holes.
    pub sparse: bool,
    /// When the contents last changed.
    pub mtime: Timestamp,
    /// Permission bits, `0o000` to `0o7777`.
    pub mode: u32,
}

/// A file to be, written in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewFile {
    /// Its bytes, if anybody knows.
    pub size: Option<u64>,
    /// The parts that will not be written.
    pub holes: Holes,
    /// Replace a file that stands there.
    pub overwrite: bool,
    /// A file that stands there with the same contents counts as this one, committed.
    pub accept_same: bool,
    /// Make the folders that are missing above it.
    pub parents: bool,
    /// Permission bits, of which `0o777` count; the process's own default where absent.
    pub mode: Option<u32>,
    /// Modification time; the time of writing where absent.
    pub mtime: Option<Timestamp>,
}

/// A file to be, written by extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeFile {
    /// How it is cut.
    pub extents: Extents,
    /// Whose it is: what is kept is found again by nobody else.
    pub owner: Digest,
    /// Keep nothing of an earlier attempt.
    pub fresh: bool,
    /// Stay apart from other attempts of the same owner, under this word.
    pub apart: Option<Digest>,
    /// It has holes: take no room for it in advance.
    pub sparse: bool,
    /// Replace a file that stands there.
    pub overwrite: bool,
    /// A file that stands there with this digest counts as this one, committed.
    pub same: Option<Digest>,
    /// Make the folders that are missing above it.
    pub parents: bool,
}

/// How a file that was written by extents is to appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Of the whole file.
    pub digest: Digest,
    /// As in [`NewFile`].
    pub mode: Option<u32>,
    /// As in [`NewFile`].
    pub mtime: Option<Timestamp>,
}

/// A link to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewLink {
    /// Replace a file or link that stands there.
    pub overwrite: bool,
    /// A link that stands there with the same target counts as this one.
    pub accept_same: bool,
    /// Make the folders that are missing above it.
    pub parents: bool,
    /// The link's own modification time; the time of its making where absent.
    pub mtime: Option<Timestamp>,
}

/// What a tree of files takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all files: what they would take without holes, and what unfinished ones will.
    pub bytes: u64,
    /// Files, folders and links, each name by itself; the root is none of them.
    pub entries: u64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (bytes, entries) = (self.bytes.saturating_add(other.bytes), self.entries.saturating_add(other.entries));
        Self { bytes, entries }
    }

    /// What is left without `other`: nothing is less than nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let (bytes, entries) = (self.bytes.saturating_sub(other.bytes), self.entries.saturating_sub(other.entries));
        Self { bytes, entries }
    }
}

/// What is to be set of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, of which `0o777` count; the others stay as they are.
    pub mode: Option<u32>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}

const NOT_COUNTED: Problem = Problem::Unsupported("this storage cannot tell how much it holds");
