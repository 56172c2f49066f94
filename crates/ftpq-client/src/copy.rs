//! Copying files and trees from one storage to another: the one way, in every direction.
//!
//! A tree is walked while it is copied. Files are copied side by side, limited by their number and
//! by the bytes they may hold in buffers; folders are made before what is in them is needed, by the
//! receiver. One file that fails does not stop the others.
//!
//! What is interrupted, because the connection or the server went away, is done again on the next
//! connection, for as long as anything moves at least now and then. An upload whose reply was lost
//! may have been committed: it is sent again as one that may be there already.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ftpq_proto::{Entry, Kind, Name, RemotePath, Status};
use ftpq_storage::{NewFile, Problem, Storage, StorageError};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    link::{FIRST_PAUSE, LONGEST_PAUSE, jittered},
    progress::{FileId, Progress},
    session::CallError,
};

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Replace files that are there.
    pub overwrite: bool,
    /// Keep modification times and permission bits.
    pub preserve: bool,
    /// Leave files alone that are there, without an error.
    pub keep_existing: bool,
    /// Make missing folders above the target.
    pub parents: bool,
    /// Files in flight at the most.
    pub parallel: u32,
    /// How long to do again what is interrupted while nothing moves. Zero: an interruption is an
    /// error.
    pub retry_for: Duration,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that are there now: verified and durable.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Folders that were made or were there.
    pub folders: u64,
    /// Links and special files, which are left out.
    pub skipped: u64,
    /// Files that were there and were left alone, as asked for.
    pub kept: u64,
    /// Files and folders that failed.
    pub failed: u64,
}

/// A copy did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct CopyError {
    /// On which side.
    pub side: Side,
    /// What, and on which path there.
    pub error: StorageError,
}

/// One side of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the files come from.
    Source,
    /// Where they go to.
    Target,
}

impl CopyError {
    /// The same for programs.
    pub fn status(&self) -> Status {
        self.error.status()
    }

    /// Whether nothing else can succeed either.
    pub fn is_fatal(&self) -> bool {
        match &self.error.problem {
            Problem::Remote { .. } => self.is_interruption() || self.status() == Status::NotAuthorised,
            Problem::NoSpace => self.side == Side::Target,
            _ => false,
        }
    }

    /// Whether the connection or the server went away.
    fn is_interruption(&self) -> bool {
        match &self.error.problem {
            Problem::Remote { error, .. } => error.downcast_ref().is_some_and(CallError::is_interruption),
            _ => false,
        }
    }
}

/// A copy in progress: where from, where to, how, and who watches.
pub struct Copy {
    from: Arc<dyn Storage>,
    to: Arc<dyn Storage>,
    options: Options,
    progress: Arc<dyn Progress>,
    next_id: AtomicU64,
    /// Bytes that were moved so far: what shows that something moves.
    moved: AtomicU64,
    /// Bytes that all files in flight may hold in buffers, in KiB.
    memory: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

impl Copy {
    /// Prepares to copy.
    pub fn new(
        from: Arc<dyn Storage>,
        to: Arc<dyn Storage>,
        options: Options,
        progress: Arc<dyn Progress>,
    ) -> Arc<Self> {
        Arc::new(Self {
            from,
            to,
            options,
            progress,
            next_id: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
            files: Arc::new(Semaphore::new(options.parallel.max(1) as usize)),
        })
    }

    /// Copies the file `source` to `target`.
    pub async fn file(self: &Arc<Self>, source: &RemotePath, target: &RemotePath) -> Result<Summary, CopyError> {
        let id = FileId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let mut summary = Summary::default();
        match self.copy_file(id, source, target, false).await {
            Ok(bytes) => {
                self.progress.finished(id);
                summary.files = 1;
                summary.bytes = bytes;
            }
            Err(error) if self.may_stay(&error) => {
                self.progress.finished(id);
                summary.kept = 1;
            }
            Err(error) => return Err(error),
        }
        Ok(summary)
    }

    /// Copies the folder `source` with all it holds to the folder `target`, into which it is merged
    /// if it is there. `Err` only where nothing can go on; single failures are counted.
    pub async fn tree(self: &Arc<Self>, source: &RemotePath, target: &RemotePath) -> Result<Summary, CopyError> {
        let mut walk = Walk { copy: self.clone(), summary: Summary::default(), tasks: JoinSet::new() };
        let result = walk.run(source.clone(), target.clone()).await;
        // On a fatal error what is still in flight is dropped, and leaves nothing.
        if result.is_ok() {
            while let Some(done) = walk.tasks.join_next().await {
                walk.take(done)?;
            }
        }
        result.map(|()| walk.summary)
    }

