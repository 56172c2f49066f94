//! Listings that are read ahead of the walk: to ask for one folder after the other costs a round trip for
//! each, and a listing that nobody reads is cut in the end.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ftpq_proto::{Entry, Kind, RemotePath};
use ftpq_storage::{Storage, StorageError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};

use crate::limits::{LISTED_AHEAD_KIB, LISTING_KIB};

/// Folders whose turn has not come yet, listed already.
pub(super) struct Ahead {
    from: Arc<dyn Storage>,
    lists: HashMap<RemotePath, (Task<()>, Arc<Mutex<Early>>)>,
    room: Arc<Semaphore>,
}

/// Entries, and the room that they take.
type Page = (Vec<Entry>, OwnedSemaphorePermit);

/// A listing that came early, once it is there.
#[derive(Default)]
struct Early {
    pages: Option<Vec<Page>>,
    /// Some of the folders in it, in the order in which they are gone through.
    folders: Vec<RemotePath>,
}

impl Ahead {
    pub(super) fn new(from: Arc<dyn Storage>) -> Self {
        Self { from, lists: HashMap::new(), room: Arc::new(Semaphore::new(LISTED_AHEAD_KIB as usize)) }
    }

    /// Begins to list some of the folders `next`, the first of them first, and of those in them.
    pub(super) fn begin(&mut self, next: impl IntoIterator<Item = RemotePath>) {
        let mut running = self.lists.values().filter(|(task, _)| !task.0.is_finished()).count();
        let mut next: Vec<_> = next.into_iter().take(LISTS).collect();
        next.reverse();
        for _ in 0..4 * LISTS {
            let Some(path) = next.pop().filter(|_| running < LISTS) else { break };
            if let Some((_, early)) = self.lists.get(&path) {
                next.extend(lock(early).folders.iter().rev().cloned());
                continue;
            }
            running += 1;
            let early = Arc::default();
            let list = all_of(self.from.clone(), path.clone(), self.room.clone(), Arc::clone(&early));
            self.lists.insert(path, (Task(tokio::spawn(list)), early));
        }
    }

    /// The listing of a folder whose turn it is.
    pub(super) async fn open(&mut self, path: &RemotePath) -> Pages {
        if let Some((mut task, early)) = self.lists.remove(path) {
            // One that has panicked has brought nothing.
            let _ = (&mut task.0).await;
            let pages = lock(&early).pages.take();
            if let Some(pages) = pages {
                return Pages::Here(pages.into_iter());
            }
        }
        let (send, pages) = mpsc::unbounded_channel();
        let task = tokio::spawn(read(self.from.clone(), path.clone(), send));
        Pages::Coming { pages, _task: Task(task) }
    }
}

/// A listing, page by page.
pub(super) enum Pages {
    /// All of it.
    Here(std::vec::IntoIter<Page>),
    /// It is being read.
    Coming { pages: mpsc::UnboundedReceiver<Result<Page, StorageError>>, _task: Task<()> },
}

impl Pages {
    /// The next page; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>, StorageError> {
        let page = match self {
            Pages::Here(pages) => pages.next(),
            Pages::Coming { pages, .. } => pages.recv().await.transpose()?,
        };
        Ok(page.map(|(entries, _)| entries))
    }
}

/// Lists a folder early, unless there is no room for all of it, or it fails: then it is listed when its turn
/// comes. It waits for nothing but the source, as it may hold a stream that others need.
async fn all_of(from: Arc<dyn Storage>, path: RemotePath, room: Arc<Semaphore>, early: Arc<Mutex<Early>>) {
    let Ok(mut listing) = from.list(&path).await else { return };
    let (mut pages, mut folders) = (Vec::new(), VecDeque::new());
    while let Ok(page) = listing.next_page().await {
        let Some(page) = page else {
            *lock(&early) = Early { pages: Some(pages), folders: folders.into() };
            return;
        };
        let Ok(room) = room.clone().try_acquire_many_owned(weight(&page)) else { return };
        for folder in page.iter().filter(|entry| entry.kind == Kind::Folder) {
            // The last one comes first.
            if let Some(below) = folder.name.as_ref().and_then(|name| path.join(name).ok()) {
                folders.push_front(below);
                folders.truncate(LISTS);
            }
        }
        pages.push((page, room));
    }
}

fn lock(early: &Mutex<Early>) -> MutexGuard<'_, Early> {
    early.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a listing, as far ahead as there is room.
async fn read(from: Arc<dyn Storage>, path: RemotePath, send: mpsc::UnboundedSender<Result<Page, StorageError>>) {
    let room = Arc::new(Semaphore::new(LISTING_KIB as usize));
    let pages = async {
        let mut listing = from.list(&path).await?;
        while let Some(page) = listing.next_page().await? {
            // The semaphore is never closed.
            let Ok(room) = room.clone().acquire_many_owned(weight(&page)).await else { break };
            // Whoever dropped the other end wants no more, and ends this task.
            let _ = send.send(Ok((page, room)));
        }
        Ok(())
    };
    if let Err(error) = pages.await {
        let _ = send.send(Err(error));
    }
}

/// What a page takes in memory, in KiB.
fn weight(page: &[Entry]) -> u32 {
    let bytes: usize = page.iter().map(|entry| size_of::<Entry>() + entry.page_bytes()).sum();
    u32::try_from(bytes / 1024).unwrap_or(u32::MAX).clamp(1, LISTED_AHEAD_KIB.min(LISTING_KIB))
}

/// A task that ends when nobody has it any more.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Folders that are listed early at a time: enough for a round trip to pass unnoticed where there are some ten
/// files to a folder, and few of the streams that a server grants.
const LISTS: usize = 16;
