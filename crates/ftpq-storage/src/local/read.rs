//! Reading a file, or one extent of it, at one version: the next block is read and hashed while the
//! last one travels.

use std::os::fd::OwnedFd;

use async_trait::async_trait;
use bytes::Bytes;
use ftpq_proto::{Digest, Extent, Hole, Holes, Kind, RemotePath, Version};
use rustix::{
    fs::{self, OFlags, Stat},
    io::Errno,
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    holes,
    root::{self, Root},
    sys::Sys,
};
use crate::{
    BLOCK, FileInfo, Opened, Pinned, Reader,
    error::{Problem, StorageError},
    hash::BodyHasher,
};

pub(super) struct LocalReader {
    path: RemotePath,
    info: FileInfo,
    holes: Holes,
    next: Next,
    /// Bytes of the next block to be read.
    most: usize,
}

/// Where the next block comes from.
enum Next {
    /// It is here.
    Ready(Step),
    /// It is being read.
    Pending(JoinHandle<Result<Step, Problem>>),
    /// It is read when it is asked for.
    Waiting(Box<Cursor>),
    /// There is none: the digest.
    End(Digest),
    /// An earlier call failed, or was dropped halfway.
    Lost,
}

/// One block, and what comes after it.
struct Step {
    block: Bytes,
    rest: Rest,
}

enum Rest {
    More(Box<Cursor>),
    End(Digest),
}

impl LocalReader {
    /// Opens a whole file. Its first block is read at once: for most files that is all there is to do, in one
    /// trip to the blocking threads. But not where there are holes: see [`Reader::holes`].
    pub(super) fn open(root: &Root, path: &RemotePath) -> Result<Self, Problem> {
        let (file, opened) = open_regular(root, path)?;
        Self::begin(root.sys(), path, file, opened, None, Holes::NONE)
    }

    /// The same, unless the file is larger; holes are left out.
    pub(super) fn open_up_to(root: &Root, path: &RemotePath, up_to: u64) -> Result<Opened, Problem> {
        let (file, opened) = open_regular(root, path)?;
        if opened.st_size as u64 > up_to {
            return Ok(Opened::Large(info(&opened)));
        }
        let holes = holes::find(root.sys(), &file, &opened, 0, opened.st_size as u64);
        Ok(Opened::Whole(Box::new(Self::begin(root.sys(), path, file, opened, None, holes)?)))
    }

    /// Opens one extent of a file that was seen before.
    pub(super) fn open_extent(root: &Root, file: &Pinned, index: u32) -> Result<Self, Problem> {
        let extent = file.extents.get(index).ok_or(Problem::Refused("the file has no such extent"))?;
        let (fd, opened) = open_regular(root, &file.path)?;
        if version(&opened) != file.version || opened.st_size as u64 != file.extents.size() {
            return Err(Problem::Changed);
        }
        let holes = holes::find(root.sys(), &fd, &opened, extent.offset, extent.length);
        Self::begin(root.sys(), &file.path, fd, opened, Some(extent), holes)
    }

    fn begin(
        sys: &Sys,
        path: &RemotePath,
        file: OwnedFd,
        opened: Stat,
        extent: Option<Extent>,
        holes: Holes,
    ) -> Result<Self, Problem> {
        let info = info(&opened);
        let (start, length) = extent.map_or((0, info.size), |extent| (extent.offset, extent.length));
        let hasher = BodyHasher::new(extent);
        let rest = holes.iter().collect::<Vec<_>>().into_iter();
        let cursor = Cursor { sys: sys.clone(), file, opened, start, length, done: 0, holes: rest, hasher };
        let cursor = Box::new(cursor);
        let next =
            if holes.is_empty() { Next::Ready(cursor.step(FIRST_BLOCK, Vec::new())?) } else { Next::Waiting(cursor) };
        Ok(Self { path: path.clone(), info, holes, next, most: BLOCK })
    }
}

#[async_trait]
impl Reader for LocalReader {
    fn info(&self) -> FileInfo {
        self.info
    }

    fn holes(&self) -> &Holes {
        &self.holes
    }

    fn limit_blocks(&mut self, most: usize) {
        self.most = most.clamp(1, BLOCK);
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        let most = self.most;
        let step = match std::mem::replace(&mut self.next, Next::Lost) {
            Next::Ready(step) => Ok(step),
            Next::Pending(task) => joined(task).await,
            Next::Waiting(cursor) => joined(read(cursor, most)).await,
            Next::End(digest) => {
                self.next = Next::End(digest);
                return Ok(None);
            }
            Next::Lost => Err(Problem::Refused("reading has failed before")),
        };
        let step = step.map_err(|problem| StorageError::new(&self.path, problem))?;
        self.next = match step.rest {
            Rest::More(cursor) if most < BLOCK || !self.holes.is_empty() => Next::Waiting(cursor),
            Rest::More(cursor) => Next::Pending(read(cursor, most)),
            Rest::End(digest) => Next::End(digest),
        };
        Ok(if step.block.is_empty() { None } else { Some(step.block) })
    }

