//! What is transferred: made once, from random-looking bytes, and compared with what arrived.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::rows::Work;
use crate::{
    files::{compare_files, compare_trees, write_random},
    scratch::check_interrupted,
};

/// What a row's peers copy, below the folder `documents`; made if it is not there. `small` chooses the file for
/// those that yield to loss.
pub(super) fn source(documents: &Path, work: Work, small: bool) -> Result<PathBuf> {
    match work {
        Work::File { lossy, .. } if small => file(documents, lossy),
        Work::File { mib, .. } | Work::Share { mib } => file(documents, mib),
        Work::Tree { files, .. } => tree(documents, files),
        Work::Connect => {
            let path = documents.join("tiny");
            fs::write(&path, "x")?;
            Ok(path)
        }
    }
}

/// A second file of the same size under another name, so that two copies do not meet.
pub(super) fn second(documents: &Path, source: &Path) -> Result<PathBuf> {
    let other = documents.join("other");
    if other.exists() {
        fs::remove_file(&other)?;
    }
    fs::hard_link(source, &other)?;
    Ok(other)
}

/// An error unless the copy in `target` is what `source` is.
pub(super) fn compare(source: &Path, target: &Path) -> Result<()> {
    let copy = target.join(source.file_name().unwrap_or_default());
    if source.is_dir() { compare_trees(source, &copy).map(drop) } else { compare_files(source, &copy).map(drop) }
}

/// Removes all that is in `folder`, but not the folder.
pub(super) fn empty(folder: &Path) -> Result<()> {
    for child in fs::read_dir(folder)? {
        let child = child?;
        if child.file_type()?.is_dir() { fs::remove_dir_all(child.path())? } else { fs::remove_file(child.path())? }
    }
    Ok(())
}

/// Moves all that is in `folder` to a new place in `aside`.
pub(super) fn set_aside(folder: &Path, aside: &Path) -> Result<()> {
    fs::create_dir_all(aside)?;
    let place = aside.join(fs::read_dir(aside)?.count().to_string());
    fs::rename(folder, place)?;
    Ok(fs::create_dir(folder)?)
}

/// Bytes of all files.
pub(super) fn bytes(work: Work, small: bool) -> u64 {
    match work {
        Work::File { lossy, .. } if small => lossy << 20,
        Work::File { mib, .. } | Work::Share { mib } => mib << 20,
        Work::Tree { files, .. } => u64::from(files) * SMALL,
        Work::Connect => 1,
    }
}

const SMALL: u64 = 4096;
const PER_FOLDER: u32 = 100;

fn file(documents: &Path, mib: u64) -> Result<PathBuf> {
    let path = documents.join(format!("file{mib}"));
    if fs::metadata(&path).map(|found| found.len()).ok() != Some(mib << 20) {
        write_random(&path, mib << 20, &format!("ftpq bench {mib}"))?;
    }
    Ok(path)
}

fn tree(documents: &Path, files: u32) -> Result<PathBuf> {
    let path = documents.join(format!("tree{files}"));
    for number in 0..files {
        check_interrupted()?;
        let folder = path.join(format!("folder{:03}", number / PER_FOLDER));
        if number.is_multiple_of(PER_FOLDER) {
            fs::create_dir_all(&folder)?;
        }
        let file = folder.join(format!("file{number:05}"));
        if !file.exists() {
            write_random(&file, SMALL, &number.to_string())?;
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::Direction;

    #[test]
    fn sources_are_as_large_as_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::File { direction: Direction::Up, mib: 2, lossy: 1 };
        for small in [true, false] {
            let path = source(folder.path(), work, small).unwrap();
            assert_eq!(fs::metadata(path).unwrap().len(), bytes(work, small));
        }
        let work = Work::Tree { files: 150, durable: false };
        let path = source(folder.path(), work, false).unwrap();
        assert_eq!(compare_trees(&path, &path).unwrap().bytes, bytes(work, false));
        assert_eq!(fs::read_dir(path).unwrap().count(), 2);
    }

    #[test]
    fn a_copy_that_is_none_is_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (documents, target) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&documents).unwrap();
        fs::create_dir(&target).unwrap();
        let one = source(&documents, Work::Share { mib: 1 }, false).unwrap();
        let other = second(&documents, &one).unwrap();
        assert!(compare(&one, &target).is_err());
        fs::copy(&other, target.join("file1")).unwrap();
        assert!(compare(&one, &target).is_ok() && compare(&other, &target).is_err());
        fs::write(target.join("file1"), "else").unwrap();
        assert!(compare(&one, &target).is_err());
        for _ in 0..2 {
            set_aside(&target, &folder.path().join("aside")).unwrap();
        }
        assert!(folder.path().join("aside/0/file1").exists() && folder.path().join("aside/1").exists());
        fs::write(target.join("file1"), "else").unwrap();
        empty(&target).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }
}
