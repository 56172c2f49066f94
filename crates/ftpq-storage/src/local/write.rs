//! Writing a file so that it appears whole and durable, or not at all.
//!
//! The bytes go into a file without a name (`O_TMPFILE`), in the folder where it will stand: nobody
//! can list or open it, and if this process dies the kernel takes it back. Then: length and digest
//! are checked, the file is flushed, linked under its name, and the folder is flushed. `linkat`
//! never replaces; to replace, the file gets a reserved name first and is renamed from it. A failed
//! `fsync` is never tried again: the kernel may have dropped what it could not write, and would then
//! report success.
//!
//! File systems without `O_TMPFILE` (NFS, some FUSE) get the reserved name from the start, and a link
//! under the final one where nothing may be replaced: NFS cannot rename without replacing.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use blake3::Hasher;
use bytes::Bytes;
use ftpq_proto::{Digest, Kind, Name, RemotePath};
use rustix::{
    fs::{self, AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps},
    io::{self, Errno},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    blocking, lookalike,
    root::{self, Root},
};
use crate::{
    BLOCK, NewFile, Upload,
    error::{Problem, StorageError},
};

pub(super) struct LocalUpload {
    root: Arc<Root>,
    path: RemotePath,
    file: NewFile,
    state: State,
}

enum State {
    /// A file of one block at most touches the disk only when it is complete: one trip to the
    /// blocking threads for everything.
    Small(Vec<Bytes>),
    /// A block may be on its way to the disk while the next one arrives.
    Ready(Staged),
    Writing(JoinHandle<Result<Staged, Problem>>),
    /// An earlier call failed, or was dropped halfway.
    Lost,
}

impl LocalUpload {
    pub(super) async fn begin(root: Arc<Root>, path: RemotePath, file: NewFile) -> Result<Self, StorageError> {
        let mut upload = Self { root, path, file, state: State::Small(Vec::new()) };
        if file.size > BLOCK as u64 {
            let (root, path) = (upload.root.clone(), upload.path.clone());
            let staged = blocking(move || Staged::begin(&root, &path, file)).await;
            upload.state = State::Ready(staged.map_err(|problem| upload.error(problem))?);
        }
        Ok(upload)
    }

    fn error(&self, problem: Problem) -> StorageError {
        StorageError::new(&self.path, problem)
    }

    /// The staged file, once the block before is written.
    async fn settled(&mut self) -> Result<Staged, Problem> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Ready(staged) => Ok(staged),
            State::Writing(task) => task.await.unwrap_or_else(|error| Err(Problem::Io(error.into()))),
            State::Small(_) | State::Lost => Err(Problem::Refused("writing has failed before")),
        }
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        if let State::Small(blocks) = &mut self.state {
            let held: usize = blocks.iter().map(Bytes::len).sum();
            let actual = (held + block.len()) as u64;
            if actual > self.file.size {
                return Err(self.error(Problem::Length { announced: self.file.size, actual }));
            }
            blocks.push(block);
            return Ok(());
        }
        let mut staged = self.settled().await.map_err(|problem| self.error(problem))?;
        self.state = State::Writing(spawn_blocking(move || staged.write(&block).map(|()| staged)));
        Ok(())
    }

    async fn commit(mut self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let committed = if let State::Small(blocks) = &mut self.state {
            let blocks = std::mem::take(blocks);
            let (root, path, file) = (self.root.clone(), self.path.clone(), self.file);
            blocking(move || {
                let mut staged = Staged::begin(&root, &path, file)?;
                blocks.iter().try_for_each(|block| staged.write(block))?;
                staged.commit(expected)
            })
            .await
        } else {
            match self.settled().await {
                Ok(staged) => blocking(move || staged.commit(expected)).await,
                Err(problem) => Err(problem),
            }
        };
        committed.map_err(|problem| self.error(problem))
    }
}

