//! Counting what a tree takes, and what is kept of unfinished files.

use std::os::unix::fs::{DirBuilderExt, chown};

use ftpq_proto::Extents;
use rustix::io::Errno;

use super::{
    faults::{Fail, Which},
    staging::{BODY, OWNER, large, send},
    *,
};

#[tokio::test]
async fn every_name_counts_with_what_it_takes_without_holes() {
    let folder = Folder::new();
    assert_eq!(folder.storage.usage().await.unwrap(), used(0, 0));
    fs::write(folder.path("f"), [1; 1000]).unwrap();
    fs::create_dir_all(folder.path("a/b")).unwrap();
    fs::write(folder.path("a/g"), [1; 10]).unwrap();
    symlink("../elsewhere", folder.path("a/b/link")).unwrap();
    fs::hard_link(folder.path("f"), folder.path("a/b/same")).unwrap();
    fs::File::create(folder.path("sparse")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(folder.storage.usage().await.unwrap(), used(1000 + 10 + 1000 + (1 << 40), 7));
    let below = folder.storage.subtree(&remote("a")).await.unwrap();
    assert_eq!(below.usage().await.unwrap(), used(1010, 4));
}

#[tokio::test]
async fn what_is_unfinished_counts_with_what_it_will_take() {
    let mut folder = Folder::new();
    let size = BODY.len() as u64;
    fs::create_dir(folder.path("a")).unwrap();
    let unfinished = async |folder: &Folder, file: &LargeFile| folder.storage.unfinished(&remote("a/f"), file).await;
    assert_eq!(unfinished(&folder, &large()).await.unwrap(), None);
    for (sparse, apart) in [(false, None), (true, Some([1; 32].into()))] {
        let file = LargeFile { sparse, apart, ..large() };
        let staging = folder.storage.begin(&remote("a/f"), file.clone()).await.unwrap().unwrap();
        send(&*staging, 1).await.unwrap();
        drop(staging);
        folder.restart();
        assert_eq!(unfinished(&folder, &file).await.unwrap(), Some(size));
        assert_eq!(unfinished(&folder, &LargeFile { owner: [8; 32].into(), ..file }).await.unwrap(), None);
    }
    assert_eq!(folder.storage.usage().await.unwrap(), used(2 * size, 3));
    assert_eq!(folder.storage.unfinished(&remote("missing/f"), &large()).await.unwrap(), None);

    // Of any length that there may be.
    for size in [(8 << 20) + 1, 16 << 20, (16 << 20) + 4095, (1 << 40) - 1] {
        let extents = Extents::of(size).unwrap();
        let file = LargeFile { extents, sparse: true, apart: None, ..large() };
        drop(folder.storage.begin(&remote("b"), file.clone()).await.unwrap());
        assert_eq!(folder.storage.unfinished(&remote("b"), &file).await.unwrap(), Some(size));
    }

    // What would not be gone on with is not kept.
    let staging = folder.storage.begin(&remote("a/f"), large()).await.unwrap().unwrap();
    let items = fs::read_dir(folder.path("a")).unwrap().map(|item| item.unwrap().path());
    items.for_each(|path| fs::hard_link(&path, path.with_extension("other")).unwrap());
    assert_eq!(unfinished(&folder, &large()).await.unwrap(), None);
    drop(staging);
}

/// Published, or cut just before, it has no journal any more.
#[tokio::test]
async fn a_finished_file_counts_once() {
    let folder = Folder::new();
    let size = BODY.len() as u64;
    let staging = folder.storage.begin(&remote("f"), large()).await.unwrap().unwrap();
    for index in 0..3 {
        send(&*staging, index).await.unwrap();
    }
    assert_eq!(folder.storage.usage().await.unwrap(), used(size, 1));
    staging.commit(staging::publish()).await.unwrap();
    assert_eq!(folder.storage.usage().await.unwrap(), used(size, 1));
    assert_eq!(folder.storage.unfinished(&remote("f"), &large()).await.unwrap(), None);
}

/// Folders that no path leads to can be made by moving them.
#[tokio::test]
async fn nothing_is_too_deep_to_be_counted() {
    const DEPTH: usize = 300;
    let folder = Folder::new();
    let deep = folder.path(&"d/".repeat(DEPTH));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), [1; 100]).unwrap();
    // On the way back there is more to be seen.
    for depth in [1, 10, 100, 299] {
        fs::create_dir(folder.path(&"d/".repeat(depth)).join("other")).unwrap();
    }
    assert_eq!(folder.storage.usage().await.unwrap(), used(100, DEPTH as u64 + 1 + 4));
    folder.storage.remove(&remote("d"), true).await.unwrap();
}

#[tokio::test]
async fn only_folders_of_others_may_be_unreadable() {
    let mut folder = Folder::new();
    fs::create_dir(folder.path("a")).unwrap();
    fs::write(folder.path("a/f"), [1; 100]).unwrap();
    folder.hook(Fail::nth(Which::Openat2, 1, Errno::ACCESS));
    assert_eq!(status(folder.storage.usage().await), Status::StorageDenied);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: folders of others, which only root can make");
        return;
    }
    chown(folder.path("a"), Some(12345), None).unwrap();
    folder.hook(Fail::nth(Which::Openat2, 1, Errno::ACCESS));
    assert_eq!(folder.storage.usage().await.unwrap(), used(0, 1));
}

#[tokio::test]
async fn whether_a_file_is_there_is_told_by_its_content() {
    let folder = Folder::new();
    let bytes = pattern(3 * BLOCK + 1);
    fs::write(folder.path("f"), &bytes).unwrap();
    fs::DirBuilder::new().mode(0o700).create(folder.path("folder")).unwrap();
    let holds = async |path: &str, size: usize, digest| folder.storage.holds(&remote(path), size as u64, digest).await;
    assert!(holds("f", bytes.len(), digest(&bytes)).await.unwrap());
    assert!(!holds("f", bytes.len(), OWNER.into()).await.unwrap());
    for (path, size) in [("f", 7), ("g", 7), ("missing/f", 7), ("folder", 0)] {
        assert!(!holds(path, size, digest(&bytes)).await.unwrap(), "{path}");
    }
}

fn used(bytes: u64, entries: u64) -> Usage {
    Usage { bytes, entries }
}
