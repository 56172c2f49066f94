//! The one way in which a file appears: under its final name, whole, in one step, once it is durable.
//! Everything here blocks.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, LazyLock, MutexGuard},
};

use ftpq_proto::{Digest, Kind, Name, RemotePath, Timestamp};
use rustix::{
    fs::{self, AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps},
    io::Errno,
};

use super::{
    lane::Trip,
    lookalike,
    root::{self, Root},
    stage,
    sys::Sys,
};
use crate::{BLOCK, blocking::Wanted, error::Problem, hash::BodyHasher};

/// Where a file will stand.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: Name,
    /// The folder is known not to take several names for one.
    plain: bool,
    sys: Sys,
}

/// A folder in which files appear, known not to take several names for one.
pub(super) struct Near {
    path: RemotePath,
    folder: Arc<OwnedFd>,
}

impl Near {
    /// The folder `path`, open as `folder`.
    pub(super) fn new(path: RemotePath, folder: Arc<OwnedFd>) -> Self {
        Self { path, folder }
    }
}

impl Target {
    /// The folder of `path`, made if it is missing and `parents` says so.
    pub(super) fn find(root: &Root, path: &RemotePath, parents: bool) -> Result<Self, Problem> {
        if path.is_root() {
            return Err(Problem::IsFolder);
        }
        let (folder, name, plain) = root.plain_or_not(path, parents)?;
        Ok(Self { folder: Arc::new(folder), name, plain, sys: root.sys().clone() })
    }

    /// The same, in the folder of the file before if that is its own.
    pub(super) fn find_on(trip: &mut Trip, root: &Root, path: &RemotePath, parents: bool) -> Result<Self, Problem> {
        let above = path.parent();
        if let Some(near) = trip.near().filter(|near| near.path == above)
            && let Some(name) = path.name().filter(|name| !root::is_reserved(name.as_bytes()))
        {
            return Ok(Self { folder: near.folder.clone(), name, plain: true, sys: root.sys().clone() });
        }
        let count = trip.count();
        let target = Self::find(root, path, parents)?;
        if target.plain {
            trip.keep(Near::new(above, target.folder.clone()), count);
        }
        Ok(target)
    }

