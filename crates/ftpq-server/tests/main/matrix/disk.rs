//! The model's trees on a real disk: made there, and read back.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, PermissionsExt, symlink},
    },
    path::Path,
    sync::LazyLock,
};

use ftpq_proto::limits::EXTENT_MIN;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::model::{BIG, Folder, Node, TAIL, is_reserved};

/// A name that ftpq keeps for itself, taken by somebody else.
pub(super) const PLANTED: &str = ".ftpq-00000000000000000000000000000000";

/// The mode of folders as this process makes them.
pub(super) fn folder_mode() -> u32 {
    static MODE: LazyLock<u32> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        fs::create_dir(&made).unwrap();
        mode(&made)
    });
    *MODE
}

impl Folder {
    /// With these things in it, by their names.
    pub(super) fn of<const N: usize>(names: [(&str, Node); N]) -> Self {
        let names = names.into_iter().map(|(name, node)| (name.into(), node)).collect();
        Self { mode: folder_mode(), names, staged: 0 }
    }

    /// Makes the folder `at`, which is there, like this one.
    pub(super) fn write(&self, at: &Path) {
        empty(at);
        set_mode(at, self.mode);
        for (name, node) in &self.names {
            let path = at.join(OsStr::from_bytes(name));
            match node {
                Node::File(contents) => fs::write(path, contents).unwrap(),
                Node::Large(_) => large(&path),
                Node::Link(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
                Node::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                Node::Folder(folder) => {
                    fs::create_dir(&path).unwrap();
                    folder.write(&path);
                }
            }
        }
    }

    /// What the folder `at` holds.
    pub(super) fn read(at: &Path) -> Self {
        let mut folder = Self { mode: mode(at), names: BTreeMap::new(), staged: 0 };
        for item in fs::read_dir(at).unwrap() {
            let item = item.unwrap();
            let (name, path) = (item.file_name().into_vec(), item.path());
            if is_reserved(&name) && name != PLANTED.as_bytes() {
                folder.staged += 1;
                continue;
            }
            let kind = item.file_type().unwrap();
            let node = if kind.is_symlink() {
                Node::Link(fs::read_link(path).unwrap().into_os_string().into_vec())
            } else if kind.is_dir() {
                Node::Folder(Self::read(&path))
            } else if !kind.is_file() {
                Node::Fifo
            } else if item.metadata().unwrap().len() >= EXTENT_MIN {
                Node::Large(item.metadata().unwrap().len())
            } else {
                Node::File(fs::read(path).unwrap())
            };
            folder.names.insert(name, node);
        }
        folder
    }
}

fn large(path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(BIG).unwrap();
    file.write_all_at(TAIL, EXTENT_MIN).unwrap();
}

fn empty(folder: &Path) {
    set_mode(folder, 0o700);
    for item in fs::read_dir(folder).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            empty(&item.path());
            fs::remove_dir(item.path()).unwrap();
        } else {
            fs::remove_file(item.path()).unwrap();
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
