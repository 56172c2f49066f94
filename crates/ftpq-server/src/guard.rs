//! The files of one user, as far as this user's rights go.
//!
//! The dispatcher checks the right that a verb declares. This checks what its handler then does: one
//! that declared too little, or forgot that replacing is removing, gets [`Problem::Forbidden`] and has
//! changed and seen nothing.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use ftpq_handler::{Failure, Right, User};
use ftpq_proto::{Digest, Entry, Extents, Holes, LinkTarget, RemotePath, UploadId};
use ftpq_storage::{
    Attributes, HeldExtent, LargeFile, Listing, NewFile, NewLink, Opened, Pinned, Problem, Publish, Reader, Staging,
    Storage, StorageError, Upload,
};

/// What a user may do with a storage.
pub(crate) struct Guard {
    user: Arc<User>,
    storage: Arc<dyn Storage>,
}

impl Guard {
    /// `storage` for `user`.
    pub(crate) fn new(user: Arc<User>, storage: Arc<dyn Storage>) -> Self {
        Self { user, storage }
    }

    fn require(&self, path: &RemotePath, right: Right) -> Result<(), StorageError> {
        if self.user.rights.contains(right) { Ok(()) } else { Err(forbidden(&self.user, path, right)) }
    }

    /// To replace is to remove.
    fn require_write(&self, path: &RemotePath, replaces: bool) -> Result<(), StorageError> {
        self.require(path, Right::Write)?;
        if replaces { self.require(path, Right::Delete) } else { Ok(()) }
    }

    fn staging(&self, path: &RemotePath, staging: Arc<dyn Staging>) -> Arc<dyn Staging> {
        Arc::new(GuardedStaging { user: self.user.clone(), path: path.clone(), staging })
    }
}

#[async_trait]
impl Storage for Guard {
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError> {
        self.require(path, Right::List)?;
        self.storage.stat(path).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError> {
        self.require(path, Right::List)?;
        self.storage.list(path).await
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        self.require(path, Right::Read)?;
        self.storage.open(path).await
    }

    async fn open_up_to(&self, path: &RemotePath, up_to: u64) -> Result<Opened, StorageError> {
        self.require(path, Right::Read)?;
        self.storage.open_up_to(path, up_to).await
    }

    async fn open_extent(&self, file: &Pinned, index: u32) -> Result<Box<dyn Reader>, StorageError> {
        self.require(&file.path, Right::Read)?;
        self.storage.open_extent(file, index).await
    }

    async fn extent_digest(&self, file: &Pinned, index: u32) -> Result<Digest, StorageError> {
        self.require(&file.path, Right::Read)?;
        self.storage.extent_digest(file, index).await
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        self.require_write(path, file.overwrite)?;
        self.storage.create(path, file).await
    }

    async fn begin(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        self.require_write(path, file.overwrite)?;
        let begun = self.storage.begin(path, file).await?;
        Ok(begun.map(|staging| self.staging(path, staging)))
    }

    async fn staging(
        &self,
        path: &RemotePath,
        owner: Digest,
        upload: UploadId,
    ) -> Result<Arc<dyn Staging>, StorageError> {
        self.require(path, Right::Write)?;
        let staging = self.storage.staging(path, owner, upload).await?;
        Ok(self.staging(path, staging))
    }

    /// The server's own affair: it would take what others go on with.
    async fn sweep(&self, _: Duration) -> Result<u64, StorageError> {
        let problem = Problem::Forbidden("only the server itself removes what is unfinished".into());
        Err(StorageError::new(&RemotePath::root(), problem))
    }

    async fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), StorageError> {
        self.require(path, Right::Write)?;
        self.storage.make_folder(path, parents).await
    }

