//! Whole trees, to a server and back.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    sync::{Arc, Mutex},
};

use ftpq_client::{
    FileId, Progress, Remote,
    copy::{Copy, CopyError, EXTENTS_PER_CONNECTION, LeftOut, Options, Side, Summary},
};
use ftpq_proto::{RemotePath, Status};
use ftpq_storage::{LocalFs, Storage};
use tempfile::TempDir;

use crate::support::{ALL, Node, TestServer, on_disk, pattern, remote, shared, status};

const OPTIONS: Options = Options {
    overwrite: false,
    preserve: true,
    follow_links: false,
    keep_existing: false,
    parents: false,
    parallel: 32,
    extents: EXTENTS_PER_CONNECTION,
    resume: true,
    retry_for: std::time::Duration::ZERO,
};

#[tokio::test]
async fn a_tree_comes_back_from_a_server_as_it_went_there() {
    let (server, files) = server().await;
    let (source, back) = (tree(), tempfile::tempdir().unwrap());
    let expected = Summary { files: 70, bytes: 1_300_011, folders: 6, ..Summary::default() };

    let upload = Copy::new(local(&source), files.clone(), OPTIONS, Arc::new(()));
    assert_eq!(upload.tree(&RemotePath::root(), &remote("in/a new folder")).await.unwrap(), expected);
    assert_eq!(on_disk(&server.path("in/a new folder")), on_disk(source.path()));

    let download = Copy::new(files, local(&back), OPTIONS, Arc::new(()));
    assert_eq!(download.tree(&remote("in/a new folder"), &remote("back")).await.unwrap(), expected);
    assert_eq!(on_disk(&back.path().join("back")), on_disk(source.path()));
    for name in ["large", "nested/b/c/deep"] {
        let mtime = |folder: &Path| fs::metadata(folder.join(name)).unwrap().modified().unwrap();
        assert_eq!(mtime(&back.path().join("back")), mtime(source.path()), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_overtakes_its_folder_is_not_lost() {
    let (server, files) = server().await;
    let source = tempfile::tempdir().unwrap();
    for i in 0..100 {
        fs::create_dir(source.path().join(format!("{i}"))).unwrap();
        fs::write(source.path().join(format!("{i}/f")), b"f").unwrap();
    }
    let copy = Copy::new(local(&source), files, OPTIONS, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &remote("new")).await.unwrap();
    assert_eq!((summary.files, summary.folders, summary.failed), (100, 101, 0));
    assert_eq!(on_disk(&server.path("new")), on_disk(source.path()));
}

/// Names count once, however often their folder is listed since it was cut.
#[tokio::test]
async fn names_of_a_listing_that_was_cut_are_given_back() {
    let (server, _) = server().await;
    (0..600).for_each(|index| fs::write(server.path(&format!("{index}")), b"").unwrap());
    let identity = ftpq_transport::Identity::generate().unwrap();
    server.authorise(&identity, "name=lister rights=list");
    let files = Remote::over(server.session(&identity).await).with_most_names(700);
    for _ in 0..3 {
        assert!(files.list(&RemotePath::root()).await.unwrap().next_page().await.unwrap().is_some());
    }
    let mut listing = files.list(&RemotePath::root()).await.unwrap();
    while listing.next_page().await.unwrap().is_some() {}
    let mut again = files.list(&RemotePath::root()).await.unwrap();
    assert_eq!(again.next_page().await.unwrap_err().status(), Status::TooLarge);
}

#[tokio::test]
async fn an_existing_file_fails_alone() {
    let (server, files) = server().await;
    let source = tree();
    fs::create_dir(server.path("nested")).unwrap();
    fs::write(server.path("nested/plain"), b"old").unwrap();
    let copy = Copy::new(local(&source), files, OPTIONS, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.files, summary.failed, summary.skipped), (69, 1, 0));
    assert_eq!(fs::read(server.path("nested/plain")).unwrap(), b"old");
    assert_eq!(on_disk(&server.path("")).len(), on_disk(source.path()).len());
}

#[tokio::test]
async fn an_existing_file_stays_or_goes_when_that_is_asked() {
    for (options, kept, left) in [
        (Options { keep_existing: true, ..OPTIONS }, 1, &b"old"[..]),
        (Options { overwrite: true, ..OPTIONS }, 0, b"plain"),
    ] {
        let (server, files) = server().await;
        let source = tree();
        fs::create_dir(server.path("nested")).unwrap();
        fs::write(server.path("nested/plain"), b"old").unwrap();
        let copy = Copy::new(local(&source), files, options, Arc::new(()));
        let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
        assert_eq!((summary.files, summary.kept, summary.failed), (70 - kept, kept, 0));
        assert_eq!(fs::read(server.path("nested/plain")).unwrap(), left);
    }
}

#[tokio::test]
async fn links_inside_the_tree_stay_links_both_ways_and_others_are_left_out() {
    let (server, files) = server().await;
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("f"), b"f").unwrap();
    for (name, target) in [("same", "f"), ("a/up", "../f"), ("a/b/up", "../../a"), ("dangling", "no"), ("l", "l")] {
        symlink(target, at(name)).unwrap();
    }
    let kept = on_disk(source.path());
    for (name, target) in [("abs", "/etc"), ("a/out", "../../x"), ("top", ".."), ("odd", "a/../f")] {
        symlink(target, at(name)).unwrap();
    }
    let expected = Summary { files: 1, bytes: 1, folders: 3, links: 5, skipped: 4, ..Summary::default() };
    // What stays in the tree, not in the storage: the copy is deeper than the tree.
    let copy = Copy::new(local(&source), files.clone(), OPTIONS, Arc::new(()));
    assert_eq!(copy.tree(&RemotePath::root(), &remote("deep/t")).await.unwrap(), expected);
    assert_eq!(on_disk(&server.path("deep/t")), kept);
    for (name, target) in [("abs", "/etc"), ("a/out", "../../x"), ("top", ".."), ("odd", "a/../f")] {
        symlink(target, server.path("deep/t").join(name)).unwrap();
    }
    let back = tempfile::tempdir().unwrap();
    let copy = Copy::new(files, local(&back), OPTIONS, Arc::new(()));
    assert_eq!(copy.tree(&remote("deep/t"), &remote("in/back")).await.unwrap(), expected);
    assert_eq!(on_disk(&back.path().join("in/back")), kept);
}

#[tokio::test]
async fn links_that_are_followed_never_lead_out_of_the_server_or_in_circles() {
    let (server, files) = server().await;
    fs::write(server.outside("secret"), b"secret").unwrap();
    fs::create_dir_all(server.path("t/sub/deep")).unwrap();
    fs::create_dir(server.path("beside")).unwrap();
    fs::write(server.path("beside/f"), b"f").unwrap();
    fs::write(server.path("t/sub/g"), b"gg").unwrap();
    for (name, target) in [
        ("t/file", "sub/../../beside/f"), // t/sub is a folder: the same as beside/f
        ("t/folder", "../beside"),
        ("t/chain", "file"),
        ("t/sub/deep/circle", ".."),
        ("t/top", "."),
        ("t/itself", "itself"),
        ("t/secret", "../../secret"),
        ("t/passwd", "/etc/passwd"),
        ("t/dangling", "no/such"),
        ("t/through-a-file", "sub/g/x"),
        ("t/back-from-a-file", "sub/g/../g"),
    ] {
        symlink(target, server.path(name)).unwrap();
    }
    let back = tempfile::tempdir().unwrap();
    let options = Options { follow_links: true, ..OPTIONS };
    let tally = Arc::new(Tally::default());
    let copy = Copy::new(files, local(&back), options, tally.clone());
    let summary = copy.tree(&remote("t"), &RemotePath::root()).await.unwrap();
    // Left out: circle, top, itself, secret, passwd. Failed: dangling, through-a-file, back-from-a-file.
    assert_eq!(summary, Summary { files: 4, bytes: 5, folders: 4, skipped: 5, failed: 3, ..Summary::default() });
    let there = on_disk(back.path());
    let names: Vec<_> = there.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, ["chain", "file", "folder", "folder/f", "sub", "sub/deep", "sub/g"]);
    assert!(there.values().all(|node| !matches!(node, Node::Link(_)) && *node != Node::File(b"secret".into())));
    let tally = tally.0.lock().unwrap();
    assert_eq!((tally.planned_files, tally.planned_bytes, tally.finished), (4, 5, 4));
}

