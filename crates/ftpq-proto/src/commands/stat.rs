//! STAT: what `ls -l` shows of one path.
//!
//! ```text
//! Request{verb: "STAT", args: Args}  ──▶
//!                                    ◀──  Reply{ok: Found}
//! ```

use serde::{Deserialize, Serialize};

use crate::{Entry, RemotePath, UserPath};

/// The verb's name.
pub const VERB: &str = "STAT";

/// Which path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// Any path.
    pub path: UserPath,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The canonical path.
    pub path: RemotePath,
    /// What stands there; a link is shown as itself.
    pub entry: Entry,
}
