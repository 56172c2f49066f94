//! Uploads by extents, for those who must not block, and the list of those that are going on.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use ftpq_proto::{Digest, Extents, Holes, Name, RemotePath, UploadId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{
    behind::Behind,
    publish::Target,
    root::Root,
    stage::{ExtentWriter, LocalStaging, StagedFile, staged_name},
    sweep,
    turns::Writing,
};
use crate::{
    HeldExtent, LargeFile, Publish, Staging, Upload,
    blocking::{Wanted, blocking},
    error::{Problem, StorageError},
};

/// The uploads of one storage that are going on, so that each of their extents finds them by name.
#[derive(Debug)]
pub(super) struct Stagings {
    list: Mutex<List>,
    /// One for each name that may be begun, by its hash.
    turns: [Arc<AsyncMutex<()>>; TURNS],
    /// For how long what is unfinished is kept.
    age: Duration,
}

#[derive(Debug, Default)]
struct List {
    going_on: HashMap<UploadId, Entry>,
    /// The last that were taken over, so that they can be told.
    superseded: VecDeque<UploadId>,
    /// Folders (device and inode) in which what is old was removed.
    swept: HashSet<(u64, u64)>,
}

#[derive(Debug)]
struct Entry {
    staging: Arc<LocalStaging>,
    /// The folder (device and inode) from which its path leads.
    root: (u64, u64),
    used: Instant,
}

/// An upload that is about to begin.
struct Begin {
    root: Arc<Root>,
    path: RemotePath,
    file: LargeFile,
    target: Target,
    /// Of the staged file.
    name: Name,
}

impl Stagings {
    pub(super) fn new(age: Duration) -> Self {
        Self { list: Mutex::default(), turns: std::array::from_fn(|_| Arc::default()), age }
    }

    /// Begins, or goes on and takes over from whoever did before. `None` if the file is there.
    pub(super) async fn begin(
        self: &Arc<Self>,
        root: Arc<Root>,
        path: RemotePath,
        file: LargeFile,
    ) -> Result<Option<Arc<LocalStaging>>, Problem> {
        let list = self.clone();
        let Some(begin) = blocking(move |wanted| list.look(root, path, file, wanted)).await? else { return Ok(None) };
        // Of two that begin the same at once, the second takes over from the first. Nobody waits for these turns on a
        // thread: whoever has one may be waiting for a thread to become free.
        let turn = self.turn(&begin.name).await;
        let list = self.clone();
        let (begin, before) = blocking(move |_| list.who_has(&begin).map(|before| (begin, before))).await?;
        let file_turn = match before {
            Some(before) => Some(before.staged.turns.file().await),
            None => None,
        };
        let list = self.clone();
        let open = move |wanted: &Wanted| {
            let _turns = (turn, file_turn);
            list.open(begin, wanted)
        };
        blocking(open).await
    }

    /// Where it will be; `None` if it is there.
    fn look(
        &self,
        root: Arc<Root>,
        path: RemotePath,
        file: LargeFile,
        wanted: &Wanted,
    ) -> Result<Option<Begin>, Problem> {
        self.forget_idle();
        self.lock().make_room(file.owner);
        let target = Target::find(&root, &path, file.parents)?;
        if is_there(&target, &file, wanted)? {
            return Ok(None);
        }
        let name = staged_name(&target.name, &file)?;
        Ok(Some(Begin { root, path, file, target, name }))
    }

    /// Who has the staged file. Others may go on with other files until that one has ended what it is doing.
    fn who_has(&self, begin: &Begin) -> Result<Option<Arc<LocalStaging>>, Problem> {
        Ok(StagedFile::find(&begin.target, &begin.name)?.and_then(|identity| self.lock().with_file(identity)))
    }

    /// Opens the staged file, or takes it from whoever has it. In the turns of both.
    fn open(&self, begin: Begin, wanted: &Wanted) -> Result<Option<Arc<LocalStaging>>, Problem> {
        let Begin { root, path, file, target, name } = begin;
        let staged = match StagedFile::find(&target, &name)?.and_then(|identity| self.supersede(identity)) {
            Some(staged) if staged.suits(&file) => staged,
            Some(staged) => {
                // Its last writer may still have it open, locked.
                root.sys().unlink(&target.folder, name.as_bytes())?;
                staged.discard();
                Arc::new(StagedFile::open(root.sys(), &target, &name, &file)?)
            }
            // It may have been published since: the client never heard of it, and asks again.
            None if is_there(&target, &file, wanted)? => return Ok(None),
            None => {
                self.sweep_once(&target)?;
                Arc::new(StagedFile::open(root.sys(), &target, &name, &file)?)
            }
        };
        let staging = Arc::new(LocalStaging::new(staged, target, path, &file)?);
        let entry = Entry { staging: staging.clone(), root: root.identity()?, used: Instant::now() };
        self.lock().going_on.insert(staging.id, entry);
        Ok(Some(staging))
    }