#[tokio::test]
async fn folders_get_their_mode_and_time_after_what_is_in_them() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (server, files) = server().await;
    let source = tree();
    let folders = ["", "nested", "nested/b", "nested/b/c", "empty"];
    let seen = |root: &Path| {
        folders.map(|name| {
            let meta = fs::metadata(root.join(name)).unwrap();
            (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec())
        })
    };
    for (index, name) in folders.iter().enumerate().rev() {
        let folder = source.path().join(name);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500 + index as u32)).unwrap();
        let when = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000 + index as u64, 123_456_789);
        fs::File::open(&folder).unwrap().set_modified(when).unwrap();
    }
    let upload = Copy::new(local(&source), files.clone(), OPTIONS, Arc::new(()));
    let summary = upload.tree(&RemotePath::root(), &remote("t")).await.unwrap();
    assert_eq!((summary.folders, summary.failed), (6, 0));
    assert_eq!(seen(&server.path("t")), seen(source.path()));
    let back = tempfile::tempdir().unwrap();
    let download = Copy::new(files.clone(), local(&back), OPTIONS, Arc::new(()));
    assert_eq!(download.tree(&remote("t"), &RemotePath::root()).await.unwrap().failed, 0);
    assert_eq!(seen(back.path()), seen(source.path()));
    // Without -p they are like any new folder.
    let plain = Copy::new(local(&source), files, Options { preserve: false, ..OPTIONS }, Arc::new(()));
    plain.tree(&RemotePath::root(), &remote("plain")).await.unwrap();
    assert_ne!(seen(&server.path("plain"))[4], seen(source.path())[4]);
}

