//! The file with the list: read whole, and changed one process at a time, each time in one step.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ftpq_storage::own_file;
use ftpq_transport::Fingerprint;

use super::list::{Grant, Invitation, Line, parse_line};
use crate::limits::ACCESS_FILE;

/// Where the list is.
#[derive(Clone, Debug)]
pub struct AccessFile {
    path: PathBuf,
}

/// By which a change of the file is noticed: length, times of contents and inode (nanoseconds), inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    len: u64,
    modified: SystemTime,
    changed: SystemTime,
    inode: u64,
    /// The number of a file that was removed is soon another's.
    born: Option<SystemTime>,
}

impl Version {
    /// Which file it is.
    pub(super) fn file(&self) -> (u64, Option<SystemTime>) {
        (self.inode, self.born)
    }

    /// How long ago it changed, in contents or otherwise. A time to come, by another clock, is long ago.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.changed).unwrap_or(Duration::MAX)
    }
}

/// Why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read or written.
    #[error("{}: {error}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line would not say what was meant.
    #[error("{0}")]
    Line(String),
}

impl AccessFile {
    /// The list in `path`, which may be missing.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of its text.
    pub fn read(&self) -> io::Result<String> {
        let text = match fs::File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            opened => io::read_to_string(io::Read::take(opened?, ACCESS_FILE + 1))?,
        };
        if text.len() as u64 > ACCESS_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
        }
        Ok(text)
    }

    /// Adds a client, unless its key is there. Returns whether it was added.
    pub fn add_client(&self, grant: &Grant) -> Result<bool, EditError> {
        let line = written(grant.to_line(), &Line::Client(grant.clone()))?;
        let is_there =
            |line: &String| matches!(parse_line(line), Ok(Line::Client(other)) if other.user.key == grant.user.key);
        self.edit(|lines| {
            let new = !lines.iter().any(is_there);
            lines.extend(new.then_some(line));
            new
        })
    }

    /// Adds an invitation. Those that have expired go.
    pub fn add_invitation(&self, invitation: &Invitation, now: jiff::Timestamp) -> Result<(), EditError> {
        let line = written(invitation.to_line(), &Line::Invitation(invitation.clone()))?;
        let expired = |line: &String| matches!(parse_line(line), Ok(Line::Invitation(other)) if other.until <= now);
        self.edit(|lines| {
            lines.retain(|line| !expired(line));
            lines.push(line);
        })
    }

    /// Removes the lines of which `goes` says so. Returns what they said.
    pub fn remove(&self, goes: impl Fn(&Line) -> bool) -> Result<Vec<Line>, EditError> {
        self.edit(|lines| {
            let mut gone = Vec::new();
            lines.retain(|line| match parse_line(line) {
                Ok(found) if goes(&found) => {
                    gone.push(found);
                    false
                }
                _ => true,
            });
            gone
        })
    }

    /// Changes the lines while no other process does. Nothing is written where nothing changed.
    pub(super) fn edit<T>(&self, change: impl FnOnce(&mut Vec<String>) -> T) -> Result<T, EditError> {
        let failed = |error| EditError::Io { file: self.path.clone(), error };
        // Where it is a link, what it leads to is replaced, and not the link.
        let file = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let _lock = own_file::lock(&file).map_err(failed)?;
        let before: Vec<String> = self.read().map_err(failed)?.lines().map(str::to_owned).collect();
        let mut lines = before.clone();
        let result = change(&mut lines);
        if lines != before {
            // Not empty: that could be a list that somebody begins to write.
            lines.extend(lines.is_empty().then(String::new));
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            if text.len() as u64 > ACCESS_FILE {
                return Err(EditError::Line(format!("{}: would be longer than 1 MiB", self.path.display())));
            }
            own_file::replace(&file, text.as_bytes()).map_err(failed)?;
        }
        Ok(result)
    }

    pub(super) fn version(&self) -> io::Result<Option<Version>> {
        let meta = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        #[cfg(unix)]
        let (changed, inode) = {
            use std::os::unix::fs::MetadataExt;
            let seconds = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
            let nanos = Duration::from_nanos(u64::try_from(meta.ctime_nsec()).unwrap_or(0));
            (SystemTime::UNIX_EPOCH + seconds + nanos, meta.ino())
        };
        #[cfg(not(unix))]
        let (changed, inode) = (meta.modified()?, 0);
        Ok(Some(Version { len: meta.len(), modified: meta.modified()?, changed, inode, born: meta.created().ok() }))
    }
}

/// A line that says what was meant when it is read again.
fn written(line: String, meant: &Line) -> Result<String, EditError> {
    match parse_line(&line) {
        Ok(read) if read == *meant => Ok(line),
        Ok(_) => {
            Err(EditError::Line("a name or folder with a space in it, or with a # behind one, fits no line".into()))
        }
        Err(why) => Err(EditError::Line(why)),
    }
}

/// Whether a line is about `key`.
impl Line {
    /// The key that it lets in.
    pub fn key(&self) -> Option<Fingerprint> {
        match self {
            Line::Client(grant) => Some(grant.user.key),
            _ => None,
        }
    }

    /// What it calls whom it lets in.
    pub fn name(&self) -> Option<&str> {
        match self {
            Line::Client(grant) => Some(&grant.user.name),
            Line::Invitation(invitation) => Some(&invitation.offer.name),
            Line::Empty => None,
        }
    }
}