    /// Copies a file, again where it is interrupted.
    async fn copy_file(
        &self,
        id: FileId,
        source: &RemotePath,
        target: &RemotePath,
        in_tree: bool,
    ) -> Result<u64, CopyError> {
        let mut patience = Patience::new(self);
        let mut again = false;
        loop {
            match self.attempt(id, source, target, in_tree, again).await {
                Err(error) if error.is_interruption() && patience.holds().await => {
                    self.progress.interrupted(id, &error);
                    again = true;
                }
                done => return done,
            }
        }
    }

    async fn attempt(
        &self,
        id: FileId,
        source: &RemotePath,
        target: &RemotePath,
        in_tree: bool,
        again: bool,
    ) -> Result<u64, CopyError> {
        let at_source = |error| CopyError { side: Side::Source, error };
        let at_target = |error| CopyError { side: Side::Target, error };
        let mut reader = self.from.open(source).await.map_err(at_source)?;
        let info = reader.info();
        if !again {
            if !in_tree {
                self.progress.planned(1, info.size);
            }
            self.progress.started(id, source, info.size);
        }
        let file = NewFile {
            size: info.size,
            overwrite: self.options.overwrite,
            accept_same: again,
            // Within a tree, a file may overtake the making of its folder.
            parents: self.options.parents || in_tree,
            mode: self.options.preserve.then_some(info.mode),
            mtime: self.options.preserve.then_some(info.mtime),
        };
        let mut upload = self.to.create(target, file).await.map_err(at_target)?;
        while let Some(block) = reader.next_block().await.map_err(at_source)? {
            let len = block.len() as u64;
            upload.write(block).await.map_err(at_target)?;
            self.moved.fetch_add(len, Ordering::Relaxed);
            self.progress.advanced(id, len);
        }
        let digest = reader.finish().await.map_err(at_source)?;
        upload.commit(digest).await.map_err(at_target)?;
        Ok(info.size)
    }

    async fn make_folder(&self, target: &RemotePath) -> Result<(), CopyError> {
        let mut patience = Patience::new(self);
        loop {
            match self.to.make_folder(target, true).await.map_err(|error| CopyError { side: Side::Target, error }) {
                Err(error) if error.is_interruption() && patience.holds().await => {}
                done => return done,
            }
        }
    }

    fn may_stay(&self, error: &CopyError) -> bool {
        self.options.keep_existing && error.side == Side::Target && error.status() == Status::Exists
    }
}

/// How long it is worth trying again: until nothing has moved for [`Options::retry_for`].
struct Patience<'a> {
    copy: &'a Copy,
    moved: u64,
    since: Instant,
    pause: Duration,
}

impl<'a> Patience<'a> {
    fn new(copy: &'a Copy) -> Self {
        Self { copy, moved: copy.moved.load(Ordering::Relaxed), since: Instant::now(), pause: FIRST_PAUSE }
    }