    async fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), StorageError> {
        self.require_write(path, link.overwrite)?;
        self.storage.make_link(path, target, link).await
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), StorageError> {
        // The root was there before the user came, and closing it closes all. Nor may who can only add things
        // close a folder to the server, or let everybody on its machine write there.
        let harmless = |mode: u32| mode & 0o700 == 0o700 && mode & 0o002 == 0;
        let takes_away = path.is_root() || attributes.mode.is_some_and(|mode| !harmless(mode));
        self.require_write(path, takes_away)?;
        self.storage.set_attributes(path, attributes).await
    }

    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError> {
        self.require(path, Right::Delete)?;
        self.storage.remove(path, recursive).await
    }

    /// Something goes away under its old name.
    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError> {
        self.require_write(from, true)?;
        self.storage.rename(from, to, overwrite).await
    }

    /// Tells no more than whether `path` is a folder, which every right tells: to download, to upload and to
    /// remove fail differently there.
    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError> {
        const TELL: [Right; 4] = [Right::List, Right::Read, Right::Write, Right::Delete];
        if !TELL.into_iter().any(|right| self.user.rights.contains(right)) {
            return Err(forbidden(&self.user, path, Right::List));
        }
        Ok(Arc::new(Self { user: self.user.clone(), storage: self.storage.subtree(path).await? }))
    }
}

/// An upload by extents. What was begun with the right to replace is not published without it.
struct GuardedStaging {
    user: Arc<User>,
    path: RemotePath,
    staging: Arc<dyn Staging>,
}

#[async_trait]
impl Staging for GuardedStaging {
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
        self.staging.write(index, holes).await
    }

    async fn prove(&self, index: u32, digest: Digest) -> Result<bool, StorageError> {
        self.staging.prove(index, digest).await
    }

    async fn settle(&self) {
        self.staging.settle().await;
    }

    async fn commit(&self, publish: Publish) -> Result<Digest, StorageError> {
        if self.overwrites() && !self.user.rights.contains(Right::Delete) {
            return Err(forbidden(&self.user, &self.path, Right::Delete));
        }
        self.staging.commit(publish).await
    }
}

/// In the dispatcher's words.
fn forbidden(user: &User, path: &RemotePath, right: Right) -> StorageError {
    StorageError::new(path, Problem::Forbidden(Failure::forbidden(user, right).to_string()))
}

#[cfg(test)]
mod tests {
    use ftpq_handler::{Limits, Rights, Status};
    use ftpq_proto::limits::EXTENT_MIN;
    use ftpq_storage::LocalFs;
    use ftpq_transport::Identity;

    use super::*;

    type Outcome = Result<(), StorageError>;

    /// What was done, the rights that it takes, and how it ended.
    struct Done(&'static str, &'static [Right], Outcome);

    const READ: &[Right] = &[Right::Read];
    const LIST: &[Right] = &[Right::List];
    const WRITE: &[Right] = &[Right::Write];
    const DELETE: &[Right] = &[Right::Delete];
    const REPLACE: &[Right] = &[Right::Write, Right::Delete];

    fn path(text: &str) -> RemotePath {
        text.parse().unwrap()
    }

    fn extents() -> Extents {
        Extents::of(2 * EXTENT_MIN).unwrap()
    }

    fn large(overwrite: bool) -> LargeFile {
        let owner = Digest::from([1; 32]);
        let (fresh, sparse, parents) = (false, true, true);
        LargeFile { extents: extents(), owner, fresh, apart: None, sparse, overwrite, same: None, parents }
    }

    /// Each operation, where nothing is: what is allowed fails in another way, or changes no more than a name.
    async fn looks(files: &dyn Storage) -> Vec<Done> {
        let nothing = path("nothing");
        let pinned = Pinned { path: nothing.clone(), version: Digest::from([0; 32]).into(), extents: extents() };
        vec![
            Done("stat", LIST, files.stat(&nothing).await.map(drop)),
            Done("list", LIST, files.list(&nothing).await.map(drop)),
            Done("open", READ, files.open(&nothing).await.map(drop)),
            Done("open_up_to", READ, files.open_up_to(&nothing, 1).await.map(drop)),
            Done("open_extent", READ, files.open_extent(&pinned, 0).await.map(drop)),
            Done("extent_digest", READ, files.extent_digest(&pinned, 0).await.map(drop)),
        ]
    }

