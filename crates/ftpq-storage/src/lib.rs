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
//!   written is visible to nobody, and dropping it removes it.
//! - A file that changes while it is read is an error, never a mix of two versions.

mod error;
mod local;

use std::sync::Arc;

use async_trait::async_trait;
pub use bytes::Bytes;
pub use error::{Problem, StorageError};
use ftpq_proto::{Digest, Entry, LinkTarget, RemotePath, Timestamp};
pub use local::LocalFs;

/// Bytes of file that are read, hashed, sent and written at a time. Large enough for one system
/// call and one digest update to cost little per byte, small enough to stay in a core's cache.
pub const BLOCK: usize = 256 * 1024;

/// A tree of files and folders.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// What stands at `path`. A link is described, not followed.
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError>;

    /// The entries of the folder `path`, unsorted.
    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError>;

    /// Opens the regular file `path`.
    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError>;

    /// Begins a file that will stand at `path`.
    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError>;

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

    /// The folder `path` as a storage of its own, which cannot see what is above.
    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError>;
}

/// A folder's entries, a page at a time.
#[async_trait]
pub trait Listing: Send {
    /// The next entries, at most [`ftpq_proto::limits::LIST_PAGE_MAX`]; `None` after the last.
    async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, StorageError>;
}

/// A file being read at one version.
#[async_trait]
pub trait Reader: Send {
    /// The version that is read.
    fn info(&self) -> FileInfo;

    /// The next bytes, at most [`BLOCK`]; `None` after the last of [`FileInfo::size`].
    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError>;

    /// After the last block: the digest of all of them, once it is sure that the file did not
    /// change meanwhile.
    async fn finish(self: Box<Self>) -> Result<Digest, StorageError>;
}

/// A file being written. Dropped before [`commit`](Self::commit) returned, it leaves nothing.
#[async_trait]
pub trait Upload: Send {
    /// Appends `block`. May return before it is written; an error then comes with a later call.
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError>;

    /// Makes the file durable and visible in one step, if its length is the announced one and its
    /// digest is `expected`. Returns the digest of what was written.
    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError>;
}

/// A version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes.
    pub size: u64,
    /// When the contents last changed.
    pub mtime: Timestamp,
    /// Permission bits, `0o000` to `0o7777`.
    pub mode: u32,
}

/// A file to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewFile {
    /// Bytes that will be written.
    pub size: u64,
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

/// What is to be set of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, of which `0o777` count; the others stay as they are.
    pub mode: Option<u32>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}
