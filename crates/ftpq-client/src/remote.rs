//! A server's files as a storage: what [`crate::copy`] reads from and writes to.

mod writing;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ftpq_proto::{
    Digest, Entry, Holes, LinkTarget, RemotePath, Timestamp, UploadId, UserPath,
    commands::{attr, begin, dwld, link, list, mkdir, mv, read, rm, stat, upld},
    limits::EAGER_BODY_MAX,
    message::Trailer,
};
use ftpq_storage::{
    Attributes, BLOCK, Beginning, Bytes, FileInfo, LargeFile, Listing, NewFile, NewLink, Opened, Pinned, Problem,
    Reader, Staging, Storage, StorageError, Upload,
};
use ftpq_transport::{RecvError, tuning};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, time::timeout};

use self::writing::{Beginner, RemoteFirst, RemoteUpload};
use crate::{
    bundle::{Bundle, Connections, InFlight},
    limits,
    link::Link,
    session::{Call, CallError, Part, Session, decode},
};

/// The files of a server, below a folder of it.
#[derive(Clone)]
pub struct Remote {
    bundle: Arc<Bundle>,
    connections: Connections,
    /// Where this storage's root is on the server.
    base: RemotePath,
    names: Arc<Names>,
}

/// How many names a server may still list.
struct Names {
    most: u64,
    left: AtomicU64,
}

impl Names {
    fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, left: AtomicU64::new(most) })
    }

    /// A listing that was cut is asked for again.
    fn give_back(&self, count: u64) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }

    fn take(&self, count: u64) -> Result<(), CallError> {
        let take = |left: u64| left.checked_sub(count);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| CallError::TooMany(self.most))
    }
}

impl Remote {
    /// All that the server shows this user.
    pub fn new(link: Arc<Link>) -> Self {
        Self::spread(link, [])
    }

    /// The same, over several connections to the one server.
    pub fn spread(link: Arc<Link>, more: impl IntoIterator<Item = Arc<Link>>) -> Self {
        Self::bundled(Bundle::of(link, more, 1), Connections::UpTo(usize::MAX))
    }

    /// The same, over those `connections` that `bundle` has at any time.
    pub fn bundled(bundle: Arc<Bundle>, connections: Connections) -> Self {
        Self { bundle, connections, base: RemotePath::root(), names: Names::new(limits::NAMES) }
    }

    /// The same, taking so many names from all listings together, instead of [`limits::NAMES`].
    #[must_use]
    pub fn with_most_names(self, most: u64) -> Self {
        Self { names: Names::new(most), ..self }
    }

    /// The same, for as long as this one session lasts.
    pub fn over(session: Session) -> Self {
        Self::new(Link::over(session))
    }

    /// A session on the server: one that is open, or the next.
    pub async fn session(&self) -> Result<Session, CallError> {
        match self.bundle.next(self.connections).session().await {
            // One connection that cannot be had must not keep the others from their work.
            Err(lost) => self.bundle.live(self.connections).ok_or(lost),
            session => session,
        }
    }

    fn at(&self, path: &RemotePath) -> Result<UserPath, StorageError> {
        let path = self.base.append(path).map_err(|error| StorageError::new(path, error))?;
        Ok(path.into())
    }

    async fn begin<A: Serialize>(&self, verb: &str, args: &A) -> Result<Call, CallError> {
        self.session().await?.begin(verb, &RemotePath::root(), args).await
    }

    async fn download(&self, args: &dwld::Args) -> Result<(Call, dwld::File), CallError> {
        let mut call = self.begin(dwld::VERB, args).await?;
        call.send.finish();
        let head = call.answers.head().await?;
        Ok((call, head))
    }

    async fn begin_large(&self, path: &RemotePath, file: &LargeFile, first: bool) -> Result<Call, StorageError> {
        let LargeFile { extents, fresh, apart, sparse, overwrite, same, parents, .. } = *file;
        let (size, extent, path_there) = (extents.size(), extents.length(), self.at(path)?);
        let args =
            begin::Args { path: path_there, size, extent, fresh, apart, sparse, overwrite, same, parents, first };
        self.begin(begin::VERB, &args).await.map_err(|error| remote(path, error))
    }

