//! Files that are written by extents, and holes.

use std::{
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    sync::{LazyLock, Mutex, mpsc},
};

use ftpq_proto::{
    Extents, Hole, Holes,
    limits::{EXTENT_MIN, HELD_PAGE_MAX},
};
use rustix::io::Errno;
use tokio::{runtime::Builder, sync::oneshot, task::spawn_blocking, time::timeout};

use super::{
    faults::{Fail, Which},
    stage::LocalStaging,
    write::is_in_memory,
    *,
};
use crate::{HeldExtent, KEPT_FOR, Publish, hash::BodyHasher};

#[tokio::test]
async fn a_large_file_appears_whole_and_nothing_of_it_before() {
    let folder = Folder::new();
    let staging = begin(&folder, large()).await;
    assert_eq!((staging.held(0), staging.overwrites(), staging.extents()), (vec![], false, extents()));
    for index in [2, 0, 1] {
        assert_eq!(status(staging.commit(publish()).await), Status::Incomplete, "not all are there");
        send(&*staging, index).await.unwrap();
        assert_eq!(folder.names("/").await, Vec::<String>::new());
    }
    assert_eq!(fs::metadata(staged(&folder)).unwrap().mode() & 0o7777, 0o600);
    let mtime = ftpq_proto::Timestamp::new(1_234_567_890, 123_456_789);
    let whole = staging.commit(Publish { mode: Some(0o640), mtime, ..publish() }).await.unwrap();
    assert_eq!(whole, digest(&BODY));
    assert_eq!(folder.on_disk(), ["f"]);
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
    let meta = fs::metadata(folder.path("f")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.nlink(), meta.mtime()), (0o640, 1, 1_234_567_890));

    // It has ended.
    assert_eq!(status(staging.commit(publish()).await), Status::NoUpload);
    assert_eq!(status(staging.write(0, Holes::NONE).await.map(drop)), Status::NoUpload);
    assert_eq!(status(staging.prove(0, extent_digest(0)).await), Status::NoUpload);
    let found = folder.storage.staging(&remote("f"), OWNER.into(), staging.id()).await;
    assert_eq!(status(found.map(drop)), Status::NoUpload);
}

#[tokio::test]
async fn new_files_have_the_usual_permissions() {
    let folder = Folder::new();
    fs::write(folder.path("plain"), b"").unwrap();
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    staging.commit(publish()).await.unwrap();
    let mode = |name| fs::metadata(folder.path(name)).unwrap().mode();
    assert_eq!(mode("f"), mode("plain"));
}

#[tokio::test]
async fn what_was_ended_is_found_again_and_nothing_else() {
    let mut folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send(&*staging, 2).await.unwrap();
    send(&*staging, 0).await.unwrap();
    let mut unfinished = staging.write(1, Holes::NONE).await.unwrap();
    unfinished.write(Bytes::from_static(&part(1)[..BLOCK])).await.unwrap();
    drop(unfinished);
    let mut wrong = staging.write(1, Holes::NONE).await.unwrap();
    wrong.write(Bytes::from_static(part(0))).await.unwrap();
    assert_eq!(status(wrong.commit(extent_digest(1)).await), Status::DigestMismatch);
    let mut short = staging.write(1, Holes::NONE).await.unwrap();
    short.write(Bytes::from_static(&part(1)[1..])).await.unwrap();
    assert_eq!(status(short.commit(extent_digest(1)).await), Status::Truncated);
    let mut long = staging.write(2, Holes::NONE).await.unwrap();
    long.write(Bytes::from_static(part(1))).await.unwrap();
    assert_eq!(status(long.commit(extent_digest(2)).await), Status::Truncated);
    send(&*staging, 2).await.unwrap();

    // The same process knows the digests.
    let proved = |index| HeldExtent { index, digest: Some(extent_digest(index)) };
    assert_eq!(begin(&folder, large()).await.held(0), [proved(0), proved(2)]);
    // Another does not trust what it has not read.
    drop(staging);
    folder.restart();
    let staging = begin(&folder, large()).await;
    assert_eq!(staging.held(0), [0, 2].map(|index| HeldExtent { index, digest: None }));
    assert!(!staging.prove(2, extent_digest(0)).await.unwrap());
    assert!(!staging.prove(1, extent_digest(1)).await.unwrap());
    assert!(staging.prove(2, extent_digest(2)).await.unwrap());
    send(&*staging, 1).await.unwrap();
    assert_eq!(staging.commit(publish()).await.unwrap(), digest(&BODY));
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
}

