//! COMMIT: publishes an upload whose extents are all there ([`super::begin`]).
//!
//! ```text
//! Request{verb: "COMMIT", args: Args}  ──▶
//!                                      ◀──  Reply{ok: Committed}
//! ```
//! It may be sent as soon as the digest is known: the server waits for the extents that are on their way. It says
//! 310 (incomplete) where one is missing that nobody sends; a COMMIT may also have overtaken its WRITE, over another
//! connection, say, and is then sent again.
//!
//! The server joins the digests of the extents; only if that is the client's digest of the file does the
//! file appear, and the reply is UPLD's: durable, whole, visible.

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp, UploadId, UserPath};

/// The verb's name.
pub const VERB: &str = "COMMIT";

/// What to publish, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path, as in BEGIN.
    pub path: UserPath,
    /// What BEGIN returned.
    pub upload: UploadId,
    /// BLAKE3 of the whole file.
    pub digest: Digest,
    /// Permission bits to set, `0o000` to `0o777`; the server's own default where absent.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Modification time to set; the time of arrival where absent.
    #[serde(default)]
    pub mtime: Option<Timestamp>,
}

pub use super::upld::Committed;
