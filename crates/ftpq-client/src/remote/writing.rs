//! Uploads to a server, in one go and by extents.

use async_trait::async_trait;
use ftpq_proto::{
    Digest, Extents, Holes, RemotePath, UploadId,
    commands::{commit, prove, upld, write},
    message::Trailer,
};
use ftpq_storage::{Bytes, HeldExtent, Problem, Publish, Staging, StorageError, Upload};
use ftpq_transport::{SendError, SendHalf};
use tokio::time::timeout;

use super::{Remote, remote};
use crate::{bundle::InFlight, session::Call};

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
        let committed: upld::Committed = self.call.reply().await.map_err(|error| remote(&self.path, error))?;
        check_committed(&self.path, &committed, self.size.unwrap_or(self.sent), expected)
    }
}

/// A file on its way to a server, by extents.
pub(super) struct RemoteStaging {
    pub(super) remote: Remote,
    pub(super) path: RemotePath,
    pub(super) id: UploadId,
    pub(super) extents: Extents,
    pub(super) overwrite: bool,
    pub(super) held: Vec<HeldExtent>,
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

    fn held(&self) -> Vec<HeldExtent> {
        self.held.clone()
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
        let written: write::Written = self.call.reply().await.map_err(|error| remote(&self.path, error))?;
        match written.digest {
            actual if actual == expected => Ok(actual),
            actual => Err(StorageError::new(&self.path, Problem::DigestMismatch { expected, actual })),
        }
    }
}

/// Sends part of a body; where the server takes it no more, it says why.
async fn send(
    path: &RemotePath,
    call: &mut Call,
    part: impl AsyncFnOnce(&mut SendHalf) -> Result<(), SendError>,
) -> Result<(), StorageError> {
    let sent = timeout(call.patience, part(&mut call.send)).await.unwrap_or(Err(SendError::Stalled));
    match sent {
        Ok(()) => Ok(()),
        Err(error) => Err(remote(path, call.why(error).await)),
    }
}

/// The server's word is good for nothing unless it is about the same bytes.
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
