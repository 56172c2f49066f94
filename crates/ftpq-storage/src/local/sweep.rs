//! Removing what nobody came back for: staged files, and names that a crash has left over.

use std::{
    os::fd::OwnedFd,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ftpq_proto::{Name, RemotePath};
use rustix::{
    fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
};

use super::root::{self, FOLDER, Root};
use crate::error::Problem;

/// Removes every reserved name below `root` that has not changed for `age`. Folders that cannot be
/// read are passed over. Returns how many went. Blocks.
pub(super) fn sweep(root: &Root, age: Duration) -> Result<u64, Problem> {
    let mut count = 0;
    let mut folders = vec![RemotePath::root()];
    while let Some(path) = folders.pop() {
        let Ok(folder) = root.open_beneath(&path, FOLDER) else { continue };
        let swept = sweep_folder(&mut Dir::new(folder)?, age)?;
        count += swept.removed;
        folders.extend(swept.folders.iter().filter_map(|name| path.join(name).ok()));
    }
    Ok(count)
}

/// The same for one folder alone.
pub(super) fn sweep_folder(dir: &mut Dir, age: Duration) -> Result<Swept, Problem> {
    let mut swept = Swept::default();
    while let Some(item) = dir.read() {
        let Ok(item) = item else { break };
        let name = item.file_name();
        if root::is_reserved(name.to_bytes()) {
            swept.removed += u64::from(remove_if_old(dir, name, age)?);
        } else if is_folder(dir, &item) {
            swept.folders.extend(Name::new(name.to_bytes()));
        }
    }
    Ok(swept)
}

/// What was found in a folder.
#[derive(Default)]
pub(super) struct Swept {
    removed: u64,
    folders: Vec<Name>,
}

/// Removes the reserved names in a folder that holds nothing else.
pub(super) fn empty_folder(mut dir: Dir) -> Result<(), Problem> {
    let mut names = Vec::new();
    while let Some(item) = dir.read() {
        let item = item?;
        let name = item.file_name().to_owned();
        match name.to_bytes() {
            b"." | b".." => {}
            reserved if root::is_reserved(reserved) && !is_folder(&dir, &item) => names.push(name),
            _ => return Ok(()),
        }
    }
    Ok(names.iter().try_for_each(|name| fs::unlinkat(dir.fd()?, name, AtFlags::empty()))?)
}

fn is_folder(dir: &Dir, item: &fs::DirEntry) -> bool {
    match item.file_type() {
        FileType::Directory => true,
        FileType::Unknown => dir.fd().is_ok_and(|folder| {
            fs::statat(folder, item.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        }),
        _ => false,
    }
}

fn remove_if_old(dir: &Dir, name: &std::ffi::CStr, age: Duration) -> Result<bool, Problem> {
    let folder = dir.fd()?;
    let Ok(stat) = fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(false) };
    let old = unchanged_for(&stat) >= age;
    if !old || FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(false);
    }
    // What is locked is in use, however slowly. Otherwise it stays locked here until it is gone, so that
    // nobody goes on with it meanwhile.
    let Some(_locked) = lock(dir, name) else { return Ok(false) };
    // What cannot be removed (in a folder for all, say) is its owner's to remove.
    Ok(fs::unlinkat(folder, name, AtFlags::empty()).is_ok())
}

/// Locks a file until this is dropped, where it can be; `None` if somebody else has it locked.
fn lock(dir: &Dir, name: &std::ffi::CStr) -> Option<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = fs::openat(dir.fd().ok()?, name, flags, Mode::empty()) else { return Some(None) };
    let locked = fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    (locked != Err(Errno::WOULDBLOCK)).then_some(Some(file))
}

/// By its ctime: mtime may be set to anything.
fn unchanged_for(stat: &Stat) -> Duration {
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
    SystemTime::now().duration_since(changed).unwrap_or_default()
}
