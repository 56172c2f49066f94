//! A tree being walked and copied at the same time.

use std::{collections::HashSet, panic::resume_unwind, sync::Arc};

use ftpq_proto::{Entry, Kind, Name, RemotePath};
use ftpq_storage::StorageError;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
};

use super::{Copied, Copy, CopyError, FileCopy, Pause, Side, Summary};
use crate::progress::FileId;

pub(super) struct Walk {
    copy: Arc<Copy>,
    summary: Summary,
    tasks: JoinSet<Done>,
    /// Folders to go through: source and target.
    folders: Vec<(RemotePath, RemotePath)>,
}

/// How one task of a walk ended.
struct Done {
    id: Option<FileId>,
    result: Result<What, CopyError>,
}

enum What {
    File(Copied),
    Folder,
}

/// An error after which nothing can go on. A type of its own, so that it cannot be taken for an
/// error of whatever happened to be going on.
struct Fatal(CopyError);

/// Why a folder was not gone through to its end.
enum Stop {
    /// Its own listing failed.
    Listing(CopyError),
    /// The walk is over.
    Fatal(Fatal),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Stop::Fatal(fatal)
    }
}

impl Walk {
    pub(super) fn new(copy: Arc<Copy>) -> Self {
        Self { copy, summary: Summary::default(), tasks: JoinSet::new(), folders: Vec::new() }
    }

    pub(super) async fn run(mut self, source: RemotePath, target: RemotePath) -> Result<Summary, CopyError> {
        self.folders.push((source, target));
        // On a fatal error what is still in flight is dropped, and leaves nothing.
        match self.walk().await {
            Ok(()) => Ok(self.summary),
            Err(Fatal(error)) => Err(error),
        }
    }

    async fn walk(&mut self) -> Result<(), Fatal> {
        while let Some((source, target)) = self.folders.pop() {
            self.make_folder(target.clone()).await?;
            self.folder(&source, &target).await?;
        }
        while let Some(done) = self.tasks.join_next().await {
            self.take(done)?;
        }
        Ok(())
    }

