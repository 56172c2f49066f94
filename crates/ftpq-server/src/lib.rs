//! ftpq's server: takes connections, finds out who is there, and runs each command's handler.
//!
//! The path of a command: [`Server::serve`] takes a connection attempt → `gate.rs` lets it in or not →
//! `session.rs` takes its streams →
//! `dispatch.rs` reads the request, admits, authorises and runs the handler → `commands/*.rs` does
//! the work on a [`Storage`](ftpq_storage::Storage) → `dispatch.rs` writes the reply and reports.
//!
//! Nothing here parses arguments, prints, or handles signals: what happens is told to an
//! [`Observer`], and the end comes as a future.

pub mod access;
mod clients;
mod commands;
pub mod config;
mod dispatch;
mod gate;
mod guard;
mod hollow;
pub mod limits;
mod memory;
mod observer;
pub mod pace;
mod penalties;
mod quota;
mod returning;
mod server;
mod session;
pub mod units;

pub use access::Access;
pub use config::{Config, ConfigError};
pub use limits::Limits;
pub use observer::{Event, Observer};
pub use penalties::Network;
pub use server::{BuildError, Server, ServerBuilder};
