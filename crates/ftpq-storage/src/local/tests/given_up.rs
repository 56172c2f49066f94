//! What goes on when nobody waits for it any more, and what does not.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use ftpq_proto::Holes;
use rustix::io::Errno;
use tokio::{sync::oneshot, time::timeout};

use super::{
    faults::Which,
    staging::{BODY, extent_digest, large, publish, send},
    *,
};
use crate::holding;

#[tokio::test]
async fn proving_stops() {
    let mut folder = Folder::new();
    unfinished(&folder).await;
    let mut pause = Pause::at(&mut folder, Which::Pread, 2);
    let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
    let calls = pause.give_up(async move { staging.prove(0, extent_digest(0)).await.map(drop) }).await;
    assert_eq!(calls, 3, "the journal, and two blocks");
}

#[tokio::test]
async fn finishing_stops_before_it_publishes_and_can_be_tried_again() {
    let mut folder = Folder::new();
    unfinished(&folder).await;
    let mut pause = Pause::at(&mut folder, Which::Pread, 2);
    let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
    let calls = pause
        .give_up({
            let staging = staging.clone();
            async move { staging.commit(publish()).await.map(drop) }
        })
        .await;
    assert_eq!(calls, 3, "the journal, and two blocks");
    assert!(!folder.path("f").exists());
    staging.commit(publish()).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
}

#[tokio::test]
async fn what_was_not_published_yet_is_not() {
    let mut folder = Folder::new();
    let mut pause = Pause::at(&mut folder, Which::Fsync, 0);
    let file = NewFile { size: Some(4), ..NewFile::default() };
    let mut upload = folder.storage.create(&remote("small"), file).await.unwrap();
    upload.write(Bytes::from_static(b"abcd")).await.unwrap();
    pause.give_up(async move { upload.commit(digest(b"abcd")).await.map(drop) }).await;
    assert!(!folder.path("small").exists());

    unfinished(&folder).await;
    for which in [Which::Ftruncate, Which::Fsync] {
        let mut pause = Pause::at(&mut folder, which, 0);
        let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
        let commit = {
            let staging = staging.clone();
            async move { staging.commit(publish()).await.map(drop) }
        };
        pause.give_up(commit).await;
        assert!(!folder.path("f").exists(), "{which:?}");
        // It can be gone on with.
        assert_eq!(staging.held(0).len(), 3);
        folder.restart();
    }
    let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
    assert_eq!(staging.held(0).len(), 3);
    staging.commit(publish()).await.unwrap();
}

#[tokio::test]
async fn removing_a_tree_stops() {
    let mut folder = Folder::new();
    fs::create_dir_all(folder.path("d/d")).unwrap();
    (0..9).for_each(|number| fs::write(folder.path(&format!("d/d/{number}")), "").unwrap());
    let mut pause = Pause::at(&mut folder, Which::Unlinkat, 5);
    let storage = folder.storage.clone();
    let calls = pause.give_up(async move { storage.remove(&remote("d"), true).await.map(drop) }).await;
    assert_eq!(calls, 6);
    assert!(fs::read_dir(folder.path("d/d")).unwrap().count() == 4);
}

#[tokio::test]
async fn publishing_that_has_begun_runs_to_its_end() {
    for (large_file, which) in [(true, Which::Linkat), (false, Which::Linkat)] {
        let mut folder = Folder::new();
        unfinished(&folder).await;
        let mut pause = Pause::at(&mut folder, which, 0);
        if large_file {
            let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
            pause.give_up(async move { staging.commit(publish()).await.map(drop) }).await;
            assert!(fs::read(folder.path("f")).unwrap() == *BODY);
        } else {
            let file = NewFile { size: Some(4), ..NewFile::default() };
            let mut upload = folder.storage.create(&remote("small"), file).await.unwrap();
            upload.write(Bytes::from_static(b"abcd")).await.unwrap();
            pause.give_up(async move { upload.commit(digest(b"abcd")).await.map(drop) }).await;
            assert_eq!(fs::read(folder.path("small")).unwrap(), b"abcd");
        }
    }
}

