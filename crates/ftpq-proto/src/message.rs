//! The one grammar that every verb obeys, on a bidirectional stream of its own.
//!
//! ```text
//! client                                    server
//!   Request {verb, cwd, args}        ──▶
//!                                    ◀──    Item …          none or more: pages, progress
//!                                    ◀──    Head            at most one: a body comes, or "go"
//!   ▒▒▒ body, Digest ▒▒▒             ◀─▶    ▒▒▒ body, Digest ▒▒▒     one direction at most
//!                                    ◀──    Reply           exactly one, then FIN
//!   FIN                              ──▶
//! ```
//!
//! A body is raw bytes, exactly as many as its head (download) or request (upload) declared, holes
//! left out; where the length is unknown it comes in chunks, each a `u32` big-endian length and as
//! many bytes, up to one of length 0. Then one [`Trailer`] frame. A refusal is a [`Reply`] without a
//! head. Who fails while sending resets the stream with the status as its code; who fails while
//! receiving stops it and, being the server, says why in the reply. A stream that ends in any other
//! way was cut.

use ciborium::Value;
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, path::RemotePath, status::Status};

/// The first frame of a stream, from the client: run this verb.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request<A = Value> {
    /// Which handler: see [`crate::spec::is_verb`].
    #[serde(deserialize_with = "crate::codec::verb")]
    pub verb: String,
    /// The client's folder, from which relative paths in `args` lead.
    pub cwd: RemotePath,
    /// The verb's own arguments. Unknown fields are an error: an option that a server does not
    /// know must not be ignored.
    pub args: A,
}

/// Every frame from the server: exactly one of three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Part of a result that comes in parts.
    Item(Value),
    /// A body follows from the server, or may now follow from the client.
    Head(Value),
    /// How it ended. The last frame.
    Reply(Reply),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done: the verb's own result.
    Ok(Value),
    /// Not done.
    Error(Failed),
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// For programs.
    pub status: Status,
    /// For a person: what failed, on what, why. Never holds anything of the server's insides.
    #[serde(deserialize_with = "crate::codec::text")]
    pub message: String,
}

/// The frame that closes a body, from whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trailer {
    /// BLAKE3 of the file, its holes read as zeros; of an extent, its value in the file's tree
    /// ([`crate::extent`]).
    pub digest: Digest,
}
