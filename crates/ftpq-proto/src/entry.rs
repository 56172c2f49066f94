//! What a server says about one name in a folder.

use serde::{Deserialize, Serialize};

use crate::{link_target::LinkTarget, path::Name};

/// One name in a folder, with what `ls -l` shows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name within its folder. For the root itself, `None`.
    pub name: Option<Name>,
    /// File, folder, link or something else.
    pub kind: Kind,
    /// Bytes; 0 for everything but files.
    pub size: u64,
    /// When the contents last changed.
    pub mtime: Timestamp,
    /// The permission bits, `0o000` to `0o7777`.
    pub mode: u32,
    /// Where a link points; `None` for everything else, and for a link that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<LinkTarget>,
}

impl Entry {
    /// Bytes that it takes in a page of LIST, at the most.
    pub fn page_bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.as_bytes().len());
        let target = self.target.as_ref().map_or(0, |target| target.as_bytes().len());
        ENTRY_BYTES + name + target
    }
}

/// Bytes of an entry's keys, numbers and lengths: everything but its name and target.
const ENTRY_BYTES: usize = 96;

/// What a name stands for. Links are shown and made, and never followed by a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket: nothing that can be moved.
    Other,
}

impl Kind {
    /// The word for a person.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Folder => "folder",
            Kind::Link => "link",
            Kind::Other => "special file",
        }
    }
}

/// A point in time: seconds since 1970-01-01 UTC, negative before it, plus nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawTimestamp")]
pub struct Timestamp {
    secs: i64,
    nanos: u32,
}

impl Timestamp {
    /// `None` where `nanos` is a whole second or more.
    pub const fn new(secs: i64, nanos: u32) -> Option<Self> {
        if nanos < 1_000_000_000 { Some(Self { secs, nanos }) } else { None }
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.secs
    }

    /// Nanoseconds after [`Self::secs`], below 1,000,000,000.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

#[derive(Deserialize)]
struct RawTimestamp {
    secs: i64,
    nanos: u32,
}

impl TryFrom<RawTimestamp> for Timestamp {
    type Error = &'static str;

    fn try_from(raw: RawTimestamp) -> Result<Self, Self::Error> {
        Self::new(raw.secs, raw.nanos).ok_or("nanoseconds of a second or more")
    }
}