#[tokio::test]
async fn what_is_kept_is_found_by_nobody_else() {
    let mut folder = Folder::new();
    let apart = |word: [u8; 32]| LargeFile { apart: Some(word.into()), ..large() };
    let staging = begin(&folder, large()).await;
    send(&*staging, 0).await.unwrap();
    drop(staging);
    for restart in [false, true] {
        if restart {
            folder.restart();
        }
        let others = [LargeFile { owner: [8; 32].into(), ..large() }, apart([0; 32]), apart(OWNER)];
        for other in others {
            assert_eq!(begin(&folder, other).await.held(0), []);
        }
        let elsewhere = folder.storage.begin(&remote("g"), large()).await.unwrap().unwrap();
        assert_eq!(elsewhere.held(0), []);
    }
    let staging = begin(&folder, apart(OWNER)).await;
    send(&*staging, 1).await.unwrap();
    drop(staging);
    folder.restart();
    assert_eq!(begin(&folder, large()).await.held(0), [HeldExtent { index: 0, digest: None }]);
    assert_eq!(begin(&folder, apart(OWNER)).await.held(0), [HeldExtent { index: 1, digest: None }]);
    // Nor by one who has learnt its name.
    let id = begin(&folder, large()).await.id();
    let found = folder.storage.staging(&remote("f"), [8; 32].into(), id).await;
    assert_eq!(status(found.map(drop)), Status::NoUpload);
    let found = folder.storage.staging(&remote("g"), OWNER.into(), id).await;
    assert_eq!(status(found.map(drop)), Status::NoUpload);
    assert_eq!(folder.storage.staging(&remote("f"), OWNER.into(), id).await.unwrap().id(), id);
}

#[tokio::test]
async fn what_was_damaged_meanwhile_is_never_published() {
    let mut folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    drop(staging);
    let damage = |folder: &Folder| {
        let file = fs::File::options().write(true).open(staged(folder)).unwrap();
        file.write_all_at(b"!", 9 << 20).unwrap();
    };

    // Asked for, it is sent again.
    folder.restart();
    damage(&folder);
    let staging = begin(&folder, large()).await;
    assert!(!staging.prove(1, extent_digest(1)).await.unwrap());
    drop(staging);

    // Not asked for, it is found out in the end.
    folder.restart();
    let staging = begin(&folder, large()).await;
    assert_eq!(staging.held(0).len(), 3);
    assert_eq!(status(staging.commit(publish()).await), Status::DigestMismatch);
    assert_eq!(folder.names("/").await, Vec::<String>::new());
    assert_eq!(begin(&folder, large()).await.held(0), []);
    drop(staging);
    folder.restart();
    let staging = begin(&folder, large()).await;
    assert_eq!(staging.held(0), []);
    send_all(&*staging).await;
    staging.commit(publish()).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
}

#[tokio::test]
async fn whoever_begins_takes_over() {
    let folder = Folder::new();
    let first = begin(&folder, large()).await;
    send(&*first, 0).await.unwrap();
    let mut half = first.write(1, Holes::NONE).await.unwrap();
    half.write(Bytes::from_static(&part(1)[..BLOCK])).await.unwrap();
    let second = begin(&folder, LargeFile { overwrite: true, ..large() }).await;
    assert_eq!(second.held(0).len(), 1);

    let gone = |result: Result<(), StorageError>| assert_eq!(status(result), Status::Superseded);
    gone(first.write(1, Holes::NONE).await.map(drop));
    gone(first.prove(0, extent_digest(0)).await.map(drop));
    gone(first.commit(publish()).await.map(drop));
    gone(folder.storage.staging(&remote("f"), OWNER.into(), first.id()).await.map(drop));
    send(&*second, 1).await.unwrap();
    // The block before may have come too late as well.
    gone(match half.write(Bytes::from(vec![9; BLOCK])).await {
        Ok(()) => half.commit(extent_digest(1)).await.map(drop),
        late => late,
    });
    send(&*second, 2).await.unwrap();

    let stale = second.write(0, Holes::NONE).await.unwrap();
    drop(stale);
    send(&*second, 0).await.unwrap();
    let mut stale = second.write(2, Holes::NONE).await.unwrap();
    send(&*second, 2).await.unwrap();
    second.commit(publish()).await.unwrap();
    stale.write(Bytes::from(vec![9; 10])).await.unwrap();
    assert_eq!(status(stale.commit(extent_digest(2)).await), Status::NoUpload);
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
}

/// A stream that was given up may still bring something, long after the extent came by another.
#[tokio::test]
async fn of_two_streams_with_one_extent_the_later_counts() {
    let folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send(&*staging, 0).await.unwrap();
    send(&*staging, 1).await.unwrap();
    let mut late = staging.write(2, Holes::NONE).await.unwrap();
    send(&*staging, 2).await.unwrap();
    late.write(Bytes::from(vec![9; part(2).len()])).await.unwrap();
    assert_eq!(status(late.commit(extent_digest(2)).await), Status::BadPath);
    staging.commit(publish()).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
}

#[tokio::test]
async fn what_stands_there_is_replaced_or_accepted_only_when_asked() {
    let folder = Folder::new();
    let overwrite = LargeFile { overwrite: true, ..large() };
    let same = LargeFile { same: Some(digest(&BODY)), ..large() };
    fs::write(folder.path("f"), b"old").unwrap();
    let refused = |file| async { status(folder.storage.begin(&remote("f"), file).await.map(drop)) };
    assert_eq!(refused(large()).await, Status::Exists);
    assert_eq!(refused(same.clone()).await, Status::Exists);
    let staging = begin(&folder, overwrite.clone()).await;
    assert!(staging.overwrites());
    send_all(&*staging).await;
    assert_eq!(fs::read(folder.path("f")).unwrap(), b"old");
    staging.commit(publish()).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);

    assert!(folder.storage.begin(&remote("f"), same.clone()).await.unwrap().is_none());
    let other = LargeFile { same: Some([0; 32].into()), ..large() };
    assert_eq!(refused(other.clone()).await, Status::Exists);
    assert!(folder.storage.begin(&remote("f"), LargeFile { overwrite: true, ..other }).await.unwrap().is_some());
    fs::create_dir(folder.path("d")).unwrap();
    let onto = folder.storage.begin(&remote("d"), overwrite).await;
    assert_eq!(status(onto.map(drop)), Status::IsFolder);
    let missing = folder.storage.begin(&remote("a/b/f"), large()).await;
    assert_eq!(status(missing.map(drop)), Status::NotFound);
    let parents = LargeFile { parents: true, ..large() };
    assert!(folder.storage.begin(&remote("a/b/f"), parents).await.unwrap().is_some());
}

