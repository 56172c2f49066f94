//! One open folder, and what can be done below it. Everything here blocks.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::OnceLock,
};

use ftpq_proto::{Entry, Kind, Name, RemotePath, Timestamp};
use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};

use super::{lane::Lane, links, lookalike, sweep, sys::Sys, unflushed::Unflushed};
use crate::{blocking::Wanted, error::Problem};

/// An open folder.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    sys: Sys,
    lane: Lane,
    folding: OnceLock<bool>,
    unflushed: Unflushed,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let folder = fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let (sys, lane, unflushed) = (Sys::default(), Lane::default(), Unflushed::default());
        Ok(Self { folder, sys, lane, folding: OnceLock::new(), unflushed })
    }

    /// The folder that is open as `folder`, on the same system as this one.
    pub(super) fn below(&self, folder: OwnedFd) -> Self {
        let (sys, lane, unflushed) = (self.sys.clone(), Lane::default(), self.unflushed.clone());
        Self { folder, sys, lane, folding: OnceLock::new(), unflushed }
    }

    #[cfg(test)]
    pub(super) fn with_sys(self, sys: Sys) -> Self {
        Self { sys, ..self }
    }

    /// Device and inode of the folder.
    pub(super) fn identity(&self) -> Result<(u64, u64), Problem> {
        let stat = fs::fstat(&self.folder)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// For `lookalike`.
    pub(super) fn folding(&self) -> &OnceLock<bool> {
        &self.folding
    }

    /// For what blocks for a moment.
    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn sys(&self) -> &Sys {
        &self.sys
    }

    /// Opens what stands at `path`. Only `open_confined` ever resolves a path: a whole one here, and
    /// in `open_or_make` name by name. Everything else acts on a single name, without following a
    /// link, in a folder that was opened so.
    pub(super) fn open_beneath(&self, path: &RemotePath, flags: OFlags) -> Result<OwnedFd, Problem> {
        if path.components().any(is_reserved) {
            return Err(Problem::Reserved);
        }
        let relative: &[u8] = if path.is_root() { b"." } else { path.as_relative_bytes() };
        open_confined(&self.sys, self.folder.as_fd(), relative, flags)
    }

    /// The folder that holds `path`, and its name there. The root has neither.
    pub(super) fn parent_of(&self, path: &RemotePath) -> Result<(OwnedFd, Name), Problem> {
        let name = path.name().ok_or(Problem::Refused("the root itself stays as it is"))?;
        if is_reserved(name.as_bytes()) {
            return Err(Problem::Reserved);
        }
        Ok((self.open_beneath(&path.parent(), FOLDER)?, name))
    }

    /// The folder that `path` is to stand in, and its name there; with `parents`, made where it is
    /// missing.
    pub(super) fn parent_to_fill(&self, path: &RemotePath, parents: bool) -> Result<(OwnedFd, Name), Problem> {
        self.plain_or_not(path, parents).map(|(parent, name, _)| (parent, name))
    }

    /// The same, and whether that folder is known not to take several names for one.
    pub(super) fn plain_or_not(&self, path: &RemotePath, parents: bool) -> Result<(OwnedFd, Name, bool), Problem> {
        let (parent, name) = match self.parent_of(path) {
            Err(Problem::NotFound) if parents => {
                self.open_or_make(&path.parent())?;
                self.parent_of(path)?
            }
            found => {
                let found = found?;
                self.flush_above(&path.parent())?;
                found
            }
        };
        let plain = !lookalike::may_refuse(self, parent.as_fd());
        if !plain {
            lookalike::refuse(self, path, parent.as_fd())?;
        }
        Ok((parent, name, plain))
    }

    pub(super) fn stat(&self, path: &RemotePath) -> Result<Entry, Problem> {
        if path.is_root() {
            return Ok(entry(None, &fs::fstat(&self.folder)?));
        }
        let (parent, name) = self.parent_of(path)?;
        let stat = fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(entry_in(parent.as_fd(), name, &stat))
    }

    pub(super) fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), Problem> {
        if parents {
            return self.open_or_make(path).map(drop);
        }
        let (parent, name) = self.parent_to_fill(path, false)?;
        Ok(self.unflushed.make(&self.sys, &parent, name.as_bytes(), NEW_FOLDER)?)
    }

    /// Opens the folder `path`, making what is missing of it, durably.
    pub(super) fn open_or_make(&self, path: &RemotePath) -> Result<OwnedFd, Problem> {
        match self.open_beneath(path, FOLDER) {
            Err(Problem::NotFound) => {}
            Ok(folder) => {
                lookalike::refuse(self, path, folder.as_fd())?;
                self.flush_above(path)?;
                return Ok(folder);
            }
            failed => return failed,
        }
        let mut folder = open_confined(&self.sys, self.folder.as_fd(), b".", FOLDER)?;
        for name in path.components() {
            match self.unflushed.make(&self.sys, &folder, name, NEW_FOLDER) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    lookalike::refuse_name(&folder, name)?;
                    // Whoever made it may not have flushed it yet, or failed to.
                    self.sys.fsync(&folder)?;
                }
                Err(error) => return Err(error.into()),
            }
            folder = open_confined(&self.sys, folder.as_fd(), name, FOLDER)?;
        }
        Ok(folder)
    }

    /// Flushes the names of the folders on the way to `path`, and its own, that others are making.
    fn flush_above(&self, path: &RemotePath) -> Result<(), Problem> {
        if self.unflushed.is_empty() {
            return Ok(());
        }
        let mut folder = open_confined(&self.sys, self.folder.as_fd(), b".", FOLDER)?;
        for name in path.components() {
            self.unflushed.flush(&self.sys, &folder, name)?;
            folder = open_confined(&self.sys, folder.as_fd(), name, FOLDER)?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, path: &RemotePath, recursive: bool, wanted: &Wanted) -> Result<u64, Problem> {
        let (parent, name) = self.parent_of(path)?;
        let stat = fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
        let mut count = 1;
        if kind(&stat) == Kind::Folder {
            if recursive {
                let folder = open_confined(&self.sys, parent.as_fd(), name.as_bytes(), FOLDER)?;
                count += remove_contents(&self.sys, folder, wanted)?;
            }
            match fs::unlinkat(&parent, name.as_bytes(), AtFlags::REMOVEDIR) {
                // What is kept of unfinished uploads is visible to nobody: the folder counts as empty.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    sweep::empty_folder(Dir::new(open_confined(&self.sys, parent.as_fd(), name.as_bytes(), FOLDER)?)?)?;
                    fs::unlinkat(&parent, name.as_bytes(), AtFlags::REMOVEDIR)?;
                }
                removed => removed?,
            }
        } else {
            fs::unlinkat(&parent, name.as_bytes(), AtFlags::empty())?;
        }
        self.sys.fsync(&parent)?;
        Ok(count)
    }

    pub(super) fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), Problem> {
        let (from_parent, from_name) = self.parent_of(from)?;
        let (to_parent, to_name) = self.parent_of(to)?;
        if !is_respelling(from, to) {
            lookalike::refuse(self, to, to_parent.as_fd())?;
        }
        let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        self.sys
            .rename(&from_parent, from_name.as_bytes(), &to_parent, to_name.as_bytes(), flags)
            .map_err(|errno| rename_problem(errno, to.starts_with(from), flags))?;
        self.sys.fsync(&to_parent)?;
        Ok(self.sys.fsync(&from_parent)?)
    }
}

