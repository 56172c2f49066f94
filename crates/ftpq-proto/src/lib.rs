//! The ftpq/1 protocol as types: what may be said on a stream, in which bytes, within which limits.
//!
//! # Goals
//! - One grammar for every verb (see [`message`]), so that a plugin needs no wire code.
//! - Every value bounded before it is decoded, and checked once, when it is parsed.
//! - Readable on its own: `docs/protocol.md` and this crate say the same thing, and the golden
//!   bytes in `tests/golden.txt` fail when either drifts.
//!
//! # Non-goals
//! - I/O of any kind: no sockets, no files, no clock, no async. Bytes in, values out.
//! - File contents: they travel raw beside these messages, never inside them.

pub mod codec;
pub mod commands;
pub mod digest;
pub mod entry;
pub mod escape;
pub mod extent;
pub mod limits;
pub mod link_target;
pub mod message;
pub mod path;
pub mod rights;
pub mod spec;
pub mod status;
pub mod ticket;

pub use digest::Digest;
pub use entry::{Entry, Kind, Timestamp};
pub use escape::Escaped;
pub use extent::{Extent, Extents, Hole, Holes, UploadId, Version};
pub use link_target::LinkTarget;
pub use path::{Name, PathError, RemotePath, UserPath};
pub use rights::{Right, Rights};
pub use spec::Spec;
pub use status::Status;
pub use ticket::TicketSecret;

/// The ALPN token of this protocol: one token per incompatible version.
pub const ALPN: &[u8] = b"ftpq/1";

/// The protocol version that CON negotiates.
pub const VERSION: u32 = 1;
