//! DWLD: one file from the server.
//!
//! ```text
//! Request{verb: "DWLD", args: Args}  ──▶
//!                                    ◀──  Head: File
//!                                    ◀──  body (head.size bytes less its holes), Trailer
//!                                    ◀──  Reply{ok: Sent}
//! ```
//! or, for a file of more than `args.up_to` bytes, which then goes by extents ([`super::read`]):
//!
//! ```text
//! Request{verb: "DWLD", args: Args}  ──▶
//!                                    ◀──  Head: File
//!                                    ◀──  Reply{ok: Large}
//! ```
//! A source that changes while it is read resets the stream with [`crate::Status::Changed`]; what
//! arrived until then is worth nothing.

use serde::{Deserialize, Serialize};

use crate::{Digest, Holes, RemotePath, Timestamp, UserPath, Version};

/// The verb's name.
pub const VERB: &str = "DWLD";

/// Which file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path.
    pub path: UserPath,
    /// Send the body only of a file of at most so many bytes. Absent: of any.
    #[serde(default)]
    pub up_to: Option<u64>,
    /// Leave holes out of the body, and say where they are.
    #[serde(default)]
    pub sparse: bool,
}

/// What is coming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// The file's canonical path.
    pub path: RemotePath,
    /// Bytes of the file.
    pub size: u64,
    /// Which state of it this is.
    pub version: Version,
    /// It has holes.
    #[serde(default)]
    pub sparse: bool,
    /// The parts that are not in the body.
    #[serde(default, skip_serializing_if = "Holes::is_empty")]
    pub holes: Holes,
    /// When its contents last changed.
    pub mtime: Timestamp,
    /// Its permission bits, `0o000` to `0o7777`.
    pub mode: u32,
}

/// All was sent. Whether it arrived, the client alone can tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Bytes of the file.
    pub length: u64,
    /// BLAKE3 of what the server read.
    pub digest: Digest,
}

/// No body follows: the file is larger than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Large {}

/// One or the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Ended {
    /// The body was sent.
    Sent(Sent),
    /// There was none.
    Large(Large),
}
