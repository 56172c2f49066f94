//! MV: renames or moves a file or folder within the server.
//!
//! ```text
//! Request{verb: "MV", args: Args}  ──▶
//!                                  ◀──  Reply{ok: Moved}
//! ```

use serde::{Deserialize, Serialize};

use crate::{RemotePath, UserPath};

/// The verb's name.
pub const VERB: &str = "MV";

/// What, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// What to move.
    pub from: UserPath,
    /// Its new path; an existing folder takes it in under its old name.
    pub to: UserPath,
    /// Replace a file that stands there.
    #[serde(default)]
    pub overwrite: bool,
}

/// It has moved, in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Its old canonical path.
    pub from: RemotePath,
    /// Its new canonical path.
    pub to: RemotePath,
}
