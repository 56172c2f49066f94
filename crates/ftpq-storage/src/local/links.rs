//! Symbolic links as links, and what is set of a folder. Everything here blocks.
//!
//! A link is text under a name. It is read and made here, and never resolved: see
//! [`Root::open_beneath`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ftpq_proto::{Kind, LinkTarget, Name, RemotePath, Timestamp};
use rustix::{
    fs::{self, AtFlags, Mode, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

use super::{
    lookalike,
    root::{self, FOLDER, Root},
};
use crate::{Attributes, NewLink, error::Problem};

impl Root {
    pub(super) fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), Problem> {
        if path.is_root() {
            return Err(Problem::IsFolder);
        }
        if !target.stays_within(path.parent().depth()) {
            return Err(Problem::LeadsOut);
        }
        let (folder, name) = self.parent_to_fill(path, link.parents)?;
        match fs::statat(&folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if root::kind(&stat) == Kind::Folder => return Err(Problem::IsFolder),
            Ok(_) if link.accept_same && self::target(folder.as_fd(), &name).as_ref() == Some(target) => {
                set_time(&folder, &name, link.mtime)?;
            }
            Ok(_) if !link.overwrite => return Err(Problem::Exists),
            Ok(_) => replace(&folder, &name, target, link.mtime)?,
            Err(Errno::NOENT) => {
                symlink(target, &folder, &name)?;
                set_time(&folder, &name, link.mtime)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(fs::fsync(&folder)?)
    }

    pub(super) fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), Problem> {
        let folder = self.open_beneath(path, FOLDER)?;
        if attributes.mtime.is_some() {
            fs::futimens(&folder, &times(attributes.mtime))?;
        }
        if let Some(mode) = attributes.mode {
            // Who inherits a folder's group, and who may remove what of others, is not the sender's affair.
            let kept = fs::fstat(&folder)?.st_mode & 0o7000;
            fs::fchmod(&folder, Mode::from_raw_mode(kept | (mode & 0o777)))?;
        }
        Ok(fs::fsync(&folder)?)
    }
}

/// What the link `name` holds.
pub(super) fn target(folder: BorrowedFd<'_>, name: &Name) -> Option<LinkTarget> {
    let target = fs::readlinkat(folder, name.as_bytes(), Vec::new()).ok()?;
    LinkTarget::new(target.into_bytes()).ok()
}

/// In one step: the name never stands for nothing.
pub(super) fn replace(
    folder: &OwnedFd,
    name: &Name,
    target: &LinkTarget,
    mtime: Option<Timestamp>,
) -> Result<(), Problem> {
    let _alone = lookalike::alone(folder, name)?;
    let aside = root::reserved_name()?;
    symlink(target, folder, &aside)?;
    let replaced = set_time(folder, &aside, mtime)
        .and_then(|()| Ok(fs::renameat(folder, aside.as_bytes(), folder, name.as_bytes())?));
    if replaced.is_err() {
        let _ = fs::unlinkat(folder, aside.as_bytes(), AtFlags::empty());
    }
    replaced
}

fn symlink(target: &LinkTarget, folder: &OwnedFd, name: &Name) -> Result<(), Problem> {
    fs::symlinkat(target.as_bytes(), folder, name.as_bytes()).map_err(|errno| match errno {
        // Not a matter of rights (that would be EACCES): FAT, for one, has no links.
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS => Problem::NoLinks,
        other => other.into(),
    })
}

/// Sets the time of the link itself.
fn set_time(folder: &OwnedFd, name: &Name, mtime: Option<Timestamp>) -> Result<(), Problem> {
    if mtime.is_some() {
        fs::utimensat(folder, name.as_bytes(), &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// The time of the last reading stays as it is.
fn times(mtime: Option<Timestamp>) -> Timestamps {
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification =
        mtime.map_or(omitted, |mtime| Timespec { tv_sec: mtime.secs(), tv_nsec: mtime.nanos().into() });
    Timestamps { last_access: omitted, last_modification }
}