#[tokio::test]
async fn looking_whether_a_file_is_there_stops() {
    let mut folder = Folder::new();
    fs::write(folder.path("f"), &*BODY).unwrap();
    let again = LargeFile { same: Some(digest(&BODY)), ..large() };
    let mut pause = Pause::at(&mut folder, Which::Pread, 0);
    let storage = folder.storage.clone();
    let calls = pause.give_up(async move { storage.begin(&remote("f"), again).await.map(drop) }).await;
    assert_eq!(calls, 1);
    let mut pause = Pause::at(&mut folder, Which::Pread, 0);
    let storage = folder.storage.clone();
    let calls = pause
        .give_up(async move { storage.holds(&remote("f"), BODY.len() as u64, digest(&BODY)).await.map(drop) })
        .await;
    assert_eq!(calls, 1);
}

/// Threads that may block are few, and all clients share them.
#[test]
fn whoever_waits_for_a_turn_at_an_upload_holds_no_thread() {
    for busy in ["PROVE", "COMMIT", "BEGIN"] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(3).build();
        runtime.unwrap().block_on(async {
            let mut folder = Folder::new();
            unfinished(&folder).await;
            let mut pause = Pause::at(&mut folder, Which::Pread, 2);
            let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
            let working = tokio::spawn({
                let staging = staging.clone();
                async move {
                    match busy {
                        "COMMIT" => staging.commit(publish()).await.map(drop),
                        _ => staging.prove(0, extent_digest(0)).await.map(drop),
                    }
                }
            });
            pause.reached.take().unwrap().await.unwrap();
            // It takes over, which waits for a thread that it holds.
            let storage = folder.storage.clone();
            let beginning = (busy == "BEGIN")
                .then(|| tokio::spawn(async move { storage.begin(&remote("f"), large()).await.map(drop) }));
            let some = |index: u32| {
                let staging = staging.clone();
                tokio::spawn(async move {
                    let mut upload = staging.write(index, Holes::NONE).await?;
                    upload.write(Bytes::from_static(b"some")).await
                })
            };
            let waiting: Vec<_> = (0..16).map(|number| some(if busy == "PROVE" { 0 } else { number % 2 })).collect();
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            let found = timeout(Duration::from_secs(20), folder.storage.stat(&RemotePath::root())).await;
            pause.go_on.send(()).unwrap();
            found.unwrap_or_else(|_| panic!("{busy} holds all threads")).unwrap();
            working.await.unwrap().unwrap();
            for waiting in waiting {
                let _ = waiting.await.unwrap();
            }
            if let Some(beginning) = beginning {
                beginning.await.unwrap().unwrap();
            }
        });
    }
}

/// Sends all of a large file, in an earlier process.
async fn unfinished(folder: &Folder) {
    let storage = LocalFs::open(&folder.path("")).unwrap();
    let staging = storage.begin(&remote("f"), large()).await.unwrap().unwrap();
    for index in 0..3 {
        send(&*staging, index).await.unwrap();
    }
}

/// Stops the thread that makes a certain system call.
struct Pause {
    calls: Arc<AtomicUsize>,
    reached: Option<oneshot::Receiver<()>>,
    go_on: mpsc::Sender<()>,
}

struct Hook {
    which: Which,
    nth: usize,
    calls: Arc<AtomicUsize>,
    reached: Mutex<Option<oneshot::Sender<()>>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Pause {
    /// At the `nth` call of this kind from now on.
    fn at(folder: &mut Folder, which: Which, nth: usize) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let (reach, reached) = oneshot::channel();
        let (go, go_on) = mpsc::channel();
        let (reach, go_on) = (Mutex::new(Some(reach)), Mutex::new(go_on));
        folder.hook(Arc::new(Hook { which, nth, calls: calls.clone(), reached: reach, go_on }));
        Self { calls, reached: Some(reached), go_on: go }
    }

    /// Does `work`, drops it at that call, lets the call be made, and waits for the end of what goes on. Returns
    /// how many such calls there were.
    async fn give_up(&mut self, work: impl Future<Output = Result<(), StorageError>> + Send + 'static) -> usize {
        struct Ended(Option<oneshot::Sender<()>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let (end, ended) = oneshot::channel();
        let work = tokio::spawn(holding(Arc::new(Ended(Some(end))), work));
        self.reached.take().unwrap().await.unwrap();
        work.abort();
        assert!(work.await.unwrap_err().is_cancelled());
        self.go_on.send(()).unwrap();
        ended.await.unwrap();
        self.calls.load(Ordering::SeqCst)
    }
}

impl sys::Hook for Hook {
    fn call(&self, call: sys::Call<'_>) -> Result<usize, Errno> {
        if Which::of(&call) == self.which && self.calls.fetch_add(1, Ordering::SeqCst) == self.nth {
            self.reached.lock().unwrap().take().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        Ok(usize::MAX)
    }
}