    async fn finish(mut self: Box<Self>) -> Result<Digest, StorageError> {
        while self.next_block().await?.is_some() {}
        match self.next {
            Next::End(digest) => Ok(digest),
            _ => Err(StorageError::new(&self.path, Problem::Refused("reading has failed before"))),
        }
    }
}

/// The memory comes from this thread, where most of it is freed: allocators keep a heap for each thread, and those
/// of the blocking threads would grow to several times of what is in use.
fn read(cursor: Box<Cursor>, most: usize) -> JoinHandle<Result<Step, Problem>> {
    let block = Vec::with_capacity(most.min(cursor.left()));
    spawn_blocking(move || cursor.step(most, block))
}

async fn joined(task: JoinHandle<Result<Step, Problem>>) -> Result<Step, Problem> {
    task.await.unwrap_or_else(|error| Err(Problem::Io(error.into())))
}

/// What is known of an open file. The version is a digest, so that it tells a peer nothing of this machine.
pub(super) fn info(stat: &Stat) -> FileInfo {
    FileInfo {
        size: stat.st_size as u64,
        version: version(stat),
        sparse: holes::may_have(stat),
        mtime: root::mtime(stat),
        mode: stat.st_mode & 0o7777,
    }
}

fn open_regular(root: &Root, path: &RemotePath) -> Result<(OwnedFd, Stat), Problem> {
    // NONBLOCK: opening a FIFO must not wait for its writer.
    let file = root.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let opened = fs::fstat(&file)?;
    match root::kind(&opened) {
        Kind::File => Ok((file, opened)),
        Kind::Folder => Err(Problem::IsFolder),
        Kind::Link | Kind::Other => Err(Problem::NotRegular),
    }
}

/// Everything that changes when somebody else writes to the file or puts another in its place. ctime
/// cannot be set back, as mtime can.
fn version(stat: &Stat) -> Version {
    let mut hasher = blake3::Hasher::new();
    for number in [stat.st_dev, stat.st_ino, stat.st_size as u64, stat.st_mtime as u64, stat.st_mtime_nsec] {
        hasher.update(&number.to_le_bytes());
    }
    for number in [stat.st_ctime as u64, stat.st_ctime_nsec] {
        hasher.update(&number.to_le_bytes());
    }
    Version::from(Digest::from(*hasher.finalize().as_bytes()))
}

/// Bytes of the first block: it waits here until somebody asks for it, and there may be many that wait.
const FIRST_BLOCK: usize = 64 * 1024;

/// An open file and how far the part that is wanted was read.
struct Cursor {
    sys: Sys,
    file: OwnedFd,
    opened: Stat,
    /// Where the part begins in the file, and its bytes.
    start: u64,
    length: u64,
    /// Bytes of the part that are dealt with, holes included.
    done: u64,
    holes: std::vec::IntoIter<Hole>,
    hasher: BodyHasher,
}

impl Cursor {
    /// Bytes that are not dealt with.
    fn left(&self) -> usize {
        usize::try_from(self.length - self.done).unwrap_or(usize::MAX)
    }

    /// Reads and hashes the next block, of at most so many bytes, into `block`, while it is in this core's cache.
    fn step(mut self: Box<Self>, most: usize, mut block: Vec<u8>) -> Result<Step, Problem> {
        self.pass_hole();
        let until = self.holes.as_slice().first().map_or(self.length, |hole| hole.offset);
        let wanted = until.saturating_sub(self.done).min(most as u64) as usize;
        block.reserve_exact(wanted);
        while block.len() < wanted {
            let offset = self.start + self.done + block.len() as u64;
            match self.sys.pread(&self.file, &mut block, offset) {
                Ok(0) => return Err(Problem::Changed), // shorter than it was
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        block.truncate(wanted);
        // What was removed takes room, which nobody counts, for as long as somebody reads it.
        if fs::fstat(&self.file)?.st_nlink == 0 {
            return Err(Problem::Changed);
        }
        self.hasher.update(&block);
        self.done += wanted as u64;
        self.pass_hole();
        let rest = if self.done < self.length {
            Rest::More(self)
        } else {
            let digest = self.hasher.finish();
            // Before the last block leaves: who has it all must be able to trust it.
            if version(&fs::fstat(&self.file)?) != version(&self.opened) {
                return Err(Problem::Changed);
            }
            Rest::End(digest)
        };
        Ok(Step { block: block.into(), rest })
    }

    fn pass_hole(&mut self) {
        if let Some(&hole) = self.holes.as_slice().first()
            && hole.offset <= self.done
        {
            self.hasher.zeros(hole.length);
            self.done += hole.length;
            self.holes.next();
        }
    }
}