/// Without its journal, all of it counts as kept. Others' permissions were taken back; where a crash has left
/// them, it is begun anew, as others may have the file open.
#[tokio::test]
async fn what_could_not_be_published_is_found_again() {
    for mode in [None, Some(0o644), Some(0o600)] {
        let mut folder = Folder::new();
        let staging = begin(&folder, large()).await;
        send_all(&*staging).await;
        fs::write(folder.path("f"), b"faster").unwrap();
        assert_eq!(status(staging.commit(Publish { mode, ..publish() }).await), Status::Exists);
        assert_eq!(fs::read(folder.path("f")).unwrap(), b"faster");
        fs::remove_file(folder.path("f")).unwrap();
        assert_eq!(fs::metadata(staged(&folder)).unwrap().mode() & 0o7777, 0o600);
        drop(staging);
        // Cut just before it had its name.
        fs::File::options().write(true).open(staged(&folder)).unwrap().set_len(extents().size()).unwrap();
        folder.restart();
        if mode == Some(0o644) {
            fs::set_permissions(staged(&folder), fs::Permissions::from_mode(0o644)).unwrap();
            assert_eq!(begin(&folder, large()).await.held(0), []);
            assert_eq!(fs::metadata(staged(&folder)).unwrap().mode() & 0o7777, 0o600);
            continue;
        }
        let staging = begin(&folder, large()).await;
        assert_eq!(staging.held(0), [0, 1, 2].map(|index| HeldExtent { index, digest: None }));
        staging.commit(publish()).await.unwrap();
        assert!(fs::read(folder.path("f")).unwrap() == *BODY);
    }
}

/// A published file that still has its reserved name, as a crash in between leaves it, is no staged file.
#[tokio::test]
async fn nobody_goes_on_with_a_published_file() {
    for ended in [true, false] {
        let mut folder = Folder::new();
        folder.hook(Fail::nth(Which::Unlinkat, 0, Errno::IO));
        let staging = begin(&folder, large()).await;
        send_all(&*staging).await;
        if ended {
            staging.commit(publish()).await.unwrap();
        } else {
            // Somebody begins before the list knows of the end.
            let (list, root) = (folder.storage.stagings.clone(), folder.storage.root.clone());
            let staging = list.find(&root, &remote("f"), OWNER.into(), staging.id()).unwrap();
            blocking(move |wanted| staging.publish(publish(), wanted)).await.unwrap();
        }
        assert_eq!(folder.on_disk().len(), 2);
        let next = begin(&folder, LargeFile { overwrite: true, ..large() }).await;
        assert_eq!(next.held(0), []);
        let mut upload = next.write(0, Holes::NONE).await.unwrap();
        upload.write(Bytes::from(vec![9; BLOCK])).await.unwrap();
        assert_eq!(status(upload.commit(digest(b"")).await), Status::Truncated);
        assert!(fs::read(folder.path("f")).unwrap() == *BODY);
        send_all(&*next).await;
        next.commit(publish()).await.unwrap();
        assert_eq!(folder.on_disk(), ["f"]);
    }
}

/// The name was taken meanwhile: what is kept stays as good as it was.
#[tokio::test]
async fn what_could_not_be_published_is_gone_on_with() {
    let mut folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    fs::write(folder.path("f"), b"other").unwrap();
    assert_eq!(status(staging.commit(publish()).await), Status::Exists);
    send(&*staging, 1).await.unwrap();
    assert_eq!(folder.storage.usage().await.unwrap(), Usage { bytes: 5 + BODY.len() as u64, entries: 2 });
    drop(staging);
    folder.restart();
    let staging = begin(&folder, LargeFile { overwrite: true, ..large() }).await;
    assert_eq!(staging.held(0).len(), 3);
    staging.commit(publish()).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
}

/// Between opening a staged file and locking it.
#[tokio::test]
async fn what_another_process_has_just_published_is_left_alone() {
    struct PublishFirst(Mutex<Option<Arc<LocalStaging>>>);
    impl sys::Hook for PublishFirst {
        fn call(&self, call: sys::Call<'_>) -> Result<usize, Errno> {
            if let sys::Call::Flock = call
                && let Some(staging) = self.0.lock().unwrap().take()
            {
                staging.publish(publish(), &Wanted::default()).unwrap();
            }
            Ok(usize::MAX)
        }
    }

    let mut folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    let id = staging.id();
    drop(staging);
    let first = folder.storage.stagings.find(&folder.storage.root, &remote("f"), OWNER.into(), id).unwrap();
    folder.hook(Arc::new(PublishFirst(Mutex::new(Some(first)))));
    let second = begin(&folder, LargeFile { fresh: true, ..large() }).await;
    assert_eq!(second.held(0), []);
    assert!(fs::read(folder.path("f")).unwrap() == *BODY);
    assert_eq!(folder.on_disk().len(), 2);
}

