//! PROVE: whether an extent that is kept of an upload is the one that the client has.
//!
//! ```text
//! Request{verb: "PROVE", args: Args}  ──▶
//!                                     ◀──  Reply{ok: Proved}
//! ```
//! The server reads what it has on disk: nothing that was kept is trusted before.

use serde::{Deserialize, Serialize};

use crate::{Digest, UploadId, UserPath};

/// The verb's name.
pub const VERB: &str = "PROVE";

/// Which extent, and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path, as in BEGIN.
    pub path: UserPath,
    /// What BEGIN returned.
    pub upload: UploadId,
    /// Which extent.
    pub index: u32,
    /// The extent's digest at the client.
    pub digest: Digest,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proved {
    /// It is the same, and need not be sent.
    pub same: bool,
}
