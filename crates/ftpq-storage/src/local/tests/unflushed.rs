//! Folders that others find before they are on disk.

use std::{
    os::unix::fs::MetadataExt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use rustix::io::Errno;
use tokio::sync::oneshot;

use super::{sys::Call, *};

#[tokio::test]
async fn whoever_finds_a_folder_that_is_being_made_flushes_its_name() {
    for parents in [false, true] {
        let mut folder = Folder::new();
        let ((began, begins), (go, go_on)) = (oneshot::channel(), mpsc::channel());
        let inode = fs::metadata(folder.path("")).unwrap().ino();
        let flushes = Arc::new(Flushes { inode, count: AtomicUsize::new(0), first: Mutex::new(Some((began, go_on))) });
        folder.hook(flushes.clone());
        let storage = folder.storage.clone();
        let making = tokio::spawn(async move { storage.make_folder(&remote("d"), parents).await });
        begins.await.unwrap();
        folder.put("d/f", b"body", NewFile { parents, ..NewFile::default() }).await.unwrap();
        assert_eq!(flushes.count.load(Ordering::Relaxed), 2, "by who makes it, and by who uses it");
        go.send(()).unwrap();
        making.await.unwrap().unwrap();
        // Nor any longer than it takes.
        folder.put("d/g", b"body", NewFile::default()).await.unwrap();
        assert_eq!(flushes.count.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_flushed_is_not_there() {
    let mut folder = Folder::new();
    folder.hook(faults::Fail::nth(faults::Which::Fsync, 0, Errno::IO));
    assert_eq!(status(folder.storage.make_folder(&remote("d"), false).await), Status::Io);
    assert_eq!(folder.on_disk(), Vec::<String>::new());
    folder.storage.make_folder(&remote("d"), false).await.unwrap();
}

/// Counts how often a folder is flushed; the first time takes until it may go on.
struct Flushes {
    inode: u64,
    count: AtomicUsize,
    first: Mutex<Option<(oneshot::Sender<()>, mpsc::Receiver<()>)>>,
}

impl sys::Hook for Flushes {
    fn call(&self, call: Call<'_>) -> Result<usize, Errno> {
        if let Call::Fsync { file } = call
            && rustix::fs::fstat(file)?.st_ino == self.inode
        {
            self.count.fetch_add(1, Ordering::Relaxed);
            let first = self.first.lock().unwrap().take();
            if let Some((began, go_on)) = first {
                began.send(()).unwrap();
                go_on.recv().unwrap();
            }
        }
        Ok(usize::MAX)
    }
}
