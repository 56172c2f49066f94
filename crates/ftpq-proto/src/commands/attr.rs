//! ATTR: sets the mode and time of a folder. Those of a file come with it (UPLD).
//!
//! ```text
//! Request{verb: "ATTR", args: Args}  ──▶
//!                                    ◀──  Reply{ok: Set}
//! ```

use serde::{Deserialize, Serialize};

use crate::{RemotePath, Timestamp, UserPath};

/// The verb's name.
pub const VERB: &str = "ATTR";

/// Which folder, and what to set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The folder's path. The root itself needs the right to delete, too.
    pub path: UserPath,
    /// Permission bits to set, of which `0o777` count; as they are where absent.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Modification time to set; as it is where absent.
    #[serde(default)]
    pub mtime: Option<Timestamp>,
}

/// They are set, durably.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// The folder's canonical path.
    pub path: RemotePath,
}
