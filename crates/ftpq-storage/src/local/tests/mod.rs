//! What `LocalFs` promises, on a real file system.

mod faults;
mod given_up;
mod powercut;
mod staging;
mod unflushed;
mod usage;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ftpq_proto::Status;

use super::*;
use crate::BLOCK;

struct Folder {
    outer: tempfile::TempDir,
    storage: LocalFs,
}

impl Folder {
    /// A storage in `…/root`, beside which tests may put what must not be reached.
    fn new() -> Self {
        Self::on(&std::env::temp_dir())
    }

    /// The same on another file system.
    fn on(outer: &Path) -> Self {
        let outer = tempfile::tempdir_in(outer).unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        let storage = LocalFs::open(&outer.path().join("root")).unwrap();
        Self { outer, storage }
    }

    /// As after the end of this process: what it had open is closed, as far as the test has not kept it.
    fn restart(&mut self) {
        self.storage = LocalFs::open(&self.path("")).unwrap();
    }

    /// Hands every system call to `hook`, from now on.
    fn hook(&mut self, hook: Arc<dyn sys::Hook>) {
        let root = Root::open(&self.path("")).unwrap().with_sys(sys::Sys { hook: Some(hook) });
        self.storage = LocalFs { root: Arc::new(root), stagings: Arc::new(Stagings::new(KEPT_FOR)) };
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("root").join(name)
    }

