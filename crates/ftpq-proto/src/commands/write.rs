//! WRITE: one extent of an upload that was begun ([`super::begin`]).
//!
//! ```text
//! Request{verb: "WRITE", args: Args}  ──▶
//! body (the extent less its holes), Trailer  ──▶
//!                                     ◀──  Reply{ok: Written}
//! ```
//! The body follows at once. `Written` is sent when the extent is durable.

use serde::{Deserialize, Serialize};

use crate::{Digest, Holes, UploadId, UserPath};

/// The verb's name.
pub const VERB: &str = "WRITE";

/// Which extent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path, as in BEGIN.
    pub path: UserPath,
    /// What BEGIN returned.
    pub upload: UploadId,
    /// Which extent.
    pub index: u32,
    /// The parts of it that are not in the body, counted from its start.
    #[serde(default, skip_serializing_if = "Holes::is_empty")]
    pub holes: Holes,
}

/// It is durable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// The extent's digest, of what the server wrote.
    pub digest: Digest,
}