/// Where a file will stand.
pub(super) struct Target {
    folder: OwnedFd,
    name: Name,
}

impl Target {
    pub(super) fn find(root: &Root, path: &RemotePath, file: NewFile) -> Result<Self, Problem> {
        if path.is_root() {
            return Err(Problem::IsFolder);
        }
        let (folder, name) = root.parent_to_fill(path, file.parents)?;
        check_target(&folder, &name, file)?;
        Ok(Self { folder, name })
    }
}

/// A file without a name, and where it will stand. Everything here blocks.
pub(super) struct Staged {
    folder: OwnedFd,
    name: Name,
    fd: OwnedFd,
    /// The reserved name it has from the start on file systems without `O_TMPFILE`.
    reserved: Option<ReservedName>,
    file: NewFile,
    written: u64,
    hasher: Box<Hasher>,
}

impl Staged {
    fn begin(root: &Root, path: &RemotePath, file: NewFile) -> Result<Self, Problem> {
        let target = Target::find(root, path, file)?;
        match fs::openat(&target.folder, ".", NEW_FILE_FLAGS | OFlags::TMPFILE, NEW_FILE) {
            Ok(fd) => Self::new(target, fd, None, file),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Self::begin_named(target, file),
            Err(error) => Err(error.into()),
        }
    }

    /// What `begin` does on file systems without `O_TMPFILE`.
    pub(super) fn begin_named(target: Target, file: NewFile) -> Result<Self, Problem> {
        let reserved = ReservedName::new(&target.folder)?;
        let flags = NEW_FILE_FLAGS | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = fs::openat(&target.folder, reserved.name.as_bytes(), flags, PRIVATE_FILE)?;
        Self::new(target, fd, Some(reserved), file)
    }