    /// What was begun as `upload`, if it is still going on.
    pub(super) fn find(
        &self,
        root: &Root,
        path: &RemotePath,
        owner: Digest,
        upload: UploadId,
    ) -> Result<Arc<LocalStaging>, Problem> {
        let identity = root.identity()?;
        let mut list = self.lock();
        if list.superseded.contains(&upload) {
            return Err(Problem::Superseded);
        }
        let entry = list.going_on.get_mut(&upload).ok_or(Problem::NoUpload)?;
        // The same path from another root is another place.
        if entry.staging.owner != owner || entry.staging.path != *path || entry.root != identity {
            return Err(Problem::NoUpload);
        }
        entry.used = Instant::now();
        if entry.staging.staged.is_removed() {
            return Err(Problem::NoUpload);
        }
        Ok(entry.staging.clone())
    }

    /// Closes what was removed from the disk, and what nobody uses. What is kept on disk stays: it can be begun
    /// again.
    pub(super) fn forget_idle(&self) {
        let removed = self.lock().forget_idle();
        removed.iter().for_each(|staging| staging.staged.discard());
    }

    /// Takes the staged file from whoever has it, unless it was published meanwhile.
    fn supersede(&self, identity: (u64, u64)) -> Option<Arc<StagedFile>> {
        let superseded = self.lock().supersede(identity)?;
        superseded.staged.take_over()?;
        Some(superseded.staged.clone())
    }

    /// Whoever keeps something in a folder tidies it first: a client has no server's time to do so.
    fn sweep_once(&self, target: &Target) -> Result<(), Problem> {
        let stat = rustix::fs::fstat(&target.folder)?;
        if self.lock().is_first_look((stat.st_dev, stat.st_ino)) {
            sweep::sweep_folder(&mut rustix::fs::Dir::read_from(&target.folder)?, self.age)?;
        }
        Ok(())
    }

    /// Held by whoever begins something of this name; a few others may have to wait for it, too.
    async fn turn(&self, name: &Name) -> Option<OwnedMutexGuard<()>> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        let turn = self.turns.get(hash as usize % TURNS)?.clone();
        Some(turn.lock_owned().await)
    }

    /// How many have what was begun as `upload`.
    #[cfg(test)]
    pub(super) fn holders(&self, upload: UploadId) -> usize {
        self.lock().going_on.get(&upload).map_or(0, |entry| Arc::strong_count(&entry.staging))
    }

    fn end(&self, upload: UploadId) {
        self.lock().going_on.remove(&upload);
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what the target holds is what is to be sent. Anything else there must be for replacing.
fn is_there(target: &Target, file: &LargeFile, wanted: &Wanted) -> Result<bool, Problem> {
    let size = file.extents.size();
    target.check(file.overwrite, file.same.map(|_| size))?;
    if let Some(same) = file.same
        && target.holds(size, same, wanted)?
    {
        return Ok(true);
    }
    target.check(file.overwrite, None)?;
    Ok(false)
}

impl List {
    /// What goes on with the staged file of this identity.
    fn with_file(&self, identity: (u64, u64)) -> Option<Arc<LocalStaging>> {
        let mut going_on = self.going_on.values().map(|entry| &entry.staging);
        going_on.find(|staging| staging.staged.identity == identity).cloned()
    }

    /// The same, which goes on no more.
    fn supersede(&mut self, identity: (u64, u64)) -> Option<Arc<LocalStaging>> {
        let id = self.with_file(identity)?.id;
        let entry = self.going_on.remove(&id)?;
        self.superseded.push_back(id);
        if self.superseded.len() > SUPERSEDED_MAX {
            self.superseded.pop_front();
        }
        Some(entry.staging)
    }

    fn is_first_look(&mut self, folder: (u64, u64)) -> bool {
        if self.swept.len() == SWEPT_MAX {
            self.swept.clear();
        }
        self.swept.insert(folder)
    }

    /// Forgets what nobody uses, and what has no name any more: that is returned, as some may be using it.
    fn forget_idle(&mut self) -> Vec<Arc<LocalStaging>> {
        let removed = self.going_on.extract_if(|_, entry| entry.staging.staged.is_removed());
        let removed = removed.map(|(_, entry)| entry.staging).collect();
        self.going_on.retain(|_, entry| entry.in_use() || entry.used.elapsed() < IDLE);
        removed
    }

    /// Closes what is used least, to make room for one more of `owner`.
    fn make_room(&mut self, owner: Digest) {
        while self.going_on.values().filter(|entry| entry.staging.owner == owner).count() >= OWNED_MAX {
            if !self.forget_idlest(|entry| entry.staging.owner == owner) {
                break;
            }
        }
        while self.going_on.len() >= GOING_ON_MAX && self.forget_idlest(|_| true) {}
    }

    fn forget_idlest(&mut self, of: impl Fn(&Entry) -> bool) -> bool {
        let idle = self.going_on.iter().filter(|(_, entry)| !entry.in_use() && of(entry));
        let idlest = idle.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id);
        idlest.is_some_and(|id| self.going_on.remove(&id).is_some())
    }
}

