//! What a copy does when things are cut. The storages here are real; their connection is not.

mod large;
mod pipe;

use std::{collections::HashMap, fs, path::Path, sync::Mutex};

use async_trait::async_trait;
use ftpq_proto::{Digest, Entry, Extents, Holes, LinkTarget, UploadId, commands::begin::HeldExtent};
use ftpq_storage::{
    Attributes, Bytes, FileInfo, LargeFile, Listing, LocalFs, NewFile, NewLink, Opened, Pinned, Publish, Reader,
    Staging, Upload,
};
use ftpq_transport::{Closed, ConnectError};

use tokio::{sync::watch, time::sleep};

use super::{file::Room, *};

/// Where an operation on a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cut {
    /// Before anything happened.
    Create,
    /// At the second block, or at the one of a small file.
    Write,
    /// After the commit, before its reply.
    Reply,
    /// After the first page.
    List,
    /// Before a folder gets its mode and time.
    Attributes,
    /// It is removed before it is opened or listed.
    Vanish,
    /// Before a large file is begun.
    Begin,
    /// After it was begun.
    BeginReply,
    /// Within an extent.
    Extent(u32),
    /// After it was acknowledged, before its reply.
    ExtentReply(u32),
    /// Before a large file is committed.
    Commit,
    /// After it was committed.
    CommitReply,
    /// No cut: this extent arrives late, all at once, when everything was sent.
    Late(u32),
    /// No cut: another run takes over when this extent begins, and the first extent is cut once after that.
    TakeOver(u32),
}

/// What happened to an extent at the target, as the copy saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Begun(u32),
    Acknowledged(u32),
}

/// A folder behind a connection that is cut where it is told to be.
struct Cutting {
    files: LocalFs,
    /// How often each is still cut, by the last component of the path.
    cuts: Arc<Mutex<HashMap<(String, Cut), u32>>>,
    error: fn() -> CallError,
    /// Before each page of a listing but the first.
    pause: Duration,
    /// Before each file.
    slow: Duration,
    /// What was done to which path, as it was done.
    done: Mutex<Vec<(&'static str, RemotePath)>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The upload of the run that has taken over.
    other: Arc<Mutex<Option<Arc<dyn Staging>>>>,
    /// Extents that were read to their end.
    read: watch::Sender<usize>,
}

impl Cutting {
    fn new(folder: &Path, cuts: &[(&str, Cut, u32)]) -> Arc<Self> {
        let cuts = cuts.iter().map(|&(name, cut, times)| ((name.to_owned(), cut), times)).collect();
        let files = LocalFs::open(folder).unwrap();
        Arc::new(Self {
            files,
            cuts: Arc::new(Mutex::new(cuts)),
            error: || CallError::Closed(Closed::TimedOut),
            pause: Duration::ZERO,
            slow: Duration::ZERO,
            done: Mutex::default(),
            seen: Arc::default(),
            other: Arc::default(),
            read: watch::Sender::new(0),
        })
    }

    fn check(&self, path: &RemotePath, cut: Cut) -> Result<(), StorageError> {
        check(&self.cuts, path, cut, self.error)
    }

