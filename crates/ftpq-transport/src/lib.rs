//! ftpq's way over the network: QUIC connections between two keys, and on each of their streams
//! one framed exchange.
//!
//! This is the only crate that names quinn, so that another QUIC can take its place. It knows the
//! framing of `ftpq-proto` and nothing of verbs, files or rights.
//!
//! - [`Identity`]: a key pair in a self-made certificate; [`Fingerprint`]: how the other side knows it.
//! - [`Ticket`]: a server, its key, and a secret that lets one client in.
//! - [`Listener`] and [`Connector`]: the two ends of a [`Connection`].
//! - [`SendHalf`] and [`RecvHalf`]: one stream. Dropping a send half that was not finished resets it,
//!   so that a truncated body can never look complete.
//! - [`Counters`]: what a connection has counted, for whoever wants to know what limited it.
//! - [`Shard`]: a thread that drives endpoints, beside the one that is there.
//! - [`Traffic`]: how an end's packets are paced, and what it remembers of paths.
//! - [`tuning`]: every number that shapes speed and memory on the wire, with its reason.

mod batch;
mod connection;
mod connector;
mod counters;
mod fingerprint;
mod fit;
mod identity;
mod listener;
mod shard;
mod sieve;
mod socket;
mod stream;
mod succession;
mod ticket;
mod tls;
mod traffic;
pub mod tuning;

pub use bytes::Bytes;
pub use connection::{Closed, Connection};
pub use connector::{ConnectError, Connector};
pub use counters::{Counters, Path};
pub use fingerprint::{Fingerprint, ParseFingerprintError};
pub use identity::{Identity, IdentityError};
pub use listener::{BindError, BoundSocket, Incoming, Listener};
pub use shard::{Shard, Work, processors};
pub use stream::{RecvError, RecvHalf, SendError, SendHalf};
pub use succession::{AnnounceError, SuccessionError};
pub use ticket::{ParseTicketError, Ticket};
pub use traffic::{Congestion, Learnt, Paths, Traffic, UnknownCongestion};