impl Entry {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.staging) > 1
    }
}

/// An upload that is going on, as its handlers see it.
pub(super) struct Handle {
    pub(super) staging: Arc<LocalStaging>,
    pub(super) list: Arc<Stagings>,
}

impl Handle {
    /// Does `work` on a thread, in the `turn` that it needs.
    async fn run<T: Send + 'static>(
        &self,
        turn: impl Send + 'static,
        work: impl FnOnce(&LocalStaging, &Wanted) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, StorageError> {
        let staging = self.staging.clone();
        let work = move |wanted: &Wanted| {
            let _turn = turn;
            work(&staging, wanted)
        };
        blocking(work).await.map_err(|problem| StorageError::new(&self.staging.path, problem))
    }
}

#[async_trait]
impl Staging for Handle {
    fn id(&self) -> UploadId {
        self.staging.id
    }

    fn extents(&self) -> Extents {
        self.staging.staged.extents
    }

    fn overwrites(&self) -> bool {
        self.staging.overwrite
    }

    fn held(&self, from: u32) -> Vec<HeldExtent> {
        self.staging.staged.held(from)
    }

    async fn write(&self, index: u32, holes: Holes) -> Result<Box<dyn Upload>, StorageError> {
        let writing = self.staging.staged.turns.writing();
        let turn = self.staging.staged.turns.extent(index).await;
        let hollow = !holes.is_empty();
        let writer = self.run(turn, move |staging, _| staging.begin_extent(index, &holes)).await?;
        let staging = self.staging.clone();
        Ok(Box::new(LocalExtent { staging, index, hollow, writer: Behind::Ready(writer), _writing: writing }))
    }

    async fn prove(&self, index: u32, digest: Digest) -> Result<bool, StorageError> {
        let turn = self.staging.staged.turns.extent(index).await;
        self.run(turn, move |staging, wanted| staging.prove(index, digest, wanted)).await
    }

    async fn settle(&self) {
        let staged = &self.staging.staged;
        staged.turns.settled(|| staged.is_complete()).await;
    }

    async fn commit(&self, publish: Publish) -> Result<Digest, StorageError> {
        let list = self.list.clone();
        let turn = self.staging.staged.turns.file().await;
        // In one go: whoever asked for it may be gone before it is done.
        self.run(turn, move |staging, wanted| staging.publish(publish, wanted).inspect(|_| list.end(staging.id))).await
    }
}

/// One extent being written.
struct LocalExtent {
    staging: Arc<LocalStaging>,
    index: u32,
    /// It has holes.
    hollow: bool,
    writer: Behind<ExtentWriter>,
    _writing: Writing,
}

#[async_trait]
impl Upload for LocalExtent {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        let staging = self.staging.clone();
        let turn = staging.staged.turns.extent(self.index).await;
        let write = move |writer: &mut ExtentWriter| {
            let _turn = turn;
            staging.write(writer, &block)
        };
        let written = match self.writer.next(write).await {
            Ok(()) if self.hollow => self.writer.done().await,
            written => written,
        };
        written.map_err(|problem| StorageError::new(&self.staging.path, problem))
    }

    async fn commit(mut self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let staging = self.staging.clone();
        let ended = match self.writer.take().await {
            Ok(writer) => {
                let turn = staging.staged.turns.extent(self.index).await;
                let end = move |_: &Wanted| {
                    let _turn = turn;
                    staging.end_extent(writer, expected)
                };
                blocking(end).await
            }
            Err(problem) => Err(problem),
        };
        ended.map_err(|problem| StorageError::new(&self.staging.path, problem))
    }
}

/// An upload of which nothing was heard for so long is closed; what is kept of it stays on disk.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// Uploads by extents that go on at a time, unless all are in use: each is two open files.
const GOING_ON_MAX: usize = 1024;

/// Those of one owner: as many as its client has files in flight by default.
const OWNED_MAX: usize = 64;

/// Names of taken-over uploads that are remembered.
const SUPERSEDED_MAX: usize = 1024;

/// Uploads that may begin at the same time: beginning waits for the disk.
const TURNS: usize = 64;

/// Folders that are remembered as swept.
const SWEPT_MAX: usize = 4096;