/// How a folder is opened.
pub(super) const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY);

/// Permission bits of new folders, before the process's umask.
const NEW_FOLDER: Mode = Mode::from_raw_mode(0o777);

/// Names that ftpq keeps for itself: never listed, never opened for anybody. Exactly those that it
/// makes, as somebody's own `.ftpq-notes` must not vanish from an upload.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.strip_prefix(RESERVED.as_bytes())
        .is_some_and(|rest| rest.len() == 32 && rest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// A reserved name that nobody has and nobody can guess.
pub(super) fn reserved_name() -> Result<Name, Problem> {
    let mut random = [0; 16];
    getrandom(&mut random, GetRandomFlags::empty())?;
    reserved_name_of(&random)
}

/// The reserved name that the first 16 of `bytes` make.
pub(super) fn reserved_name_of(bytes: &[u8]) -> Result<Name, Problem> {
    let hex: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let name = Name::new(format!("{RESERVED}{hex}"))?;
    debug_assert!(is_reserved(name.as_bytes()));
    Ok(name)
}

const RESERVED: &str = ".ftpq-";

/// Whether a name only gets other letters: then what looks like it is itself.
fn is_respelling(from: &RemotePath, to: &RemotePath) -> bool {
    from.parent() == to.parent() && from.as_relative_bytes().eq_ignore_ascii_case(to.as_relative_bytes())
}

/// What a failed rename means; `into_itself` if the target lies in what is moved.
pub(super) fn rename_problem(errno: Errno, into_itself: bool, flags: RenameFlags) -> Problem {
    match errno {
        Errno::INVAL if into_itself => Problem::Refused("a folder cannot be moved into itself"),
        // NFS, for one, knows no flags.
        Errno::INVAL if flags.contains(RenameFlags::NOREPLACE) => {
            Problem::Refused("this file system cannot rename without replacing")
        }
        Errno::XDEV => Problem::Refused("cannot be moved to another file system"),
        other => other.into(),
    }
}

/// What stands under `name` in `folder`, of which `stat` was said.
pub(super) fn entry_in(folder: BorrowedFd<'_>, name: Name, stat: &Stat) -> Entry {
    let target = if kind(stat) == Kind::Link { links::target(folder, &name) } else { None };
    Entry { target, ..entry(Some(name), stat) }
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
        target: None,
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

pub(super) fn open_confined(
    sys: &Sys,
    folder: BorrowedFd<'_>,
    relative: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Problem> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    loop {
        match sys.openat2(folder, relative, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, resolve) {
            // EAGAIN: something was renamed meanwhile and the kernel could not be sure.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NOSYS) => return Err(Problem::Refused("needs Linux 5.6 or newer (openat2)")),
            // With O_DIRECTORY and O_NOFOLLOW a final link is "not a directory" to some kernels.
            done => return Ok(done?),
        }
    }
}

/// Empties a folder, without ever following a link. Returns how many things went.
///
/// A tree can be deeper than any path: by moving one deep folder into another. So levels are on no
/// thread's stack, and only [`LEVELS_MAX`] of them are open. Folders below those are moved up by one
/// level first, under reserved names.
fn remove_contents(sys: &Sys, folder: OwnedFd, wanted: &Wanted) -> Result<u64, Problem> {
    let mut count = 0;
    let mut levels = vec![Level::new(folder, c".")?];
    loop {
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { return Ok(count) };
        let Some(item) = level.dir.read() else {
            if std::mem::take(&mut level.more) {
                level.dir.rewind();
                continue;
            }
            let emptied = levels.pop();
            if let (Some(emptied), Some(above)) = (emptied, levels.last()) {
                count += removed(fs::unlinkat(above.dir.fd()?, &*emptied.name, AtFlags::REMOVEDIR))?;
            }
            continue;
        };
        let item = item?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        wanted.check()?;
        match sys.unlink(level.dir.fd()?, name.to_bytes()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            done => {
                count += removed(done)?;
                continue;
            }
        }
        if depth < LEVELS_MAX {
            match open_confined(&Sys::default(), level.dir.fd()?, name.to_bytes(), FOLDER) {
                Err(Problem::NotFound) => {}
                below => levels.push(Level::new(below?, name)?),
            }
        } else if let [.., above, level] = levels.as_mut_slice() {
            count += remove_or_lift(level.dir.fd()?, name, above)?;
        }
    }
}

/// Removes the folder `name` of `folder` if it is empty; moves it to the level `above` if not.
/// Returns how many things went.
fn remove_or_lift(folder: BorrowedFd<'_>, name: &CStr, above: &mut Level) -> Result<u64, Problem> {
    match fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        done => return removed(done),
    }
    match fs::renameat(folder, name, above.dir.fd()?, reserved_name()?.as_bytes()) {
        Err(Errno::NOENT) => {}
        done => {
            done.map_err(|errno| rename_problem(errno, false, RenameFlags::empty()))?;
            above.more = true;
        }
    }
    Ok(0)
}

/// How many things went; none if somebody else was faster.
fn removed(done: Result<(), Errno>) -> Result<u64, Problem> {
    match done {
        Err(Errno::NOENT) => Ok(0),
        done => Ok(done.map(|()| 1)?),
    }
}

/// A folder that is being emptied.
struct Level {
    dir: Dir,
    /// Its name in the folder above.
    name: CString,
    /// Something was moved here since it was read from the start.
    more: bool,
}

impl Level {
    fn new(folder: OwnedFd, name: &CStr) -> Result<Self, Problem> {
        Ok(Self { dir: Dir::new(folder)?, name: name.to_owned(), more: false })
    }
}

/// Folders that one removal holds open. Enough for most trees, where nothing is moved then: what a
/// removal that fails halfway leaves stays where it was.
const LEVELS_MAX: usize = 16;
