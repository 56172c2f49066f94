//! LIST: the names in a folder, page by page, as the storage yields them (unsorted).
//!
//! ```text
//! Request{verb: "LIST", args: Args}  ──▶
//!                                    ◀──  Item: Page  …
//!                                    ◀──  Reply{ok: Listed}
//! ```
//! The path of a file lists that one file.

use serde::{Deserialize, Serialize};

use crate::{Entry, RemotePath, UserPath, limits};

/// The verb's name.
pub const VERB: &str = "LIST";

/// What to list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// A folder or a file; empty for the current folder.
    #[serde(default)]
    pub path: UserPath,
}

/// Some of the entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// At most [`limits::LIST_PAGE_MAX`], fewer where they are long: a page fits a frame.
    #[serde(deserialize_with = "crate::codec::bounded::<_, _, { limits::LIST_PAGE_MAX }>")]
    pub entries: Vec<Entry>,
}

/// All pages were sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// The path that was listed.
    pub path: RemotePath,
    /// Whether it is a folder; `false` where the one entry is the file itself.
    pub folder: bool,
    /// How many entries in all.
    pub count: u64,
}
