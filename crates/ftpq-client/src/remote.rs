//! A server's files as a storage: what [`crate::copy`] reads from and writes to.

use std::sync::Arc;

use async_trait::async_trait;
use ftpq_proto::{
    Digest, Entry, LinkTarget, RemotePath, UserPath,
    commands::{attr, dwld, link, list, mkdir, mv, rm, stat, upld},
    limits::EAGER_BODY_MAX,
    message::Trailer,
};
use ftpq_storage::{
    Attributes, BLOCK, Bytes, FileInfo, Listing, NewFile, NewLink, Problem, Reader, Storage, StorageError, Upload,
};
use ftpq_transport::tuning;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    link::Link,
    session::{Call, CallError, Part, Session, decode},
};

/// The files of a server, below a folder of it.
#[derive(Clone)]
pub struct Remote {
    link: Arc<Link>,
    /// Where this storage's root is on the server.
    base: RemotePath,
}

impl Remote {
    /// All that the server shows this user.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, base: RemotePath::root() }
    }

    /// The same, for as long as this one session lasts.
    pub fn over(session: Session) -> Self {
        Self::new(Link::over(session))
    }

    /// The session underneath: the one that is open, or the next.
    pub async fn session(&self) -> Result<Session, CallError> {
        self.link.session().await
    }

    fn at(&self, path: &RemotePath) -> Result<UserPath, StorageError> {
        let path = self.base.append(path).map_err(|error| StorageError::new(path, error))?;
        Ok(path.into())
    }

    async fn begin<A: Serialize>(&self, verb: &str, args: &A) -> Result<Call, CallError> {
        self.session().await?.begin(verb, &RemotePath::root(), args).await
    }

    async fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        path: &RemotePath,
        verb: &str,
        args: &A,
    ) -> Result<R, StorageError> {
        let call = async {
            let mut call = self.begin(verb, args).await?;
            call.send.finish();
            call.reply().await
        };
        call.await.map_err(|error| remote(path, error))
    }
}

#[async_trait]
impl Storage for Remote {
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError> {
        let args = stat::Args { path: self.at(path)? };
        Ok(self.call::<_, stat::Found>(path, stat::VERB, &args).await?.entry)
    }

    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError> {
        let args = list::Args { path: self.at(path)? };
        let begin = async {
            let mut call = self.begin(list::VERB, &args).await?;
            call.send.finish();
            Ok(call)
        };
        let call = begin.await.map_err(|error| remote(path, error))?;
        Ok(Box::new(RemoteListing { path: path.clone(), call: Some(call) }))
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        let args = dwld::Args { path: self.at(path)? };
        let begin = async {
            let mut call = self.begin(dwld::VERB, &args).await?;
            call.send.finish();
            let head: dwld::File = call.head().await?;
            Ok((call, head))
        };
        let (call, head) = begin.await.map_err(|error| remote(path, error))?;
        let info = FileInfo { size: head.size, mtime: head.mtime, mode: head.mode };
        Ok(Box::new(RemoteReader { path: path.clone(), call, info, left: head.size }))
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        let NewFile { size, overwrite, accept_same, parents, mode, mtime } = file;
        // A small body need not wait for the server's word: it travels with the request.
        let eager = size <= EAGER_BODY_MAX;
        let args = upld::Args { path: self.at(path)?, size, overwrite, accept_same, parents, eager, mode, mtime };
        let begin = async {
            let mut call = self.begin(upld::VERB, &args).await?;
            if !eager {
                let _: upld::Go = call.head().await?;
            }
            Ok(call)
        };
        let call = begin.await.map_err(|error| remote(path, error))?;
        Ok(Box::new(RemoteUpload { path: path.clone(), call, size }))
    }

    async fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), StorageError> {
        let args = mkdir::Args { path: self.at(path)?, parents };
        self.call::<_, mkdir::Made>(path, mkdir::VERB, &args).await.map(drop)
    }

    async fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), StorageError> {
        let NewLink { overwrite, accept_same, parents, mtime } = link;
        let args = link::Args { path: self.at(path)?, target: target.clone(), overwrite, accept_same, parents, mtime };
        self.call::<_, link::Linked>(path, link::VERB, &args).await.map(drop)
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), StorageError> {
        let args = attr::Args { path: self.at(path)?, mode: attributes.mode, mtime: attributes.mtime };
        self.call::<_, attr::Set>(path, attr::VERB, &args).await.map(drop)
    }

    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError> {
        let args = rm::Args { path: self.at(path)?, recursive };
        Ok(self.call::<_, rm::Removed>(path, rm::VERB, &args).await?.count)
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError> {
        let args = mv::Args { from: self.at(from)?, to: self.at(to)?, overwrite };
        self.call::<_, mv::Moved>(from, mv::VERB, &args).await.map(drop)
    }

    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError> {
        let base = self.base.append(path).map_err(|error| StorageError::new(path, error))?;
        Ok(Arc::new(Remote { base, ..self.clone() }))
    }
}

struct RemoteListing {
    path: RemotePath,
    /// `None` after the reply.
    call: Option<Call>,
}

#[async_trait]
impl Listing for RemoteListing {
    async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, StorageError> {
        let Some(call) = &mut self.call else { return Ok(None) };
        let next = async {
            match call.next().await? {
                Part::Item(value) => Ok(Some(decode::<list::Page>(&value)?.entries)),
                Part::Reply(_) => Ok(None),
                Part::Head(_) => Err(CallError::Unexpected("a body")),
            }
        };
        let page = next.await.map_err(|error| remote(&self.path, error))?;
        if page.is_none() {
            self.call = None;
        }
        Ok(page)
    }
}

struct RemoteReader {
    path: RemotePath,
    call: Call,
    info: FileInfo,
    left: u64,
}

#[async_trait]
impl Reader for RemoteReader {
    fn info(&self) -> FileInfo {
        self.info
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        let len = self.left.min(BLOCK as u64) as usize;
        let block = self.call.recv.block(len).await.map_err(|error| remote(&self.path, error.into()))?;
        self.left -= block.len() as u64;
        Ok(Some(block))
    }

    async fn finish(mut self: Box<Self>) -> Result<Digest, StorageError> {
        while self.next_block().await?.is_some() {}
        let finish = async {
            let trailer: Trailer = self.call.recv.frame(tuning::STALL).await?;
            let _: dwld::Sent = self.call.reply().await?;
            Ok(trailer.digest)
        };
        finish.await.map_err(|error| remote(&self.path, error))
    }
}

struct RemoteUpload {
    path: RemotePath,
    call: Call,
    size: u64,
}

#[async_trait]
impl Upload for RemoteUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        match self.call.send.block(block).await {
            Ok(()) => Ok(()),
            Err(error) => Err(remote(&self.path, self.call.why(error).await)),
        }
    }

    async fn commit(mut self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        if let Err(error) = self.call.send.frame(&Trailer { digest: expected }).await {
            return Err(remote(&self.path, self.call.why(error).await));
        }
        self.call.send.finish();
        let committed: upld::Committed = self.call.reply().await.map_err(|error| remote(&self.path, error))?;
        // The server's word is good for nothing unless it is about the same bytes.
        let problem = if committed.length != self.size {
            Problem::Length { announced: self.size, actual: committed.length }
        } else if committed.digest != expected {
            Problem::DigestMismatch { expected, actual: committed.digest }
        } else {
            return Ok(committed.digest);
        };
        Err(StorageError::new(&self.path, problem))
    }
}

fn remote(path: &RemotePath, error: CallError) -> StorageError {
    StorageError::new(path, Problem::Remote { status: error.status(), error: Box::new(error) })
}
