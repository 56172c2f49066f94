//! A tree being walked and copied at the same time.

use std::{
    cmp::Reverse,
    collections::HashSet,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ftpq_proto::{Entry, Kind, LinkTarget, Name, RemotePath};
use ftpq_storage::{Attributes, NewLink, Problem, StorageError};
use futures_util::TryFutureExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
};

use super::{
    Copied, Copy, CopyError, FileCopy, Followed, LeftOut, Pause, Side, Summary,
    ahead::Ahead,
    file::Room,
    folders::{Folder, Seen, Waiting, next_ones},
    links,
};
use crate::{limits, progress::FileId, session::CallError};

pub(super) struct Walk {
    copy: Arc<Copy>,
    summary: Summary,
    tasks: JoinSet<Done>,
    /// The folders that are being gone through, each in the one before.
    open: Vec<Folder>,
    waiting: Waiting,
    ahead: Ahead,
    /// How folders that were gone through are to be, and what that takes in memory.
    attributes: Vec<(RemotePath, Attributes)>,
    attributes_bytes: usize,
    /// [`limits::ATTRIBUTES`]
    pub(super) attributes_most: usize,
    /// Folders that could not be made, and are not in `attributes` therefore.
    missing: HashSet<RemotePath>,
}

/// How one task of a walk ended.
struct Done {
    id: Option<FileId>,
    what: What,
    result: Result<(), CopyError>,
}

enum What {
    File(Copied),
    Folder(RemotePath),
    Link,
    Attributes,
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
        Self {
            ahead: Ahead::new(copy.from.clone()),
            copy,
            summary: Summary::default(),
            tasks: JoinSet::new(),
            open: Vec::new(),
            waiting: Waiting::default(),
            attributes: Vec::new(),
            attributes_bytes: 0,
            attributes_most: limits::ATTRIBUTES,
            missing: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self, source: RemotePath, target: RemotePath) -> Result<Summary, CopyError> {
        // On a fatal error what is still in flight is dropped, and leaves nothing.
        match self.walk(source, target).await {
            Ok(()) => Ok(self.summary),
            Err(Fatal(error)) => Err(error),
        }
    }

    async fn walk(&mut self, source: RemotePath, target: RemotePath) -> Result<(), Fatal> {
        let mut first = Folder::first(source, target);
        if self.copy.options.preserve {
            let copy = self.copy.clone();
            match again(&copy, Side::Source, || copy.from.stat(&first.source)).await {
                Ok(root) => (first.mode, first.mtime) = (root.mode, root.mtime),
                // Nor can it be listed.
                Err(error) => return self.fail(None, error),
            }
        }
        self.enter(first).await?;
        while !self.open.is_empty() {
            self.ahead.begin(next_ones(&self.open, &self.waiting));
            let Some(folder) = self.open.last_mut() else { break };
            match folder.next(&mut self.waiting) {
                Some(below) => self.enter(below).await?,
                None => self.leave().await?,
            }
        }
        self.set_attributes().await
    }

    async fn enter(&mut self, mut folder: Folder) -> Result<(), Fatal> {
        self.make_folder(folder.target.clone()).await?;
        self.folder(&mut folder).await?;
        self.open.push(folder);
        Ok(())
    }

    /// The innermost folder was gone through, with all that is in it.
    async fn leave(&mut self) -> Result<(), Fatal> {
        if let Some(Folder { target, mode, mtime, .. }) = self.open.pop().filter(|_| self.copy.options.preserve) {
            let attributes = Attributes { mode: Some(mode), mtime: Some(mtime) };
            self.attributes_bytes += size_of::<(RemotePath, Attributes)>() + target.as_relative_bytes().len();
            self.attributes.push((target, attributes));
        }
        if self.attributes_bytes > self.attributes_most { self.set_attributes().await } else { Ok(()) }
    }

    /// Waits until nothing is in flight.
    async fn settle(&mut self) -> Result<(), Fatal> {
        while let Some(done) = self.tasks.join_next().await {
            self.take(done)?;
        }
        Ok(())
    }

    /// Once nothing is in flight, as whatever comes into a folder changes its time; and the deepest folders
    /// first, as what a folder's mode forbids must be over by then.
    async fn set_attributes(&mut self) -> Result<(), Fatal> {
        self.settle().await?;
        let mut folders = std::mem::take(&mut self.attributes);
        self.attributes_bytes = 0;
        folders.retain(|(target, _)| !self.missing.remove(target));
        folders.sort_by_cached_key(|(target, _)| Reverse(target.depth()));
        let mut level = None;
        for (target, attributes) in folders {
            if level.replace(target.depth()).is_some_and(|level| level != target.depth()) {
                self.settle().await?;
            }
            let copy = self.copy.clone();
            let files = self.room(copy.files.clone(), 1).await?;
            self.tasks.spawn(async move {
                let result = again(&copy, Side::Target, || copy.to.set_attributes(&target, attributes)).await;
                drop(files);
                Done { id: None, what: What::Attributes, result }
            });
        }
        self.settle().await
    }