    async fn vanish(&self, path: &RemotePath) {
        if self.check(path, Cut::Vanish).is_err() {
            self.files.remove(path, true).await.unwrap();
        }
    }
}

fn check(
    cuts: &Mutex<HashMap<(String, Cut), u32>>,
    path: &RemotePath,
    cut: Cut,
    error: fn() -> CallError,
) -> Result<(), StorageError> {
    let name = path.name().map(|name| name.to_string()).unwrap_or_default();
    match cuts.lock().unwrap().get_mut(&(name, cut)) {
        Some(times) if *times > 0 => {
            *times -= 1;
            let error = error();
            Err(StorageError::new(
                path,
                Problem::Remote { status: error.status(), names_path: true, error: Box::new(error) },
            ))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Storage for Cutting {
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError> {
        self.files.stat(path).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError> {
        self.vanish(path).await;
        let listing = self.files.list(path).await?;
        let (path, cuts, error, pause) = (path.clone(), self.cuts.clone(), self.error, self.pause);
        Ok(Box::new(CuttingListing { listing, first: true, path, cuts, error, pause }))
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        self.vanish(path).await;
        self.files.open(path).await
    }

    async fn open_up_to(&self, path: &RemotePath, up_to: u64) -> Result<Opened, StorageError> {
        self.vanish(path).await;
        self.done.lock().unwrap().push(("open", path.clone()));
        self.files.open_up_to(path, up_to).await
    }

    async fn open_extent(&self, file: &Pinned, index: u32) -> Result<Box<dyn Reader>, StorageError> {
        let reader = self.files.open_extent(file, index).await?;
        Ok(Box::new(CountedReader { reader, read: self.read.clone() }))
    }

    async fn begin(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        self.check(path, Cut::Begin)?;
        let staging = self.files.begin(path, file.clone()).await?;
        self.check(path, Cut::BeginReply)?;
        let (path, cuts, error) = (path.clone(), self.cuts.clone(), self.error);
        let (files, seen, other) = (self.files.clone(), self.seen.clone(), self.other.clone());
        Ok(staging.map(|staging| {
            Arc::new(CuttingStaging { staging, file, files, path, cuts, error, seen, other }) as Arc<dyn Staging>
        }))
    }

    async fn staging(&self, path: &RemotePath, owner: Digest, id: UploadId) -> Result<Arc<dyn Staging>, StorageError> {
        self.files.staging(path, owner, id).await
    }

    async fn sweep(&self, age: Duration) -> Result<u64, StorageError> {
        self.files.sweep(age).await
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        sleep(self.slow).await;
        self.check(path, Cut::Create)?;
        self.done.lock().unwrap().push(("file", path.clone()));
        let upload = self.files.create(path, file).await?;
        Ok(Box::new(CuttingUpload {
            upload,
            begun: false,
            path: path.clone(),
            cuts: self.cuts.clone(),
            error: self.error,
            at: (Cut::Write, Cut::Reply),
            seen: None,
        }))
    }

    async fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), StorageError> {
        self.files.make_folder(path, parents).await
    }

    async fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), StorageError> {
        self.check(path, Cut::Create)?;
        self.files.make_link(path, target, link).await?;
        self.check(path, Cut::Reply)
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), StorageError> {
        self.check(path, Cut::Attributes)?;
        self.done.lock().unwrap().push(("attributes", path.clone()));
        self.files.set_attributes(path, attributes).await
    }

    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError> {
        self.files.remove(path, recursive).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError> {
        self.files.rename(from, to, overwrite).await
    }

    fn is_far(&self) -> bool {
        true
    }

    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError> {
        self.files.subtree(path).await
    }
}

struct CountedReader {
    reader: Box<dyn Reader>,
    read: watch::Sender<usize>,
}

#[async_trait]
impl Reader for CountedReader {
    fn info(&self) -> FileInfo {
        self.reader.info()
    }

    fn holes(&self) -> &Holes {
        self.reader.holes()
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        self.reader.next_block().await
    }

    async fn finish(self: Box<Self>) -> Result<Digest, StorageError> {
        let digest = self.reader.finish().await?;
        self.read.send_modify(|read| *read += 1);
        Ok(digest)
    }
}

struct CuttingListing {
    listing: Box<dyn Listing>,
    first: bool,
    path: RemotePath,
    cuts: Arc<Mutex<HashMap<(String, Cut), u32>>>,
    error: fn() -> CallError,
    pause: Duration,
}

#[async_trait]
impl Listing for CuttingListing {
    async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, StorageError> {
        if !std::mem::replace(&mut self.first, false) {
            sleep(self.pause).await;
            check(&self.cuts, &self.path, Cut::List, self.error)?;
        }
        self.listing.next_page().await
    }
}

struct CuttingStaging {
    staging: Arc<dyn Staging>,
    file: LargeFile,
    files: LocalFs,
    path: RemotePath,
    cuts: Arc<Mutex<HashMap<(String, Cut), u32>>>,
    error: fn() -> CallError,
    seen: Arc<Mutex<Vec<Seen>>>,
    other: Arc<Mutex<Option<Arc<dyn Staging>>>>,
}

#[async_trait]
impl Staging for CuttingStaging {
    fn id(&self) -> UploadId {
        self.staging.id()
    }

    fn extents(&self) -> Extents {
        self.staging.extents()
    }

    fn overwrites(&self) -> bool {
        self.staging.overwrites()
    }

    fn held(&self, from: u32) -> Vec<HeldExtent> {
        self.staging.held(from)
    }

    async fn write(&self, index: u32, holes: Holes) -> Result<Box<dyn Upload>, StorageError> {
        if check(&self.cuts, &self.path, Cut::TakeOver(index), self.error).is_err() {
            let other = self.files.begin(&self.path, self.file.clone()).await?;
            *self.other.lock().unwrap() = other;
            let name = self.path.name().unwrap().to_string();
            self.cuts.lock().unwrap().insert((name, Cut::Extent(0)), 1);
        }
        if check(&self.cuts, &self.path, Cut::Late(index), self.error).is_err() {
            let staging = self.staging.clone();
            return Ok(Box::new(LateUpload { staging, index, holes, blocks: Vec::new() }));
        }
        let upload = self.staging.write(index, holes).await?;
        self.seen.lock().unwrap().push(Seen::Begun(index));
        Ok(Box::new(CuttingUpload {
            upload,
            begun: false,
            path: self.path.clone(),
            cuts: self.cuts.clone(),
            error: self.error,
            at: (Cut::Extent(index), Cut::ExtentReply(index)),
            seen: Some((index, self.seen.clone())),
        }))
    }

    async fn prove(&self, index: u32, digest: Digest) -> Result<bool, StorageError> {
        self.staging.prove(index, digest).await
    }

    async fn settle(&self) {
        self.staging.settle().await;
    }

    async fn commit(&self, publish: Publish) -> Result<Digest, StorageError> {
        check(&self.cuts, &self.path, Cut::Commit, self.error)?;
        let digest = self.staging.commit(publish).await?;
        check(&self.cuts, &self.path, Cut::CommitReply, self.error)?;
        Ok(digest)
    }
}

/// An extent whose WRITE was overtaken by all that was sent after it.
struct LateUpload {
    staging: Arc<dyn Staging>,
    index: u32,
    holes: Holes,
    blocks: Vec<Bytes>,
}

#[async_trait]
impl Upload for LateUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        self.blocks.push(block);
        Ok(())
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        sleep(Duration::from_secs(1)).await;
        let mut upload = self.staging.write(self.index, self.holes).await?;
        for block in self.blocks {
            upload.write(block).await?;
        }
        upload.commit(expected).await
    }
}

struct CuttingUpload {
    upload: Box<dyn Upload>,
    begun: bool,
    path: RemotePath,
    cuts: Arc<Mutex<HashMap<(String, Cut), u32>>>,
    error: fn() -> CallError,
    /// Within it, and after its commit.
    at: (Cut, Cut),
    /// Where an extent's acknowledgement is noted.
    seen: Option<(u32, Arc<Mutex<Vec<Seen>>>)>,
}

#[async_trait]
impl Upload for CuttingUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        let last = std::mem::replace(&mut self.begun, true) || block.len() < ftpq_storage::BLOCK;
        self.upload.write(block).await?;
        if last { check(&self.cuts, &self.path, self.at.0, self.error) } else { Ok(()) }
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let digest = self.upload.commit(expected).await?;
        check(&self.cuts, &self.path, self.at.1, self.error)?;
        if let Some((index, seen)) = &self.seen {
            seen.lock().unwrap().push(Seen::Acknowledged(*index));
        }
        Ok(digest)
    }
}

