//! Copying from and to what can be read or written only once and in order: a pipe.

use std::{io, pin::pin, sync::Arc};

use async_trait::async_trait;
use ftpq_proto::{Digest, Extent, Extents, RemotePath, limits::WHOLE_MAX};
use ftpq_storage::{BodyHasher, Bytes, FileInfo, NewFile, Opened, Pinned, Problem, Reader, Storage, StorageError};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
};

use super::{
    CopyError, Options, Side, Summary,
    persistence::Persistence,
    waits::{Waited, Waits},
};
use crate::{
    limits,
    progress::{FileId, Progress},
};

/// Something to read to its end.
#[async_trait]
pub trait Input: Send {
    /// The next bytes, at most [`ftpq_storage::BLOCK`]; `None` at the end.
    async fn next_block(&mut self) -> io::Result<Option<Bytes>>;
}

/// Something to write to.
#[async_trait]
pub trait Output: Send {
    /// Writes all of `block`.
    async fn write(&mut self, block: Bytes) -> io::Result<()>;
}

/// Copies between a storage and pipes.
pub struct Pipe {
    storage: Arc<dyn Storage>,
    options: Options,
    persistence: Persistence,
    progress: Arc<dyn Progress>,
    waits: Waits,
}

/// A storage failed, or the pipe.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// The storage.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The pipe.
    #[error("{0}")]
    Pipe(#[from] io::Error),
}

impl Pipe {
    /// Prepares to copy from or to `storage`.
    pub fn new(storage: Arc<dyn Storage>, options: Options, progress: Arc<dyn Progress>) -> Self {
        Self { storage, options, persistence: Persistence::new(options.retry_for), progress, waits: Waits::default() }
    }

    /// What was waited for so far.
    pub fn waited(&self) -> Waited {
        self.waits.so_far()
    }

    /// Writes all of `input` to the file `target`, whose length nobody knows before. An interruption is
    /// an error: what was read cannot be read again.
    pub async fn take_in(&self, input: &mut dyn Input, target: &RemotePath) -> Result<Summary, PipeError> {
        let failed = |error| Side::Target.of(error);
        let file = NewFile { overwrite: self.options.overwrite, parents: self.options.parents, ..NewFile::default() };
        let mut upload = self.waits.target(self.storage.create(target, file)).await.map_err(failed)?;
        let (mut hasher, mut bytes) = (BodyHasher::new(None), 0);
        while let Some(block) = self.waits.source(input.next_block()).await? {
            let len = block.len() as u64;
            self.progress.planned(0, len);
            let hashed = block.clone();
            hasher = on_blocking_thread(target, move || {
                hasher.update(&hashed);
                hasher
            })
            .await?;
            self.waits.target(upload.write(block)).await.map_err(failed)?;
            self.progress.advanced(ONLY, len);
            bytes += len;
        }
        self.waits.target(upload.commit(hasher.finish())).await.map_err(failed)?;
        self.waits.piece();
        Ok(Summary { files: 1, bytes, ..Summary::default() })
    }

    /// Writes the file `source` to `output`, in order. No byte gets there before the part of the file
    /// that it is in was verified; interruptions are got over as in any copy.
    pub async fn put_out(&self, source: &RemotePath, output: &mut dyn Output) -> Result<Summary, PipeError> {
        let begun = self.waits.source(self.persistence.again(|| self.begin(source))).await?;
        self.waits.piece();
        let bytes = match begun {
            Begun::Whole(whole) => {
                let size = whole.len() as u64;
                self.progress.planned(1, size);
                self.waits.target(output.write(whole)).await?;
                self.progress.advanced(ONLY, size);
                size
            }
            Begun::Large(info) => {
                self.progress.planned(1, info.size);
                self.put_out_large(source, info, output).await?;
                info.size
            }
        };
        Ok(Summary { files: 1, bytes, ..Summary::default() })
    }

    async fn begin(&self, source: &RemotePath) -> Result<Begun, CopyError> {
        let opened = self.storage.open_up_to(source, WHOLE_MAX).await;
        Ok(match opened.map_err(|error| Side::Source.of(error))? {
            Opened::Whole(reader) => {
                let size = reader.info().size;
                Begun::Whole(read_verified(source, reader, None, size).await?)
            }
            Opened::Large(info) => Begun::Large(info),
        })
    }

