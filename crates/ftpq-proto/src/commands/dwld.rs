//! DWLD: one file from the server.
//!
//! ```text
//! Request{verb: "DWLD", args: Args}  ──▶
//!                                    ◀──  Head: File
//!                                    ◀──  body (head.size bytes), Trailer
//!                                    ◀──  Reply{ok: Sent}
//! ```
//! A source that changes while it is read resets the stream with [`crate::Status::Changed`]; what
//! arrived until then is worth nothing.

use serde::{Deserialize, Serialize};

use crate::{Digest, RemotePath, Timestamp, UserPath};

/// The verb's name.
pub const VERB: &str = "DWLD";

/// Which file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path.
    pub path: UserPath,
}

/// What is coming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// The file's canonical path.
    pub path: RemotePath,
    /// Bytes of the body.
    pub size: u64,
    /// When its contents last changed.
    pub mtime: Timestamp,
    /// Its permission bits, `0o000` to `0o7777`.
    pub mode: u32,
}

/// All was sent. Whether it arrived, the client alone can tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Bytes of the body.
    pub length: u64,
    /// BLAKE3 of what the server read.
    pub digest: Digest,
}
