//! Counting what a tree of files takes. Everything here blocks.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use ftpq_proto::{Kind, RemotePath};
use rustix::{
    fs::{self, AtFlags, Dir, Mode, OFlags, Stat},
    io::Errno,
    process::geteuid,
};

use super::{
    journal,
    publish::Target,
    root::{self, FOLDER, Root},
    stage,
    sys::Sys,
};
use crate::{LargeFile, Usage, blocking::Wanted, error::Problem};

/// All that is below `root`, by its names: reserved ones, too, and those so deep that no path leads there.
///
/// Folders of others that this process may not read count as one entry: nothing was put there through it. One
/// of its own that it may not read is an error, since hiding something must not make it count for nothing.
pub(super) fn usage(root: &Root, wanted: &Wanted) -> Result<Usage, Problem> {
    let mut usage = Usage::default();
    let top = root::open_confined(root.sys(), root.as_fd(), b".", FOLDER)?;
    let mut levels = vec![Level::read(root.sys(), top, &mut usage, wanted)?];
    loop {
        let Some(level) = levels.last_mut() else { return Ok(usage) };
        let Some(name) = level.below.pop() else {
            let left = levels.pop();
            if let (Some(left), Some(level)) = (left, levels.last_mut()) {
                level.return_from(left)?;
            }
            continue;
        };
        let next = match level.open(root.sys(), &name) {
            Ok(folder) => Level::read(root.sys(), folder, &mut usage, wanted)?,
            Err(Problem::NotFound | Problem::NotFolder | Problem::NotRegular) => continue, // it is another by now
            Err(Problem::Denied) if !level.is_own(&name)? => continue,
            Err(problem) => return Err(problem),
        };
        if !next.below.is_empty() {
            levels.push(next);
            // A tree can be deeper than any path, and than the files that a process may have open.
            if let Some(above) = levels.len().checked_sub(OPEN_MAX + 1).and_then(|index| levels.get_mut(index)) {
                above.folder = None;
            }
        }
    }
}

/// What is kept for one who begins `file` at `path`, as [`usage`] counts it.
pub(super) fn unfinished(root: &Root, path: &RemotePath, file: &LargeFile) -> Result<Option<u64>, Problem> {
    let target = match Target::find(root, path, false) {
        Err(Problem::NotFound) => return Ok(None),
        target => target?,
    };
    let name = stage::staged_name(&target.name, file)?;
    match fs::statat(&target.folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        // What is not to be gone on with is removed by whoever begins, and made anew.
        Ok(stat) if stage::is_own(&stat) => {
            let name = CString::new(name.as_bytes()).map_err(|_| Problem::NotFound)?;
            Ok(Some(staged_bytes(root.sys(), target.folder.as_fd(), &name, &stat)))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A folder whose entries were counted, but not what its folders hold.
struct Level {
    /// `None` while too many others are open.
    folder: Option<OwnedFd>,
    /// Its device and inode.
    identity: (u64, u64),
    /// Its folders that were not looked into yet.
    below: Vec<CString>,
}

impl Level {
    fn read(sys: &Sys, folder: OwnedFd, usage: &mut Usage, wanted: &Wanted) -> Result<Self, Problem> {
        let stat = fs::fstat(&folder)?;
        let mut level = Self { folder: None, identity: (stat.st_dev, stat.st_ino), below: Vec::new() };
        let mut dir = Dir::read_from(&folder)?;
        while let Some(item) = dir.read() {
            wanted.check()?;
            let item = item?;
            let name = item.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                // It may be listed, but not entered.
                Err(Errno::ACCESS) if !is_mine(&fs::fstat(&folder)?) => continue,
                stat => stat?,
            };
            usage.entries += 1;
            match root::kind(&stat) {
                Kind::Folder => level.below.push(name.to_owned()),
                Kind::File if root::is_reserved(name.to_bytes()) => {
                    usage.bytes += staged_bytes(sys, folder.as_fd(), name, &stat);
                }
                Kind::File => usage.bytes += stat.st_size as u64,
                Kind::Link | Kind::Other => {}
            }
        }
        level.folder = Some(folder);
        Ok(level)
    }

    fn open(&self, sys: &Sys, name: &CStr) -> Result<OwnedFd, Problem> {
        root::open_confined(sys, self.folder()?, name.to_bytes(), FOLDER)
    }

    fn is_own(&self, name: &CStr) -> Result<bool, Problem> {
        Ok(is_mine(&fs::statat(self.folder()?, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn folder(&self) -> Result<BorrowedFd<'_>, Problem> {
        Ok(self.folder.as_ref().ok_or(Problem::Changed)?.as_fd())
    }

    /// Opens this folder again, if it had to be closed, from the one below it.
    fn return_from(&mut self, below: Level) -> Result<(), Problem> {
        if self.folder.is_some() {
            return Ok(());
        }
        // Upwards, out of what `below` is: only to count, and only if it is the folder that it was.
        let flags = FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = fs::openat(below.folder()?, c"..", flags, Mode::empty())?;
        let stat = fs::fstat(&folder)?;
        if (stat.st_dev, stat.st_ino) != self.identity {
            return Err(Problem::Changed);
        }
        self.folder = Some(folder);
        Ok(())
    }
}

/// What a file under a reserved name counts for: a staged one, what it will have.
fn staged_bytes(sys: &Sys, folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> u64 {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let size = stat.st_size as u64;
    let file = fs::openat(folder, name, flags, Mode::empty());
    file.ok().and_then(|file| journal::announced(sys, &file, size)).unwrap_or(size)
}

fn is_mine(stat: &Stat) -> bool {
    stat.st_uid == geteuid().as_raw()
}

/// Folders that one count holds open.
const OPEN_MAX: usize = 32;
