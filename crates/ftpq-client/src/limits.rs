//! What a server may make this client wait for, and hold in memory. It may be hostile.
//!
//! What one message may hold is in [`ftpq_proto::limits`], what a connection may have in flight in
//! [`ftpq_transport::tuning`].

use std::time::Duration;

/// How long a live server may take for one answer, unless the user says otherwise: as long as flushing a
/// very large file to a slow disk. A dead server is noticed by the connection's idle timeout, much sooner.
pub const ANSWER: Duration = Duration::from_secs(15 * 60);

/// Names that a server may list in one tree, unless the user says otherwise: the largest file systems that
/// people copy hold some ten million files, and a listing must end at some time.
pub const NAMES: u64 = 100_000_000;

/// Bytes that folders which are still to be gone through take in memory: some 300,000 of them. They are
/// the siblings on the way down alone, not those of the whole tree.
pub const WAITING: usize = 12 * 1024 * 1024;

/// What is listed of the folder that is being gone through, before it is copied, may take in memory, in KiB.
pub const LISTING_KIB: u32 = 8 * 1024;

/// The same of all folders whose turn comes later.
pub const LISTED_AHEAD_KIB: u32 = 4 * 1024;

/// Names of one folder that are remembered, so that listing it can begin again where it was cut: 8 MiB.
pub const SEEN: usize = 400_000;

/// Bytes that the modes and times of folders take in memory which are still to be set. Where there are
/// more, those folders get theirs first that were gone through.
pub const ATTRIBUTES: usize = 4 * 1024 * 1024;

/// Bytes that all files in flight may hold in buffers, in KiB.
pub const BUFFERS_KIB: u32 = 16 * 1024;

/// Bytes of a file on its way into a pipe that are in memory until they are verified. Of a file of more
/// than 256 GiB it is one part, of 32 or 64 MiB.
pub const PIPED: u64 = 24 * 1024 * 1024;
