//! One open folder, and what can be done below it. Everything here blocks.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use ftpq_proto::{Entry, Kind, Name, RemotePath, Timestamp};
use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat},
    io::Errno,
};

use crate::error::Problem;

/// An open folder.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let folder = fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder })
    }

    pub(super) fn new(folder: OwnedFd) -> Self {
        Self { folder }
    }

    /// The only way in which a path becomes a file descriptor.
    pub(super) fn open_beneath(&self, path: &RemotePath, flags: OFlags) -> Result<OwnedFd, Problem> {
        if path.components().any(is_reserved) {
            return Err(Problem::Reserved);
        }
        let relative: &[u8] = if path.is_root() { b"." } else { path.as_relative_bytes() };
        open_confined(self.folder.as_fd(), relative, flags)
    }

    /// The folder that holds `path`, and its name there. The root has neither.
    pub(super) fn parent_of(&self, path: &RemotePath) -> Result<(OwnedFd, Name), Problem> {
        let name = path.name().ok_or(Problem::Refused("the root itself stays as it is"))?;
        if is_reserved(name.as_bytes()) {
            return Err(Problem::Reserved);
        }
        Ok((self.open_beneath(&path.parent(), FOLDER)?, name))
    }

    pub(super) fn stat(&self, path: &RemotePath) -> Result<Entry, Problem> {
        if path.is_root() {
            return Ok(entry(None, &fs::fstat(&self.folder)?));
        }
        let (parent, name) = self.parent_of(path)?;
        let stat = fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(entry(Some(name), &stat))
    }

    pub(super) fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), Problem> {
        if parents {
            return self.open_or_make(path).map(drop);
        }
        let (parent, name) = self.parent_of(path)?;
        fs::mkdirat(&parent, name.as_bytes(), NEW_FOLDER)?;
        Ok(fs::fsync(&parent)?)
    }

    /// Opens the folder `path`, making what is missing of it, durably.
    pub(super) fn open_or_make(&self, path: &RemotePath) -> Result<OwnedFd, Problem> {
        match self.open_beneath(path, FOLDER) {
            Err(Problem::NotFound) => {}
            done => return done,
        }
        let mut folder = open_confined(self.folder.as_fd(), b".", FOLDER)?;
        for name in path.components() {
            match fs::mkdirat(&folder, name, NEW_FOLDER) {
                Ok(()) => fs::fsync(&folder)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = open_confined(folder.as_fd(), name, FOLDER)?;
        }
        Ok(folder)
    }

    pub(super) fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, Problem> {
        let (parent, name) = self.parent_of(path)?;
        let stat = fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
        let mut count = 1;
        if kind(&stat) == Kind::Folder {
            if recursive {
                let folder = open_confined(parent.as_fd(), name.as_bytes(), FOLDER)?;
                count += remove_contents(&folder)?;
            }
            fs::unlinkat(&parent, name.as_bytes(), AtFlags::REMOVEDIR)?;
        } else {
            fs::unlinkat(&parent, name.as_bytes(), AtFlags::empty())?;
        }
        fs::fsync(&parent)?;
        Ok(count)
    }

    pub(super) fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), Problem> {
        let (from_parent, from_name) = self.parent_of(from)?;
        let (to_parent, to_name) = self.parent_of(to)?;
        let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        fs::renameat_with(&from_parent, from_name.as_bytes(), &to_parent, to_name.as_bytes(), flags).map_err(
            |errno| match errno {
                Errno::INVAL => Problem::Refused("a folder cannot be moved into itself"),
                Errno::XDEV => Problem::Refused("cannot be moved to another file system"),
                other => other.into(),
            },
        )?;
        fs::fsync(&to_parent)?;
        Ok(fs::fsync(&from_parent)?)
    }
}

/// How a folder is opened.
pub(super) const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY);

/// Permission bits of new folders, before the process's umask.
const NEW_FOLDER: Mode = Mode::from_raw_mode(0o777);

/// Names that ftpq keeps for itself: never listed, never opened for anybody.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(b".ftpq-")
}

/// What a `stat` says, as an entry.
pub(super) fn entry(name: Option<Name>, stat: &Stat) -> Entry {
    let kind = kind(stat);
    Entry {
        name,
        kind,
        size: if kind == Kind::File { stat.st_size as u64 } else { 0 },
        mtime: mtime(stat),
        mode: stat.st_mode & 0o7777,
    }
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

pub(super) fn mtime(stat: &Stat) -> Timestamp {
    Timestamp::new(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)).unwrap_or_default()
}

fn open_confined(folder: BorrowedFd<'_>, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Problem> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    loop {
        match fs::openat2(folder, relative, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            // EAGAIN: something was renamed meanwhile and the kernel could not be sure.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NOSYS) => return Err(Problem::Refused("needs Linux 5.6 or newer (openat2)")),
            // With O_DIRECTORY and O_NOFOLLOW a final link is "not a directory" to some kernels.
            done => return Ok(done?),
        }
    }
}

/// Empties a folder, without ever following a link. Returns how many things went.
fn remove_contents(folder: &OwnedFd) -> Result<u64, Problem> {
    let mut count = 0;
    for item in Dir::read_from(folder)? {
        let item = item?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match fs::unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                let below = open_confined(folder.as_fd(), name.to_bytes(), FOLDER)?;
                count += remove_contents(&below)?;
                fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?;
            }
            // Somebody else removed it.
            Err(Errno::NOENT) => continue,
            done => done?,
        }
        count += 1;
    }
    Ok(count)
}