    /// Says early what publishing would say after the whole body: only publishing decides. `same` is
    /// the size of a file that may stand there already.
    pub(super) fn check(&self, overwrite: bool, same: Option<u64>) -> Result<(), Problem> {
        match fs::statat(&self.folder, self.name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if root::kind(&stat) == Kind::Folder => Err(Problem::IsFolder),
            Ok(stat) if same == Some(stat.st_size as u64) => Ok(()),
            Ok(_) if !overwrite => Err(Problem::Exists),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a file of this size and content stands there, durably.
    pub(super) fn holds(&self, size: u64, digest: Digest, wanted: &Wanted) -> Result<bool, Problem> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match self.sys.openat(&self.folder, self.name.as_bytes(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let stat = fs::fstat(&file)?;
        if root::kind(&stat) != Kind::File || stat.st_size as u64 != size {
            return Ok(false);
        }
        let mut hasher = BodyHasher::new(None);
        let mut block = Vec::with_capacity(BLOCK);
        let mut at = 0;
        while stage::read_full(&self.sys, &file, &mut block, at)? > 0 {
            wanted.check()?;
            hasher.update(&block);
            at += block.len() as u64;
            block.clear();
        }
        self.sys.fsync(&file)?;
        self.sys.fsync(&self.folder)?;
        Ok(hasher.finish() == digest)
    }

    /// Makes the name durable.
    pub(super) fn flush(&self) -> Result<(), Problem> {
        Ok(self.sys.fsync(&self.folder)?)
    }

    /// The one step for a file that has no name yet.
    pub(super) fn publish_unnamed(&self, file: &OwnedFd, overwrite: bool) -> Result<(), Problem> {
        let _alone = if overwrite { self.alone()? } else { None };
        // `linkat` never replaces, and most names are free.
        match self.sys.link(file, &self.folder, self.name.as_bytes()) {
            Err(Errno::EXIST) => {}
            linked => return Ok(linked?),
        }
        self.check(overwrite, None)?;
        if !overwrite {
            return Err(Problem::Exists);
        }
        let reserved = ReservedName::new(self)?;
        self.sys.link(file, &self.folder, reserved.name.as_bytes())?;
        reserved.replace(self)
    }

    /// The one step for a file that has the reserved name `from`, which it loses.
    pub(super) fn publish_named(&self, from: &Name, file: &OwnedFd, overwrite: bool) -> Result<(), Problem> {
        if overwrite {
            let _alone = self.alone()?;
            return self.rename(from, RenameFlags::empty());
        }
        // A link and not a rename, as NFS cannot rename without replacing.
        match self.sys.link(file, &self.folder, self.name.as_bytes()) {
            // A file system without hard links (FAT).
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => self.rename(from, RenameFlags::NOREPLACE),
            linked => {
                linked?;
                // The file is there. Should this fail, the sweep takes the other name.
                let _ = self.sys.unlink(&self.folder, from.as_bytes());
                Ok(())
            }
        }
    }

    fn alone(&self) -> Result<Option<MutexGuard<'static, ()>>, Problem> {
        if self.plain { Ok(None) } else { lookalike::alone(&self.folder, &self.name) }
    }

    fn rename(&self, from: &Name, flags: RenameFlags) -> Result<(), Problem> {
        self.sys
            .rename(&self.folder, from.as_bytes(), &self.folder, self.name.as_bytes(), flags)
            .map_err(|errno| root::rename_problem(errno, false, flags))
    }
}

/// A name that nobody can see or guess. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct ReservedName {
    folder: Arc<OwnedFd>,
    pub(super) name: Name,
    sys: Sys,
    gone: bool,
}

impl ReservedName {
    pub(super) fn new(target: &Target) -> Result<Self, Problem> {
        let name = root::reserved_name()?;
        Ok(Self { folder: target.folder.clone(), name, sys: target.sys.clone(), gone: false })
    }

    /// Puts the file that has this name in the place of the one that stands at `target`.
    fn replace(mut self, target: &Target) -> Result<(), Problem> {
        target.rename(&self.name, RenameFlags::empty())?;
        self.gone = true;
        Ok(())
    }

    /// [`Target::publish_named`] for a file that has this name.
    pub(super) fn publish_named(mut self, target: &Target, file: &OwnedFd, overwrite: bool) -> Result<(), Problem> {
        target.publish_named(&self.name, file, overwrite)?;
        self.gone = true;
        Ok(())
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        if !self.gone {
            let _ = self.sys.unlink(&self.folder, self.name.as_bytes());
        }
    }
}

/// Permission bits of new files, before the process's umask.
pub(super) const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

/// Permission bits of files that others could open by guessing a name.
pub(super) const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);

/// Sets what is asked for. A file that was made [`PRIVATE_FILE`] gets what a new one has otherwise.
pub(super) fn set_metadata(
    file: &OwnedFd,
    private: bool,
    mode: Option<u32>,
    mtime: Option<Timestamp>,
) -> Result<(), Problem> {
    let default = || private.then(|| NEW_FILE.difference(*UMASK));
    if let Some(mode) = mode.map(|mode| Mode::from_raw_mode(mode & 0o777)).or_else(default) {
        fs::fchmod(file, mode)?;
    }
    if let Some(mtime) = mtime {
        let last_modification = Timespec { tv_sec: mtime.secs(), tv_nsec: mtime.nanos().into() };
        fs::futimens(file, &Timestamps { last_access: last_modification, last_modification })?;
    }
    Ok(())
}

/// Looks the process's umask up while it can: a server in a sandbox may not read `/proc`.
pub(super) fn know_umask() {
    LazyLock::force(&UMASK);
}

/// The process's umask. From `/proc`, as `umask(2)` cannot tell it without changing it for every
/// thread.
static UMASK: LazyLock<Mode> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    umask_in(&status).unwrap_or(Mode::from_raw_mode(0o022))
});

pub(super) fn umask_in(status: &str) -> Option<Mode> {
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok().map(Mode::from_raw_mode)
}
