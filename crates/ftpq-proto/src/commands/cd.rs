//! CD: resolves a path and checks that it is a folder. The folder itself is the client's state and
//! travels as `cwd` in each request, so that any server of a cluster can answer any stream.
//!
//! ```text
//! Request{verb: "CD", args: Args}  ──▶
//!                                  ◀──  Reply{ok: Folder}
//! ```

use serde::{Deserialize, Serialize};

use crate::{RemotePath, UserPath};

/// The verb's name.
pub const VERB: &str = "CD";

/// Where to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// Absolute or relative; `..` at the root stays at the root.
    pub path: UserPath,
}

/// Where that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Folder {
    /// The canonical path, to be sent as `cwd` from now on.
    pub path: RemotePath,
}