/// The client was cut off and asks again, while the server is still publishing.
#[tokio::test]
async fn what_is_published_while_somebody_begins_it_is_not_sent_again() {
    struct Slow(Mutex<Option<(oneshot::Sender<()>, mpsc::Receiver<()>)>>);
    impl sys::Hook for Slow {
        fn call(&self, call: sys::Call<'_>) -> Result<usize, Errno> {
            if let sys::Call::Fsync { .. } = call
                && let Some((flushing, go_on)) = self.0.lock().unwrap().take()
            {
                flushing.send(()).unwrap();
                go_on.recv().unwrap();
            }
            Ok(usize::MAX)
        }
    }

    let mut folder = Folder::new();
    let slow = Arc::new(Slow(Mutex::default()));
    folder.hook(slow.clone());
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    let ((flushing, flushes), (go_on, wait)) = (oneshot::channel(), mpsc::channel());
    *slow.0.lock().unwrap() = Some((flushing, wait));
    let committed = tokio::spawn({
        let staging = staging.clone();
        async move { staging.commit(publish()).await }
    });
    flushes.await.unwrap();
    let holders = folder.storage.stagings.holders(staging.id());
    let again = tokio::spawn({
        let (storage, same) = (folder.storage.clone(), Some(digest(&BODY)));
        async move { storage.begin(&remote("f"), LargeFile { same, ..large() }).await }
    });
    // It has looked at what is there, and waits for its turn.
    while folder.storage.stagings.holders(staging.id()) == holders {
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    committed.await.unwrap().unwrap();
    assert!(again.await.unwrap().unwrap().is_none());
    assert_eq!(folder.on_disk(), ["f"]);
}

/// Those who begin could take all threads, while those whom they wait for wait for a thread.
#[test]
fn who_begins_waits_for_others_on_no_thread() {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).enable_time().build().unwrap();
    let begun = runtime.block_on(async {
        let folder = Folder::new();
        let staging = begin(&folder, large()).await;
        let mut upload = staging.write(0, Holes::NONE).await.unwrap();
        let (go, go_on) = mpsc::channel();
        let busy = spawn_blocking(move || go_on.recv().unwrap());
        let again = tokio::spawn({
            let storage = folder.storage.clone();
            async move { storage.begin(&remote("f"), large()).await.unwrap().is_some() }
        });
        // It has asked for the thread.
        tokio::task::yield_now().await;
        upload.write(Bytes::from_static(&part(0)[..BLOCK])).await.unwrap();
        go.send(()).unwrap();
        busy.await.unwrap();
        timeout(Duration::from_secs(10), again).await
    });
    // A thread that waits for itself would be waited for.
    runtime.shutdown_background();
    assert!(begun.unwrap().unwrap());
}

/// What nobody reads must not be in memory: a large file has thousands of extents.
#[tokio::test]
async fn what_is_kept_is_told_by_pages() {
    let folder = Folder::new();
    let count = HELD_PAGE_MAX as u32 + 10;
    let extents = Extents::new(u64::from(count) * EXTENT_MIN, EXTENT_MIN).unwrap();
    let file = LargeFile { extents, sparse: true, ..large() };
    drop(LocalFs::open(&folder.path("")).unwrap().begin(&remote("f"), file.clone()).await.unwrap());
    // So it is where publishing was cut: then all of it is there.
    fs::File::options().write(true).open(staged(&folder)).unwrap().set_len(extents.size()).unwrap();
    let staging = begin(&folder, file).await;
    let indices = |from| staging.held(from).iter().map(|held| held.index).collect::<Vec<_>>();
    assert_eq!(indices(0), (0..HELD_PAGE_MAX as u32).collect::<Vec<_>>());
    assert_eq!(indices(HELD_PAGE_MAX as u32), (HELD_PAGE_MAX as u32..count).collect::<Vec<_>>());
    assert_eq!(indices(count), [0; 0]);
}

/// On a full disk others need the room.
#[tokio::test]
async fn what_could_not_be_begun_keeps_no_room() {
    for which in [Which::Fallocate, Which::Pwrite, Which::Ftruncate, Which::Fsync] {
        let mut folder = Folder::new();
        if which == Which::Fallocate && is_in_memory(fs::File::open(folder.path("")).unwrap()) {
            continue; // no room is taken in advance
        }
        folder.hook(Fail::nth(which, 0, Errno::NOSPC));
        assert_eq!(status(folder.storage.begin(&remote("f"), large()).await.map(drop)), Status::NoSpace);
        assert_eq!(folder.on_disk(), Vec::<String>::new(), "{which:?}");
    }
}

/// The kernel reports a failed flush once.
#[tokio::test]
async fn a_failed_flush_is_not_tried_again() {
    let mut folder = Folder::new();
    // One for the folder, three for the extents; the fifth is that of publishing.
    folder.hook(Fail::nth(Which::Fsync, 4, Errno::IO));
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    assert_eq!(status(staging.commit(publish()).await), Status::Io);
    assert_eq!(status(staging.commit(publish()).await), Status::Io);
    assert_eq!(folder.names("/").await, Vec::<String>::new());
    assert_eq!(begin(&folder, large()).await.held(0), []);
}