const OPTIONS: Options = Options {
    extents: EXTENTS_PER_CONNECTION,
    resume: true,
    overwrite: false,
    preserve: false,
    follow_links: false,
    keep_existing: false,
    parents: false,
    parallel: 8,
    retry_for: Duration::from_secs(60),
};

/// `count` files, and as many copied to a folder whose connection is cut as `cuts` say.
async fn copy_tree(count: usize, cuts: &[(&str, Cut, u32)], pause: Duration) -> (Result<Summary, CopyError>, usize) {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..count {
        fs::write(from.path().join(format!("f{i}")), vec![i as u8; i]).unwrap();
    }
    let mut source = Cutting::new(from.path(), cuts);
    Arc::get_mut(&mut source).unwrap().pause = pause;
    let copy = Copy::new(source, Cutting::new(to.path(), cuts), OPTIONS, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await;
    for item in fs::read_dir(to.path()).unwrap() {
        let item = item.unwrap();
        assert_eq!(fs::read(item.path()).unwrap(), fs::read(from.path().join(item.file_name())).unwrap());
    }
    (summary, fs::read_dir(to.path()).unwrap().count())
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_is_done_again() {
    let cuts = [("f3", Cut::Create, 2), ("f4", Cut::Write, 3), ("f5", Cut::Reply, 1), ("", Cut::List, 2)];
    let (summary, there) = copy_tree(500, &cuts, Duration::ZERO).await;
    let summary = summary.unwrap();
    assert_eq!((summary.files, summary.failed, there), (500, 0, 500));
}

/// The error of one file must not be taken for an interruption of the listing that goes on meanwhile,
/// which would be begun again without that file.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_given_up_ends_the_copy_with_an_error() {
    for cut in [Cut::Create, Cut::Write] {
        // The listing goes on for longer than the file is tried.
        let (summary, _) = copy_tree(500, &[("f7", cut, u32::MAX)], 2 * OPTIONS.retry_for).await;
        assert_eq!(summary.unwrap_err().status(), Status::Unavailable, "{cut:?}");
    }
}

/// It moves bytes all the time, always the same ones.
#[tokio::test(start_paused = true)]
async fn a_file_that_never_gets_further_is_given_up() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("f"), vec![1; 3 * ftpq_storage::BLOCK]).unwrap();
    let copy = Copy::new(
        Arc::new(LocalFs::open(from.path()).unwrap()),
        Cutting::new(to.path(), &[("f", Cut::Write, u32::MAX)]),
        OPTIONS,
        Arc::new(()),
    );
    let path = "f".parse().unwrap();
    let ended = tokio::time::timeout(10 * OPTIONS.retry_for, copy.file(&path, &path)).await;
    assert_eq!(ended.expect("an end").unwrap_err().status(), Status::Unavailable);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

