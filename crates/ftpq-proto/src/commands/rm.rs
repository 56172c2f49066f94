//! RM: removes a file, a link or a folder.
//!
//! ```text
//! Request{verb: "RM", args: Args}  ──▶
//!                                  ◀──  Reply{ok: Removed}
//! ```

use serde::{Deserialize, Serialize};

use crate::{RemotePath, UserPath};

/// The verb's name.
pub const VERB: &str = "RM";

/// What to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// Any path but the root. A link is removed, not what it points to.
    pub path: UserPath,
    /// A folder goes with all that it holds; without this, only if it is empty.
    #[serde(default)]
    pub recursive: bool,
}

/// It is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removed {
    /// The canonical path.
    pub path: RemotePath,
    /// How many files, links and folders went.
    pub count: u64,
}
