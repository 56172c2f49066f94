//! Files and folders to transfer, and comparing them.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat, statvfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

/// `len` bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Asserts that `file` holds the [`pattern`] of `len` bytes.
#[track_caller]
pub(crate) fn holds(file: impl AsRef<Path>, len: usize) {
    let file = file.as_ref();
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(bytes == pattern(len), "{} differs", file.display());
}

/// A file of `len` bytes that takes no room.
pub(crate) fn sparse(file: &Path, len: u64) {
    File::create(file).unwrap().set_len(len).unwrap();
}

/// A file of `len` bytes that are all there: what has holes is over too soon.
pub(crate) fn solid(file: &Path, len: u64) {
    let mut file = File::create(file).unwrap();
    io::copy(&mut io::repeat(1).take(len), &mut file).unwrap();
}

/// A FIFO.
pub(crate) fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Names that a careless program trips over.
pub(crate) fn odd_names() -> Vec<OsString> {
    let names: [&[u8]; 14] = [
        b"with space",
        b" leading and trailing ",
        "Ol\u{e1}, \u{4e16}\u{754c} \u{1f980}".as_bytes(),
        b"-rf",
        b"--to",
        b"new\nline",
        b"carriage\rreturn",
        b"\x1b[31mred",
        b"caf\xe9",
        b"\xff\xfe",
        b"back\\slash",
        b"a:b",
        b"*?[x]",
        b"'quote\"",
    ];
    names.into_iter().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

/// Makes a tree with nested and empty folders, odd names, and files around the sizes at which
/// something changes: nothing, one block, more than one.
pub(crate) fn tree(root: &Path) {
    let deep = root.join("a/b/c/d/e/f");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir_all(root.join("empty/emptier")).unwrap();
    for (name, len) in [("none", 0), ("one", 1), ("block", 256 * 1024), ("more", 256 * 1024 + 1), ("big", 3_000_000)] {
        fs::write(root.join(name), pattern(len)).unwrap();
    }
    fs::write(deep.join("leaf"), pattern(100)).unwrap();
    for (index, name) in odd_names().iter().enumerate() {
        fs::write(root.join("a").join(name), pattern(index)).unwrap();
        let folder = root.join("a/b").join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(name), pattern(1000 + index)).unwrap();
    }
    for index in 0..200 {
        fs::write(root.join(format!("empty/{index}")), pattern(index)).unwrap();
    }
}

/// Every name and every byte.
#[track_caller]
pub(crate) fn assert_same_tree(one: &Path, other: &Path) {
    let (one, other) = (contents(one), contents(other));
    let names = |tree: &BTreeMap<PathBuf, Option<Vec<u8>>>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{} differs", name.display());
    }
}

/// The names in a folder that ftpq shows: not those under which it keeps what is unfinished.
pub(crate) fn visible_names(folder: &Path) -> Vec<String> {
    let kept = |name: &String| name.strip_prefix(".ftpq-").is_some_and(|rest| rest.len() == 32);
    all_names(folder).into_iter().filter(|name| !kept(name)).collect()
}

/// All names in a folder, hidden ones too.
pub(crate) fn all_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|item| item.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Relative path → contents; `None` for a folder.
fn contents(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = item.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            if path.symlink_metadata().unwrap().is_dir() {
                found.insert(relative, None);
                folders.push(path);
            } else {
                found.insert(relative, Some(fs::read(path).unwrap()));
            }
        }
    }
    found
}

/// A file system of so many bytes. Dropped, it is gone.
pub(crate) struct FullDisk {
    folder: PathBuf,
}

impl FullDisk {
    /// Mounts one at `folder`; `None`, and a word about it, where that is not allowed.
    pub(crate) fn mount(test: &str, folder: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let size = CString::new(format!("size={bytes}")).unwrap();
        match mount("tmpfs", folder, "tmpfs", MountFlags::empty(), Some(size.as_c_str())) {
            Ok(()) => Some(Self { folder: folder.into() }),
            Err(error) => {
                eprintln!("SKIPPED {test}: cannot mount a small file system here: {error}");
                None
            }
        }
    }

    /// Bytes that fit.
    pub(crate) fn free(&self) -> u64 {
        let space = statvfs(&self.folder).unwrap();
        space.f_bavail * space.f_frsize
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
    }
}