    fn new(target: Target, fd: OwnedFd, reserved: Option<ReservedName>, file: NewFile) -> Result<Self, Problem> {
        if file.size > 0 {
            // A disk that cannot hold the file says so now. Not every file system can promise.
            match fs::fallocate(&fd, FallocateFlags::empty(), 0, file.size) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Target { folder, name } = target;
        Ok(Self { folder, name, fd, reserved, file, written: 0, hasher: Box::default() })
    }

    pub(super) fn write(&mut self, block: &[u8]) -> Result<(), Problem> {
        let end = self.written + block.len() as u64;
        if end > self.file.size {
            return Err(Problem::Length { announced: self.file.size, actual: end });
        }
        self.hasher.update(block);
        let mut rest = block;
        while !rest.is_empty() {
            match io::pwrite(&self.fd, rest, end - rest.len() as u64) {
                Ok(0) => return Err(Problem::Io(std::io::ErrorKind::WriteZero.into())),
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.written = end;
        Ok(())
    }

    pub(super) fn commit(mut self, expected: Digest) -> Result<Digest, Problem> {
        if self.written != self.file.size {
            return Err(Problem::Length { announced: self.file.size, actual: self.written });
        }
        let actual = Digest::from(*self.hasher.finalize().as_bytes());
        if actual != expected {
            return Err(Problem::DigestMismatch { expected, actual });
        }
        self.set_metadata()?;
        fs::fsync(&self.fd)?;
        match self.publish() {
            Err(Problem::Exists) if self.file.accept_same && self.is_there(actual)? => {}
            published => published?,
        }
        fs::fsync(&self.folder)?;
        Ok(actual)
    }

    /// Whether a file of this content stands under the name already.
    fn is_there(&self, digest: Digest) -> Result<bool, Problem> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(fs::openat(&self.folder, self.name.as_bytes(), flags, Mode::empty())?);
        if !file.metadata()?.is_file() || file.metadata()?.len() != self.file.size {
            return Ok(false);
        }
        let mut hasher = Hasher::new();
        hasher.update_reader(&file)?;
        fs::fsync(&file)?;
        Ok(Digest::from(*hasher.finalize().as_bytes()) == digest)
    }

    fn set_metadata(&self) -> Result<(), Problem> {
        let default = || self.reserved.is_some().then(|| NEW_FILE.difference(*UMASK));
        if let Some(mode) = self.file.mode.map(|mode| Mode::from_raw_mode(mode & 0o777)).or_else(default) {
            fs::fchmod(&self.fd, mode)?;
        }
        if let Some(mtime) = self.file.mtime {
            let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
            let last_modification = time(mtime.secs(), mtime.nanos().into());
            fs::futimens(&self.fd, &Timestamps { last_access: last_modification, last_modification })?;
        }
        Ok(())
    }

    /// The one step in which the file appears.
    fn publish(&mut self) -> Result<(), Problem> {
        let _alone = if self.file.overwrite { lookalike::alone(&self.folder, &self.name)? } else { None };
        match (self.reserved.take(), self.file.overwrite) {
            (None, false) => self.link(&self.name),
            (None, true) => {
                let reserved = ReservedName::new(&self.folder)?;
                self.link(&reserved.name)?;
                reserved.rename(&self.name, RenameFlags::empty())
            }
            (Some(reserved), true) => reserved.rename(&self.name, RenameFlags::empty()),
            (Some(reserved), false) => reserved.publish_new(&self.name),
        }
    }

    fn link(&self, name: &Name) -> Result<(), Problem> {
        use std::os::fd::AsRawFd;
        let unnamed = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(fs::linkat(CWD, unnamed, &self.folder, name.as_bytes(), AtFlags::SYMLINK_FOLLOW)?)
    }
}

/// A name that nobody can see or guess. Dropped, it is removed.
struct ReservedName {
    folder: OwnedFd,
    name: Name,
    gone: bool,
}

impl ReservedName {
    fn new(folder: &OwnedFd) -> Result<Self, Problem> {
        let name = root::reserved_name()?;
        Ok(Self { folder: folder.try_clone()?, name, gone: false })
    }

    /// Gives the file `name` where nothing stands under it; dropping takes the reserved name off.
    fn publish_new(self, name: &Name) -> Result<(), Problem> {
        match fs::linkat(&self.folder, self.name.as_bytes(), &self.folder, name.as_bytes(), AtFlags::empty()) {
            // A file system without hard links (FAT).
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => self.rename(name, RenameFlags::NOREPLACE),
            done => Ok(done?),
        }
    }

    fn rename(mut self, name: &Name, flags: RenameFlags) -> Result<(), Problem> {
        fs::renameat_with(&self.folder, self.name.as_bytes(), &self.folder, name.as_bytes(), flags)
            .map_err(|errno| root::rename_problem(errno, false, flags))?;
        self.gone = true;
        Ok(())
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        if !self.gone {
            let _ = fs::unlinkat(&self.folder, self.name.as_bytes(), AtFlags::empty());
        }
    }
}

const NEW_FILE_FLAGS: OFlags = OFlags::WRONLY.union(OFlags::CLOEXEC);

/// Permission bits of new files, before the process's umask.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

/// Permission bits of files that others could open by guessing a name.
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);

/// The process's umask. From `/proc`, as `umask(2)` cannot tell it without changing it for every
/// thread.
static UMASK: LazyLock<Mode> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    umask_in(&status).unwrap_or(Mode::from_raw_mode(0o022))
});

pub(super) fn umask_in(status: &str) -> Option<Mode> {
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok().map(Mode::from_raw_mode)
}

/// Says early what publishing would say after the whole body. Only publishing decides.
fn check_target(folder: &OwnedFd, name: &Name, file: NewFile) -> Result<(), Problem> {
    match fs::statat(folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if root::kind(&stat) == Kind::Folder => Err(Problem::IsFolder),
        Ok(stat) if file.accept_same && stat.st_size as u64 == file.size => Ok(()),
        Ok(_) if !file.overwrite => Err(Problem::Exists),
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
