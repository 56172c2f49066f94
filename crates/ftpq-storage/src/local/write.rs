//! Writing a file in one go, so that it appears whole and durable, or not at all.
//!
//! The bytes go into a file without a name (`O_TMPFILE`), in the folder where it will stand: nobody
//! can list or open it, and if this process dies the kernel takes it back. Then: length and digest
//! are checked, the file is flushed, linked under its name, and the folder is flushed. `linkat`
//! never replaces; to replace, the file gets a reserved name first and is renamed from it. A failed
//! `fsync` is never tried again: the kernel may have dropped what it could not write, and would then
//! report success.
//!
//! File systems without `O_TMPFILE` (NFS, some FUSE) get the reserved name from the start, and a link
//! under the final one where nothing may be replaced: NFS cannot rename without replacing.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use super::{
    behind::Behind,
    lane::Trip,
    publish::{NEW_FILE, PRIVATE_FILE, ReservedName, Target, set_metadata},
    root::Root,
    sink::Sink,
    sys::Sys,
};
use crate::{
    BLOCK, NewFile, Upload,
    blocking::{Wanted, blocking},
    error::{Problem, StorageError},
};
use async_trait::async_trait;
use bytes::Bytes;
use ftpq_proto::{Digest, RemotePath};
use rustix::{
    fs::{self, FallocateFlags, OFlags},
    io::Errno,
    process::geteuid,
};

pub(super) struct LocalUpload {
    root: Arc<Root>,
    path: RemotePath,
    file: NewFile,
    state: State,
}

enum State {
    /// A small file that comes in one block touches the disk only when it is complete: one trip to the
    /// blocking threads for everything. No more than that block is held.
    Small(Option<Bytes>),
    Large(Behind<Box<Staged>>),
}

impl LocalUpload {
    pub(super) async fn begin(root: Arc<Root>, path: RemotePath, file: NewFile) -> Result<Self, StorageError> {
        let small = file.size.is_some_and(|size| size <= BLOCK as u64);
        let mut upload = Self { root, path, file, state: State::Small(None) };
        if !small {
            upload.stage(None).await.map_err(|problem| upload.error(problem))?;
        }
        Ok(upload)
    }

    /// Begins on disk, with what was held so far.
    async fn stage(&mut self, first: Option<Bytes>) -> Result<(), Problem> {
        let (root, path, file) = (self.root.clone(), self.path.clone(), self.file.clone());
        let begin = move |_: &Wanted| {
            let mut staged = Staged::begin(&root, &path, file)?;
            first.iter().try_for_each(|block| staged.write(block)).map(|()| staged)
        };
        self.state = State::Large(Behind::Ready(Box::new(blocking(begin).await?)));
        Ok(())
    }

    fn error(&self, problem: Problem) -> StorageError {
        StorageError::new(&self.path, problem)
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        if let State::Small(first) = &mut self.state {
            let (announced, actual) = (self.file.size.unwrap_or(0), block.len() as u64);
            match first.take() {
                None if actual > announced => return Err(self.error(Problem::Length { announced, actual })),
                None => {
                    *first = Some(block);
                    return Ok(());
                }
                first => self.stage(first).await.map_err(|problem| self.error(problem))?,
            }
        }
        let written = match &mut self.state {
            State::Large(staged) => match staged.next(move |staged| staged.write(&block)).await {
                Ok(()) if !self.file.holes.is_empty() => staged.done().await,
                written => written,
            },
            State::Small(_) => Err(Problem::Refused("writing has failed before")),
        };
        written.map_err(|problem| self.error(problem))
    }

    async fn commit(mut self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let committed = match &mut self.state {
            State::Small(first) => {
                let first = first.take();
                let (root, path, file) = (self.root.clone(), self.path.clone(), self.file.clone());
                let lane = root.lane().clone();
                lane.run(move |trip, wanted| {
                    let mut staged = Staged::begin_small(trip, &root, &path, file)?;
                    first.iter().try_for_each(|block| staged.write(block))?;
                    staged.commit(expected, wanted)
                })
                .await
            }
            State::Large(staged) => match staged.take().await {
                Ok(staged) => blocking(move |wanted| staged.commit(expected, wanted)).await,
                Err(problem) => Err(problem),
            },
        };
        committed.map_err(|problem| self.error(problem))
    }
}

/// A file without a name, and where it will stand. Everything here blocks.
pub(super) struct Staged {
    target: Target,
    fd: OwnedFd,
    /// The reserved name it has from the start on file systems without `O_TMPFILE`.
    reserved: Option<ReservedName>,
    file: NewFile,
    sink: Sink,
    sys: Sys,
}

