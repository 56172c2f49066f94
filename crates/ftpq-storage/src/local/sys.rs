//! The system calls by which files come to be. They pass through here so that a test can make any of
//! them fail, or take note of what reached the disk in which order; otherwise this does nothing.

#[cfg(test)]
use std::sync::Arc;
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    buffer::spare_capacity,
    fs::{self, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom},
    io::{self, Errno},
};

/// The system, as one storage sees it.
#[derive(Clone, Default)]
pub(super) struct Sys {
    #[cfg(test)]
    pub(super) hook: Option<Arc<dyn Hook>>,
}

/// A system call that is about to be made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), allow(dead_code))] // only tests look inside
pub(super) enum Call<'a> {
    Openat2,
    Openat { folder: BorrowedFd<'a>, name: &'a [u8], flags: OFlags },
    Pwrite { file: BorrowedFd<'a>, bytes: &'a [u8], offset: u64 },
    Seek,
    Fallocate { file: BorrowedFd<'a>, flags: FallocateFlags, offset: u64, length: u64 },
    Ftruncate { file: BorrowedFd<'a>, length: u64 },
    Fsync { file: BorrowedFd<'a> },
    Linkat { file: BorrowedFd<'a>, folder: BorrowedFd<'a>, name: &'a [u8] },
    Renameat { folder: BorrowedFd<'a>, from: &'a [u8], to_folder: BorrowedFd<'a>, to: &'a [u8] },
    Unlinkat { folder: BorrowedFd<'a>, name: &'a [u8] },
    Pread,
    Flock,
    Mkdirat { folder: BorrowedFd<'a>, name: &'a [u8] },
}

/// What a test does about system calls.
#[cfg(test)]
pub(super) trait Hook: Send + Sync {
    /// Lets the call be made, with at most so many bytes; or fails it unmade.
    fn call(&self, call: Call<'_>) -> Result<usize, Errno>;
}

impl Sys {
    pub(super) fn openat2(
        &self,
        folder: BorrowedFd<'_>,
        path: &[u8],
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        self.enter(Call::Openat2)?;
        fs::openat2(folder, path, flags, Mode::empty(), resolve)
    }

    pub(super) fn openat(&self, folder: impl AsFd, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.enter(Call::Openat { folder: folder.as_fd(), name, flags })?;
        fs::openat(folder, name, flags, mode)
    }

    /// Writes some of `bytes`: returns how many.
    pub(super) fn pwrite(&self, file: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let most = self.enter(Call::Pwrite { file: file.as_fd(), bytes, offset })?;
        io::pwrite(file, bytes.get(..most).unwrap_or(bytes), offset)
    }

    /// Fills some of the spare capacity of `buffer`: returns how many bytes.
    pub(super) fn pread(&self, file: impl AsFd, buffer: &mut Vec<u8>, offset: u64) -> Result<usize, Errno> {
        self.enter(Call::Pread)?;
        io::pread(file, spare_capacity(buffer), offset)
    }

    pub(super) fn flock(&self, file: impl AsFd, operation: FlockOperation) -> Result<(), Errno> {
        self.enter(Call::Flock)?;
        fs::flock(file, operation)
    }

    /// Where the next data or hole is.
    pub(super) fn seek(&self, file: impl AsFd, to: SeekFrom) -> Result<u64, Errno> {
        self.enter(Call::Seek)?;
        fs::seek(file, to)
    }

    pub(super) fn fallocate(
        &self,
        file: impl AsFd,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        self.enter(Call::Fallocate { file: file.as_fd(), flags, offset, length })?;
        fs::fallocate(file, flags, offset, length)
    }

    pub(super) fn ftruncate(&self, file: impl AsFd, length: u64) -> Result<(), Errno> {
        self.enter(Call::Ftruncate { file: file.as_fd(), length })?;
        fs::ftruncate(file, length)
    }

    /// Contents and everything needed to find them again.
    pub(super) fn fdatasync(&self, file: impl AsFd) -> Result<(), Errno> {
        self.enter(Call::Fsync { file: file.as_fd() })?;
        fs::fdatasync(file)
    }

    pub(super) fn fsync(&self, file: impl AsFd) -> Result<(), Errno> {
        self.enter(Call::Fsync { file: file.as_fd() })?;
        fs::fsync(file)
    }

    /// Gives the open `file`, which may have no name yet, a name where nothing stands.
    pub(super) fn link(&self, file: impl AsFd, folder: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        use std::os::fd::AsRawFd;
        self.enter(Call::Linkat { file: file.as_fd(), folder: folder.as_fd(), name })?;
        // Before Linux 6.10, not every process may do it so.
        static BY_HANDLE: AtomicBool = AtomicBool::new(true);
        let by_handle = BY_HANDLE.load(Ordering::Relaxed);
        if by_handle {
            match fs::linkat(&file, c"", &folder, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT | Errno::PERM) => {}
                linked => return linked,
            }
        }
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        fs::linkat(CWD, path, folder, name, AtFlags::SYMLINK_FOLLOW)?;
        BY_HANDLE.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        folder: impl AsFd,
        from: &[u8],
        to_folder: impl AsFd,
        to: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.enter(Call::Renameat { folder: folder.as_fd(), from, to_folder: to_folder.as_fd(), to })?;
        fs::renameat_with(folder, from, to_folder, to, flags)
    }

    pub(super) fn unlink(&self, folder: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        self.enter(Call::Unlinkat { folder: folder.as_fd(), name })?;
        fs::unlinkat(folder, name, AtFlags::empty())
    }

    pub(super) fn mkdir(&self, folder: impl AsFd, name: &[u8], mode: Mode) -> Result<(), Errno> {
        self.enter(Call::Mkdirat { folder: folder.as_fd(), name })?;
        fs::mkdirat(folder, name, mode)
    }

    #[cfg(test)]
    fn enter(&self, call: Call<'_>) -> Result<usize, Errno> {
        self.hook.as_ref().map_or(Ok(usize::MAX), |hook| hook.call(call))
    }

    #[cfg(not(test))]
    #[inline]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn enter(&self, _: Call<'_>) -> Result<usize, Errno> {
        Ok(usize::MAX)
    }
}

impl fmt::Debug for Sys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sys")
    }
}