    /// Goes through one folder. Interrupted, it begins again and passes over what it has seen. A
    /// folder that cannot be read fails alone.
    async fn folder(&mut self, folder: &mut Folder) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let mut pause = Pause::new();
        let mut seen = Seen::default();
        loop {
            match self.pages(folder, &mut seen).await {
                Ok(()) => return Ok(()),
                Err(Stop::Fatal(fatal)) => return Err(fatal),
                Err(Stop::Listing(error)) if !seen.overflown && copy.persistence.tries_again(&error) => {
                    pause.wait().await
                }
                Err(Stop::Listing(error)) => return self.fail(None, error),
            }
        }
    }

    async fn pages(&mut self, folder: &mut Folder, seen: &mut Seen) -> Result<(), Stop> {
        let failed = |error| Stop::Listing(Side::Source.of(error));
        let mut pages = self.ahead.open(&folder.source).await;
        while let Some(mut page) = pages.next().await.map_err(failed)? {
            // What comes of a page that was begun is seen to: nothing but the end of the walk stops it.
            page.retain(|entry| seen.add(entry));
            if !page.is_empty() {
                self.copy.persistence.note_progress();
            }
            self.plan(&page);
            for entry in page {
                self.entry(&entry, folder).await?;
            }
        }
        Ok(())
    }

    fn plan(&self, page: &[Entry]) {
        let files = page.iter().filter(|entry| entry.kind == Kind::File);
        let (count, bytes) = files.fold((0, 0_u64), |(count, sum), file| (count + 1, sum.saturating_add(file.size)));
        self.copy.progress.planned(count, bytes);
    }

    async fn entry(&mut self, entry: &Entry, folder: &mut Folder) -> Result<(), Fatal> {
        // Only a folder's own listing has names; a server that says otherwise is not followed.
        let Some(name) = &entry.name else { return Ok(()) };
        let below = |folder: &RemotePath, side: Side| {
            folder.join(name).map_err(|error| side.of(StorageError::new(folder, error)))
        };
        let (source, target) = match (below(&folder.source, Side::Source), below(&folder.target, Side::Target)) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(error), _) | (_, Err(error)) => return self.fail(None, error),
        };
        match entry.kind {
            Kind::Link if self.copy.options.follow_links => self.follow(entry, source, target, folder).await,
            Kind::Link => self.keep_link(entry, source, target, folder).await,
            Kind::Folder if self.copy.options.follow_links && self.is_open(&source, folder) => {
                self.leave_out(&source, LeftOut::Loop);
                Ok(())
            }
            Kind::Folder => self.found_folder(entry, name, None, folder),
            _ => self.found(entry, source, target).await,
        }
    }

    /// Something that is neither link nor folder.
    async fn found(&mut self, entry: &Entry, source: RemotePath, target: RemotePath) -> Result<(), Fatal> {
        match entry.kind {
            Kind::File => self.copy_file(source, target, entry.size).await,
            _ => {
                self.leave_out(&source, LeftOut::Special);
                Ok(())
            }
        }
    }

    /// A folder: it waits for its turn. `real` is where it is if a link led there.
    fn found_folder(
        &mut self,
        entry: &Entry,
        name: &Name,
        real: Option<RemotePath>,
        above: &mut Folder,
    ) -> Result<(), Fatal> {
        if above.add(&mut self.waiting, name, real, entry) {
            return Ok(());
        }
        // Better now than after a part that nobody could tell from the whole.
        let problem = Problem::Refused("holds more folders than can be kept in mind: take them in parts");
        Err(Fatal(Side::Source.of(StorageError::new(&above.source, problem))))
    }

    /// A link as a link, if it leads to something in the tree.
    async fn keep_link(
        &mut self,
        entry: &Entry,
        source: RemotePath,
        target: RemotePath,
        above: &Folder,
    ) -> Result<(), Fatal> {
        match &entry.target {
            None => self.fail(None, Side::Source.of(StorageError::new(&source, Problem::NotRegular))),
            Some(points_to) if points_to.stays_within(above.depth) => {
                self.make_link(target, points_to.clone(), entry).await
            }
            Some(_) => {
                self.leave_out(&source, LeftOut::LeadsOut);
                Ok(())
            }
        }
    }

    /// What a link leads to, under the link's own name.
    async fn follow(
        &mut self,
        entry: &Entry,
        source: RemotePath,
        target: RemotePath,
        above: &mut Folder,
    ) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let (Some(points_to), Some(name)) = (&entry.target, &entry.name) else {
            let error = StorageError::new(&source, Problem::NotRegular);
            return self.fail(None, Side::Source.of(error));
        };
        match again(&copy, Side::Source, || links::follow(&*copy.from, &above.source, points_to)).await {
            Ok(Followed::To(real, entry)) if entry.kind == Kind::Folder => {
                if !self.is_open(&real, above) {
                    return self.found_folder(&entry, name, Some(real), above);
                }
                self.leave_out(&source, LeftOut::Loop);
            }
            Ok(Followed::To(real, entry)) => {
                self.plan(std::slice::from_ref(&entry));
                self.found(&entry, real, target).await?;
            }
            Ok(Followed::Out) => self.leave_out(&source, LeftOut::LeadsOut),
            Ok(Followed::Loop) => self.leave_out(&source, LeftOut::Loop),
            Err(CopyError { side, error }) => {
                // The name that was typed or listed says more than where its link broke off.
                self.fail(None, side.of(StorageError { path: source, ..error }))?;
            }
        }
        Ok(())
    }

    /// Whether the folder `real` is gone through already on the way to what is in `innermost`.
    fn is_open(&self, real: &RemotePath, innermost: &Folder) -> bool {
        self.open.iter().chain([innermost]).any(|folder| folder.source == *real)
    }

    fn leave_out(&mut self, source: &RemotePath, why: LeftOut) {
        self.summary.skipped += 1;
        self.copy.progress.skipped(source, why);
    }

    /// Starts copying a file as soon as there is room for it.
    async fn copy_file(&mut self, source: RemotePath, target: RemotePath, size: u64) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let files = self.room(copy.files.clone(), 1).await?;
        let memory = self.room(copy.memory.clone(), Room::weight_of(size)).await?;
        let id = copy.next_id();
        self.tasks.spawn(async move {
            let room = Room::new(memory);
            let copied = FileCopy::new(&copy, id, &source, &target, Some(room)).in_tree().run().await;
            drop(files);
            let what = What::File(copied.as_ref().copied().unwrap_or_default());
            Done { id: Some(id), what, result: copied.map(drop) }
        });
        Ok(())
    }

    async fn make_folder(&mut self, target: RemotePath) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let files = self.room(copy.files.clone(), 1).await?;
        self.tasks.spawn(async move {
            let result = again(&copy, Side::Target, || copy.to.make_folder(&target, true)).await;
            drop(files);
            Done { id: None, what: What::Folder(target), result }
        });
        Ok(())
    }

    async fn make_link(&mut self, path: RemotePath, target: LinkTarget, entry: &Entry) -> Result<(), Fatal> {
        let copy = self.copy.clone();
        let files = self.room(copy.files.clone(), 1).await?;
        let mtime = copy.options.preserve.then_some(entry.mtime);
        self.tasks.spawn(async move {
            // One that was cut before its reply may have been made.
            let may_be_there = AtomicBool::new(false);
            let made = || async {
                let accept_same = may_be_there.load(Ordering::Relaxed);
                let link = NewLink { overwrite: copy.options.overwrite, accept_same, parents: true, mtime };
                let made = copy.to.make_link(&path, &target, link).await;
                let asked = made.as_ref().is_err_and(|error| !is_unasked(error));
                may_be_there.fetch_or(asked, Ordering::Relaxed);
                made
            };
            let result = again(&copy, Side::Target, made).await;
            drop(files);
            Done { id: None, what: What::Link, result }
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
        let Done { id, what, result } = done.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        match result {
            Ok(()) => self.count(id, &what),
            Err(error) if self.copy.may_stay(&error) => {
                id.into_iter().for_each(|id| self.copy.progress.finished(id));
                // It had to be asked for.
                self.copy.persistence.note_progress();
                self.summary.kept += 1;
            }
            Err(error) => {
                if let What::Folder(target) = what
                    && self.copy.options.preserve
                {
                    self.missing.insert(target);
                }
                return self.fail(id, error);
            }
        }
        Ok(())
    }

    fn count(&mut self, id: Option<FileId>, what: &What) {
        id.into_iter().for_each(|id| self.copy.progress.finished(id));
        self.copy.persistence.note_progress();
        match what {
            What::File(Copied { bytes, resumed }) => {
                self.summary.files += 1;
                self.summary.bytes += bytes;
                self.summary.resumed += resumed;
            }
            What::Folder(_) => self.summary.folders += 1,
            What::Link => self.summary.links += 1,
            What::Attributes => {}
        }
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

/// Whether there was no connection on which anything could have been asked for.
fn is_unasked(error: &StorageError) -> bool {
    matches!(&error.problem, Problem::Remote { error, .. }
        if error.downcast_ref().is_some_and(CallError::is_connecting))
}

/// Does something on one side, again where it is interrupted.
async fn again<T, F>(copy: &Copy, side: Side, mut attempt: impl FnMut() -> F) -> Result<T, CopyError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    copy.persistence.again(|| attempt().map_err(move |error| side.of(error))).await
}
