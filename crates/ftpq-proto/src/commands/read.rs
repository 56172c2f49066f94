//! READ: one extent of a file, at one version of it.
//!
//! ```text
//! Request{verb: "READ", args: Args}  ──▶
//!                                    ◀──  Head: Part               unless args.digest_only
//!                                    ◀──  body (the extent less its holes), Trailer
//!                                    ◀──  Reply{ok: Sent}
//! ```
//! A file that is not at that version any more, or not until the end, is [`crate::Status::Changed`]: parts of
//! two versions never meet.

use serde::{Deserialize, Serialize};

use crate::{Digest, Holes, UserPath, Version};

/// The verb's name.
pub const VERB: &str = "READ";

/// Which part of which file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path.
    pub path: UserPath,
    /// The version that DWLD named.
    pub version: Version,
    /// Bytes of the file, as DWLD said.
    pub size: u64,
    /// Bytes of each extent but the last: see [`crate::Extents::new`].
    pub extent: u64,
    /// Which extent.
    pub index: u32,
    /// Only say what its digest is: for a client that has kept the extent and wants to prove it.
    #[serde(default)]
    pub digest_only: bool,
}

/// What is coming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The parts of the extent that are not in the body, counted from its start.
    #[serde(default, skip_serializing_if = "Holes::is_empty")]
    pub holes: Holes,
}

/// All was sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// The extent's digest, of what the server read.
    pub digest: Digest,
}