/// For all that is left alone the target was asked.
#[tokio::test(start_paused = true)]
async fn to_leave_files_alone_is_progress() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..100 {
        for folder in [&from, &to] {
            // Without bytes, which would be progress by themselves.
            fs::write(folder.path().join(format!("f{i}")), b"").unwrap();
        }
    }
    let mut target = Cutting::new(to.path(), &[]);
    Arc::get_mut(&mut target).unwrap().slow = OPTIONS.retry_for / 2;
    let options = Options { keep_existing: true, ..OPTIONS };
    let source = Arc::new(LocalFs::open(from.path()).unwrap());
    // Whichever comes last is cut.
    let (cuts, done) = (target.cuts.clone(), target.clone());
    tokio::spawn(async move {
        while done.done.lock().unwrap().len() < 80 {
            sleep(Duration::from_secs(1)).await;
        }
        cuts.lock().unwrap().extend((0..100).map(|i| ((format!("f{i}"), Cut::Create), 1)));
    });
    let copy = Copy::new(source, target.clone(), options, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.kept, summary.failed), (100, 0));
    assert!(target.cuts.lock().unwrap().values().any(|left| *left == 0), "nothing was cut");
}

#[tokio::test]
async fn what_is_here_to_be_left_alone_is_not_asked_for() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, name) in [(&from, "here"), (&from, "new"), (&to, "here")] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let source = Cutting::new(from.path(), &[]);
    let options = Options { keep_existing: true, ..OPTIONS };
    let target = Arc::new(LocalFs::open(to.path()).unwrap());
    let copy = Copy::new(source.clone(), target, options, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.files, summary.kept, summary.failed), (1, 1, 0));
    assert_eq!(*source.done.lock().unwrap(), [("open", "new".parse().unwrap())]);
}

#[tokio::test(start_paused = true)]
async fn files_that_are_named_are_copied_side_by_side() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths: Vec<(RemotePath, RemotePath)> =
        (0..40).map(|i| (format!("f{i}").parse().unwrap(), format!("g{i}").parse().unwrap())).collect();
    for (index, (source, _)) in paths.iter().enumerate().filter(|(index, _)| *index != 7) {
        fs::write(from.path().join(source.name().unwrap().to_string()), vec![1; index * 10_000]).unwrap();
    }
    let mut target = Cutting::new(to.path(), &[]);
    Arc::get_mut(&mut target).unwrap().slow = Duration::from_secs(10);
    let copy = Copy::new(Arc::new(LocalFs::open(from.path()).unwrap()), target, OPTIONS, Arc::new(()));
    let (began, mut failed, mut files) = (tokio::time::Instant::now(), 0, 0);
    let count = |copied: Result<Summary, CopyError>| {
        copied.map_or_else(|_| failed += 1, |one| files += one.files);
        Ok::<_, CopyError>(())
    };
    copy.files(paths, count).await.unwrap();
    assert_eq!((files, failed), (39, 1));
    // The clock is one that only sleeping moves.
    let rounds = 40_u32.div_ceil(OPTIONS.parallel);
    assert!(began.elapsed() <= rounds * Duration::from_secs(10), "{:?}: fewer than may be", began.elapsed());
    assert_eq!(copy.memory.available_permits(), crate::limits::BUFFERS_KIB as usize);
}