#[tokio::test]
async fn another_cut_or_a_fresh_start_keeps_nothing() {
    let mut folder = Folder::new();
    let others = [
        LargeFile { fresh: true, ..large() },
        LargeFile { extents: Extents::new(extents().size() + 1, 8 << 20).unwrap(), ..large() },
        LargeFile { extents: Extents::new(extents().size(), 16 << 20).unwrap(), ..large() },
        LargeFile { extents: Extents::new((16 << 20) - 1, 8 << 20).unwrap(), ..large() },
    ];
    for (other, restart) in others.into_iter().flat_map(|other| [(other.clone(), false), (other, true)]) {
        let staging = begin(&folder, LargeFile { fresh: true, ..large() }).await;
        send(&*staging, 0).await.unwrap();
        drop(staging);
        if restart {
            folder.restart();
        }
        assert_eq!(begin(&folder, other).await.held(0), []);
        assert_eq!(folder.on_disk().len(), 1);
        assert_eq!(begin(&folder, large()).await.held(0), []);
    }
    // A journal that is not one.
    send(&*begin(&folder, large()).await, 0).await.unwrap();
    folder.restart();
    let file = fs::File::options().write(true).open(staged(&folder)).unwrap();
    file.write_all_at(b"?", extents().size().next_multiple_of(4096) + 9).unwrap();
    assert_eq!(begin(&folder, large()).await.held(0), []);
}

#[tokio::test]
async fn another_process_does_not_get_in_between() {
    let mut folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send(&*staging, 0).await.unwrap();
    let other = LocalFs::open(&folder.path("")).unwrap();
    assert_eq!(status(other.begin(&remote("f"), large()).await.map(drop)), Status::Superseded);
    // Not by sweeping either.
    assert_eq!(other.sweep(Duration::ZERO).await.unwrap(), 0);
    send(&*staging, 1).await.unwrap();
    drop(staging);
    folder.restart();
    assert_eq!(other.begin(&remote("f"), large()).await.unwrap().unwrap().held(0).len(), 2);
}

