//! What can go wrong with files, in terms that hold for every storage.

use std::io;

use ftpq_proto::{Digest, PathError, RemotePath, Status};
use rustix::io::Errno;

/// What went wrong, and on which path.
#[derive(Debug, thiserror::Error)]
#[error("{}{problem}", self.subject())]
pub struct StorageError {
    /// On what, as seen from the storage's own root.
    pub path: RemotePath,
    /// What.
    pub problem: Problem,
}

impl StorageError {
    /// `problem` with `path`.
    pub fn new(path: &RemotePath, problem: impl Into<Problem>) -> Self {
        Self { path: path.clone(), problem: problem.into() }
    }

    /// The same for programs.
    pub fn status(&self) -> Status {
        self.problem.status()
    }

    /// The path in front of the text, unless that names it already; what a user may not do is no matter of one
    /// path.
    fn subject(&self) -> String {
        match self.problem {
            Problem::Remote { names_path: true, .. } | Problem::Forbidden(_) => String::new(),
            _ => format!("{}: ", self.path),
        }
    }
}

/// What went wrong with a file or folder. The texts are fit for a peer: they say nothing of the
/// machine's insides.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing has this name.
    #[error("no such file or folder")]
    NotFound,
    /// The name is taken.
    #[error("exists already")]
    Exists,
    /// A folder where a file is meant.
    #[error("is a folder")]
    IsFolder,
    /// Something else where a folder is meant.
    #[error("not a folder")]
    NotFolder,
    /// A link, device, FIFO or socket.
    #[error("not a regular file: links, devices, FIFOs and sockets are not served")]
    NotRegular,
    /// A folder that holds something.
    #[error("the folder is not empty")]
    NotEmpty,
    /// The file changed while it was read.
    #[error("changed while it was being read")]
    Changed,
    /// A name that this storage cannot hold.
    #[error("the name is too long for this file system")]
    NameTooLong,
    /// A name that ftpq keeps for itself.
    #[error("names like .ftpq-<32 hex digits> are reserved")]
    Reserved,
    /// A folder that takes several names for one holds it under other bytes.
    #[error("another name that differs only in case or form stands there")]
    Lookalike,
    /// A link that must not be made.
    #[error("the link leads out of the tree")]
    LeadsOut,
    /// The file system has no links.
    #[error("this file system holds no links")]
    NoLinks,
    /// Not a path at all.
    #[error(transparent)]
    BadPath(#[from] PathError),
    /// What was begun has ended, or was never begun.
    #[error("this upload is not known any more: begin it again")]
    NoUpload,
    /// Parts of it are missing, and nobody is writing them.
    #[error("not all extents have arrived")]
    Incomplete,
    /// Somebody else with the same name and key goes on with what was kept.
    #[error("another run has taken over this upload")]
    Superseded,
    /// Nobody waits for it any more, so it was given up.
    #[error("given up")]
    Cancelled,
    /// This storage has no way of doing it.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Moving a folder into itself, removing the root, and the like.
    #[error("{0}")]
    Refused(&'static str),
    /// What arrived is not what was sent.
    #[error("the digest does not match: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What the sender read.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// Fewer or more bytes than announced.
    #[error("{actual} bytes instead of the announced {announced}")]
    Length {
        /// Bytes that were announced.
        announced: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// Larger than a file may be here.
    #[error("larger than a file may be on this file system")]
    TooLarge,
    /// The disk or the quota is full.
    #[error("no space left")]
    NoSpace,
    /// More than this user may have.
    #[error("over the quota: {0}")]
    OverQuota(String),
    /// This user lacks the right.
    #[error("{0}")]
    Forbidden(String),
    /// The operating system does not let this process.
    #[error("permission denied by the file system")]
    Denied,
    /// The storage failed.
    #[error("input/output error: {0}")]
    Io(io::Error),
    /// The other side of a connection failed, or the connection.
    #[error("{error}")]
    Remote {
        /// Its status.
        status: Status,
        /// Whether the text says on what: that of a server does. One about the whole connection need not.
        names_path: bool,
        /// What it says.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Problem {
    /// The same for programs.
    pub fn status(&self) -> Status {
        match self {
            Problem::NotFound => Status::NotFound,
            Problem::Exists => Status::Exists,
            Problem::IsFolder => Status::IsFolder,
            Problem::NotFolder => Status::NotFolder,
            Problem::NotRegular => Status::NotRegular,
            Problem::NotEmpty => Status::NotEmpty,
            Problem::Changed => Status::Changed,
            Problem::NoUpload => Status::NoUpload,
            Problem::Incomplete => Status::Incomplete,
            Problem::Superseded => Status::Superseded,
            Problem::NameTooLong | Problem::Reserved | Problem::Lookalike => Status::NameRefused,
            Problem::BadPath(_) | Problem::Refused(_) | Problem::LeadsOut => Status::BadPath,
            Problem::NoLinks | Problem::Unsupported(_) => Status::Unsupported,
            Problem::Cancelled => Status::Cancelled,
            Problem::DigestMismatch { .. } => Status::DigestMismatch,
            Problem::Length { .. } => Status::Truncated,
            Problem::TooLarge => Status::TooLarge,
            Problem::NoSpace => Status::NoSpace,
            Problem::OverQuota(_) => Status::OverQuota,
            Problem::Forbidden(_) => Status::Forbidden,
            Problem::Denied => Status::StorageDenied,
            Problem::Io(_) => Status::Io,
            Problem::Remote { status, .. } => *status,
        }
    }
}

/// The one mapping from the operating system's numbers.
impl From<Errno> for Problem {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Problem::NotFound,
            Errno::EXIST => Problem::Exists,
            Errno::ISDIR => Problem::IsFolder,
            Errno::NOTDIR => Problem::NotFolder,
            Errno::NOTEMPTY => Problem::NotEmpty,
            // A link on the way, or one that would lead out (openat2); a socket (open).
            Errno::LOOP | Errno::XDEV | Errno::NXIO => Problem::NotRegular,
            Errno::NAMETOOLONG => Problem::NameTooLong,
            Errno::NOSPC | Errno::DQUOT => Problem::NoSpace,
            Errno::FBIG => Problem::TooLarge,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Problem::Denied,
            other => Problem::Io(other.into()),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Problem::Io(error), Problem::from)
    }
}