#[test]
fn a_file_that_is_too_large_fails_alone() {
    let path = "f".parse().unwrap();
    let failed = |problem: Problem| Side::Target.of(StorageError::new(&path, problem)).is_fatal();
    assert!(!failed(rustix::io::Errno::FBIG.into()));
    assert!(failed(rustix::io::Errno::NOSPC.into()));
}

/// Where there was no connection, nothing can have been made.
#[tokio::test(start_paused = true)]
async fn a_link_that_was_there_stays_an_error_if_nothing_was_asked() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&from, &to] {
        std::os::unix::fs::symlink("target", folder.path().join("a")).unwrap();
    }
    let mut target = Cutting::new(to.path(), &[("a", Cut::Create, 2)]);
    Arc::get_mut(&mut target).unwrap().error = || CallError::Connect(Arc::new(ConnectError::NoAnswer));
    let copy = Copy::new(Arc::new(LocalFs::open(from.path()).unwrap()), target, OPTIONS, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.links, summary.failed), (0, 1));
}

/// Folders are listed before it is their turn, and what that brings is the same.
#[tokio::test(start_paused = true)]
async fn folders_are_listed_ahead() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..40 {
        fs::create_dir_all(from.path().join(format!("{i}/below"))).unwrap();
        (0..300).for_each(|file| fs::write(from.path().join(format!("{i}/{file}")), b"").unwrap());
        fs::write(from.path().join(format!("{i}/below/f")), b"x").unwrap();
    }
    // One is cut while it is listed early, and once more in its turn.
    let mut source = Cutting::new(from.path(), &[("3", Cut::List, 2)]);
    let pause = Duration::from_secs(10);
    Arc::get_mut(&mut source).unwrap().pause = pause;
    let copy = Copy::new(source, Arc::new(LocalFs::open(to.path()).unwrap()), OPTIONS, Arc::new(()));
    let began = tokio::time::Instant::now();
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.files, summary.folders, summary.failed), (40 * 301, 81, 0));
    // Each folder has more than one page, but for those below.
    assert!(began.elapsed() < pause * 40, "one after the other");
}

/// Only a lost reply leaves a doubt whether the file is this copy's own.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_there_before_stays_an_error_whatever_is_cut() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("f"), b"same").unwrap();
    fs::write(to.path().join("f"), b"same").unwrap();
    let copy = Copy::new(
        Arc::new(LocalFs::open(from.path()).unwrap()),
        Cutting::new(to.path(), &[("f", Cut::Create, 2)]),
        OPTIONS,
        Arc::new(()),
    );
    let path = "f".parse().unwrap();
    assert_eq!(copy.file(&path, &path).await.unwrap_err().status(), Status::Exists);
}

#[tokio::test(start_paused = true)]
async fn a_server_with_another_key_and_a_full_disk_are_not_tried_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..200 {
        fs::write(from.path().join(format!("f{i}")), b"x").unwrap();
    }
    let key = ftpq_transport::Identity::generate().unwrap().fingerprint();
    static KEY: std::sync::OnceLock<ftpq_transport::Fingerprint> = std::sync::OnceLock::new();
    KEY.set(key).unwrap();
    fn refused(status: Status) -> CallError {
        CallError::Refused(ftpq_proto::message::Failed { status, message: "full".into() })
    }
    let errors: [(fn() -> CallError, Status); 3] = [
        (|| CallError::Connect(Arc::new(ConnectError::Untrusted { key: *KEY.get().unwrap() })), Status::NotAuthorised),
        (|| refused(Status::NoSpace), Status::NoSpace),
        (|| refused(Status::OverQuota), Status::OverQuota),
    ];
    for (error, status) in errors {
        let mut target = Cutting::new(to.path(), &[("f0", Cut::Create, 1)]);
        Arc::get_mut(&mut target).unwrap().error = error;
        let from = Arc::new(LocalFs::open(from.path()).unwrap());
        let copy = Copy::new(from, target.clone(), Options { overwrite: true, ..OPTIONS }, Arc::new(()));
        let ended = copy.tree(&RemotePath::root(), &RemotePath::root()).await;
        assert_eq!(ended.unwrap_err().status(), status);
    }
}