    async fn put_out_large(
        &self,
        source: &RemotePath,
        info: FileInfo,
        output: &mut dyn Output,
    ) -> Result<(), PipeError> {
        let too_large = || Side::Source.of(StorageError::new(source, Problem::Refused("too large for a pipe")));
        let extents = Extents::of(info.size).filter(|extents| extents.length() <= PART_MAX).ok_or_else(too_large)?;
        let file = Pinned { path: source.clone(), version: info.version, extents };
        // What is being read is read to its end, however long the output takes: a stream that stands
        // still would be given up. The permits bound what is in memory.
        let ahead = (limits::PIPED / extents.length()).max(1) as usize;
        let room = Semaphore::new(ahead);
        let parts = extents.iter().map(async |extent| {
            let permit = room.acquire().await;
            let part = self.waits.source(self.extent(&file, extent)).await;
            self.waits.piece();
            (part, permit)
        });
        let (send, mut received) = mpsc::unbounded_channel();
        let read = async {
            let mut parts = pin!(stream::iter(parts).buffered(ahead));
            while let Some(part) = parts.next().await {
                if send.send(part).is_err() {
                    break;
                }
            }
            drop(send);
            Ok(())
        };
        let write = async {
            while let Some((part, permit)) = received.recv().await {
                let part = part?;
                let len = part.len() as u64;
                self.waits.target(output.write(part)).await?;
                self.progress.advanced(ONLY, len);
                self.persistence.note_progress();
                drop(permit);
            }
            Ok(())
        };
        tokio::try_join!(read, write).map(drop)
    }

    async fn extent(&self, file: &Pinned, extent: Extent) -> Result<Bytes, CopyError> {
        let read = || async {
            let reader = self.storage.open_extent(file, extent.index).await.map_err(|error| Side::Source.of(error))?;
            read_verified(&file.path, reader, Some(extent), extent.length).await
        };
        self.persistence.again(read).await
    }
}

enum Begun {
    Whole(Bytes),
    Large(FileInfo),
}

/// All `length` bytes, holes as zeros, once their digest is what the source says.
async fn read_verified(
    path: &RemotePath,
    mut reader: Box<dyn Reader>,
    extent: Option<Extent>,
    length: u64,
) -> Result<Bytes, CopyError> {
    let failed = |error| Side::Source.of(error);
    let mut bytes = Vec::with_capacity(length as usize);
    let mut holes = reader.holes().iter().collect::<Vec<_>>().into_iter().peekable();
    loop {
        while let Some(hole) = holes.next_if(|hole| hole.offset <= bytes.len() as u64) {
            bytes.resize(bytes.len() + hole.length as usize, 0);
        }
        let Some(mut block) = reader.next_block().await.map_err(failed)? else { break };
        while let Some(hole) = holes.next_if(|hole| hole.offset < (bytes.len() + block.len()) as u64) {
            bytes.extend_from_slice(&block.split_to((hole.offset as usize).saturating_sub(bytes.len())));
            bytes.resize(bytes.len() + hole.length as usize, 0);
        }
        bytes.extend_from_slice(&block);
    }
    let expected = reader.finish().await.map_err(failed)?;
    let bytes = Bytes::from(bytes);
    let hashed = bytes.clone();
    let actual = on_blocking_thread(path, move || {
        let mut hasher = BodyHasher::new(extent);
        hasher.update(&hashed);
        hasher.finish()
    })
    .await?;
    check(path, expected, actual).map(|()| bytes)
}

fn check(path: &RemotePath, expected: Digest, actual: Digest) -> Result<(), CopyError> {
    let differs = || Side::Source.of(StorageError::new(path, Problem::DigestMismatch { expected, actual }));
    if expected == actual { Ok(()) } else { Err(differs()) }
}

async fn on_blocking_thread<T: Send + 'static>(
    path: &RemotePath,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CopyError> {
    let failed = |error: tokio::task::JoinError| Side::Source.of(StorageError::new(path, io::Error::from(error)));
    spawn_blocking(work).await.map_err(failed)
}

/// Bytes of a part at the most, all of which are in memory at a time: enough for files of 1 TiB.
const PART_MAX: u64 = 64 * 1024 * 1024;

/// A pipe is one file.
const ONLY: FileId = FileId(0);
