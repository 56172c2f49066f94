//! LINK: makes a symbolic link.
//!
//! ```text
//! Request{verb: "LINK", args: Args}  ──▶
//!                                    ◀──  Reply{ok: Linked}
//! ```
//! The target is kept as it is, and must [stay within](crate::LinkTarget::stays_within) what the server
//! shows the user. It need not exist.

use serde::{Deserialize, Serialize};

use crate::{LinkTarget, RemotePath, Timestamp, UserPath};

/// The verb's name.
pub const VERB: &str = "LINK";

/// Which link, and where it points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The link's own path.
    pub path: UserPath,
    /// What it holds.
    pub target: LinkTarget,
    /// Replace a file or link of that name. Needs the right to delete.
    #[serde(default)]
    pub overwrite: bool,
    /// A link of that name with the same target counts as this one. A client that lost the reply sends
    /// it again with this.
    #[serde(default)]
    pub accept_same: bool,
    /// Make the folders that are missing on the way.
    #[serde(default)]
    pub parents: bool,
    /// The link's own modification time; the time of its making where absent.
    #[serde(default)]
    pub mtime: Option<Timestamp>,
}

/// It is there, durably.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linked {
    /// The link's canonical path.
    pub path: RemotePath,
}
