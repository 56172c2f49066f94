//! [`LocalFs`]: a folder of this machine that nothing leaves.
//!
//! Every path is opened relative to the folder's handle by one `openat2` that refuses links and
//! anything that would lead out (`RESOLVE_BENEATH | NO_MAGICLINKS | NO_SYMLINKS`). There is no
//! check of a name followed by another look at it, so there is nothing to race.

mod behind;
mod extents;
mod holes;
mod journal;
mod lane;
mod links;
mod list;
mod lookalike;
mod publish;
mod read;
mod root;
mod sink;
mod stage;
mod sweep;
mod sys;
mod turns;
mod unflushed;
mod usage;
mod write;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use ftpq_proto::{Digest, Entry, LinkTarget, RemotePath, UploadId};
use rustix::fs::OFlags;

use self::{
    extents::{Handle, Stagings},
    lane::Trip,
    publish::Target,
    root::Root,
};
use crate::{
    Attributes, KEPT_FOR, LargeFile, Listing, NewFile, NewLink, Opened, Pinned, Reader, Staging, Storage, Upload,
    Usage,
    blocking::{Wanted, blocking},
    error::{Problem, StorageError},
};

/// A folder of this machine.
#[derive(Clone, Debug)]
pub struct LocalFs {
    root: Arc<Root>,
    stagings: Arc<Stagings>,
}

impl LocalFs {
    /// The folder at `path`, which may be a link: whoever names it here is trusted.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        publish::know_umask();
        Ok(Self { root: Arc::new(Root::open(path)?), stagings: Arc::new(Stagings::new(KEPT_FOR)) })
    }

    /// The same, keeping what is unfinished for `age` instead of [`KEPT_FOR`] where it tidies up
    /// by itself.
    #[must_use]
    pub fn keep_unfinished(self, age: Duration) -> Self {
        Self { stagings: Arc::new(Stagings::new(age)), ..self }
    }

    /// Runs `work`, which blocks for a moment, where blocking is allowed.
    async fn run<T: Send + 'static>(
        &self,
        path: &RemotePath,
        work: impl FnOnce(&Root, &RemotePath) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (root, path) = (self.root.clone(), path.clone());
        let work =
            move |_: &mut Trip, _: &Wanted| work(&root, &path).map_err(|problem| StorageError::new(&path, problem));
        self.root.lane().run(work).await
    }

    /// The same for what may take long.
    async fn run_while_wanted<T: Send + 'static>(
        &self,
        path: &RemotePath,
        work: impl FnOnce(&Root, &RemotePath, &Wanted) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (root, path) = (self.root.clone(), path.clone());
        blocking(move |wanted| work(&root, &path, wanted).map_err(|problem| StorageError::new(&path, problem))).await
    }
}

#[async_trait]
impl Storage for LocalFs {
    async fn stat(&self, path: &RemotePath) -> Result<Entry, StorageError> {
        self.run(path, Root::stat).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Box<dyn Listing>, StorageError> {
        let listing = self.run(path, list::LocalListing::open).await?;
        Ok(Box::new(listing))
    }

    async fn open(&self, path: &RemotePath) -> Result<Box<dyn Reader>, StorageError> {
        let reader = self.run(path, read::LocalReader::open).await?;
        Ok(Box::new(reader))
    }

    async fn open_up_to(&self, path: &RemotePath, up_to: u64) -> Result<Opened, StorageError> {
        self.run(path, move |root, path| read::LocalReader::open_up_to(root, path, up_to)).await
    }

    async fn open_extent(&self, file: &Pinned, index: u32) -> Result<Box<dyn Reader>, StorageError> {
        let pinned = file.clone();
        let opened = self.run(&file.path, move |root, _| read::LocalReader::open_extent(root, &pinned, index)).await?;
        Ok(Box::new(opened))
    }

    async fn create(&self, path: &RemotePath, file: NewFile) -> Result<Box<dyn Upload>, StorageError> {
        let upload = write::LocalUpload::begin(self.root.clone(), path.clone(), file).await?;
        Ok(Box::new(upload))
    }

    async fn begin(&self, path: &RemotePath, file: LargeFile) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        let begun = self.stagings.begin(self.root.clone(), path.clone(), file).await;
        let staging = begun.map_err(|problem| StorageError::new(path, problem))?;
        Ok(staging.map(|staging| Arc::new(Handle { staging, list: self.stagings.clone() }) as Arc<dyn Staging>))
    }