    async fn put(&self, path: &str, bytes: &[u8], file: NewFile) -> Result<ftpq_proto::Digest, StorageError> {
        let file = NewFile { size: Some(bytes.len() as u64), ..file };
        let mut upload = self.storage.create(&remote(path), file).await?;
        for block in bytes.chunks(100_000) {
            upload.write(Bytes::copy_from_slice(block)).await?;
        }
        upload.commit(digest(bytes)).await
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, StorageError> {
        let mut reader = self.storage.open(&remote(path)).await?;
        let mut all = Vec::new();
        while let Some(block) = reader.next_block().await? {
            all.extend_from_slice(&block);
        }
        assert_eq!(reader.finish().await?, digest(&all));
        Ok(all)
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let mut listing = self.storage.list(&remote(path)).await.unwrap();
        let mut names = Vec::new();
        while let Some(page) = listing.next_page().await.unwrap() {
            assert!(page.len() <= ftpq_proto::limits::LIST_PAGE_MAX);
            names.extend(page.into_iter().map(|entry| entry.name.unwrap().to_string()));
        }
        names.sort();
        names
    }

    /// Everything on disk below the root, reserved names included.
    fn on_disk(&self) -> Vec<String> {
        let items = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn remote(path: &str) -> RemotePath {
    path.parse().unwrap()
}

fn digest(bytes: &[u8]) -> ftpq_proto::Digest {
    (*blake3::hash(bytes).as_bytes()).into()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn status<T>(result: Result<T, StorageError>) -> Status {
    result.err().expect("an error").status()
}

#[tokio::test]
async fn files_of_every_size_come_back_as_they_were() {
    let folder = Folder::new();
    for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
        let (name, bytes) = (format!("f{size}"), pattern(size));
        folder.put(&name, &bytes, NewFile::default()).await.unwrap();
        assert_eq!(folder.get(&name).await.unwrap(), bytes);
        assert_eq!(fs::read(folder.path(&name)).unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_when_asked() {
    let folder = Folder::new();
    for size in [10, 2 * BLOCK] {
        fs::write(folder.path("f"), b"old").unwrap();
        assert_eq!(status(folder.put("f", &pattern(size), NewFile::default()).await), Status::Exists);
        assert_eq!(fs::read(folder.path("f")).unwrap(), b"old");
        folder.put("f", &pattern(size), NewFile { overwrite: true, ..NewFile::default() }).await.unwrap();
        assert_eq!(fs::read(folder.path("f")).unwrap(), pattern(size));
    }
    assert_eq!(folder.on_disk(), ["f"]);
}

/// So a tree that is there already takes no time.
#[tokio::test]
async fn what_may_not_be_replaced_is_found_before_anything_is_flushed() {
    let mut folder = Folder::new();
    fs::write(folder.path("f"), b"old").unwrap();
    for size in [10, 2 * BLOCK] {
        folder.hook(faults::Fail::nth(faults::Which::Fsync, 0, rustix::io::Errno::IO));
        assert_eq!(status(folder.put("f", &pattern(size), NewFile::default()).await), Status::Exists);
    }
}

/// A client that lost the reply to its upload sends it again.
#[tokio::test]
async fn the_same_file_again_counts_as_written_only_when_asked_and_only_if_it_is_the_same() {
    let folder = Folder::new();
    let again = NewFile { accept_same: true, ..NewFile::default() };
    for size in [0, 10, 2 * BLOCK] {
        let bytes = pattern(size);
        let name = format!("f{size}");
        folder.put(&name, &bytes, again.clone()).await.unwrap();
        folder.put(&name, &bytes, again.clone()).await.unwrap();
        assert_eq!(status(folder.put(&name, &bytes, NewFile::default()).await), Status::Exists);
        fs::write(folder.path(&name), vec![9; size.max(1)]).unwrap();
        assert_eq!(status(folder.put(&name, &bytes, again.clone()).await), Status::Exists);
        assert_eq!(fs::read(folder.path(&name)).unwrap(), vec![9; size.max(1)]);
    }
    symlink("f10", folder.path("link")).unwrap();
    assert_ne!(status(folder.put("link", &[9; 10], again.clone()).await), Status::Internal);
    assert!(folder.path("link").is_symlink());
}

#[tokio::test]
async fn a_wrong_digest_or_length_or_a_drop_leaves_nothing() {
    let folder = Folder::new();
    for size in [10, 2 * BLOCK] {
        let file = NewFile { size: Some(size as u64), overwrite: true, ..NewFile::default() };
        fs::write(folder.path("f"), b"old").unwrap();
        let bytes = Bytes::from(pattern(size));

        let mut upload = folder.storage.create(&remote("f"), file.clone()).await.unwrap();
        upload.write(bytes.clone()).await.unwrap();
        assert_eq!(status(upload.commit(digest(b"other")).await), Status::DigestMismatch);

        let mut upload = folder.storage.create(&remote("f"), file.clone()).await.unwrap();
        upload.write(bytes.slice(1..)).await.unwrap();
        assert_eq!(status(upload.commit(digest(&bytes[1..])).await), Status::Truncated);

        let mut upload = folder.storage.create(&remote("f"), file.clone()).await.unwrap();
        upload.write(bytes.clone()).await.unwrap();
        drop(upload);

        assert_eq!(fs::read(folder.path("f")).unwrap(), b"old");
        assert_eq!(folder.on_disk(), ["f"]);
    }
}

#[tokio::test]
async fn what_is_being_written_is_not_listed() {
    let folder = Folder::new();
    let file = NewFile { size: Some(2 * BLOCK as u64), ..NewFile::default() };
    let mut upload = folder.storage.create(&remote("big"), file).await.unwrap();
    upload.write(pattern(BLOCK).into()).await.unwrap();
    assert_eq!(folder.names("/").await, Vec::<String>::new());
}

#[tokio::test]
async fn only_the_names_that_ftpq_makes_are_reserved() {
    let folder = Folder::new();
    let reserved = root::reserved_name().unwrap().to_string();
    fs::write(folder.path(&reserved), b"x").unwrap();
    assert_eq!(folder.names("/").await, Vec::<String>::new());
    assert_eq!(status(folder.get(&reserved).await), Status::NameRefused);
    assert_eq!(status(folder.put(&format!("a/{reserved}/b"), b"", NewFile::default()).await), Status::NameRefused);
    let ordinary = [".ftpq-", ".ftpq-0123", ".ftpq-0123456789ABCDEF0123456789ABCDEF", ".ftpq-notes"];
    for name in ordinary {
        folder.put(name, b"mine", NewFile::default()).await.unwrap();
        assert_eq!(folder.get(name).await.unwrap(), b"mine");
    }
    assert_eq!(folder.names("/").await, ordinary);
    assert!(!root::is_reserved(format!("{reserved}0").as_bytes()));
}

#[tokio::test]
async fn no_link_is_followed() {
    let folder = Folder::new();
    fs::write(folder.outer.path().join("secret"), b"secret").unwrap();
    fs::create_dir(folder.path("inside")).unwrap();
    fs::write(folder.path("inside/f"), b"inside").unwrap();
    symlink("../secret", folder.path("out")).unwrap();
    symlink("..", folder.path("up")).unwrap();
    symlink("inside", folder.path("in")).unwrap();
    symlink("/proc/self/root", folder.path("magic")).unwrap();
    for path in ["out", "up/secret", "in/f", "magic/etc/passwd"] {
        let refused = status(folder.get(path).await);
        assert!(matches!(refused, Status::NotRegular | Status::NotFolder), "{path}: {refused}");
        let refused = status(folder.put(path, b"x", NewFile { parents: true, ..NewFile::default() }).await);
        assert!(matches!(refused, Status::NotRegular | Status::NotFolder | Status::Exists), "{path}: {refused}");
    }
    let link = folder.storage.stat(&remote("out")).await.unwrap();
    assert_eq!(link.kind, ftpq_proto::Kind::Link);
    // Removing and replacing act on the link itself.
    folder.put("out", b"new", NewFile { overwrite: true, ..NewFile::default() }).await.unwrap();
    assert_eq!(folder.storage.remove(&remote("in"), true).await.unwrap(), 1);
    folder.storage.remove(&remote("up"), true).await.unwrap();
    assert_eq!(fs::read(folder.outer.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read(folder.path("inside/f")).unwrap(), b"inside");
}

#[tokio::test]
async fn only_regular_files_are_read_and_a_fifo_does_not_hang() {
    let folder = Folder::new();
    rustix::fs::mknodat(rustix::fs::CWD, folder.path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    assert_eq!(status(folder.get("fifo").await), Status::NotRegular);
    assert_eq!(status(folder.get("socket").await), Status::NotRegular);
    assert_eq!(status(folder.get("/").await), Status::IsFolder);
    assert_eq!(status(folder.put("/", b"", NewFile::default()).await), Status::IsFolder);
}

#[tokio::test]
async fn a_source_that_changes_is_an_error() {
    let folder = Folder::new();
    for (change, new_len) in [("truncated", 10), ("grown", 8 * BLOCK), ("rewritten", 4 * BLOCK)] {
        fs::write(folder.path("f"), pattern(4 * BLOCK)).unwrap();
        let mut reader = folder.storage.open(&remote("f")).await.unwrap();
        reader.next_block().await.unwrap();
        fs::write(folder.path("f"), vec![7; new_len]).unwrap();
        assert_eq!(status(reader.finish().await), Status::Changed, "{change}");
    }
}

#[tokio::test]
async fn blocks_are_small_where_memory_is_scarce() {
    let folder = Folder::new();
    let body = pattern(3 * BLOCK);
    fs::write(folder.path("f"), &body).unwrap();
    let mut reader = folder.storage.open(&remote("f")).await.unwrap();
    let (mut sizes, mut read) = (Vec::new(), Vec::new());
    reader.limit_blocks(1000);
    while let Some(block) = reader.next_block().await.unwrap() {
        sizes.push(block.len());
        read.extend_from_slice(&block);
        if sizes.len() == 4 {
            reader.limit_blocks(BLOCK);
        }
    }
    assert_eq!(sizes[..6], [64 * 1024, 1000, 1000, 1000, BLOCK, BLOCK]);
    assert!(read == body);
    reader.finish().await.unwrap();
}

/// What comes in small blocks, for want of memory, is not gathered in it.
#[tokio::test]
async fn a_small_file_that_comes_in_pieces_goes_to_the_disk() {
    let folder = Folder::new();
    let body = pattern(BLOCK);
    let file = NewFile { size: Some(BLOCK as u64), ..NewFile::default() };
    let mut upload = folder.storage.create(&remote("f"), file).await.unwrap();
    let is_on_disk = || staging::blocks_of_removed(&folder).len() == 1;
    for (number, block) in body.chunks(BLOCK / 8).enumerate() {
        assert_eq!(is_on_disk(), number > 1, "{number}");
        upload.write(Bytes::copy_from_slice(block)).await.unwrap();
    }
    upload.commit(digest(&body)).await.unwrap();
    assert!(fs::read(folder.path("f")).unwrap() == body);
}

/// However slowly somebody reads, a removed file does not stay on disk for that.
#[tokio::test]
async fn reading_ends_soon_when_the_file_is_removed() {
    let folder = Folder::new();
    fs::write(folder.path("f"), pattern(20 * BLOCK)).unwrap();
    let mut reader = folder.storage.open(&remote("f")).await.unwrap();
    reader.next_block().await.unwrap();
    fs::remove_file(folder.path("f")).unwrap();
    let mut blocks = 0;
    let problem = loop {
        match reader.next_block().await {
            Ok(block) => blocks += u32::from(block.is_some()),
            Err(error) => break error.problem,
        }
    };
    assert!(matches!(problem, Problem::Changed), "{problem:?}");
    assert!(blocks <= 1, "{blocks} blocks");
}

#[tokio::test]
async fn folders_are_made_moved_and_removed() {
    let folder = Folder::new();
    let storage = &folder.storage;
    assert_eq!(status(storage.make_folder(&remote("a/b"), false).await), Status::NotFound);
    storage.make_folder(&remote("a/b"), true).await.unwrap();
    storage.make_folder(&remote("a/b"), true).await.unwrap();
    assert_eq!(status(storage.make_folder(&remote("a/b"), false).await), Status::Exists);
    folder.put("a/b/c/f", b"x", NewFile { parents: true, ..NewFile::default() }).await.unwrap();
    assert_eq!(status(storage.remove(&remote("a"), false).await), Status::NotEmpty);
    assert_eq!(status(storage.rename(&remote("a"), &remote("a/b/x"), false).await), Status::BadPath);
    storage.rename(&remote("a/b"), &remote("z"), false).await.unwrap();
    assert_eq!(folder.names("/").await, ["a", "z"]);
    assert_eq!(status(storage.rename(&remote("z/c/f"), &remote("a"), false).await), Status::Exists);
    assert_eq!(storage.remove(&remote("z"), true).await.unwrap(), 3);
    assert_eq!(status(storage.remove(&remote("/"), true).await), Status::BadPath);
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
    const DEPTH: u64 = 3000;
    let folder = Folder::new();
    fs::create_dir(folder.outer.path().join("outside")).unwrap();
    fs::write(folder.outer.path().join("outside/f"), b"outside").unwrap();
    let outside = folder.outer.path().join("outside");
    fs::create_dir(folder.path("deep")).unwrap();
    let mut level: std::os::fd::OwnedFd = fs::File::open(folder.path("deep")).unwrap().into();
    for _ in 1..DEPTH {
        symlinkat(&outside, &level, "link").unwrap();
        mkdirat(&level, "empty", Mode::RWXU).unwrap();
        mkdirat(&level, "d", Mode::RWXU).unwrap();
        level = openat(&level, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    // Neither the stack nor the descriptors may grow with the depth.
    let root = folder.storage.root.clone();
    let remove = move || root.remove(&remote("deep"), true, &Wanted::default());
    drop(level);
    let remover = std::thread::Builder::new().stack_size(128 * 1024).spawn(remove).unwrap();
    while !remover.is_finished() {
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let open = open.filter(|path| path.starts_with(folder.path("deep"))).count();
        assert!(open < 32, "{open} descriptors");
    }
    assert_eq!(remover.join().unwrap().unwrap(), DEPTH + 2 * (DEPTH - 1));
    assert_eq!(folder.on_disk(), Vec::<String>::new());
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"outside");
}

#[test]
fn a_rename_says_why_it_is_refused() {
    use rustix::{fs::RenameFlags, io::Errno};
    let text = |into_itself, flags| root::rename_problem(Errno::INVAL, into_itself, flags).to_string();
    assert_eq!(text(true, RenameFlags::NOREPLACE), "a folder cannot be moved into itself");
    assert_eq!(text(true, RenameFlags::empty()), "a folder cannot be moved into itself");
    assert_eq!(text(false, RenameFlags::NOREPLACE), "this file system cannot rename without replacing");
    assert!(matches!(root::rename_problem(Errno::INVAL, false, RenameFlags::empty()), Problem::Io(_)));
}

/// As on NFS.
#[test]
fn files_are_published_without_o_tmpfile() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    let begin = |bytes: &[u8], file: NewFile| {
        let file = NewFile { size: Some(bytes.len() as u64), ..file };
        let target = publish::Target::find(&folder.storage.root, &remote("f"), file.parents)?;
        target.check(file.overwrite, file.size.filter(|_| file.accept_same))?;
        let mut staged = write::Staged::begin_named(folder.storage.root.sys(), target, file)?;
        staged.write(bytes).map(|()| staged)
    };
    let new = NewFile::default();
    let overwrite = NewFile { overwrite: true, ..NewFile::default() };

    drop(begin(b"dropped", new.clone()).unwrap());
    assert_eq!(folder.on_disk(), Vec::<String>::new());
    assert!(matches!(
        begin(b"bad", new.clone()).unwrap().commit(digest(b""), &Wanted::default()),
        Err(Problem::DigestMismatch { .. })
    ));
    assert_eq!(folder.on_disk(), Vec::<String>::new());

    // Of two at once, one wins; the other leaves nothing.
    let (first, second) = (begin(b"1", new.clone()).unwrap(), begin(b"2", new).unwrap());
    assert_eq!(folder.on_disk().len(), 2);
    first.commit(digest(b"1"), &Wanted::default()).unwrap();
    assert!(matches!(second.commit(digest(b"2"), &Wanted::default()), Err(Problem::Exists)));
    assert_eq!(folder.on_disk(), ["f"]);
    assert_eq!(fs::read(folder.path("f")).unwrap(), b"1");
    let same = NewFile { accept_same: true, ..NewFile::default() };
    begin(b"1", same.clone()).unwrap().commit(digest(b"1"), &Wanted::default()).unwrap();
    assert!(matches!(begin(b"2", same).unwrap().commit(digest(b"2"), &Wanted::default()), Err(Problem::Exists)));

    // The same bits as any new file, or those that were asked for.
    fs::write(folder.path("plain"), b"").unwrap();
    let mode = |name| fs::metadata(folder.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("f"), mode("plain"));
    assert_eq!(publish::umask_in("Name:\tftpq\nUmask:\t0027\nState:\tR\n").unwrap().bits(), 0o027);
    begin(b"new", NewFile { mode: Some(0o640), ..overwrite })
        .unwrap()
        .commit(digest(b"new"), &Wanted::default())
        .unwrap();
    assert_eq!(mode("f"), 0o640);
    assert_eq!(fs::read(folder.path("f")).unwrap(), b"new");
    assert_eq!(fs::metadata(folder.path("f")).unwrap().nlink(), 1);
    assert_eq!(folder.on_disk(), ["f", "plain"]);
}

#[tokio::test]
async fn large_folders_come_in_pages() {
    let folder = Folder::new();
    for i in 0..1000 {
        fs::write(folder.path(&format!("{i:04}")), b"").unwrap();
    }
    assert_eq!(folder.names("/").await.len(), 1000);
}

#[tokio::test]
async fn a_subtree_cannot_see_what_is_above() {
    let folder = Folder::new();
    fs::create_dir(folder.path("alice")).unwrap();
    fs::write(folder.path("secret"), b"x").unwrap();
    let alice = folder.storage.subtree(&remote("alice")).await.unwrap();
    assert_eq!(status(alice.open(&remote("../secret")).await.map(drop)), Status::NotFound);
    assert_eq!(status(alice.open(&remote("secret")).await.map(drop)), Status::NotFound);
}

#[tokio::test]
async fn mode_and_mtime_are_kept_when_given() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    let mtime = ftpq_proto::Timestamp::new(1_234_567_890, 123_456_789);
    for size in [1, 2 * BLOCK] {
        let name = format!("f{size}");
        folder.put(&name, &pattern(size), NewFile { mode: Some(0o4751), mtime, ..NewFile::default() }).await.unwrap();
        let meta = fs::metadata(folder.path(&name)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o751, 1_234_567_890, 123_456_789));
    }
}

#[tokio::test]
async fn a_name_longer_than_the_file_system_holds_is_refused() {
    let folder = Folder::new();
    let name = ftpq_proto::Name::new("n".repeat(255)).unwrap();
    let path = RemotePath::root().join(&name).unwrap();
    folder.storage.create(&path, NewFile::default()).await.unwrap().commit(digest(b"")).await.unwrap();
    assert!(folder.path(&"n".repeat(255)).exists());
}

fn target(text: impl Into<Vec<u8>>) -> LinkTarget {
    LinkTarget::new(text).unwrap()
}

#[tokio::test]
async fn links_are_made_as_they_are_and_shown_with_their_targets() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    let mtime = ftpq_proto::Timestamp::new(-5, 123_456_789);
    for (path, holds) in [("a/b/up", "../../f"), ("same", "."), ("dangling", "no/such"), ("itself", "itself")] {
        let link = NewLink { parents: true, mtime, ..NewLink::default() };
        folder.storage.make_link(&remote(path), &target(holds), link).await.unwrap();
        assert_eq!(fs::read_link(folder.path(path)).unwrap(), PathBuf::from(holds));
        let meta = fs::symlink_metadata(folder.path(path)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 123_456_789));
        let entry = folder.storage.stat(&remote(path)).await.unwrap();
        assert_eq!((entry.kind, entry.target), (ftpq_proto::Kind::Link, Some(target(holds))));
    }
    let mut listing = folder.storage.list(&remote("a/b")).await.unwrap();
    let page = listing.next_page().await.unwrap().unwrap();
    assert_eq!(page.into_iter().map(|entry| entry.target).collect::<Vec<_>>(), [Some(target("../../f"))]);
    let bytes = &b"caf\xe9\n"[..];
    folder.storage.make_link(&remote("bytes"), &target(bytes), NewLink::default()).await.unwrap();
    assert_eq!(folder.storage.stat(&remote("bytes")).await.unwrap().target, Some(target(bytes)));
}

#[tokio::test]
async fn a_link_that_would_lead_out_is_not_made() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("a/b")).unwrap();
    let cases =
        [("l", ".."), ("l", "/etc/passwd"), ("a/l", "../.."), ("a/b/l", "../../../secret"), ("a/l", "b/../../../x")];
    for (path, holds) in cases {
        let made = folder.storage.make_link(&remote(path), &target(holds), NewLink::default()).await;
        assert!(matches!(made.unwrap_err().problem, Problem::LeadsOut), "{path} -> {holds}");
    }
    // What is within the root need not be within a part of it.
    let below = folder.storage.subtree(&remote("a")).await.unwrap();
    assert_eq!(status(below.make_link(&remote("b/l"), &target("../../x"), NewLink::default()).await), Status::BadPath);
    folder.storage.make_link(&remote("a/b/l"), &target("../../x"), NewLink::default()).await.unwrap();
    assert_eq!(folder.on_disk(), ["a"]);
    assert_eq!(folder.names("a/b").await, ["l"]);
}

#[tokio::test]
async fn an_existing_name_becomes_a_link_only_when_asked_and_a_folder_never() {
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    fs::write(folder.path("file"), b"old").unwrap();
    symlink("old", folder.path("link")).unwrap();
    let make = |path: &'static str, link| {
        let storage = &folder.storage;
        async move { storage.make_link(&remote(path), &target("new"), link).await }
    };
    let (new, overwrite) = (NewLink::default(), NewLink { overwrite: true, ..NewLink::default() });
    let accept_same = NewLink { accept_same: true, ..new };
    for path in ["file", "link"] {
        assert_eq!(status(make(path, new).await), Status::Exists);
        assert_eq!(status(make(path, accept_same).await), Status::Exists);
    }
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"old");
    for path in ["file", "link"] {
        make(path, overwrite).await.unwrap();
        assert_eq!(fs::read_link(folder.path(path)).unwrap(), PathBuf::from("new"));
        assert_eq!(status(make(path, new).await), Status::Exists);
        make(path, accept_same).await.unwrap();
    }
    for link in [new, overwrite, accept_same] {
        assert_eq!(status(make("folder", link).await), Status::IsFolder);
        assert_eq!(status(make("/", link).await), Status::IsFolder);
    }
    assert_eq!(status(make("missing/l", new).await), Status::NotFound);
    assert_eq!(status(make("link/l", new).await), Status::NotFolder);
    assert_eq!(status(make(".ftpq-0123456789abcdef0123456789abcdef", new).await), Status::NameRefused);
    assert_eq!(folder.on_disk(), ["file", "folder", "link"]);
}