impl Staged {
    fn begin(root: &Root, path: &RemotePath, file: NewFile) -> Result<Self, Problem> {
        let target = Target::find(root, path, file.parents)?;
        target.check(file.overwrite, file.size.filter(|_| file.accept_same))?;
        let staged = Self::begin_at(root, target, file)?;
        if let Some(size) = staged.file.size.filter(|&size| size > 0 && staged.file.holes.is_empty()) {
            reserve(&staged.sys, &staged.fd, size)?;
        }
        Ok(staged)
    }

    /// The same for a file that is all here: that the disk is full is found when it is written.
    fn begin_small(trip: &mut Trip, root: &Root, path: &RemotePath, file: NewFile) -> Result<Self, Problem> {
        let target = Target::find_on(trip, root, path, file.parents)?;
        // Before it is flushed, for a tree that is there already to take no time.
        target.check(file.overwrite, file.size.filter(|_| file.accept_same))?;
        Self::begin_at(root, target, file)
    }

    fn begin_at(root: &Root, target: Target, file: NewFile) -> Result<Self, Problem> {
        match root.sys().openat(&target.folder, b".", NEW_FILE_FLAGS | OFlags::TMPFILE, NEW_FILE) {
            Ok(fd) => Self::new(root.sys(), target, fd, None, file),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                Self::begin_named(root.sys(), target, file)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What `begin` does on file systems without `O_TMPFILE`.
    pub(super) fn begin_named(sys: &Sys, target: Target, file: NewFile) -> Result<Self, Problem> {
        let reserved = ReservedName::new(&target)?;
        let flags = NEW_FILE_FLAGS | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = sys.openat(&target.folder, reserved.name.as_bytes(), flags, PRIVATE_FILE)?;
        Self::new(sys, target, fd, Some(reserved), file)
    }

    fn new(
        sys: &Sys,
        target: Target,
        fd: OwnedFd,
        reserved: Option<ReservedName>,
        file: NewFile,
    ) -> Result<Self, Problem> {
        if let Some(size) = file.size.filter(|&size| size > 0 && !file.holes.is_empty()) {
            sys.ftruncate(&fd, size)?;
        }
        let sink = Sink::whole(sys.clone(), file.size, &file.holes);
        Ok(Self { target, fd, reserved, file, sink, sys: sys.clone() })
    }

    pub(super) fn write(&mut self, block: &[u8]) -> Result<(), Problem> {
        self.sink.write(self.fd.as_fd(), block)
    }

    pub(super) fn commit(self, expected: Digest, wanted: &Wanted) -> Result<Digest, Problem> {
        let Self { target, fd, reserved, file, sink, sys } = self;
        let (actual, size) = sink.finish(fd.as_fd())?;
        if actual != expected {
            return Err(Problem::DigestMismatch { expected, actual });
        }
        if file.size.is_none() && !file.holes.is_empty() {
            // A hole at the end has not made it longer.
            sys.ftruncate(&fd, size)?;
        }
        set_metadata(&fd, reserved.is_some(), file.mode, file.mtime)?;
        sys.fsync(&fd)?;
        wanted.check()?;
        let published = match reserved {
            None => target.publish_unnamed(&fd, file.overwrite),
            Some(reserved) => reserved.publish_named(&target, &fd, file.overwrite),
        };
        match published {
            Err(Problem::Exists) if file.accept_same && target.holds(size, actual, wanted)? => Ok(actual),
            published => published.and_then(|()| target.flush()).map(|()| actual),
        }
    }
}

/// A disk that cannot hold `size` bytes says so now. Not every file system can promise.
pub(super) fn reserve(sys: &Sys, file: &OwnedFd, size: u64) -> Result<(), Problem> {
    // Some (ext4) would take all that is free before they find that it is not enough, and others would find nothing
    // meanwhile.
    if free(file).is_some_and(|free| size > free) {
        return Err(Problem::NoSpace);
    }
    // There it would take as long as to write it, and the sender would wait meanwhile: half a second for 2 GiB.
    if is_in_memory(file) {
        return Ok(());
    }
    loop {
        match sys.fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether each page has to be found first where room is taken in advance.
pub(super) fn is_in_memory(file: impl AsFd) -> bool {
    /// `TMPFS_MAGIC` of statfs(2).
    const TMPFS: u64 = 0x0102_1994;
    fs::fstatfs(file).is_ok_and(|disk| u64::try_from(disk.f_type).is_ok_and(|kind| kind == TMPFS))
}

/// Bytes of what is free that `file` may have, with those that it has; `None` if its file system does not say.
fn free(file: &OwnedFd) -> Option<u64> {
    let disk = fs::fstatvfs(file).ok().filter(|disk| disk.f_blocks > 0)?;
    let blocks = if geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    let has = fs::fstat(file).ok()?.st_blocks as u64;
    Some(blocks.saturating_mul(disk.f_frsize).saturating_add(has * 512))
}

const NEW_FILE_FLAGS: OFlags = OFlags::WRONLY.union(OFlags::CLOEXEC);