    async fn changes(files: &dyn Storage) -> Vec<Done> {
        let (nothing, root, target) = (path("nothing"), RemotePath::root(), LinkTarget::new(*b"x").unwrap());
        let create = async |overwrite| {
            let file = NewFile { overwrite, ..NewFile::default() };
            files.create(&path("file"), file).await.map(drop)
        };
        let begin = async |overwrite| files.begin(&path("large"), large(overwrite)).await.map(drop);
        let link = async |overwrite| {
            let link = NewLink { overwrite, ..NewLink::default() };
            files.make_link(&path("link"), &target, link).await
        };
        let set = async |path: &RemotePath, mode| files.set_attributes(path, Attributes { mode, mtime: None }).await;
        vec![
            Done("create", WRITE, create(false).await),
            Done("create, replacing", REPLACE, create(true).await),
            Done("begin", WRITE, begin(false).await),
            Done("begin, replacing", REPLACE, begin(true).await),
            Done("make_folder", WRITE, files.make_folder(&path("folder"), false).await),
            Done("make_link", WRITE, link(false).await),
            Done("make_link, replacing", REPLACE, link(true).await),
            Done("set_attributes", WRITE, set(&nothing, None).await),
            Done("set_attributes, a mode", WRITE, set(&nothing, Some(0o775)).await),
            Done("set_attributes, closing", REPLACE, set(&nothing, Some(0o577)).await),
            Done("set_attributes, opening", REPLACE, set(&nothing, Some(0o702)).await),
            Done("set_attributes of the root", REPLACE, set(&root, None).await),
            Done("remove", DELETE, files.remove(&nothing, false).await.map(drop)),
            Done("remove a folder", DELETE, files.remove(&nothing, true).await.map(drop)),
            Done("rename", REPLACE, files.rename(&nothing, &path("to"), false).await),
            Done("rename, replacing", REPLACE, files.rename(&nothing, &path("to"), true).await),
        ]
    }

    async fn goes_on(all: &dyn Storage, files: &dyn Storage) -> Vec<Done> {
        let digest = Digest::from([0; 32]);
        let mut done = Vec::new();
        for (overwrite, rights) in [(false, WRITE), (true, REPLACE)] {
            let (large, file) = (path("large"), large(overwrite));
            let begun = all.begin(&large, file.clone()).await.unwrap().unwrap();
            let staging = files.staging(&large, file.owner, begun.id()).await;
            let publish = Publish { digest, mode: None, mtime: None };
            let committed = match &staging {
                Ok(staging) => staging.commit(publish).await.map(drop),
                Err(_) => files.staging(&large, file.owner, begun.id()).await.map(drop),
            };
            done.push(Done("staging", WRITE, staging.map(drop)));
            done.push(Done("commit", rights, committed));
            let published = match files.begin(&large, file).await {
                Ok(begun) => begun.unwrap().commit(publish).await.map(drop),
                Err(error) => Err(error),
            };
            done.push(Done("begin and commit", rights, published));
        }
        done
    }

    fn guarded(rights: Rights, files: &LocalFs) -> Guard {
        let key = Identity::generate().unwrap().fingerprint();
        let user = User { name: "alice".into(), key, rights, limits: Limits::default() };
        Guard::new(Arc::new(user), Arc::new(files.clone()))
    }

    fn every_set_of_rights() -> impl Iterator<Item = Rights> {
        (0..1 << Right::ALL.len()).map(|set| {
            let is_in = |at: &usize| set & 1 << at != 0;
            (0..Right::ALL.len()).filter(is_in).map(|at| Right::ALL[at]).fold(Rights::NONE, Rights::with)
        })
    }

    #[tokio::test]
    async fn each_operation_takes_its_rights_and_no_others() {
        for rights in every_set_of_rights() {
            let folder = tempfile::tempdir().unwrap();
            let files = LocalFs::open(folder.path()).unwrap();
            files.make_folder(&path("below"), false).await.unwrap();
            let guard = guarded(rights, &files);
            let mut all = looks(&guard).await;
            all.extend(changes(&guard).await);
            all.extend(goes_on(&files, &guard).await);
            if let Ok(below) = guard.subtree(&path("below")).await {
                all.extend(looks(&*below).await);
                all.extend(changes(&*below).await);
            } else {
                assert!(rights == Rights::NONE || rights == Rights::NONE.with(Right::Admin), "{rights}");
            }
            for Done(what, needs, outcome) in all {
                let lacked = needs.iter().find(|&&right| !rights.contains(right));
                let forbidden = outcome.as_ref().err().filter(|error| error.status() == Status::Forbidden);
                let expected = lacked.map(|right| {
                    format!("alice may not {right} here: ask the server's owner for the right to {right}")
                });
                assert_eq!(forbidden.map(ToString::to_string), expected, "{what} with {rights}: {outcome:?}");
            }
            assert_eq!(guard.sweep(Duration::ZERO).await.unwrap_err().status(), Status::Forbidden);
        }
    }
}
