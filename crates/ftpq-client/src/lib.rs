//! ftpq's client side: a [`Session`] on a server, a [`Link`] that replaces sessions as they are lost,
//! a [`Bundle`] of links where one core is not enough, the server's files as a [`Storage`](ftpq_storage::Storage)
//! ([`Remote`]), and the one way of copying files and trees between any two storages ([`copy`]).
//!
//! Uploading is copying from a local storage to a remote one, downloading the reverse: both read,
//! hash, verify and publish through the same code.
//!
//! What limited a transfer is in [`verdict`].
//!
//! Nothing here asks a person or prints: trust is decided by the caller, progress is told to a
//! [`Progress`].

mod bundle;
pub mod copy;
pub mod known_servers;
pub mod limits;
mod link;
mod progress;
mod remote;
mod session;
pub mod verdict;

pub use bundle::{Bundle, Connections};
pub use known_servers::{Known, KnownServers};
pub use link::{Dialer, Link};
pub use progress::{FileId, Progress};
pub use remote::Remote;
pub use session::{CallError, Hello, Learn, Session};
