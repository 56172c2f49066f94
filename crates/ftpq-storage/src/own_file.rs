//! Small files of the program's own: lists and state that several of its processes read and change.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::{Errno, retry_on_intr},
};

/// Held while a file is read, changed and replaced; other processes wait.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

/// Locks `file`, or rather its folder, which stays the same when the file is replaced. The folder is made
/// if missing, for its owner alone.
pub fn lock(file: &Path) -> io::Result<Lock> {
    let folder = folder_of(file);
    make_private(&folder)?;
    let folder = File::open(folder)?;
    match retry_on_intr(|| flock(&folder, FlockOperation::LockExclusive)) {
        // Better no lock than no list, on the few file systems that have none.
        Err(Errno::NOLCK | Errno::NOTSUP) => {}
        locked => locked?,
    }
    Ok(Lock(folder))
}

/// Replaces `file` in one step, readable by its owner alone and durable when this returns.
pub fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = folder_of(file);
    make_private(&folder)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}-{}", std::process::id()));
    let owner = fs::metadata(file).ok().map(|meta| (meta.uid(), meta.gid()));
    let written = write_private(&temporary, contents, owner).and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        // What cannot be removed either is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Makes what is missing of a folder for such files, open to its owner alone.
pub fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn write_private(file: &Path, contents: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    // Root may change what another user's server reads. For others this changes nothing, or may not.
    if let Some((user, group)) = owner {
        let _ = fchown(&out, Some(user), Some(group));
    }
    out.write_all(contents)?;
    out.sync_all()
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/list");
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn of_many_that_change_a_file_none_loses_its_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let _lock = lock(&file).unwrap();
                        let mut text = fs::read(&file).unwrap_or_default();
                        text.push(b'x');
                        replace(&file, &text).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read(&file).unwrap().len(), 160);
    }
}
