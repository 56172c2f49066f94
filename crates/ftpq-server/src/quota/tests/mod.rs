//! What a quota promises, on a real file system.

mod model;

use std::{fs, path::PathBuf};

use ftpq_proto::{Extents, Hole, Holes, Status};
use ftpq_storage::{Bytes, LocalFs, Publish};
use tokio::task::JoinSet;

use super::*;

/// A served folder, and the server's accounts of it.
struct Server {
    folder: tempfile::TempDir,
    files: LocalFs,
    quotas: Arc<Quotas>,
}

impl Server {
    fn new() -> Self {
        // In memory, where there is such a file system: much is flushed here.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let files = LocalFs::open(folder.path()).unwrap();
        Self { folder, files, quotas: Arc::default() }
    }

    /// Another process, so to say, with the same folder.
    fn restart(&mut self) {
        self.files = LocalFs::open(self.folder.path()).unwrap();
        self.quotas = Arc::default();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a user sees whose root is the whole.
    fn user(&self, bytes: Option<u64>, files: Option<u64>) -> Arc<dyn Storage> {
        self.quotas.limit(Arc::new(self.files.clone()), &RemotePath::root(), &limits(bytes, files))
    }

    async fn user_below(&self, root: &str, bytes: Option<u64>) -> Arc<dyn Storage> {
        let storage = self.files.subtree(&remote(root)).await.unwrap();
        self.quotas.limit(storage, &remote(root), &limits(bytes, None))
    }

    /// What is there.
    async fn usage(&self) -> Usage {
        LocalFs::open(self.folder.path()).unwrap().usage().await.unwrap()
    }

    fn account(&self, root: &str) -> Arc<Ledger> {
        let root = remote(root);
        self.quotas.read(|ledgers| ledgers.iter().find(|ledger| ledger.root == root).cloned()).unwrap()
    }
}

fn limits(bytes: Option<u64>, files: Option<u64>) -> Limits {
    Limits { bytes, files, ..Limits::default() }
}

fn remote(path: &str) -> RemotePath {
    path.parse().unwrap()
}

fn digest_of(bytes: &[u8]) -> Digest {
    (*blake3::hash(bytes).as_bytes()).into()
}

async fn put(storage: &dyn Storage, path: &str, size: u64, file: NewFile) -> Result<(), StorageError> {
    put_of(storage, path, size, NewFile { size: Some(size), ..file }).await
}

/// So many bytes, announced or not.
async fn put_of(storage: &dyn Storage, path: &str, size: u64, file: NewFile) -> Result<(), StorageError> {
    let body = Bytes::from(vec![7; size as usize]);
    let mut upload = storage.create(&remote(path), file).await?;
    for at in (0..body.len()).step_by(64 * 1024) {
        upload.write(body.slice(at..body.len().min(at + 64 * 1024))).await?;
    }
    upload.commit(digest_of(&body)).await.map(drop)
}

fn status<T>(result: Result<T, StorageError>) -> Status {
    result.err().expect("an error").status()
}

fn text<T>(result: Result<T, StorageError>) -> String {
    result.err().expect("an error").to_string()
}

/// A large file of nothing but holes.
fn large(size: u64) -> LargeFile {
    let extents = Extents::of(size).unwrap();
    let owner = Digest::from([1; 32]);
    LargeFile { extents, owner, fresh: false, apart: None, sparse: true, overwrite: false, same: None, parents: false }
}

async fn send(staging: &dyn Staging, index: u32) -> Result<(), StorageError> {
    let length = staging.extents().get(index).unwrap().length;
    let upload = staging.write(index, Holes::new(vec![Hole { offset: 0, length }]).unwrap()).await?;
    upload.commit(extent_digest(staging.extents(), index)).await.map(drop)
}

fn extent_digest(extents: Extents, index: u32) -> Digest {
    let extent = extents.get(index).unwrap();
    let mut hasher = ftpq_storage::BodyHasher::new(Some(extent));
    hasher.zeros(extent.length);
    hasher.finish()
}

fn whole(extents: Extents) -> Publish {
    let digests: Vec<_> = extents.iter().map(|extent| extent_digest(extents, extent.index)).collect();
    Publish { digest: ftpq_storage::join(&digests).unwrap(), mode: None, mtime: None }
}

async fn finish(staging: &dyn Staging) -> Result<(), StorageError> {
    for index in 0..staging.extents().count() {
        send(staging, index).await?;
    }
    staging.commit(whole(staging.extents())).await.map(drop)
}

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn without_limits_a_storage_is_itself() {
    let server = Server::new();
    let storage: Arc<dyn Storage> = Arc::new(server.files.clone());
    let root = RemotePath::root();
    let none = server.quotas.limit(storage.clone(), &root, &Limits { rate: Some(1), ..Limits::default() });
    assert!(Arc::ptr_eq(&none, &storage));
    server.quotas.limit(storage.clone(), &remote("a"), &limits(Some(1), None));
    assert!(Arc::ptr_eq(&server.quotas.limit(storage.clone(), &remote("b"), &Limits::default()), &storage));
    assert!(!Arc::ptr_eq(&server.quotas.limit(storage.clone(), &root, &Limits::default()), &storage));
    assert!(!Arc::ptr_eq(&server.quotas.limit(storage.clone(), &remote("a/b"), &Limits::default()), &storage));
}

#[tokio::test]
async fn what_fits_exactly_fits_and_one_byte_more_does_not() {
    let server = Server::new();
    fs::write(server.path("old"), [1; 1000]).unwrap();
    let user = server.user(Some(300_000), Some(3));
    assert_eq!(
        text(put(&*user, "f", 299_001, NewFile::default()).await),
        "/f: over the quota: 1000 bytes of 293.0 KiB are taken, and 292.0 KiB more do not fit"
    );
    put(&*user, "f", 299_000, NewFile::default()).await.unwrap();
    put(&*user, "empty", 0, NewFile::default()).await.unwrap();
    assert_eq!(
        text(put(&*user, "fourth", 0, NewFile::default()).await),
        "/fourth: over the quota: 3 of 3 files, folders and links are taken, and 1 more do not fit"
    );
    assert_eq!(status(user.make_folder(&remote("d"), false).await), Status::OverQuota);
    let target = LinkTarget::new(*b"f").unwrap();
    assert_eq!(status(user.make_link(&remote("l"), &target, NewLink::default()).await), Status::OverQuota);
    // At once, though it was counted a moment ago.
    user.remove(&remote("f"), false).await.unwrap();
    put(&*user, "g", 299_000, NewFile::default()).await.unwrap();
    assert_eq!(server.usage().await, Usage { bytes: 300_000, entries: 3 });
}

/// By two users of one root, as fast as they can; in one block and in several, announced and not.
#[tokio::test]
async fn of_many_that_race_exactly_as_many_as_fit_succeed() {
    for (size, announced) in [(10_000, true), (300_000, true), (300_000, false)] {
        const FIT: u64 = 23;
        let server = Server::new();
        let users = [server.user(Some(FIT * size), None), server.user(Some(FIT * size), None)];
        let mut uploads = JoinSet::new();
        for number in 0..64 {
            let user = users[number % 2].clone();
            let file = NewFile { size: announced.then_some(size), ..NewFile::default() };
            uploads.spawn(async move { put_of(&*user, &format!("f{number}"), size, file).await });
        }
        let results = uploads.join_all().await;
        let fit = results.iter().filter(|result| result.is_ok()).count() as u64;
        let over = results.iter().filter_map(|result| result.as_ref().err());
        over.for_each(|error| assert_eq!(error.status(), Status::OverQuota, "{error}"));
        assert_eq!(server.usage().await, Usage { bytes: fit * size, entries: fit });
        // Those of unknown size may each have had a part of the last one's room.
        assert!(if announced { fit == FIT } else { fit <= FIT }, "{fit} of {size}, {announced}");
    }
}

#[tokio::test]
async fn of_many_folders_that_race_no_more_than_fit_are_made() {
    let server = Server::new();
    let user = server.user(None, Some(10));
    let mut made = JoinSet::new();
    for number in 0..64 {
        let user = user.clone();
        made.spawn(async move {
            let path = remote(&format!("a/b{}/c{number}", number % 3));
            match number % 2 {
                0 => user.make_folder(&path, true).await,
                _ => put(&*user, &path.to_string(), 1, NewFile { parents: true, ..NewFile::default() }).await,
            }
        });
    }
    let made = made.join_all().await.into_iter().filter(Result::is_ok).count() as u64;
    let there = server.usage().await.entries;
    assert!(made <= there && there <= 10, "{made} of {there}");
    // The folders that several wanted were reserved several times, and then not.
    for number in there..10 {
        user.make_folder(&remote(&format!("d{number}")), false).await.unwrap();
    }
    assert_eq!(status(user.make_folder(&remote("e"), false).await), Status::OverQuota);
}

/// Parents that were there when an upload began may be gone when it ends.
#[tokio::test]
async fn folders_that_went_meanwhile_are_not_made_again_for_nothing() {
    let server = Server::new();
    let user = server.user(None, Some(3));
    user.make_folder(&remote("a/b"), true).await.unwrap();
    let file = NewFile { size: Some(1), parents: true, ..NewFile::default() };
    let mut upload = user.create(&remote("a/b/f"), file).await.unwrap();
    upload.write(Bytes::from_static(b"x")).await.unwrap();
    user.remove(&remote("a"), true).await.unwrap();
    // It takes counting to know that there is room for these.
    put(&*user, "g", 1, NewFile::default()).await.unwrap();
    put(&*user, "h", 1, NewFile::default()).await.unwrap();
    assert_eq!(status(upload.commit(digest_of(b"x")).await), Status::OverQuota);
    assert_eq!(server.usage().await.entries, 2);
    put(&*user, "i", 1, NewFile::default()).await.unwrap();
}

#[tokio::test]
async fn an_upload_has_its_room_from_the_start_and_gives_it_back() {
    let server = Server::new();
    let user = server.user(Some(1_000_000), None);
    let file = || NewFile { size: Some(900_000), ..NewFile::default() };
    let first = user.create(&remote("a"), file()).await.unwrap();
    assert_eq!(status(user.create(&remote("b"), file()).await.map(drop)), Status::OverQuota);
    drop(first);
    let mut wrong = user.create(&remote("b"), file()).await.unwrap();
    wrong.write(Bytes::from(vec![1; 900_000])).await.unwrap();
    assert_eq!(status(wrong.commit(digest_of(b"")).await), Status::DigestMismatch);
    put(&*user, "c", 900_000, NewFile::default()).await.unwrap();
}

#[tokio::test]
async fn a_pipe_ends_where_there_is_no_more_room() {
    let server = Server::new();
    let user = server.user(Some(3 * MIB + 100), None);
    put_of(&*user, "a", 3 * MIB + 100, NewFile::default()).await.unwrap();
    user.remove(&remote("a"), false).await.unwrap();
    assert_eq!(status(put_of(&*user, "b", 3 * MIB + 101, NewFile::default()).await), Status::OverQuota);
    assert_eq!(server.usage().await, Usage::default());
    // What was set aside in advance is given back.
    put_of(&*user, "c", 1, NewFile::default()).await.unwrap();
    put(&*user, "d", 3 * MIB + 99, NewFile::default()).await.unwrap();
    // Holes count.
    user.remove(&remote("d"), false).await.unwrap();
    let holes = Holes::new(vec![Hole { offset: 0, length: 3 * MIB }]).unwrap();
    for (size, length) in [(None, 3 * MIB), (Some(3 * MIB), 3 * MIB)] {
        let file = NewFile { size, holes: holes.clone(), ..NewFile::default() };
        let upload = user.create(&remote("e"), file).await.unwrap();
        assert_eq!(status(put(&*user, "f", 100, NewFile::default()).await), Status::OverQuota);
        upload.commit(digest_of(&vec![0; length as usize])).await.unwrap();
        user.remove(&remote("e"), false).await.unwrap();
    }
}

#[tokio::test]
async fn replacing_takes_room_for_both_and_then_for_one() {
    let server = Server::new();
    let user = server.user(Some(1_000_000), Some(2));
    let replace = NewFile { overwrite: true, ..NewFile::default() };
    put(&*user, "f", 600_000, NewFile::default()).await.unwrap();
    assert_eq!(status(put(&*user, "f", 600_000, replace.clone()).await), Status::OverQuota);
    for _ in 0..5 {
        put(&*user, "f", 400_000, replace.clone()).await.unwrap();
    }
    put(&*user, "g", 600_000, NewFile::default()).await.unwrap();
    assert_eq!(server.usage().await.bytes, 1_000_000);
}

/// A client that lost the reply sends it again, and there is no room for a second.
#[tokio::test]
async fn what_is_there_already_needs_no_room() {
    let server = Server::new();
    let user = server.user(Some(1_000_000), Some(2));
    let again = NewFile { accept_same: true, ..NewFile::default() };
    put(&*user, "f", 1_000_000, again.clone()).await.unwrap();
    put(&*user, "f", 1_000_000, again.clone()).await.unwrap();
    assert_eq!(status(put(&*user, "f", 900_000, again.clone()).await), Status::OverQuota);
    fs::write(server.path("f"), vec![8; 1_000_000]).unwrap();
    assert_eq!(status(put(&*user, "f", 1_000_000, again).await), Status::OverQuota);
    let (link, target) = (NewLink { accept_same: true, ..NewLink::default() }, LinkTarget::new(*b"f").unwrap());
    user.make_link(&remote("l"), &target, link).await.unwrap();
    user.make_link(&remote("l"), &target, link).await.unwrap();

    let user = server.user(Some(21 * MIB), Some(3));
    let (size, path) = (20 * MIB, remote("large"));
    let staging = user.begin(&path, large(size)).await.unwrap().unwrap();
    finish(&*staging).await.unwrap();
    let same = LargeFile { same: Some(whole(staging.extents()).digest), ..large(size) };
    assert!(user.begin(&path, same).await.unwrap().is_none());
    let other = LargeFile { same: Some([9; 32].into()), ..large(size) };
    assert_eq!(status(user.begin(&path, other).await.map(drop)), Status::OverQuota);
}

/// Before and after a restart, with one byte to spare for nothing.
#[tokio::test]
async fn a_large_upload_is_counted_once_however_often_it_is_gone_on_with() {
    let mut server = Server::new();
    let (size, path) = (20 * MIB, remote("a/large"));
    let begin = async |server: &Server, file| server.user(Some(size), Some(2)).begin(&path, file).await;
    let staging = begin(&server, LargeFile { parents: true, ..large(size) }).await.unwrap().unwrap();
    send(&*staging, 0).await.unwrap();
    assert_eq!(server.usage().await, Usage { bytes: size, entries: 2 });
    drop(staging);
    for restart in [false, true, false] {
        if restart {
            server.restart();
        }
        let staging = begin(&server, large(size)).await.unwrap().unwrap();
        assert_eq!(staging.held(0).len(), 1);
        // Apart, it would be another.
        let apart = LargeFile { apart: Some([1; 32].into()), ..large(size) };
        assert_eq!(status(begin(&server, apart).await.map(drop)), Status::OverQuota);
        assert_eq!(status(put(&*server.user(Some(size), None), "f", 1, NewFile::default()).await), Status::OverQuota);
    }
    // Anew, it is the same.
    let staging = begin(&server, LargeFile { fresh: true, ..large(size) }).await.unwrap().unwrap();
    assert_eq!(staging.held(0), []);
    finish(&*staging).await.unwrap();
    assert_eq!(server.usage().await, Usage { bytes: size, entries: 2 });
    assert_eq!(status(begin(&server, LargeFile { overwrite: true, ..large(size) }).await.map(drop)), Status::OverQuota);
}

#[tokio::test]
async fn an_upload_of_another_size_takes_its_own_room() {
    let server = Server::new();
    let user = server.user(Some(45 * MIB), None);
    drop(user.begin(&remote("f"), large(20 * MIB)).await.unwrap());
    drop(user.begin(&remote("f"), large(25 * MIB)).await.unwrap());
    assert_eq!(server.usage().await, Usage { bytes: 25 * MIB, entries: 1 });
    put(&*user, "g", 20 * MIB, NewFile::default()).await.unwrap();
    assert_eq!(status(put(&*user, "h", 1, NewFile::default()).await), Status::OverQuota);
}

#[tokio::test]
async fn an_abandoned_upload_gives_its_room_back_when_it_is_swept() {
    let mut server = Server::new();
    let user = server.user(Some(20 * MIB), None);
    drop(user.begin(&remote("f"), large(20 * MIB)).await.unwrap());
    assert_eq!(status(put(&*user, "g", 1, NewFile::default()).await), Status::OverQuota);
    // What the list of uploads has open is in use.
    let sweeping = LocalFs::open(server.folder.path()).unwrap();
    assert_eq!(sweeping.sweep(Duration::ZERO).await.unwrap(), 0);
    drop(user);
    server.restart();
    let user = server.user(Some(20 * MIB), None);
    assert_eq!(status(put(&*user, "g", 1, NewFile::default()).await), Status::OverQuota);
    assert_eq!(sweeping.sweep(Duration::ZERO).await.unwrap(), 1);
    server.quotas.freed();
    put(&*user, "g", 20 * MIB, NewFile::default()).await.unwrap();
}

/// Whoever is in whose root.
#[tokio::test]
async fn what_lies_below_counts_for_all_who_are_above() {
    let server = Server::new();
    fs::create_dir_all(server.path("team/intern")).unwrap();
    let team = server.user_below("team", Some(1_000_000)).await;
    let intern = server.user_below("team/intern", Some(500_000)).await;
    let owner = server.user(None, None);
    let full = async |user: &Arc<dyn Storage>, size| put(&**user, "x", size, NewFile::default()).await;
    // All are counted, and then nothing of what follows would be seen but in the accounts.
    for user in [&team, &intern] {
        assert_eq!(status(full(user, 2_000_000).await), Status::OverQuota);
    }
    put(&*intern, "f", 400_000, NewFile::default()).await.unwrap();
    put(&*owner, "team/g", 200_000, NewFile::default()).await.unwrap();
    assert_eq!(server.account("team").taken().bytes, 600_000);
    assert_eq!(status(full(&team, 400_001).await), Status::OverQuota);
    put(&*team, "intern/h", 300_000, NewFile::default()).await.unwrap();
    assert_eq!(server.account("team/intern").taken().bytes, 700_000, "its own limit is the intern's");
    assert_eq!(status(full(&intern, 1).await), Status::OverQuota);

    // What is moved in counts.
    put(&*owner, "big", 3_000_000, NewFile::default()).await.unwrap();
    owner.rename(&remote("big"), &remote("team/big"), false).await.unwrap();
    assert_eq!(status(full(&team, 1).await), Status::OverQuota);
    assert_eq!(server.account("team").taken().bytes, 3_900_000);
    owner.rename(&remote("team/big"), &remote("big"), false).await.unwrap();
    owner.remove(&remote("team/intern/h"), false).await.unwrap();
    full(&team, 400_000).await.unwrap();

    // A part of what a user sees has that user's limits.
    let part = team.subtree(&remote("intern")).await.unwrap();
    assert_eq!(status(full(&part, 1).await), Status::OverQuota);
}

#[tokio::test]
async fn what_cannot_be_counted_cannot_be_hidden() {
    let server = Server::new();
    let user = server.user(Some(1_000_000), None);
    user.make_folder(&remote("d"), false).await.unwrap();
    let set = async |mode| user.set_attributes(&remote("d"), Attributes { mode: Some(mode), mtime: None }).await;
    for mode in [0o000, 0o300, 0o477] {
        assert_eq!(status(set(mode).await), Status::Forbidden, "{mode:o}");
    }
    set(0o500).await.unwrap();
}

/// Other programs change things, too; time goes by without waiting here.
#[tokio::test(start_paused = true)]
async fn what_others_add_and_remove_is_noticed_in_time() {
    let server = Server::new();
    let user = server.user(Some(1_000_000), None);
    put(&*user, "f", 500_000, NewFile::default()).await.unwrap();
    fs::remove_file(server.path("f")).unwrap();
    assert_eq!(status(put(&*user, "g", 600_000, NewFile::default()).await), Status::OverQuota);
    tokio::time::sleep(Duration::from_secs(61)).await;
    put(&*user, "g", 600_000, NewFile::default()).await.unwrap();

    fs::write(server.path("h"), vec![1; 900_000]).unwrap();
    put(&*user, "i", 1, NewFile::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(601)).await;
    // This one still passes, and has it counted.
    put(&*user, "j", 1, NewFile::default()).await.unwrap();
    let account = server.account("/");
    while account.taken().bytes < 1_500_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(put(&*user, "k", 1, NewFile::default()).await), Status::OverQuota);
}