    async fn begin_read(&self, file: &Pinned, index: u32, digest_only: bool) -> Result<Call, CallError> {
        let path = self.base.append(&file.path).unwrap_or_default().into();
        let Pinned { version, extents, .. } = *file;
        let args = read::Args { path, version, size: extents.size(), extent: extents.length(), index, digest_only };
        let mut call = self.begin(read::VERB, &args).await?;
        call.send.finish();
        Ok(call)
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
            call.answers.reply().await
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
        Ok(Box::new(RemoteListing {
            path: path.clone(),
            call: Some(call),
            names: self.names.clone(),
            taken: 0,
            itself: false,
        }))
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        let args = dwld::Args { path: self.at(path)?, up_to: None, sparse: false };
        let (call, head) = self.download(&args).await.map_err(|error| remote(path, error))?;
        whole(path, call, head)
    }

    async fn open_up_to(&self, path: &RemotePath, up_to: u64) -> Result<Opened, StorageError> {
        let args = dwld::Args { path: self.at(path)?, up_to: Some(up_to), sparse: true };
        let (mut call, head) = self.download(&args).await.map_err(|error| remote(path, error))?;
        if head.size <= up_to {
            return Ok(Opened::Whole(whole(path, call, head)?));
        }
        let _: dwld::Large = call.answers.reply().await.map_err(|error| remote(path, error))?;
        Ok(Opened::Large(info(&head)))
    }

    async fn open_extent(&self, file: &Pinned, index: u32) -> Result<Box<dyn Reader>, StorageError> {
        let opened = async {
            let mut call = self.begin_read(file, index, false).await?;
            let head: read::Part = call.answers.head().await?;
            Ok((call, head.holes))
        };
        let (call, holes) = opened.await.map_err(|error| remote(&file.path, error))?;
        let extent = file.extents.get(index).map_or(0, |extent| extent.length);
        let left = data_in(&file.path, &holes, extent)?;
        // The rest was told when the file was opened.
        let (size, version, mtime) = (file.extents.size(), file.version, Timestamp::default());
        let info = FileInfo { size, version, sparse: false, mtime, mode: 0 };
        let last = Last::Part { _in_flight: self.bundle.extent(self.connections) };
        Ok(Box::new(RemoteReader { path: file.path.clone(), call, info, holes, left, last }))
    }

    async fn extent_digest(&self, file: &Pinned, index: u32) -> Result<Digest, StorageError> {
        let sent = async { self.begin_read(file, index, true).await?.answers.reply::<read::Sent>().await };
        Ok(sent.await.map_err(|error| remote(&file.path, error))?.digest)
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        let NewFile { size, holes, overwrite, accept_same, parents, mode, mtime } = file;
        // A small body need not wait for the server's word: it travels with the request.
        let eager = size.is_some_and(|size| size <= EAGER_BODY_MAX);
        let path_there = self.at(path)?;
        let args = upld::Args { path: path_there, size, holes, overwrite, accept_same, parents, eager, mode, mtime };
        let begin = async {
            let mut call = self.begin(upld::VERB, &args).await?;
            if !eager {
                let _: upld::Go = call.answers.head().await?;
            }
            Ok(call)
        };
        let call = begin.await.map_err(|error| remote(path, error))?;
        Ok(Box::new(RemoteUpload { path: path.clone(), call, size, sent: 0 }))
    }

    async fn begin(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        let mut call = self.begin_large(path, &file, false).await?;
        call.send.finish();
        let begun =
            Beginner { remote: self.clone(), path: path.clone(), file, first: false }.hear(&mut call.answers).await?;
        Ok(begun.map(|begun| begun.staging))
    }