    async fn staging(
        &self,
        path: &RemotePath,
        owner: Digest,
        upload: UploadId,
    ) -> Result<Arc<dyn Staging>, StorageError> {
        let list = self.stagings.clone();
        let staging = self.run(path, move |root, path| list.find(root, path, owner, upload)).await?;
        Ok(Arc::new(Handle { staging, list: self.stagings.clone() }))
    }

    async fn unfinished(&self, path: &RemotePath, file: &LargeFile) -> Result<Option<u64>, StorageError> {
        let file = file.clone();
        self.run(path, move |root, path| usage::unfinished(root, path, &file)).await
    }

    async fn holds(&self, path: &RemotePath, size: u64, digest: Digest) -> Result<bool, StorageError> {
        self.run_while_wanted(path, move |root, path, wanted| match Target::find(root, path, false) {
            Err(Problem::NotFound) => Ok(false),
            target => target?.holds(size, digest, wanted),
        })
        .await
    }

    async fn usage(&self) -> Result<Usage, StorageError> {
        self.run_while_wanted(&RemotePath::root(), |root, _, wanted| usage::usage(root, wanted)).await
    }

    async fn sweep(&self, age: Duration) -> Result<u64, StorageError> {
        self.run_while_wanted(&RemotePath::root(), move |root, _, _| sweep::sweep(root, age)).await
    }

    async fn close_idle(&self) {
        let list = self.stagings.clone();
        let forget = move |_: &Root, _: &RemotePath| {
            list.forget_idle();
            Ok(())
        };
        let _ = self.run(&RemotePath::root(), forget).await;
    }

    async fn make_folder(&self, path: &RemotePath, parents: bool) -> Result<(), StorageError> {
        self.run(path, move |root, path| root.make_folder(path, parents)).await
    }

    async fn make_link(&self, path: &RemotePath, target: &LinkTarget, link: NewLink) -> Result<(), StorageError> {
        let target = target.clone();
        self.run(path, move |root, path| root.make_link(path, &target, link)).await
    }

    async fn set_attributes(&self, path: &RemotePath, attributes: Attributes) -> Result<(), StorageError> {
        self.run(path, move |root, path| root.set_attributes(path, attributes)).await
    }

    async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<u64, StorageError> {
        let list = self.stagings.clone();
        self.run_while_wanted(path, move |root, path, wanted| {
            let removed = root.remove(path, recursive, wanted);
            // Some of it, at least, may have been what is kept of uploads.
            list.forget_idle();
            removed
        })
        .await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, overwrite: bool) -> Result<(), StorageError> {
        let target = to.clone();
        let renamed = self.run(from, move |root, from| root.rename(from, &target, overwrite)).await;
        // What is in the way stands at `to`.
        renamed.map_err(|error| match error.problem {
            Problem::Exists | Problem::IsFolder | Problem::NotEmpty => StorageError::new(to, error.problem),
            _ => error,
        })
    }

    async fn subtree(&self, path: &RemotePath) -> Result<Arc<dyn Storage>, StorageError> {
        let folder = self.run(path, |root, path| root.open_beneath(path, OFlags::DIRECTORY | OFlags::RDONLY)).await?;
        Ok(Arc::new(LocalFs { root: Arc::new(self.root.below(folder)), stagings: self.stagings.clone() }))
    }
}

#[cfg(test)]
mod tests;
