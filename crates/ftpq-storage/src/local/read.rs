//! Reading a file at one version: the next block is read and hashed while the last one travels.

use std::os::fd::OwnedFd;

use async_trait::async_trait;
use blake3::Hasher;
use bytes::Bytes;
use ftpq_proto::{Digest, Kind, RemotePath};
use rustix::{
    buffer::spare_capacity,
    fs::{self, OFlags, Stat},
    io::{self, Errno},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::root::{self, Root};
use crate::{
    BLOCK, FileInfo, Reader,
    error::{Problem, StorageError},
};

pub(super) struct LocalReader {
    path: RemotePath,
    info: FileInfo,
    next: Next,
}

/// Where the next block comes from.
enum Next {
    /// It is here.
    Ready(Step),
    /// It is being read.
    Pending(JoinHandle<Result<Step, Problem>>),
    /// There is none: the file's digest.
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
    More(Cursor),
    End(Digest),
}

/// An open file and how far it was read.
struct Cursor {
    file: OwnedFd,
    opened: Stat,
    offset: u64,
    hasher: Box<Hasher>,
}

impl LocalReader {
    /// Opens the file and reads its first block: for most files that is all there is to do, in one
    /// trip to the blocking threads.
    pub(super) fn open(root: &Root, path: &RemotePath) -> Result<Self, Problem> {
        // NONBLOCK: opening a FIFO must not wait for its writer.
        let file = root.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let opened = fs::fstat(&file)?;
        match root::kind(&opened) {
            Kind::File => {}
            Kind::Folder => return Err(Problem::IsFolder),
            Kind::Link | Kind::Other => return Err(Problem::NotRegular),
        }
        let info = FileInfo { size: opened.st_size as u64, mtime: root::mtime(&opened), mode: opened.st_mode & 0o7777 };
        let first = Cursor { file, opened, offset: 0, hasher: Box::default() }.step()?;
        Ok(Self { path: path.clone(), info, next: Next::Ready(first) })
    }
}

#[async_trait]
impl Reader for LocalReader {
    fn info(&self) -> FileInfo {
        self.info
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        let step = match std::mem::replace(&mut self.next, Next::Lost) {
            Next::Ready(step) => step,
            Next::Pending(task) => task
                .await
                .unwrap_or_else(|error| Err(Problem::Io(error.into())))
                .map_err(|problem| StorageError::new(&self.path, problem))?,
            Next::End(digest) => {
                self.next = Next::End(digest);
                return Ok(None);
            }
            Next::Lost => return Err(StorageError::new(&self.path, Problem::Refused("reading has failed before"))),
        };
        self.next = match step.rest {
            Rest::More(cursor) => Next::Pending(spawn_blocking(|| cursor.step())),
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

impl Cursor {
    /// Reads and hashes the next block, while it is in this core's cache.
    fn step(mut self) -> Result<Step, Problem> {
        let left = (self.opened.st_size as u64).saturating_sub(self.offset);
        let wanted = left.min(BLOCK as u64) as usize;
        let mut block = Vec::with_capacity(wanted);
        while block.len() < wanted {
            let offset = self.offset + block.len() as u64;
            match io::pread(&self.file, spare_capacity(&mut block), offset) {
                Ok(0) => return Err(Problem::Changed), // shorter than it was
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        block.truncate(wanted);
        self.hasher.update(&block);
        self.offset += wanted as u64;
        let rest = if left > wanted as u64 {
            Rest::More(self)
        } else {
            let digest = Digest::from(*self.hasher.finalize().as_bytes());
            // Before the last block leaves: who has it all must be able to trust it.
            self.check_unchanged()?;
            Rest::End(digest)
        };
        Ok(Step { block: block.into(), rest })
    }

    fn check_unchanged(&self) -> Result<(), Problem> {
        let version =
            |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        if version(&fs::fstat(&self.file)?) == version(&self.opened) { Ok(()) } else { Err(Problem::Changed) }
    }
}