/// Somebody made a folder there meanwhile.
#[test]
fn a_link_that_cannot_take_its_place_leaves_nothing() {
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    let open = fs::File::open(folder.path("")).unwrap().into();
    let name = ftpq_proto::Name::new("folder").unwrap();
    assert!(matches!(links::replace(&open, &name, &target("x"), None), Err(Problem::IsFolder)));
    assert_eq!(folder.on_disk(), ["folder"]);
}

#[tokio::test]
async fn a_folder_gets_its_mode_and_time_and_keeps_its_other_bits() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = Folder::new();
    fs::create_dir_all(folder.path("a/b")).unwrap();
    fs::set_permissions(folder.path("a"), fs::Permissions::from_mode(0o1755)).unwrap();
    fs::write(folder.path("file"), b"").unwrap();
    symlink("a", folder.path("link")).unwrap();
    let mtime = ftpq_proto::Timestamp::new(1_234_567_890, 123_456_789);
    let both = Attributes { mode: Some(0o6750), mtime };
    let seen = |name: &str| {
        let meta = fs::symlink_metadata(folder.path(name)).unwrap();
        (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec())
    };
    folder.storage.set_attributes(&remote("a"), both).await.unwrap();
    assert_eq!(seen("a"), (0o1750, 1_234_567_890, 123_456_789));
    folder.storage.set_attributes(&remote("a"), Attributes { mode: Some(0o700), mtime: None }).await.unwrap();
    assert_eq!(seen("a"), (0o1700, 1_234_567_890, 123_456_789));
    folder.storage.set_attributes(&remote("/"), both).await.unwrap();
    assert_eq!(seen(""), (0o750, 1_234_567_890, 123_456_789));
    let before = (seen("file"), seen("link"), seen("a"));
    for (path, refused) in [("file", Status::NotFolder), ("link", Status::NotFolder), ("link/b", Status::NotRegular)] {
        assert_eq!(status(folder.storage.set_attributes(&remote(path), both).await), refused, "{path}");
    }
    assert_eq!((seen("file"), seen("link"), seen("a")), before);
    assert_eq!(status(folder.storage.set_attributes(&remote("missing"), both).await), Status::NotFound);
}

#[tokio::test]
async fn pages_of_the_longest_links_fit_a_frame() {
    let folder = Folder::new();
    for i in 0..100 {
        symlink("t".repeat(4095), folder.path(&format!("{i:0255}"))).unwrap();
    }
    let mut listing = folder.storage.list(&remote("/")).await.unwrap();
    let mut count = 0;
    while let Some(entries) = listing.next_page().await.unwrap() {
        count += entries.len();
        assert!(entries.iter().all(|entry| entry.target.is_some()));
        let bytes: usize = entries.iter().map(ftpq_proto::Entry::page_bytes).sum();
        assert!(bytes < ftpq_proto::limits::FRAME_MAX - 1024, "{bytes}");
    }
    assert_eq!(count, 100);
}