    async fn begin_with_first(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Beginning>, StorageError> {
        let Call { send, mut answers } = self.begin_large(path, &file, true).await?;
        let (pass_on, reply) = oneshot::channel();
        let (patience, in_flight) = (answers.patience, self.bundle.extent(self.connections));
        let first = RemoteFirst { path: path.clone(), send, patience, reply, in_flight };
        let begun = Beginner { remote: self.clone(), path: path.clone(), file, first: true };
        let begun = async move {
            let begun = begun.hear(&mut answers).await?;
            // Where it is not taken, nobody waits for it.
            let _ = pass_on.send(answers);
            Ok(begun)
        };
        Ok(Some(Beginning { first: Box::new(first), begun: Box::pin(begun) }))
    }

    async fn staging(&self, path: &RemotePath, _: Digest, _: UploadId) -> Result<Arc<dyn Staging>, StorageError> {
        // Uploads of other connections are nothing that a client could ask for.
        Err(StorageError::new(path, Problem::NoUpload))
    }

    async fn sweep(&self, _: Duration) -> Result<u64, StorageError> {
        // The server tidies up after itself.
        Ok(0)
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

    fn is_far(&self) -> bool {
        true
    }

    fn width(&self) -> usize {
        self.bundle.len(self.connections)
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
    names: Arc<Names>,
    /// How many names it has brought.
    taken: u64,
    itself: bool,
}

impl Drop for RemoteListing {
    fn drop(&mut self) {
        if self.call.is_some() {
            self.names.give_back(self.taken);
        }
    }
}

#[async_trait]
impl Listing for RemoteListing {
    async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, StorageError> {
        let Some(call) = &mut self.call else { return Ok(None) };
        let next = async {
            match call.answers.next().await? {
                Part::Item(value) => {
                    let page = not_empty(decode::<list::Page>(&value)?.entries)?;
                    self.names.take(page.len() as u64)?;
                    self.taken += page.len() as u64;
                    Ok(Some(page))
                }
                Part::Reply(value) => {
                    self.itself = !decode::<list::Listed>(&value)?.folder;
                    Ok(None)
                }
                Part::Head(_) => Err(CallError::Unexpected("a body")),
            }
        };
        let page = next.await.map_err(|error| remote(&self.path, error))?;
        if page.is_none() {
            self.call = None;
        }
        Ok(page)
    }

    fn is_itself(&self) -> bool {
        self.itself
    }
}

struct RemoteReader {
    path: RemotePath,
    call: Call,
    info: FileInfo,
    holes: Holes,
    left: u64,
    last: Last,
}

/// What the server replies after a body.
enum Last {
    File,
    Part { _in_flight: InFlight },
}

fn info(head: &dwld::File) -> FileInfo {
    let &dwld::File { size, version, sparse, mtime, mode, .. } = head;
    FileInfo { size, version, sparse, mtime, mode }
}

fn whole(path: &RemotePath, call: Call, head: dwld::File) -> Result<Box<dyn Reader>, StorageError> {
    let left = data_in(path, &head.holes, head.size)?;
    let info = info(&head);
    Ok(Box::new(RemoteReader { path: path.clone(), call, info, holes: head.holes, left, last: Last::File }))
}

/// Pages without end that hold nothing would keep a client for ever.
fn not_empty<T>(page: Vec<T>) -> Result<Vec<T>, CallError> {
    if page.is_empty() { Err(CallError::Unexpected("an empty page")) } else { Ok(page) }
}

/// Bytes of the body of something with these holes.
fn data_in(path: &RemotePath, holes: &Holes, length: u64) -> Result<u64, StorageError> {
    holes.data_in(length).ok_or_else(|| remote(path, CallError::Unexpected("a hole beyond the end")))
}

#[async_trait]
impl Reader for RemoteReader {
    fn info(&self) -> FileInfo {
        self.info
    }

    fn holes(&self) -> &Holes {
        &self.holes
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        let len = self.left.min(BLOCK as u64) as usize;
        let block = timeout(self.call.answers.patience, self.call.answers.recv.block(len))
            .await
            .unwrap_or(Err(RecvError::Stalled));
        let block = block.map_err(|error| remote(&self.path, error.into()))?;
        self.left -= block.len() as u64;
        Ok(Some(block))
    }

    async fn finish(mut self: Box<Self>) -> Result<Digest, StorageError> {
        while self.next_block().await?.is_some() {}
        let finish = async {
            let trailer: Trailer = self.call.answers.recv.frame(tuning::STALL.min(self.call.answers.patience)).await?;
            match self.last {
                Last::File => self.call.answers.reply::<dwld::Sent>().await.map(drop)?,
                Last::Part { .. } => self.call.answers.reply::<read::Sent>().await.map(drop)?,
            }
            Ok(trailer.digest)
        };
        finish.await.map_err(|error| remote(&self.path, error))
    }
}

fn remote(path: &RemotePath, error: CallError) -> StorageError {
    // What a server says names the path, and a connection that is gone is gone for all of them.
    let names_path = matches!(error, CallError::Refused(_) | CallError::Closed(_) | CallError::Connect(_));
    StorageError::new(path, Problem::Remote { status: error.status(), names_path, error: Box::new(error) })
}