/// Between the listing that named it and its opening. The others are there, and it is spoken of.
#[tokio::test(start_paused = true)]
async fn what_vanishes_while_the_tree_is_walked_fails_alone() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..20 {
        fs::create_dir(from.path().join(format!("d{i}"))).unwrap();
        fs::write(from.path().join(format!("d{i}/g{i}")), b"x").unwrap();
        fs::write(from.path().join(format!("f{i}")), b"x").unwrap();
    }
    let source = Cutting::new(from.path(), &[("f7", Cut::Vanish, 1), ("d3", Cut::Vanish, 1)]);
    let options = Options { preserve: true, ..OPTIONS };
    let copy = Copy::new(source.clone(), Cutting::new(to.path(), &[]), options, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.files, summary.failed, summary.skipped), (20 + 20 - 2, 2, 0));
    assert!(!to.path().join("f7").exists() && !to.path().join("d3/g3").exists());
    let path = "f8".parse().unwrap();
    source.cuts.lock().unwrap().insert(("f8".into(), Cut::Vanish), 1);
    let error = copy.file(&path, &"new".parse().unwrap()).await.unwrap_err();
    assert_eq!((error.side, error.status()), (Side::Source, Status::NotFound));
}

#[tokio::test(start_paused = true)]
async fn links_and_attributes_that_are_cut_are_done_again() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    fs::set_permissions(from.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["a", "b", "c"] {
        symlink("target", from.path().join(name)).unwrap();
    }
    // These are not the copy's own. One says something else, the other was not cut.
    symlink("old", to.path().join("c")).unwrap();
    symlink("target", from.path().join("e")).unwrap();
    symlink("target", to.path().join("e")).unwrap();
    let cuts = [("a", Cut::Create, 2), ("b", Cut::Reply, 1), ("c", Cut::Create, 1), ("d", Cut::Attributes, 2)];
    let options = Options { preserve: true, ..OPTIONS };
    let source = Arc::new(LocalFs::open(from.path()).unwrap());
    let copy = Copy::new(source, Cutting::new(to.path(), &cuts), options, Arc::new(()));
    let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
    assert_eq!((summary.links, summary.failed, summary.folders), (2, 2, 2));
    assert_eq!(fs::read_link(to.path().join("b")).unwrap(), Path::new("target"));
    assert_eq!(fs::read_link(to.path().join("c")).unwrap(), Path::new("old"));
    assert_eq!(fs::metadata(to.path().join("d")).unwrap().mode() & 0o777, 0o700);
}

/// Else a folder that may not be entered would shut out the rest, and a file that came later would change
/// the time of its folder.
#[tokio::test(start_paused = true)]
async fn folders_get_their_attributes_last_and_the_deepest_first() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..10 {
        fs::create_dir_all(from.path().join(format!("{i}/a/b"))).unwrap();
        fs::write(from.path().join(format!("{i}/a/f")), b"x").unwrap();
    }
    // Some take longer than others.
    let target = Cutting::new(to.path(), &[("b", Cut::Attributes, 3), ("f", Cut::Write, 3)]);
    let source = Arc::new(LocalFs::open(from.path()).unwrap());
    let copy = Copy::new(source, target.clone(), Options { preserve: true, ..OPTIONS }, Arc::new(()));
    copy.tree(&RemotePath::root(), &"t".parse().unwrap()).await.unwrap();
    let done = target.done.lock().unwrap();
    let (files, attributes) = done.split_at(10 + 3);
    assert!(files.iter().all(|(what, _)| *what == "file"));
    assert!(attributes.iter().all(|(what, _)| *what == "attributes"));
    let depths: Vec<_> = attributes.iter().map(|(_, path)| path.depth()).collect();
    assert_eq!(depths, [[4; 10].as_slice(), &[3; 10], &[2; 10], &[1]].concat());
}