/// Who knows the owner can guess the name.
#[tokio::test]
async fn what_somebody_has_put_there_is_not_used() {
    let mut folder = Folder::new();
    drop(begin(&folder, large()).await);
    let name = staged(&folder);
    let victim = folder.outer.path().join("victim");
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 4] = [
        ("link", |victim, name| symlink(victim, name).unwrap()),
        ("hard link", |victim, name| fs::hard_link(victim, name).unwrap()),
        ("mode", |victim, name| {
            fs::copy(victim, name).unwrap();
            fs::set_permissions(name, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("fifo", |_, name| {
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, name, fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        }),
    ];
    for (what, plant) in plants {
        folder.restart();
        let _ = fs::remove_file(folder.path("f"));
        let _ = fs::remove_file(&name);
        fs::write(&victim, vec![7; extents().size() as usize]).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        plant(&victim, &name);
        let planted = fs::File::options().read(true).write(true).open(&name).unwrap();
        let staging = begin(&folder, large()).await;
        assert_eq!(staging.held(0), [], "{what}");
        send_all(&*staging).await;
        staging.commit(publish()).await.unwrap();
        drop(planted);
        assert!(fs::read(&victim).unwrap().iter().all(|&byte| byte == 7), "{what}");
        assert!(fs::read(folder.path("f")).unwrap() == *BODY, "{what}");
        assert!(!folder.path("f").is_symlink(), "{what}");
        assert_eq!(folder.on_disk(), ["f"]);
    }
    // What cannot be removed is left to its owner: one goes apart from it.
    fs::remove_file(folder.path("f")).unwrap();
    fs::create_dir(&name).unwrap();
    assert_eq!(status(folder.storage.begin(&remote("f"), large()).await.map(drop)), Status::Superseded);
    let apart = LargeFile { apart: Some([3; 32].into()), ..large() };
    assert!(folder.storage.begin(&remote("f"), apart).await.unwrap().is_some());
}

/// Its final mode, set just before a kill, may not let its own owner open it again.
#[tokio::test]
async fn what_cannot_be_opened_any_more_is_begun_anew() {
    let mut folder = Folder::new();
    let staging = begin(&folder, large()).await;
    send_all(&*staging).await;
    drop(staging);
    folder.restart();
    folder.hook(Fail::nth(Which::Openat, 0, Errno::ACCESS));
    let staging = begin(&folder, large()).await;
    assert_eq!(staging.held(0), []);
    send_all(&*staging).await;
    staging.commit(publish()).await.unwrap();
    assert_eq!(folder.on_disk(), ["f"]);
    // Where nothing stands, it is the folder that lets nobody in.
    folder.restart();
    folder.hook(Fail::nth(Which::Openat, 0, Errno::ACCESS));
    let begun = folder.storage.begin(&remote("g"), large()).await.map(drop);
    assert_eq!(status(begun), Status::StorageDenied);
}

/// What a disk cannot say of its holes is data, and not a hole to the end.
#[tokio::test]
async fn holes_that_cannot_be_found_are_none() {
    let mut folder = Folder::new();
    let file = fs::File::create(folder.path("f")).unwrap();
    file.set_len(10 * BLOCK as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &pattern(BLOCK), 5 * BLOCK as u64).unwrap();
    let holes = async |folder: &Folder| match folder.storage.open_up_to(&remote("f"), u64::MAX).await.unwrap() {
        Opened::Whole(reader) => reader.holes().clone(),
        Opened::Large(_) => panic!("it is not too large"),
    };
    assert_eq!(holes(&folder).await.iter().count(), 2);
    for nth in 0..4 {
        folder.hook(Fail::nth(Which::Seek, nth, Errno::IO));
        let data = holes(&folder).await.data_in(10 * BLOCK as u64).unwrap();
        assert!(data >= BLOCK as u64, "{nth}: {data}");
        let found = holes(&folder).await;
        assert!(found.iter().all(|hole| hole.offset != 5 * BLOCK as u64), "{nth}: {found:?}");
    }
}

/// Nobody can make a server hold more than so many of his files open.
#[tokio::test]
async fn the_idlest_upload_of_an_owner_makes_room_for_his_next() {
    let folder = Folder::new();
    let other = LargeFile { owner: [9; 32].into(), sparse: true, ..large() };
    let others = folder.storage.begin(&remote("f"), other).await.unwrap().unwrap().id();
    let kept = begin(&folder, large()).await;
    let mut ids = Vec::new();
    for index in 0..100 {
        let file = LargeFile { sparse: true, ..large() };
        let begun = folder.storage.begin(&remote(&format!("g{index}")), file).await.unwrap().unwrap();
        ids.push((format!("g{index}"), begun.id()));
    }
    let find = async |path: &str, owner: [u8; 32], id| folder.storage.staging(&remote(path), owner.into(), id).await;
    let mut open = 0;
    for (path, id) in ids {
        open += usize::from(find(&path, OWNER, id).await.is_ok());
    }
    assert_eq!(open, 63, "one of 64 is in use");
    assert!(find("f", OWNER, kept.id()).await.is_ok());
    assert!(find("f", [9; 32], others).await.is_ok());
}

/// Some file systems take what there is before they find that it is not enough.
#[tokio::test]
async fn more_than_is_free_is_not_asked_for() {
    let mut folder = Folder::new();
    let size = 1 << 43;
    for begin in [true, false] {
        folder.hook(Fail::nth(Which::Fallocate, 0, Errno::IO));
        let refused = if begin {
            let file = LargeFile { extents: Extents::new(size, 1 << 30).unwrap(), ..large() };
            folder.storage.begin(&remote("f"), file).await.map(drop)
        } else {
            folder.storage.create(&remote("f"), NewFile { size: Some(size), ..NewFile::default() }).await.map(drop)
        };
        assert_eq!(status(refused), Status::NoSpace, "{begin}");
        assert_eq!(folder.on_disk(), Vec::<String>::new());
    }
}

/// What has no name takes no room on disk: nobody would count it. Removed here, by another program, or to make room
/// for another; and with a client that goes on sending.
#[tokio::test]
async fn nothing_is_left_on_disk_of_what_was_removed() {
    for how in ["rm", "another program", "fresh"] {
        let folder = Folder::new();
        folder.storage.make_folder(&remote("d"), false).await.unwrap();
        let staging = folder.storage.begin(&remote("d/f"), large()).await.unwrap().unwrap();
        send(&*staging, 0).await.unwrap();
        let mut upload = staging.write(1, Holes::NONE).await.unwrap();
        let block = Bytes::from_static(&part(1)[..BLOCK]);
        upload.write(block.clone()).await.unwrap();
        assert_eq!(blocks_of_removed(&folder), [], "{how}");
        match how {
            "rm" => drop(folder.storage.remove(&remote("d"), true).await.unwrap()),
            "fresh" => {
                let fresh = LargeFile { fresh: true, ..large() };
                drop(folder.storage.begin(&remote("d/f"), fresh).await.unwrap().unwrap());
            }
            _ => {
                fs::remove_dir_all(folder.path("d")).unwrap();
                folder.storage.close_idle().await;
            }
        }
        // What was on its way to the disk may be there yet.
        let blocks = blocks_of_removed(&folder);
        assert!(blocks.len() == 1 && blocks[0] <= BLOCK as u64 / 512, "{how}: {blocks:?}");
        let status = loop {
            if let Err(error) = upload.write(block.clone()).await {
                break error.status();
            }
        };
        assert!([Status::NoUpload, Status::Superseded].contains(&status), "{how}: {status:?}");
        assert!(how == "fresh" || blocks_of_removed(&folder) == [0], "{how}");
        let found = folder.storage.staging(&remote("d/f"), OWNER.into(), staging.id()).await;
        assert!(found.is_err(), "{how}");
        drop((upload, staging));
        // Not even open.
        assert_eq!(blocks_of_removed(&folder), [], "{how}");
    }
}

/// Nor of an upload that was never heard of again, when somebody asks for it.
#[tokio::test]
async fn what_was_removed_is_not_found() {
    let folder = Folder::new();
    let staging = begin(&folder, large()).await;
    fs::remove_file(staged(&folder)).unwrap();
    let found = folder.storage.staging(&remote("f"), OWNER.into(), staging.id()).await;
    assert_eq!(status(found.map(drop)), Status::NoUpload);
    assert_eq!(status(staging.write(0, Holes::NONE).await.map(drop)), Status::NoUpload);
}

/// The blocks that files take which this process has open in the folder, and which have no name any more.
pub(super) fn blocks_of_removed(folder: &Folder) -> Vec<u64> {
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|item| {
        let item = item.unwrap().path();
        let name = fs::read_link(&item).ok()?;
        let is_ours = name.starts_with(folder.path("")) && name.to_string_lossy().ends_with(" (deleted)");
        fs::metadata(item).ok().filter(|meta| is_ours && meta.is_file()).map(|meta| meta.blocks())
    });
    open.collect()
}

#[tokio::test]
async fn a_folder_that_holds_only_unfinished_files_is_empty() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    let storage = &folder.storage;
    storage.begin(&remote("d/f"), large()).await.unwrap();
    storage.begin(&remote("d/g"), large()).await.unwrap();
    fs::write(folder.path("d/own"), b"x").unwrap();
    assert_eq!(status(storage.remove(&remote("d"), false).await), Status::NotEmpty);
    assert_eq!(fs::read_dir(folder.path("d")).unwrap().count(), 3);
    fs::remove_file(folder.path("d/own")).unwrap();
    assert_eq!(storage.remove(&remote("d"), false).await.unwrap(), 1);
    assert_eq!(folder.on_disk(), Vec::<String>::new());
}

