//! Uploads to a server, in one go and by extents.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use ftpq_proto::{
    Digest, Extents, Holes, RemotePath, Status, UploadId,
    commands::{begin, commit, prove, upld, write},
    limits::HELD_PAGE_MAX,
    message::Trailer,
};
use ftpq_storage::{Begun, Bytes, HeldExtent, LargeFile, Problem, Publish, Staging, StorageError, Upload};
use ftpq_transport::{SendError, SendHalf};
use tokio::{sync::oneshot, time::timeout};

use super::{Remote, not_empty, remote};
use crate::{
    bundle::InFlight,
    session::{Answers, Call, CallError, Part, decode},
};

/// A file on its way to a server, in one go.
pub(super) struct RemoteUpload {
    pub(super) path: RemotePath,
    pub(super) call: Call,
    /// The file's bytes; without it the body goes in chunks.
    pub(super) size: Option<u64>,
    pub(super) sent: u64,
}

#[async_trait]
impl Upload for RemoteUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        self.sent += block.len() as u64;
        let chunks = self.size.is_none();
        if chunks && block.is_empty() {
            return Ok(());
        }
        send(&self.path, &mut self.call, async |half| match chunks {
            true => half.chunk(block).await,
            false => half.block(block).await,
        })
        .await
    }

    async fn commit(mut self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let chunks = self.size.is_none();
        send(&self.path, &mut self.call, async |half| {
            if chunks {
                half.chunk(Bytes::new()).await?;
            }
            half.frame(&Trailer { digest: expected }).await
        })
        .await?;
        self.call.send.finish();
        let committed: upld::Committed = self.call.answers.reply().await.map_err(|error| remote(&self.path, error))?;
        check_committed(&self.path, &committed, self.size.unwrap_or(self.sent), expected)
    }
}

/// A large file whose BEGIN is to be answered.
pub(super) struct Beginner {
    pub(super) remote: Remote,
    pub(super) path: RemotePath,
    pub(super) file: LargeFile,
    /// The first extent follows.
    pub(super) first: bool,
}

impl Beginner {
    /// What there is to go on with, if the file is not there already, and whether the first extent is taken.
    pub(super) async fn hear(self, answers: &mut Answers) -> Result<Option<Begun>, StorageError> {
        let (begun, held, taken) = self.listen(answers).await.map_err(|error| remote(&self.path, error))?;
        let Self { remote, path, file: LargeFile { extents, overwrite, .. }, .. } = self;
        let staging = |id| Arc::new(RemoteStaging { remote, path, id, extents, overwrite, held });
        Ok(begun.upload.map(|id| Begun { staging: staging(id), takes_first: taken }))
    }

    async fn listen(&self, answers: &mut Answers) -> Result<(begin::Begun, Vec<HeldExtent>, bool), CallError> {
        let mut held = Vec::new();
        let (begun, taken): (begin::Begun, _) = loop {
            match answers.next().await? {
                Part::Item(value) => held.extend(not_empty(decode::<begin::Held>(&value)?.extents)?),
                Part::Head(_) if !self.first => return Err(CallError::Unexpected("a body")),
                Part::Head(value) => break (decode(&value)?, true),
                Part::Reply(value) => break (decode(&value)?, false),
            }
            if held.len() > self.file.extents.count() as usize {
                return Err(CallError::Unexpected("an extent that there is not"));
            }
        };
        held.sort_unstable_by_key(|held| held.index);
        match begun.upload {
            None if taken || self.file.same.is_none() => Err(CallError::Unexpected("a file that is there already")),
            _ => Ok((begun, held, taken)),
        }
    }
}

/// A first extent that follows its BEGIN.
pub(super) struct RemoteFirst {
    pub(super) path: RemotePath,
    pub(super) send: SendHalf,
    pub(super) patience: Duration,
    /// Where the rest of the answers comes from, once the extent is taken.
    pub(super) reply: oneshot::Receiver<Answers>,
    pub(super) in_flight: InFlight,
}

#[async_trait]
impl Upload for RemoteFirst {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        match in_time(self.patience, self.send.block(block)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(remote(&self.path, why(error, &mut self.reply).await)),
        }
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let Self { path, mut send, patience, mut reply, in_flight: _in_flight } = *self;
        let written = async {
            if let Err(error) = in_time(patience, send.frame(&Trailer { digest: expected })).await {
                return Err(why(error, &mut reply).await);
            }
            send.finish();
            let mut answers = reply.await.map_err(|_| CallError::BrokenOff(Status::Cancelled))?;
            let begun: begin::Begun = answers.reply().await?;
            begun.written.ok_or(CallError::Unexpected("a reply without a digest"))
        };
        check_written(&path, written.await.map_err(|error| remote(&path, error))?, expected)
    }
}

