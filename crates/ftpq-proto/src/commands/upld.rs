//! UPLD: one file to the server, published whole or not at all.
//!
//! ```text
//! Request{verb: "UPLD", args: Args}  ──▶
//!                                    ◀──  Head: Go              unless args.eager
//! body (args.size bytes), Trailer    ──▶
//!                                    ◀──  Reply{ok: Committed}
//! ```
//! Files of more than [`crate::limits::WHOLE_MAX`] bytes should go by extents ([`super::begin`]).
//! `Committed` is the only word for success: it is sent when the file is durable under its name.

use serde::{Deserialize, Serialize};

use crate::{Digest, Holes, RemotePath, Timestamp, UserPath};

/// The verb's name.
pub const VERB: &str = "UPLD";

/// What is coming, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path.
    pub path: UserPath,
    /// Bytes of the file; absent where nobody knows, and the body comes in chunks.
    #[serde(default)]
    pub size: Option<u64>,
    /// The parts of the file that are not in the body; only up to [`crate::limits::WHOLE_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Holes::is_empty")]
    pub holes: Holes,
    /// Replace a file of that name. Needs the right to delete.
    #[serde(default)]
    pub overwrite: bool,
    /// A file of that name with the same contents counts as this one, committed. A client that lost
    /// the reply sends the file again with this.
    #[serde(default)]
    pub accept_same: bool,
    /// Make the folders that are missing on the way.
    #[serde(default)]
    pub parents: bool,
    /// The body follows at once, without waiting for [`Go`]; only up to
    /// [`crate::limits::EAGER_BODY_MAX`] bytes.
    #[serde(default)]
    pub eager: bool,
    /// Permission bits to set, `0o000` to `0o777`; the server's own default where absent.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Modification time to set; the time of arrival where absent.
    #[serde(default)]
    pub mtime: Option<Timestamp>,
}

/// The server is ready for the body.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Go {}

/// The file is durable, whole, and visible under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// Where it is.
    pub path: RemotePath,
    /// Its bytes.
    pub length: u64,
    /// BLAKE3 of what the server wrote.
    pub digest: Digest,
}