    /// Waits a moment; `false` when it is over.
    async fn holds(&mut self) -> bool {
        let moved = self.copy.moved.load(Ordering::Relaxed);
        if moved != self.moved {
            *self = Self::new(self.copy);
        }
        if self.since.elapsed() >= self.copy.options.retry_for {
            return false;
        }
        sleep(jittered(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// A tree being walked and copied.
struct Walk {
    copy: Arc<Copy>,
    summary: Summary,
    tasks: JoinSet<Done>,
}

/// How one task of a walk ended.
struct Done {
    id: Option<FileId>,
    result: Result<Copied, CopyError>,
}

enum Copied {
    File(u64),
    Folder,
}

impl Walk {
    async fn run(&mut self, source: RemotePath, target: RemotePath) -> Result<(), CopyError> {
        let mut folders = vec![(source, target)];
        while let Some((source, target)) = folders.pop() {
            self.make_folder(target.clone()).await?;
            // A folder that cannot be read fails alone.
            if let Err(error) = self.folder(&source, &target, &mut folders).await {
                self.fail(None, error)?;
            }
        }
        Ok(())
    }

    /// Goes through one folder. Interrupted, it begins again and passes over what it has seen.
    async fn folder(
        &mut self,
        source: &RemotePath,
        target: &RemotePath,
        folders: &mut Vec<(RemotePath, RemotePath)>,
    ) -> Result<(), CopyError> {
        let copy = self.copy.clone();
        let mut patience = Patience::new(&copy);
        let mut seen = HashSet::new();
        loop {
            match self.pages(source, target, folders, &mut seen).await {
                Err(error) if error.is_interruption() && patience.holds().await => {}
                done => return done,
            }
        }
    }

    async fn pages(
        &mut self,
        source: &RemotePath,
        target: &RemotePath,
        folders: &mut Vec<(RemotePath, RemotePath)>,
        seen: &mut HashSet<Name>,
    ) -> Result<(), CopyError> {
        let at_source = |error| CopyError { side: Side::Source, error };
        let mut listing = self.copy.from.list(source).await.map_err(at_source)?;
        while let Some(mut page) = listing.next_page().await.map_err(at_source)? {
            page.retain(|entry| entry.name.as_ref().is_some_and(|name| seen.insert(name.clone())));
            self.plan(&page);
            for entry in page {
                self.entry(entry, source, target, folders).await?;
            }
        }
        Ok(())
    }

    fn plan(&self, page: &[Entry]) {
        let files = page.iter().filter(|entry| entry.kind == Kind::File);
        let (count, bytes) = files.fold((0, 0_u64), |(count, sum), file| (count + 1, sum.saturating_add(file.size)));
        self.copy.progress.planned(count, bytes);
    }

    async fn entry(
        &mut self,
        entry: Entry,
        source: &RemotePath,
        target: &RemotePath,
        folders: &mut Vec<(RemotePath, RemotePath)>,
    ) -> Result<(), CopyError> {
        // Only a folder's own listing has names; a server that says otherwise is skipped.
        let Some(name) = &entry.name else { return Ok(()) };
        let below = |folder: &RemotePath, side| {
            folder.join(name).map_err(|error| CopyError { side, error: StorageError::new(folder, error) })
        };
        let (source, target) = match (below(source, Side::Source), below(target, Side::Target)) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(error), _) | (_, Err(error)) => return self.fail(None, error),
        };
        match entry.kind {
            Kind::File => self.copy_file(source, target, entry.size).await,
            Kind::Folder => {
                folders.push((source, target));
                Ok(())
            }
            Kind::Link | Kind::Other => {
                self.summary.skipped += 1;
                self.copy.progress.skipped(&source, entry.kind);
                Ok(())
            }
        }
    }

    /// Starts copying a file as soon as there is room for it.
    async fn copy_file(&mut self, source: RemotePath, target: RemotePath, size: u64) -> Result<(), CopyError> {
        let copy = self.copy.clone();
        let weight = (size / 1024).clamp(SMALLEST_KIB.into(), LARGEST_KIB.into()) as u32;
        let files = self.room(copy.files.clone(), 1).await?;
        let memory = self.room(copy.memory.clone(), weight).await?;
        let id = FileId(copy.next_id.fetch_add(1, Ordering::Relaxed));
        self.tasks.spawn(async move {
            let result = copy.copy_file(id, &source, &target, true).await.map(Copied::File);
            drop((files, memory));
            Done { id: Some(id), result }
        });
        Ok(())
    }

    async fn make_folder(&mut self, target: RemotePath) -> Result<(), CopyError> {
        let copy = self.copy.clone();
        let files = self.room(copy.files.clone(), 1).await?;
        self.tasks.spawn(async move {
            let result = copy.make_folder(&target).await.map(|()| Copied::Folder);
            drop(files);
            Done { id: None, result }
        });
        Ok(())
    }

    /// Waits for room, taking note of what ends meanwhile.
    async fn room(&mut self, room: Arc<Semaphore>, count: u32) -> Result<tokio::sync::OwnedSemaphorePermit, CopyError> {
        loop {
            while let Some(done) = self.tasks.try_join_next() {
                self.take(done)?;
            }
            if let Ok(permit) = room.clone().try_acquire_many_owned(count) {
                return Ok(permit);
            }
            // Whatever holds the room is one of the tasks.
            if let Some(done) = self.tasks.join_next().await {
                self.take(done)?;
            }
        }
    }

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), CopyError> {
        // A task of ours is never cancelled while its walk goes on: it panicked.
        let Done { id, result } = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        match result {
            Ok(Copied::Folder) => self.summary.folders += 1,
            Ok(Copied::File(bytes)) => {
                id.into_iter().for_each(|id| self.copy.progress.finished(id));
                self.summary.files += 1;
                self.summary.bytes += bytes;
            }
            Err(error) if self.copy.may_stay(&error) => {
                id.into_iter().for_each(|id| self.copy.progress.finished(id));
                self.summary.kept += 1;
            }
            Err(error) => return self.fail(id, error),
        }
        Ok(())
    }

    fn fail(&mut self, id: Option<FileId>, error: CopyError) -> Result<(), CopyError> {
        if error.is_fatal() {
            return Err(error);
        }
        self.summary.failed += 1;
        self.copy.progress.failed(id, &error);
        Ok(())
    }
}

/// What all files in flight may hold in buffers.
const MEMORY_KIB: u32 = 16 * 1024;

/// What a small file holds, whatever its size: its task, its stream, its messages.
const SMALLEST_KIB: u32 = 16;

/// What a large file holds, whatever its size: two blocks here, a window's worth in the connection.
const LARGEST_KIB: u32 = 2 * 1024;