/// Why a first extent was stopped. If it was never taken, that is told to whoever waits for BEGIN's answer.
async fn why(error: SendError, reply: &mut oneshot::Receiver<Answers>) -> CallError {
    match error {
        SendError::Stopped(status) => match reply.await {
            Ok(mut answers) => answers.why(status).await,
            Err(_) => CallError::BrokenOff(status),
        },
        other => other.into(),
    }
}

/// A file on its way to a server, by extents.
struct RemoteStaging {
    remote: Remote,
    path: RemotePath,
    id: UploadId,
    extents: Extents,
    overwrite: bool,
    held: Vec<HeldExtent>,
}

#[async_trait]
impl Staging for RemoteStaging {
    fn id(&self) -> UploadId {
        self.id
    }

    fn extents(&self) -> Extents {
        self.extents
    }

    fn overwrites(&self) -> bool {
        self.overwrite
    }

    fn held(&self, from: u32) -> Vec<HeldExtent> {
        self.held.iter().filter(|held| held.index >= from).take(HELD_PAGE_MAX).copied().collect()
    }

    async fn write(&self, index: u32, holes: Holes) -> Result<Box<dyn Upload>, StorageError> {
        let args = write::Args { path: self.remote.at(&self.path)?, upload: self.id, index, holes };
        let call = self.remote.begin(write::VERB, &args).await.map_err(|error| remote(&self.path, error))?;
        let in_flight = self.remote.bundle.extent(self.remote.connections);
        Ok(Box::new(RemoteExtent { path: self.path.clone(), call, _in_flight: in_flight }))
    }

    async fn prove(&self, index: u32, digest: Digest) -> Result<bool, StorageError> {
        let args = prove::Args { path: self.remote.at(&self.path)?, upload: self.id, index, digest };
        Ok(self.remote.call::<_, prove::Proved>(&self.path, prove::VERB, &args).await?.same)
    }

    async fn settle(&self) {
        // The server does so before it commits.
    }

    async fn commit(&self, publish: Publish) -> Result<Digest, StorageError> {
        let Publish { digest, mode, mtime } = publish;
        let args = commit::Args { path: self.remote.at(&self.path)?, upload: self.id, digest, mode, mtime };
        let committed: upld::Committed = self.remote.call(&self.path, commit::VERB, &args).await?;
        check_committed(&self.path, &committed, self.extents.size(), digest)
    }
}

struct RemoteExtent {
    path: RemotePath,
    call: Call,
    _in_flight: InFlight,
}

#[async_trait]
impl Upload for RemoteExtent {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        send(&self.path, &mut self.call, async |half| half.block(block).await).await
    }

    async fn commit(mut self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        send(&self.path, &mut self.call, async |half| half.frame(&Trailer { digest: expected }).await).await?;
        self.call.send.finish();
        let written: write::Written = self.call.answers.reply().await.map_err(|error| remote(&self.path, error))?;
        check_written(&self.path, written.digest, expected)
    }
}

/// Sends part of a body; where the server takes it no more, it says why.
async fn send(
    path: &RemotePath,
    call: &mut Call,
    part: impl AsyncFnOnce(&mut SendHalf) -> Result<(), SendError>,
) -> Result<(), StorageError> {
    match in_time(call.answers.patience, part(&mut call.send)).await {
        Ok(()) => Ok(()),
        Err(error) => Err(remote(path, call.why(error).await)),
    }
}

async fn in_time(patience: Duration, part: impl Future<Output = Result<(), SendError>>) -> Result<(), SendError> {
    timeout(patience, part).await.unwrap_or(Err(SendError::Stalled))
}

/// The server's word is good for nothing unless it is about the same bytes.
fn check_written(path: &RemotePath, actual: Digest, expected: Digest) -> Result<Digest, StorageError> {
    if actual == expected {
        return Ok(actual);
    }
    Err(StorageError::new(path, Problem::DigestMismatch { expected, actual }))
}

/// As [`check_written`], of a whole file.
fn check_committed(
    path: &RemotePath,
    committed: &upld::Committed,
    announced: u64,
    expected: Digest,
) -> Result<Digest, StorageError> {
    let problem = if committed.length != announced {
        Problem::Length { announced, actual: committed.length }
    } else if committed.digest != expected {
        Problem::DigestMismatch { expected, actual: committed.digest }
    } else {
        return Ok(committed.digest);
    };
    Err(StorageError::new(path, problem))
}
