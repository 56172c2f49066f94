//! MKDIR: makes a folder.
//!
//! ```text
//! Request{verb: "MKDIR", args: Args}  ──▶
//!                                     ◀──  Reply{ok: Made}
//! ```

use serde::{Deserialize, Serialize};

use crate::{RemotePath, UserPath};

/// The verb's name.
pub const VERB: &str = "MKDIR";

/// Which folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The new folder's path.
    pub path: UserPath,
    /// Make the missing folders above it too, and do not mind if it exists (`mkdir -p`).
    #[serde(default)]
    pub parents: bool,
}

/// It is there, durably.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The canonical path.
    pub path: RemotePath,
}