/// Also where the quota is that of somebody else.
#[tokio::test]
async fn nobody_hides_a_folder_from_a_quota() {
    let server = Server::new();
    server.files.make_folder(&remote("a/b"), true).await.unwrap();
    let limited = server.user_below("a", Some(1000)).await;
    let free = server.user(None, None);
    let mode = |mode| Attributes { mode: Some(mode), ..Attributes::default() };
    for hidden in [0o000, 0o300, 0o400] {
        assert_eq!(status(free.set_attributes(&remote("a/b"), mode(hidden)).await), Status::Forbidden);
        assert_eq!(status(limited.set_attributes(&remote("b"), mode(hidden)).await), Status::Forbidden);
    }
    free.set_attributes(&remote("a/b"), mode(0o700)).await.unwrap();
    // Where no quota counts it is nobody's affair.
    server.files.make_folder(&remote("c"), true).await.unwrap();
    free.set_attributes(&remote("c"), mode(0o300)).await.unwrap();
}

/// The file may be gone when folders are made in its place.
#[tokio::test]
async fn what_is_in_the_way_of_folders_saves_no_room_for_them() {
    let server = Server::new();
    let user = server.user(Some(1000), Some(10));
    fs::write(server.path("a"), "").unwrap();
    fs::create_dir(server.path("d")).unwrap();
    let counted = Counted {
        storage: user,
        quotas: server.quotas.clone(),
        place: RemotePath::root(),
        own: Some((server.account("/"), Quota::of(&limits(Some(1000), Some(10))).unwrap())),
    };
    for (path, missing) in [("a/b/c", 3), ("a", 1), ("d/b", 1), ("d", 0)] {
        let room = counted.books(&RemotePath::root()).unwrap().reserve(entries(0)).await.unwrap();
        drop(cover(&*counted.storage, &remote(path), &room).await.unwrap());
        assert_eq!(room.folders(), missing, "{path}");
    }
}
