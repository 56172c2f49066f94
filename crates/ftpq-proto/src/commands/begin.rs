//! BEGIN: begins an upload by extents, or goes on with one that was cut.
//!
//! ```text
//! Request{verb: "BEGIN", args: Args}  ──▶
//!                                     ◀──  Item: Held  …          what is kept of it
//!                                     ◀──  Reply{ok: Begun}
//! ```
//! With `first`, the first extent follows the request at once, in the same flight, as with WRITE
//! ([`super::write`]). A head says that it is taken; a reply without one, that it is kept already or not
//! needed, and the body is stopped:
//! ```text
//! Request{verb: "BEGIN", args: Args}  ──▶
//! body (the first extent), Trailer    ──▶
//!                                     ◀──  Item: Held  …
//!                                     ◀──  Head: Begun
//!                                     ◀──  Reply{ok: Begun}       with `written`
//! ```
//! Then each extent on a stream of its own ([`super::write`], [`super::prove`]), in any order and side
//! by side, and one COMMIT ([`super::commit`]). What is kept belongs to the user and the path, on
//! disk, and survives connections and servers; an [`UploadId`] lasts until the server stops, until
//! the commit, or until the same user begins again.

use serde::{Deserialize, Serialize};

use crate::{Digest, UploadId, UserPath, limits};

/// The verb's name.
pub const VERB: &str = "BEGIN";

/// What is coming, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The file's path.
    pub path: UserPath,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of each extent but the last: see [`crate::Extents::new`].
    pub extent: u64,
    /// Keep nothing of an earlier attempt.
    #[serde(default)]
    pub fresh: bool,
    /// Go on with what is kept under this word alone: for a run whose upload was superseded by another
    /// run of the same user.
    #[serde(default)]
    pub apart: Option<Digest>,
    /// The file has holes: take no room for it in advance.
    #[serde(default)]
    pub sparse: bool,
    /// A file of that name will be replaced. Needs the right to delete.
    #[serde(default)]
    pub overwrite: bool,
    /// A file of that name with this digest counts as committed. For a client that lost the reply to its
    /// COMMIT.
    #[serde(default)]
    pub same: Option<Digest>,
    /// Make the folders that are missing on the way.
    #[serde(default)]
    pub parents: bool,
    /// The body of the first extent follows. It has no holes.
    #[serde(default)]
    pub first: bool,
}

/// Some of the extents that are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// At most [`limits::HELD_PAGE_MAX`].
    #[serde(deserialize_with = "crate::codec::bounded::<_, _, { limits::HELD_PAGE_MAX }>")]
    pub extents: Vec<HeldExtent>,
}

/// An extent that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldExtent {
    /// Which one.
    pub index: u32,
    /// Its digest, where this server has itself seen all its bytes; otherwise it is to be proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// The upload may go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// To be named with every extent. Absent: the file is there already (`args.same`).
    #[serde(default)]
    pub upload: Option<UploadId>,
    /// In the reply after a head: the first extent is durable, and this is the digest of what the server wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Digest>,
}