#[tokio::test]
async fn a_file_where_a_folder_should_be_fails_with_what_is_in_it() {
    let (server, files) = server().await;
    let source = tree();
    fs::write(server.path("nested"), b"in the way").unwrap();
    let copy = Copy::new(local(&source), files, OPTIONS, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    // Three folders and the files in two of them.
    assert_eq!((summary.folders, summary.failed, summary.files), (3, 3 + 2, 68));
    assert_eq!(fs::read(server.path("nested")).unwrap(), b"in the way");
}

#[tokio::test]
async fn a_lost_connection_ends_the_copy() {
    let (_server, files) = server().await;
    let source = tree();
    let session = files.session().await.unwrap();
    session.close().await;
    let copy = Copy::new(local(&source), shared_remote(files), OPTIONS, Arc::new(()));
    let error = copy.tree(&RemotePath::root(), &remote("t")).await.unwrap_err();
    assert_eq!((error.side, error.status()), (Side::Target, Status::Unavailable));
}

#[tokio::test]
async fn progress_accounts_for_every_file_and_byte() {
    let (server, files) = server().await;
    let source = tree();
    symlink("/large", source.path().join("link")).unwrap();
    fs::write(server.path("large"), b"old").unwrap();
    let tally = Arc::new(Tally::default());
    let copy = Copy::new(local(&source), files, OPTIONS, tally.clone());
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    let tally = tally.0.lock().unwrap();
    assert_eq!((tally.planned_files, tally.planned_bytes), (70, 1_300_011));
    assert_eq!((tally.started, tally.finished, tally.failed, tally.skipped), (70, 69, 1, 1));
    assert_eq!((summary.files, summary.failed, summary.skipped), (69, 1, 1));
}

#[tokio::test]
async fn one_file_is_copied_or_its_failure_is_the_result() {
    let (server, files) = server().await;
    let source = tree();
    let copy = Copy::new(local(&source), files, OPTIONS, Arc::new(()));
    let summary = copy.file(&remote("large"), &remote("l")).await.unwrap();
    assert_eq!((summary.files, summary.bytes), (1, 1_300_000));
    assert_eq!(fs::read(server.path("l")).unwrap(), pattern(1_300_000));
    assert_eq!(status(copy.file(&remote("large"), &remote("l")).await), Status::Exists);
    let error = copy.file(&remote("missing"), &remote("m")).await.unwrap_err();
    assert_eq!((error.side, error.status()), (Side::Source, Status::NotFound));
    assert_eq!(status(copy.file(&remote("large"), &remote("missing/l")).await), Status::NotFound);
}

/// What a [`Progress`] was told, added up.
#[derive(Default)]
struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    planned_files: u64,
    planned_bytes: u64,
    started: u64,
    finished: u64,
    failed: u64,
    skipped: u64,
}

impl Progress for Tally {
    fn planned(&self, files: u64, bytes: u64) {
        let mut counts = self.0.lock().unwrap();
        counts.planned_files += files;
        counts.planned_bytes += bytes;
    }

    fn started(&self, _: FileId, _: &RemotePath, _: u64) {
        self.0.lock().unwrap().started += 1;
    }

    fn advanced(&self, _: FileId, _: u64) {}

    fn resumed(&self, _: FileId, _: u64) {}

    fn lost(&self, _: FileId, _: u64) {}

    fn interrupted(&self, _: FileId, _: &CopyError) {}

    fn finished(&self, _: FileId) {
        self.0.lock().unwrap().finished += 1;
    }

    fn failed(&self, _: Option<FileId>, _: &CopyError) {
        self.0.lock().unwrap().failed += 1;
    }

    fn skipped(&self, _: &RemotePath, _: LeftOut) {
        self.0.lock().unwrap().skipped += 1;
    }
}

async fn server() -> (TestServer, Arc<Remote>) {
    let server = TestServer::start().await;
    let files = Arc::new(server.files(ALL).await);
    (server, files)
}

fn local(folder: &TempDir) -> Arc<dyn Storage> {
    shared(LocalFs::open(folder.path()).unwrap())
}

fn shared_remote(files: Arc<Remote>) -> Arc<dyn Storage> {
    files
}

/// 70 files of 1,300,011 bytes, and with its root six folders.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| tree.path().join(OsStr::from_bytes(name));
    let write = |name: &[u8], bytes: &[u8]| fs::write(at(name), bytes).unwrap();
    fs::create_dir_all(at(b"nested/b/c")).unwrap();
    fs::create_dir_all(at(b"empty")).unwrap();
    fs::create_dir(at("caf\u{e9} \u{4e16}\u{754c}".as_bytes())).unwrap();
    write(b"large", &pattern(1_300_000));
    write(b"nested/plain", b"plain");
    write(b"nested/b/c/deep", b"");
    write(b" two  spaces ", b"1");
    write(b"latin caf\xe9", b"22");
    write("caf\u{e9} \u{4e16}\u{754c}/\u{1f980}".as_bytes(), b"333");
    // More than fit in flight.
    for i in 0..64 {
        write(format!("many-{i}").as_bytes(), b"");
    }
    tree
}