/// Of very many folders not all are kept in mind until the end.
#[tokio::test(start_paused = true)]
async fn folders_that_are_done_may_get_their_attributes_before_the_end() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..20 {
        fs::create_dir_all(from.path().join(format!("{i}/a/b"))).unwrap();
        fs::write(from.path().join(format!("{i}/a/f")), b"x").unwrap();
        fs::set_permissions(from.path().join(format!("{i}/a")), fs::Permissions::from_mode(0o500 + i)).unwrap();
    }
    fs::write(to.path().join("7"), b"in the way").unwrap();
    let (source, target) = (Arc::new(LocalFs::open(from.path()).unwrap()), Cutting::new(to.path(), &[]));
    let options = Options { preserve: true, ..OPTIONS };
    let mut walk = Walk::new(Copy::new(source, target.clone(), options, Arc::new(())));
    walk.attributes_most = 500;
    let summary = walk.run(RemotePath::root(), RemotePath::root()).await.unwrap();
    assert_eq!((summary.files, summary.failed), (19, 4));
    let done = target.done.lock().unwrap();
    for (index, (what, folder)) in done.iter().enumerate().filter(|(_, (what, _))| *what == "attributes") {
        let after = &done[index + 1..];
        assert!(after.iter().all(|(_, path)| !path.starts_with(folder)), "{what} of {folder}");
    }
    let first = done.iter().position(|(what, _)| *what == "attributes").unwrap();
    assert!(done[first..].iter().any(|(what, _)| *what == "file"), "all of them came last");
    for i in (0..20).filter(|i| *i != 7) {
        for folder in [format!("{i}"), format!("{i}/a"), format!("{i}/a/b")] {
            let [from, to] = [&from, &to].map(|root| fs::metadata(root.path().join(&folder)).unwrap());
            assert_eq!((from.mode(), from.mtime_nsec()), (to.mode(), to.mtime_nsec()), "{folder}");
        }
    }
}

/// What a file holds in memory is counted by what it turns out to be, not by what its listing said.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_larger_than_was_listed_waits_for_room() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("f"), vec![1; 3 << 20]).unwrap();
    let [from, to] = [&from, &to].map(|folder| Arc::new(LocalFs::open(folder.path()).unwrap()));
    let copy = Copy::new(from, to.clone(), OPTIONS, Arc::new(()));
    let all = copy.memory.clone().acquire_many_owned(crate::limits::BUFFERS_KIB - 16).await.unwrap();
    let room = Room::new(copy.memory.clone().acquire_many_owned(16).await.unwrap());
    let path = "f".parse().unwrap();
    let mut copying = std::pin::pin!(FileCopy::new(&copy, copy.next_id(), &path, &path, Some(room)).run());
    // The clock moves on only when nothing else does.
    tokio::time::timeout(Duration::from_secs(60), &mut copying).await.unwrap_err();
    drop(all);
    assert_eq!(copying.await.unwrap().bytes, 3 << 20);
    assert_eq!(copy.memory.available_permits(), crate::limits::BUFFERS_KIB as usize);
}

/// In one go and by extents, and from and to pipes.
#[tokio::test]
async fn what_files_wait_for_is_counted_on_both_sides() {
    let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [source, target] = [&from, &to].map(|folder| Arc::new(LocalFs::open(folder.path()).unwrap()));
    let counted = |waited: Waited| !waited.source.is_zero() && !waited.target.is_zero() && waited.pieces > 0;
    for (name, size) in [("small", 1_000), ("large", 20_000_000)] {
        fs::write(from.path().join(name), vec![7; size]).unwrap();
        let path = name.parse().unwrap();
        let copy = Copy::new(source.clone(), target.clone(), OPTIONS, Arc::new(()));
        assert_eq!(copy.waited(), Waited::default());
        copy.file(&path, &path).await.unwrap();
        assert!(counted(copy.waited()), "{name}: {:?}", copy.waited());

        let mut bytes = Collected(Vec::new());
        let pipe = Pipe::new(source.clone(), OPTIONS, Arc::new(()));
        pipe.put_out(&path, &mut bytes).await.unwrap();
        assert!(counted(pipe.waited()), "{name}: {:?}", pipe.waited());
        let pipe = Pipe::new(target.clone(), Options { overwrite: true, ..OPTIONS }, Arc::new(()));
        pipe.take_in(&mut bytes, &path).await.unwrap();
        assert!(counted(pipe.waited()), "{name}: {:?}", pipe.waited());
    }
}

/// A program that gives back what it was given.
struct Collected(Vec<Bytes>);

#[async_trait]
impl Output for Collected {
    async fn write(&mut self, block: Bytes) -> std::io::Result<()> {
        self.0.push(block);
        Ok(())
    }
}

#[async_trait]
impl Input for Collected {
    async fn next_block(&mut self) -> std::io::Result<Option<Bytes>> {
        Ok(self.0.pop())
    }
}
