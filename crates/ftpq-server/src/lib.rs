//! ftpq's server: takes connections, finds out who is there, and runs each command's handler.
//!
//! The path of a command: [`Server::serve`] accepts a connection → `session.rs` takes its streams →
//! `dispatch.rs` reads the request, admits, authorises and runs the handler → `commands/*.rs` does
//! the work on a [`Storage`](ftpq_storage::Storage) → `dispatch.rs` writes the reply and reports.
//!
//! Nothing here parses arguments, prints, or handles signals: what happens is told to an
//! [`Observer`], and the end comes as a future.

pub mod access;
mod commands;
mod dispatch;
mod guard;
pub mod limits;
mod observer;
mod server;
mod session;

pub use access::Access;
pub use observer::{Event, Observer};
pub use server::{BuildError, Server, ServerBuilder};
