//! How a copy is getting on, told to whoever draws it.

use ftpq_proto::RemotePath;

use crate::copy::{CopyError, LeftOut};

/// One file within a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub(crate) u64);

/// Is told how a copy is getting on. Called often, from the tasks that copy: it must be quick.
pub trait Progress: Send + Sync {
    /// More work was found: so many files, so many bytes.
    fn planned(&self, files: u64, bytes: u64);

    /// A file of `size` bytes begins.
    fn started(&self, file: FileId, path: &RemotePath, size: u64);

    /// So many of its bytes were taken over.
    fn advanced(&self, file: FileId, bytes: u64);

    /// So many of its bytes were there already, from an earlier attempt, and were proved to be the same.
    fn resumed(&self, file: FileId, bytes: u64);

    /// So many of the bytes that were taken over got lost on the way, and will be sent again.
    fn lost(&self, file: FileId, bytes: u64);

    /// The connection or the server went away: the file goes on when there is a new connection.
    fn interrupted(&self, file: FileId, error: &CopyError);

    /// It is there: verified, durable, visible. Or it was there, and was to be left alone.
    fn finished(&self, file: FileId);

    /// It is not there. `file` is `None` for what never began: a folder that could not be read.
    fn failed(&self, file: Option<FileId>, error: &CopyError);

    /// Something was left out, as it is nothing that can be copied.
    fn skipped(&self, path: &RemotePath, why: LeftOut);
}

/// Nobody draws.
impl Progress for () {
    fn planned(&self, _: u64, _: u64) {}
    fn started(&self, _: FileId, _: &RemotePath, _: u64) {}
    fn advanced(&self, _: FileId, _: u64) {}
    fn resumed(&self, _: FileId, _: u64) {}
    fn lost(&self, _: FileId, _: u64) {}
    fn interrupted(&self, _: FileId, _: &CopyError) {}
    fn finished(&self, _: FileId) {}
    fn failed(&self, _: Option<FileId>, _: &CopyError) {}
    fn skipped(&self, _: &RemotePath, _: LeftOut) {}
}
