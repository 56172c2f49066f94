//! How much users may have: bytes, and files, folders and links, of all that lies in their root.
//!
//! [`Quotas`] keeps an account ([`ledger`]) of each root that a limit holds for, whoever writes there, and hands
//! out storages that keep to it. Room is reserved before anything is written (`reservation`), so whatever
//! happens at the same time, there is never more than the limit, and a file that is being sent has its room.

mod ledger;
mod reservation;
mod upload;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use ftpq_handler::Limits;
use ftpq_proto::{Digest, Entry, Kind, LinkTarget, RemotePath, UploadId};
use ftpq_storage::{
    Attributes, LargeFile, Listing, NewFile, NewLink, Opened, Pinned, Problem, Reader, Staging, Storage, StorageError,
    Upload, Usage, holding,
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use self::{
    ledger::{Ledger, Quota},
    reservation::{Books, Freeing, Reservation},
    upload::{AgainUpload, CountedStaging, CountedUpload},
};

/// The accounts of a server.
#[derive(Default)]
pub(crate) struct Quotas {
    /// In the order of their roots.
    ledgers: RwLock<Vec<Arc<Ledger>>>,
    turns: Mutex<HashMap<(RemotePath, Digest), Turn>>,
}

/// Of those that begin or finish an upload of one owner to one path, one at a time does.
type Turn = Arc<AsyncMutex<()>>;

impl Quotas {
    /// `storage`, which is below `root`, for a user with these `limits`: itself, where no limit holds for
    /// anything there.
    pub(crate) fn limit(
        self: &Arc<Self>,
        storage: Arc<dyn Storage>,
        root: &RemotePath,
        limits: &Limits,
    ) -> Arc<dyn Storage> {
        let own = Quota::of(limits).map(|quota| (self.ledger(root, &storage), quota));
        let concerns = |ledger: &Arc<Ledger>| root.starts_with(&ledger.root) || ledger.root.starts_with(root);
        if own.is_none() && !self.read(|ledgers| ledgers.iter().any(concerns)) {
            return storage;
        }
        Arc::new(Counted { storage, quotas: self.clone(), place: root.clone(), own })
    }

    /// Something was removed by the server itself.
    pub(crate) fn freed(&self) {
        self.read(|ledgers| ledgers.iter().for_each(|ledger| ledger.freed()));
    }

    /// The account of `root`.
    fn ledger(&self, root: &RemotePath, storage: &Arc<dyn Storage>) -> Arc<Ledger> {
        let mut ledgers = self.ledgers.write().unwrap_or_else(PoisonError::into_inner);
        match ledgers.binary_search_by(|ledger| ledger.root.cmp(root)) {
            Ok(index) => {
                let ledger = ledgers.get(index).cloned();
                ledger.inspect(|ledger| ledger.set_storage(storage.clone()))
            }
            Err(index) => {
                ledgers.insert(index, Arc::new(Ledger::new(root.clone(), storage.clone())));
                ledgers.get(index).cloned()
            }
        }
        .unwrap_or_else(|| Arc::new(Ledger::new(root.clone(), storage.clone())))
    }

    fn read<T>(&self, look: impl FnOnce(&[Arc<Ledger>]) -> T) -> T {
        look(&self.ledgers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn turn(&self, path: RemotePath, owner: Digest) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry((path, owner)).or_default().clone()
    }
}

/// A storage of which account is kept.
struct Counted {
    storage: Arc<dyn Storage>,
    quotas: Arc<Quotas>,
    /// Where its root is, from the server's.
    place: RemotePath,
    /// What holds for its user.
    own: Option<(Arc<Ledger>, Quota)>,
}

impl Counted {
    /// In which accounts what is at `path` counts; `None` if in no one's.
    fn books(&self, path: &RemotePath) -> Option<Books> {
        let is_own = |ledger: &Arc<Ledger>| self.own.as_ref().is_some_and(|(own, _)| Arc::ptr_eq(own, ledger));
        let others = self.quotas.read(|ledgers| {
            let holds = ledgers.iter().filter(|ledger| is_below(&self.place, path, &ledger.root) && !is_own(ledger));
            holds.cloned().collect::<Vec<_>>()
        });
        (self.own.is_some() || !others.is_empty()).then(|| Books { own: self.own.clone(), others })
    }

    fn turn(&self, path: &RemotePath, owner: Digest) -> Turn {
        // Two paths that are too long to tell apart wait for each other.
        self.quotas.turn(self.place.append(path).unwrap_or_default(), owner)
    }

    /// Goes on with what is kept, and counted already. Gives `file` back if that is not of its size.
    async fn go_on(
        &self,
        path: &RemotePath,
        file: LargeFile,
        turn: &Taken,
        books: Books,
    ) -> Result<Begun, StorageError> {
        let still = keep_still(&books).await;
        if self.storage.unfinished(path, &file).await? != Some(file.extents.size()) {
            return Ok(Begun::Not(file, books));
        }
        let held = Arc::new((still, turn.clone(), Freeing(books)));
        holding(held, self.storage.begin(path, file)).await.map(Begun::Is)
    }

    /// Begins anew, with room for all of it.
    async fn begin_anew(
        &self,
        path: &RemotePath,
        file: LargeFile,
        turn: &Taken,
        books: Books,
    ) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        let error = |problem| StorageError::new(path, problem);
        let room = books.reserve(Usage { bytes: file.extents.size(), entries: 1 }).await.map_err(error)?;
        let folders = if file.parents { path.parent() } else { RemotePath::root() };
        let still = cover(&*self.storage, &folders, &room).await.map_err(error)?;
        room.may_be_there();
        let begun = holding(Arc::new((still, turn.clone(), room.clone())), self.storage.begin(path, file)).await;
        room.ended(begun.as_ref().map(drop), false);
        begun
    }

    /// Takes what is there already for what was asked for, as there is no room to compare the two.
    async fn again(
        &self,
        path: &RemotePath,
        size: Option<u64>,
        over: Problem,
    ) -> Result<Box<dyn Upload>, StorageError> {
        let there = self.storage.stat(path).await.ok().filter(|entry| entry.kind == Kind::File);
        match there.filter(|entry| Some(entry.size) == size) {
            Some(Entry { size, .. }) => {
                let (path, storage) = (path.clone(), self.storage.clone());
                Ok(Box::new(AgainUpload { path, storage, size, over }))
            }
            None => Err(StorageError::new(path, over)),
        }
    }

    fn staging(&self, path: &RemotePath, owner: Digest, staging: Arc<dyn Staging>) -> Arc<dyn Staging> {
        match self.books(path) {
            Some(books) => Arc::new(CountedStaging { staging, turn: self.turn(path, owner), books }),
            None => staging,
        }
    }
}

#[async_trait]
impl Storage for Counted {
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError> {
        self.storage.stat(path).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError> {
        self.storage.list(path).await
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        self.storage.open(path).await
    }

    async fn open_up_to(&self, path: &RemotePath, up_to: u64) -> Result<Opened, StorageError> {
        self.storage.open_up_to(path, up_to).await
    }

    async fn open_extent(&self, file: &Pinned, index: u32) -> Result<Box<dyn Reader>, StorageError> {
        self.storage.open_extent(file, index).await
    }

    async fn extent_digest(&self, file: &Pinned, index: u32) -> Result<Digest, StorageError> {
        self.storage.extent_digest(file, index).await
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        let Some(books) = self.books(path) else { return self.storage.create(path, file).await };
        let holes = file.holes.iter().fold(0_u64, |sum, hole| sum.saturating_add(hole.length));
        let room = match books.reserve(Usage { bytes: file.size.unwrap_or(holes), entries: 1 }).await {
            Err(over @ Problem::OverQuota(_)) if file.accept_same => return self.again(path, file.size, over).await,
            room => room.map_err(|problem| StorageError::new(path, problem))?,
        };
        let parents = file.parents;
        let adds = !file.overwrite && !file.accept_same;
        let ahead = file.size.is_none().then_some(0);
        let folders = if parents { path.parent() } else { RemotePath::root() };
        let still = cover(&*self.storage, &folders, &room).await.map_err(|problem| StorageError::new(path, problem))?;
        let upload = holding(Arc::new((still, room.clone())), self.storage.create(path, file)).await?;
        let (path, storage) = (path.clone(), self.storage.clone());
        Ok(Box::new(CountedUpload { path, storage, upload, room, ahead, adds, parents }))
    }

    async fn begin(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        let Some(books) = self.books(path) else { return self.storage.begin(path, file).await };
        let owner = file.owner;
        let turn = Arc::new(self.turn(path, owner).lock_owned().await);
        if let Some(same) = file.same
            && self.storage.holds(path, file.extents.size(), same).await?
        {
            return Ok(None);
        }
        // It was looked for: nobody need do so again.
        let file = LargeFile { same: None, ..file };
        let begun = match self.go_on(path, file, &turn, books).await? {
            Begun::Is(begun) => begun,
            Begun::Not(file, books) => self.begin_anew(path, file, &turn, books).await?,
        };
        Ok(begun.map(|staging| self.staging(path, owner, staging)))
    }

    async fn staging(
        &self,
        path: &RemotePath,
        owner: Digest,
        upload: UploadId,
    ) -> Result<Arc<dyn Staging>, StorageError> {
        Ok(self.staging(path, owner, self.storage.staging(path, owner, upload).await?))
    }

    async fn unfinished(&self, path: &RemotePath, file: &LargeFile) -> Result<Option<u64>, StorageError> {
        self.storage.unfinished(path, file).await
    }

    async fn holds(&self, path: &RemotePath, size: u64, digest: Digest) -> Result<bool, StorageError> {
        self.storage.holds(path, size, digest).await
    }

    async fn usage(&self) -> Result<Usage, StorageError> {
        self.storage.usage().await
    }

    async fn sweep(&self, age: Duration) -> Result<u64, StorageError> {
        let swept = self.storage.sweep(age).await;
        self.quotas.freed();
        swept
    }

    async fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), StorageError> {
        let Some(books) = self.books(path) else { return self.storage.make_folder(path, parents).await };
        let error = |problem| StorageError::new(path, problem);
        let room = books.reserve(entries(if parents { 0 } else { 1 })).await.map_err(error)?;
        let folders = if parents { path.clone() } else { RemotePath::root() };
        let still = cover(&*self.storage, &folders, &room).await.map_err(error)?;
        room.may_be_there();
        let made = holding(Arc::new((still, room.clone())), self.storage.make_folder(path, parents)).await;
        room.ended(made.as_ref().map(drop), true);
        made
    }

    async fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), StorageError> {
        let Some(books) = self.books(path) else { return self.storage.make_link(path, target, link).await };
        if link.accept_same {
            let still = keep_still(&books).await;
            if self.storage.stat(path).await.is_ok_and(|entry| entry.target.as_ref() == Some(target)) {
                return holding(Arc::new(still), self.storage.make_link(path, target, link)).await;
            }
        }
        let error = |problem| StorageError::new(path, problem);
        let room = books.reserve(entries(1)).await.map_err(error)?;
        let folders = if link.parents { path.parent() } else { RemotePath::root() };
        let still = cover(&*self.storage, &folders, &room).await.map_err(error)?;
        room.may_be_there();
        let made = holding(Arc::new((still, room.clone())), self.storage.make_link(path, target, link)).await;
        room.ended(made.as_ref().map(drop), !link.overwrite && !link.accept_same);
        made
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), StorageError> {
        // What the server cannot look into, it cannot count.
        if attributes.mode.is_some_and(|mode| mode & 0o500 != 0o500) && self.books(path).is_some() {
            let problem =
                Problem::Forbidden(format!("{path}: with a quota, folders must stay readable for the server"));
            return Err(StorageError::new(path, problem));
        }
        self.storage.set_attributes(path, attributes).await
    }

    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError> {
        let Some(books) = self.books(path) else { return self.storage.remove(path, recursive).await };
        holding(Arc::new(Freeing(books)), self.storage.remove(path, recursive)).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError> {
        let accounts = |path| self.books(path).map_or(Vec::new(), |books| books.ledgers().cloned().collect::<Vec<_>>());
        let (left, entered) = (accounts(from), accounts(to));
        let mut moving = Moving { still: Vec::new(), left: left.clone(), entered: Vec::new() };
        moving.entered.extend(entered.iter().filter(|ledger| !is_among(&left, ledger)).cloned());
        for ledger in in_order([left, entered].concat()) {
            moving.still.push(ledger.still.clone().write_owned().await);
        }
        holding(Arc::new(moving), self.storage.rename(from, to, overwrite)).await
    }

    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError> {
        let storage = self.storage.subtree(path).await?;
        let place = self.place.append(path).map_err(|error| StorageError::new(path, error))?;
        Ok(Arc::new(Self { storage, quotas: self.quotas.clone(), place, own: self.own.clone() }))
    }
}

/// What came of going on with what is kept.
enum Begun {
    Is(Option<Arc<dyn Staging>>),
    /// There is nothing of this size.
    Not(LargeFile, Books),
}

/// A turn that was waited for.
type Taken = Arc<OwnedMutexGuard<()>>;

/// While it is held, nothing is counted and nothing moved.
type Still = Vec<OwnedRwLockReadGuard<()>>;

async fn keep_still(books: &Books) -> Still {
    let mut still = Vec::new();
    for ledger in in_order(books.ledgers().cloned().collect()) {
        still.push(ledger.still.clone().read_owned().await);
    }
    still
}

/// Sets aside what the folders need that are missing of `path`, itself included. What is returned keeps that from
/// becoming wrong: folders that are removed meanwhile are in the account until the next count.
async fn cover(storage: &dyn Storage, path: &RemotePath, room: &Reservation) -> Result<Still, Problem> {
    if path.is_root() {
        return Ok(Vec::new());
    }
    loop {
        let still = keep_still(room.books()).await;
        let (mut folder, mut missing) = (path.clone(), 0);
        // What is in the way now may be gone in a moment.
        let is_folder = |entry: Entry| entry.kind == Kind::Folder;
        while !folder.is_root() && !storage.stat(&folder).await.is_ok_and(is_folder) {
            missing += 1;
            folder = folder.parent();
        }
        if room.folders() >= missing {
            return Ok(still);
        }
        // A count might be needed to find the room.
        drop(still);
        room.cover_folders(missing).await?;
    }
}

/// While it is held, something is being moved from the accounts in `left` to those, and to those in `entered`.
struct Moving {
    still: Vec<OwnedRwLockWriteGuard<()>>,
    left: Vec<Arc<Ledger>>,
    entered: Vec<Arc<Ledger>>,
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.left.iter().for_each(|ledger| ledger.freed());
        self.entered.iter().for_each(|ledger| ledger.forget());
        self.still.clear();
    }
}

/// Each once, in the one order in which all are waited for.
fn in_order(mut ledgers: Vec<Arc<Ledger>>) -> Vec<Arc<Ledger>> {
    ledgers.sort_by(|one, other| one.root.cmp(&other.root));
    ledgers.dedup_by(|one, other| Arc::ptr_eq(one, other));
    ledgers
}

fn is_among(ledgers: &[Arc<Ledger>], ledger: &Arc<Ledger>) -> bool {
    ledgers.iter().any(|other| Arc::ptr_eq(other, ledger))
}

/// Whether `path`, from `place` on, is `root` or below it. (Both together may be too long for one path.)
fn is_below(place: &RemotePath, path: &RemotePath, root: &RemotePath) -> bool {
    let mut names = place.components().chain(path.components());
    root.components().all(|name| names.next() == Some(name))
}

fn entries(entries: u64) -> Usage {
    Usage { bytes: 0, entries }
}

#[cfg(test)]
mod tests;