#[tokio::test]
async fn only_what_nobody_came_back_for_is_swept() {
    let mut folder = Folder::new();
    let reserved = || root::reserved_name().unwrap().to_string();
    fs::create_dir_all(folder.path("a/b")).unwrap();
    let parents = LargeFile { parents: true, ..large() };
    for path in ["f", "a/b/f"] {
        folder.storage.begin(&remote(path), parents.clone()).await.unwrap();
    }
    folder.restart();
    fs::write(folder.path(&reserved()), b"").unwrap();
    fs::write(folder.path(&reserved()), b"").unwrap();
    symlink("nowhere", folder.path(&reserved())).unwrap();
    fs::create_dir(folder.path(&reserved())).unwrap();
    for own in [".ftpq-notes", "own", "a/own"] {
        fs::write(folder.path(own), b"x").unwrap();
    }
    let used = begin(&folder, large()).await;
    assert_eq!(folder.storage.sweep(KEPT_FOR).await.unwrap(), 0);
    assert_eq!(folder.storage.sweep(Duration::ZERO).await.unwrap(), 4);
    assert_eq!(folder.names("/").await, [".ftpq-notes", "a", "own"]);
    assert_eq!(folder.names("a").await, ["b", "own"]);
    assert_eq!(fs::read_dir(folder.path("a/b")).unwrap().count(), 0);
    send_all(&*used).await;
    used.commit(publish()).await.unwrap();
}

#[tokio::test]
async fn holes_take_no_room_and_hide_nothing_old() {
    let folder = Folder::new();
    let mut body = BODY.clone();
    body[1 << 20..7 << 20].fill(0);
    body[15 << 20..].fill(0);
    let staging = begin(&folder, LargeFile { sparse: true, ..large() }).await;
    // An earlier attempt has left something in the holes.
    for index in 0..3 {
        send(&*staging, index).await.unwrap();
    }
    let holes = [vec![hole(1 << 20, 6 << 20)], vec![hole(7 << 20, 1 << 20)], vec![hole(0, part(2).len() as u64)]];
    for (index, holes) in (0..).zip(holes) {
        let extent = extents().get(index).unwrap();
        let bytes = &body[extent.offset as usize..][..extent.length as usize];
        let mut upload = staging.write(index, Holes::new(holes.clone()).unwrap()).await.unwrap();
        let mut at = 0;
        for hole in holes {
            upload.write(Bytes::copy_from_slice(&bytes[at..hole.offset as usize])).await.unwrap();
            at = (hole.offset + hole.length) as usize;
        }
        upload.write(Bytes::copy_from_slice(&bytes[at..])).await.unwrap();
        upload.commit(digest_of_extent(&body, index)).await.unwrap();
    }
    staging.commit(Publish { digest: digest(&body), ..publish() }).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == body);
    let blocks = fs::metadata(folder.path("f")).unwrap().blocks() * 512;
    assert!(blocks < 10 << 20, "{blocks} bytes on disk");

    // The way back: holes are not read, and the digests are those of the bytes.
    let Opened::Large(info) = folder.storage.open_up_to(&remote("f"), 1 << 20).await.unwrap() else { panic!("large") };
    assert!(info.sparse);
    let pinned = Pinned { path: remote("f"), version: info.version, extents: extents() };
    for index in 0..3 {
        let mut reader = folder.storage.open_extent(&pinned, index).await.unwrap();
        let length = extents().get(index).unwrap().length;
        let left = reader.holes().data_in(length).unwrap();
        assert!(left < length, "{index}");
        let mut read = 0;
        while let Some(block) = reader.next_block().await.unwrap() {
            read += block.len() as u64;
        }
        assert_eq!((read, reader.finish().await.unwrap()), (left, digest_of_extent(&body, index)));
        assert_eq!(folder.storage.extent_digest(&pinned, index).await.unwrap(), digest_of_extent(&body, index));
    }
    assert_eq!(status(folder.storage.open_extent(&pinned, 3).await.map(drop)), Status::BadPath);
    fs::File::options().append(true).open(folder.path("f")).unwrap().set_len(5).unwrap();
    assert_eq!(status(folder.storage.open_extent(&pinned, 0).await.map(drop)), Status::Changed);
}