    /// Goes through one folder. Interrupted, it begins again and passes over what it has seen. A
    /// folder that cannot be read fails alone.
    async fn folder(&mut self, source: &RemotePath, target: &RemotePath) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let mut pause = Pause::new();
        let mut seen = Seen::default();
        loop {
            match self.pages(source, target, &mut seen).await {
                Ok(()) => return Ok(()),
                Err(Stop::Fatal(fatal)) => return Err(fatal),
                Err(Stop::Listing(error)) if !seen.overflown && copy.persistence.tries_again(&error) => {
                    pause.wait().await
                }
                Err(Stop::Listing(error)) => return self.fail(None, error),
            }
        }
    }

    async fn pages(&mut self, source: &RemotePath, target: &RemotePath, seen: &mut Seen) -> Result<(), Stop> {
        let failed = |error| Stop::Listing(Side::Source.of(error));
        let mut listing = self.copy.from.list(source).await.map_err(failed)?;
        while let Some(mut page) = listing.next_page().await.map_err(failed)? {
            page.retain(|entry| !seen.contains(entry));
            self.plan(&page);
            for entry in page {
                self.entry(&entry, source, target).await?;
                seen.insert(entry);
            }
        }
        Ok(())
    }

    fn plan(&self, page: &[Entry]) {
        let files = page.iter().filter(|entry| entry.kind == Kind::File);
        let (count, bytes) = files.fold((0, 0_u64), |(count, sum), file| (count + 1, sum.saturating_add(file.size)));
        self.copy.progress.planned(count, bytes);
    }

    async fn entry(&mut self, entry: &Entry, source: &RemotePath, target: &RemotePath) -> Result<(), Fatal> {
        // Only a folder's own listing has names; a server that says otherwise is not followed.
        let Some(name) = &entry.name else { return Ok(()) };
        let below = |folder: &RemotePath, side: Side| {
            folder.join(name).map_err(|error| side.of(StorageError::new(folder, error)))
        };
        let (source, target) = match (below(source, Side::Source), below(target, Side::Target)) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(error), _) | (_, Err(error)) => return self.fail(None, error),
        };
        match entry.kind {
            Kind::File => self.copy_file(source, target, entry.size).await,
            Kind::Folder => {
                self.folders.push((source, target));
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
    async fn copy_file(&mut self, source: RemotePath, target: RemotePath, size: u64) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let weight = (size / 1024).clamp(SMALLEST_KIB.into(), LARGEST_KIB.into()) as u32;
        let files = self.room(copy.files.clone(), 1).await?;
        let memory = self.room(copy.memory.clone(), weight).await?;
        let id = copy.next_id();
        self.tasks.spawn(async move {
            let result = FileCopy::new(&copy, id, &source, &target, true).run().await.map(What::File);
            drop((files, memory));
            Done { id: Some(id), result }
        });
        Ok(())
    }

    async fn make_folder(&mut self, target: RemotePath) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let files = self.room(copy.files.clone(), 1).await?;
        self.tasks.spawn(async move {
            let mut pause = Pause::new();
            let result = loop {
                match copy.to.make_folder(&target, true).await.map_err(|error| Side::Target.of(error)) {
                    Err(error) if copy.persistence.tries_again(&error) => pause.wait().await,
                    made => break made.map(|()| What::Folder),
                }
            };
            drop(files);
            Done { id: None, result }
        });
        Ok(())
    }

    /// Waits for room, taking note of what ends meanwhile.
    async fn room(&mut self, room: Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, Fatal> {
        loop {
            while let Some(done) = self.tasks.try_join_next() {
                self.take(done)?;
            }
            tokio::select! {
                // The semaphores are never closed.
                Ok(permit) = room.clone().acquire_many_owned(count) => return Ok(permit),
                Some(done) = self.tasks.join_next() => self.take(done)?,
            }
        }
    }

    fn take(&mut self, done: Result<Done, JoinError>) -> Result<(), Fatal> {
        // A task of ours is never cancelled while its walk goes on: it panicked.
        let Done { id, result } = done.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        match result {
            Ok(What::Folder) => self.summary.folders += 1,
            Ok(What::File(Copied { bytes, resumed })) => {
                id.into_iter().for_each(|id| self.copy.progress.finished(id));
                self.summary.files += 1;
                self.summary.bytes += bytes;
                self.summary.resumed += resumed;
            }
            Err(error) if self.copy.may_stay(&error) => {
                id.into_iter().for_each(|id| self.copy.progress.finished(id));
                self.summary.kept += 1;
            }
            Err(error) => return self.fail(id, error),
        }
        Ok(())
    }

    fn fail(&mut self, id: Option<FileId>, error: CopyError) -> Result<(), Fatal> {
        if error.is_fatal() {
            return Err(Fatal(error));
        }
        self.summary.failed += 1;
        self.copy.progress.failed(id, &error);
        Ok(())
    }
}

/// The names in a folder that were dealt with, as long as they fit.
#[derive(Default)]
struct Seen {
    names: HashSet<Name>,
    bytes: usize,
    /// More than is kept: this folder cannot be begun again.
    overflown: bool,
}

impl Seen {
    fn contains(&self, entry: &Entry) -> bool {
        entry.name.as_ref().is_some_and(|name| self.names.contains(name))
    }

    fn insert(&mut self, entry: Entry) {
        let Some(name) = entry.name else { return };
        self.bytes += name.as_bytes().len() + size_of::<Name>();
        self.overflown |= self.bytes > SEEN_MAX;
        if self.overflown {
            self.names = HashSet::new();
        } else {
            self.names.insert(name);
        }
    }
}

/// Bytes of names that are remembered of one folder: some 400,000 of them.
const SEEN_MAX: usize = 16 * 1024 * 1024;

/// What a small file holds, whatever its size: its task, its stream, its messages.
const SMALLEST_KIB: u32 = 16;

/// What a large file holds, whatever its size: some extents, each two blocks here and a window's worth in
/// the connection.
const LARGEST_KIB: u32 = 4 * 1024;
