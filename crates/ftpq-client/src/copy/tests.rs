//! What a copy does when things are cut. The storages here are real; their connection is not.

use std::{collections::HashMap, fs, path::Path};

use async_trait::async_trait;
use ftpq_proto::{Digest, Entry, LinkTarget};
use ftpq_storage::{Attributes, Bytes, Listing, LocalFs, NewFile, NewLink, Reader, Upload};
use ftpq_transport::{Closed, ConnectError};

use super::*;

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
}

/// A folder behind a connection that is cut where it is told to be.
struct Cutting {
    files: LocalFs,
    /// How often each is still cut, by the last component of the path.
    cuts: Arc<Mutex<HashMap<(String, Cut), u32>>>,
    error: fn() -> CallError,
    /// Before each page of a listing but the first.
    pause: Duration,
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
        })
    }

    fn check(&self, path: &RemotePath, cut: Cut) -> Result<(), StorageError> {
        check(&self.cuts, path, cut, self.error)
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
            Err(StorageError::new(path, Problem::Remote { status: error.status(), error: Box::new(error) }))
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
        let listing = self.files.list(path).await?;
        let (path, cuts, error, pause) = (path.clone(), self.cuts.clone(), self.error, self.pause);
        Ok(Box::new(CuttingListing { listing, first: true, path, cuts, error, pause }))
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        self.files.open(path).await
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        self.check(path, Cut::Create)?;
        let upload = self.files.create(path, file).await?;
        Ok(Box::new(CuttingUpload {
            upload,
            begun: false,
            path: path.clone(),
            cuts: self.cuts.clone(),
            error: self.error,
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
        self.files.set_attributes(path, attributes).await
    }

    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError> {
        self.files.remove(path, recursive).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError> {
        self.files.rename(from, to, overwrite).await
    }

    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError> {
        self.files.subtree(path).await
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

struct CuttingUpload {
    upload: Box<dyn Upload>,
    begun: bool,
    path: RemotePath,
    cuts: Arc<Mutex<HashMap<(String, Cut), u32>>>,
    error: fn() -> CallError,
}

#[async_trait]
impl Upload for CuttingUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        let last = std::mem::replace(&mut self.begun, true) || block.len() < ftpq_storage::BLOCK;
        self.upload.write(block).await?;
        if last { check(&self.cuts, &self.path, Cut::Write, self.error) } else { Ok(()) }
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let digest = self.upload.commit(expected).await?;
        check(&self.cuts, &self.path, Cut::Reply, self.error)?;
        Ok(digest)
    }
}

const OPTIONS: Options = Options {
    overwrite: false,
    preserve: false,
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
    let errors: [(fn() -> CallError, Status); 2] = [
        (|| CallError::Connect(Arc::new(ConnectError::Untrusted { key: *KEY.get().unwrap() })), Status::NotAuthorised),
        (
            || CallError::Refused(ftpq_proto::message::Failed { status: Status::NoSpace, message: "full".into() }),
            Status::NoSpace,
        ),
    ];
    for (error, status) in errors {
        let target = Cutting::new(to.path(), &[("f0", Cut::Create, 1)]);
        let target =
            Arc::new(Cutting { files: target.files.clone(), cuts: target.cuts.clone(), error, pause: Duration::ZERO });
        let from = Arc::new(LocalFs::open(from.path()).unwrap());
        let copy = Copy::new(from, target.clone(), Options { overwrite: true, ..OPTIONS }, Arc::new(()));
        let ended = copy.tree(&RemotePath::root(), &RemotePath::root()).await;
        assert_eq!(ended.unwrap_err().status(), status);
    }
}