#[tokio::test]
async fn a_small_file_may_have_holes_and_no_known_length() {
    let folder = Folder::new();
    let (data, gap) = (pattern(10_000), 100_000);
    let body = [vec![0; gap], data.clone(), vec![0; gap], data.clone(), vec![0; gap]].concat();
    let next = (gap + data.len()) as u64;
    let holes = Holes::new([0, next, 2 * next].map(|offset| hole(offset, gap as u64)).into()).unwrap();
    for size in [Some(body.len() as u64), None] {
        let file = NewFile { size, holes: holes.clone(), overwrite: true, ..NewFile::default() };
        let mut upload = folder.storage.create(&remote("f"), file).await.unwrap();
        // Blocks do not end where holes begin.
        for block in [&data[..], &data[..]].concat().chunks(7777) {
            upload.write(Bytes::copy_from_slice(block)).await.unwrap();
        }
        assert_eq!(upload.commit(digest(&body)).await.unwrap(), digest(&body));
        assert!(fs::read(folder.path("f")).unwrap() == body, "{size:?}");
        let Opened::Whole(mut reader) = folder.storage.open_up_to(&remote("f"), 1 << 20).await.unwrap() else {
            panic!("small");
        };
        assert_eq!(reader.holes().iter().count(), 3);
        while reader.next_block().await.unwrap().is_some() {}
        assert_eq!(reader.finish().await.unwrap(), digest(&body));
    }
    let holes = Holes::new(vec![hole(0, 10), hole(90, 20)]).unwrap();
    let file = NewFile { size: Some(100), holes, ..NewFile::default() };
    let mut upload = folder.storage.create(&remote("g"), file).await.unwrap();
    upload.write(vec![1; 80].into()).await.unwrap();
    assert_eq!(status(upload.commit(digest(b"")).await), Status::Truncated);
}

#[tokio::test]
async fn a_length_may_be_unknown() {
    let folder = Folder::new();
    for size in [0, 1, BLOCK, 3 * BLOCK + 1] {
        let (name, bytes) = (format!("f{size}"), pattern(size));
        let mut upload = folder.storage.create(&remote(&name), NewFile::default()).await.unwrap();
        for block in bytes.chunks(100_000) {
            upload.write(Bytes::copy_from_slice(block)).await.unwrap();
        }
        upload.commit(digest(&bytes)).await.unwrap();
        assert_eq!(folder.get(&name).await.unwrap(), bytes);
    }
}

/// Three extents, the last of them short.
pub(super) static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let some = pattern(251 * 4096);
    some.iter().copied().cycle().take((16 << 20) + 5000).collect()
});

pub(super) const OWNER: [u8; 32] = [7; 32];

pub(super) fn extents() -> Extents {
    Extents::new(BODY.len() as u64, 8 << 20).unwrap()
}

pub(super) fn large() -> LargeFile {
    LargeFile {
        extents: extents(),
        owner: OWNER.into(),
        fresh: false,
        apart: None,
        sparse: false,
        overwrite: false,
        same: None,
        parents: false,
    }
}

pub(super) fn publish() -> Publish {
    Publish { digest: digest(&BODY), mode: None, mtime: None }
}

pub(super) fn part(index: u32) -> &'static [u8] {
    let extent = extents().get(index).unwrap();
    &BODY[extent.offset as usize..][..extent.length as usize]
}

pub(super) fn extent_digest(index: u32) -> Digest {
    digest_of_extent(&BODY, index)
}

fn digest_of_extent(body: &[u8], index: u32) -> Digest {
    let extent = extents().get(index).unwrap();
    let mut hasher = BodyHasher::new(Some(extent));
    hasher.update(&body[extent.offset as usize..][..extent.length as usize]);
    hasher.finish()
}

async fn begin(folder: &Folder, file: LargeFile) -> Arc<dyn Staging> {
    folder.storage.begin(&remote("f"), file).await.unwrap().expect("not there yet")
}

pub(super) async fn send(staging: &dyn Staging, index: u32) -> Result<Digest, StorageError> {
    let mut upload = staging.write(index, Holes::NONE).await?;
    for block in part(index).chunks(3 << 20) {
        upload.write(Bytes::from_static(block)).await?;
    }
    upload.commit(extent_digest(index)).await
}

async fn send_all(staging: &dyn Staging) {
    for index in 0..3 {
        send(staging, index).await.unwrap();
    }
}

/// Where the one staged file is.
fn staged(folder: &Folder) -> PathBuf {
    let mut names = folder.on_disk().into_iter().filter(|name| root::is_reserved(name.as_bytes()));
    let name = names.next().expect("a staged file");
    assert_eq!(names.next(), None);
    folder.path(&name)
}

fn hole(offset: u64, length: u64) -> Hole {
    Hole { offset, length }
}
