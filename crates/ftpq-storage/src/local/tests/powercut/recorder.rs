//! What a recipe asks of the disk, written down.

use std::{
    collections::HashMap,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::Mutex,
};

use rustix::{
    fs::{AtFlags, FallocateFlags, OFlags, fstat, statat},
    io::Errno,
};

use super::{
    super::sys::{self, Call},
    *,
};

pub(super) type Inode = u64;

pub(super) enum Event {
    Name {
        folder: Inode,
        name: Vec<u8>,
        file: Option<Inode>,
    },
    Rename {
        folder: Inode,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Write {
        file: Inode,
        offset: u64,
        bytes: Vec<u8>,
    },
    Reserve {
        file: Inode,
        length: u64,
    },
    Truncate {
        file: Inode,
        length: u64,
    },
    Flush(Inode),
    /// An extent is about to be written: what was acknowledged of it is void.
    Begun(u32),
    /// An extent was acknowledged.
    Ended(u32),
    /// The file was acknowledged.
    Published,
}

/// Writes down what the disk is asked for.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    events: Vec<Event>,
    /// What is about to be made, so that it can be looked at afterwards.
    coming: Option<(OwnedFd, Vec<u8>)>,
    /// No number may be given to another file meanwhile.
    open: HashMap<Inode, OwnedFd>,
}

impl Recorder {
    /// The file `f`, which is there already.
    pub(super) fn existing(&self, folder: &Folder, bytes: &[u8], flushed: bool) {
        let inode = |name| fs::metadata(folder.path(name)).unwrap().ino();
        let (root, file) = (inode(""), inode("f"));
        self.0.lock().unwrap().open.insert(file, fs::File::open(folder.path("f")).unwrap().into());
        self.note(Event::Name { folder: root, name: b"f".to_vec(), file: Some(file) });
        self.note(Event::Write { file, offset: 0, bytes: bytes.to_vec() });
        if flushed {
            self.note(Event::Flush(file));
            self.note(Event::Flush(root));
        }
    }

    /// Events so far.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().events.len()
    }

    pub(super) fn note(&self, event: Event) {
        let mut notes = self.0.lock().unwrap();
        notes.look_at_new();
        notes.events.push(event);
    }

    pub(super) fn finish(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }
}

impl Notes {
    fn look_at_new(&mut self) {
        if let Some((folder, name)) = self.coming.take()
            && let Ok(stat) = statat(&folder, &*name, AtFlags::SYMLINK_NOFOLLOW)
        {
            let folder = self.inode(folder.as_fd());
            self.events.push(Event::Name { folder, name, file: Some(stat.st_ino) });
        }
    }

    fn inode(&mut self, file: BorrowedFd<'_>) -> Inode {
        let inode = fstat(file).unwrap().st_ino;
        self.open.entry(inode).or_insert_with(|| file.try_clone_to_owned().unwrap());
        inode
    }
}

impl sys::Hook for Recorder {
    fn call(&self, call: Call<'_>) -> Result<usize, Errno> {
        let notes = &mut *self.0.lock().unwrap();
        notes.look_at_new();
        let there = |folder, name: &[u8]| statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let event = match call {
            Call::Openat { folder, name, flags } if flags.contains(OFlags::CREATE) && !there(folder, name) => {
                notes.coming = Some((folder.try_clone_to_owned().unwrap(), name.to_vec()));
                return Ok(usize::MAX);
            }
            Call::Mkdirat { folder, name } if !there(folder, name) => {
                notes.coming = Some((folder.try_clone_to_owned().unwrap(), name.to_vec()));
                return Ok(usize::MAX);
            }
            Call::Openat2 | Call::Openat { .. } | Call::Mkdirat { .. } | Call::Pread | Call::Seek | Call::Flock => {
                return Ok(usize::MAX);
            }
            Call::Pwrite { file, bytes, offset } => {
                Event::Write { file: notes.inode(file), offset, bytes: bytes.to_vec() }
            }
            Call::Fallocate { file, flags, offset, length } => {
                assert_eq!(flags, FallocateFlags::empty(), "no recipe has holes");
                Event::Reserve { file: notes.inode(file), length: offset + length }
            }
            Call::Ftruncate { file, length } => Event::Truncate { file: notes.inode(file), length },
            Call::Fsync { file } => Event::Flush(notes.inode(file)),
            Call::Linkat { file, folder, name } => {
                if there(folder, name) {
                    return Ok(usize::MAX);
                }
                let (folder, file) = (notes.inode(folder), Some(notes.inode(file)));
                Event::Name { folder, name: name.to_vec(), file }
            }
            Call::Unlinkat { folder, name } => {
                Event::Name { folder: notes.inode(folder), name: name.to_vec(), file: None }
            }
            Call::Renameat { folder, from, to_folder, to } => {
                let (folder, to_folder) = (notes.inode(folder), notes.inode(to_folder));
                assert_eq!(folder, to_folder, "no recipe moves a file to another folder");
                Event::Rename { folder, from: from.to_vec(), to: to.to_vec() }
            }
        };
        notes.events.push(event);
        Ok(usize::MAX)
    }
}
