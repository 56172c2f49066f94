//! A file that is written by extents, and what is kept of it when everything else is lost.
//!
//! It lies in the folder where the file will stand, under a reserved name that follows from its owner
//! and the final name: so it is found again without a list, by nobody else, and never across file
//! systems. Behind the room for the file's bytes it carries its journal: a header that says how the
//! file is cut, and a byte for each extent, which is set only after the extent was flushed. What the
//! journal lists is read again and proved before it is trusted, so a byte too many costs time and
//! nothing else; a byte too few costs an extent.
//!
//! One [`LocalStaging`] at a time may write: whoever begins takes over from the one before. The lock on
//! the file (`flock`) keeps other processes out. Everything here blocks; `extents.rs` is for those who
//! must not.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use ftpq_proto::{Digest, Extent, Extents, Holes, Kind, Name, RemotePath, UploadId, limits::HELD_PAGE_MAX};
use rustix::{
    fs::{self, AtFlags, FlockOperation, OFlags, Stat},
    io::Errno,
    process::geteuid,
};

use super::{
    journal::{self, HEADER, LISTED},
    publish::{PRIVATE_FILE, Target, set_metadata},
    root,
    sink::{self, Disk, Sink},
    sys::Sys,
    turns::Turns,
    write::reserve,
};
use crate::{BLOCK, HeldExtent, LargeFile, Publish, blocking::Wanted, error::Problem, hash::BodyHasher};

/// An open staged file. What holds it may write only while it is the latest to have begun.
#[derive(Debug)]
pub(super) struct StagedFile {
    sys: Sys,
    file: OwnedFd,
    name: Name,
    /// Device and inode: by which the same file is known again.
    pub(super) identity: (u64, u64),
    pub(super) extents: Extents,
    /// The number of the one that may write, or [`PUBLISHED`]. Locked for writing while that changes or
    /// the file is published, so that no write is under way then.
    writer: RwLock<u64>,
    /// How often each extent was begun. Locked while something is done to that extent.
    begun: Vec<Mutex<u32>>,
    disk: Disk,
    kept: Mutex<Vec<Kept>>,
    /// Taken before its locks are.
    pub(super) turns: Turns,
    /// Whether flushing has failed. The kernel tells one flush only, so all that wait must know.
    flush_failed: Mutex<bool>,
}

/// What is known of one extent.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// The journal lists it.
    listed: bool,
    /// This process has written or proved it.
    digest: Option<Digest>,
}

/// One extent being written, by the last to have begun it. Of two streams that carry the same extent,
/// the earlier must not write into what the later has finished.
pub(super) struct ExtentWriter {
    index: u32,
    begun: u32,
    sink: Sink,
}

/// One attempt at a staged file.
#[derive(Debug)]
pub(super) struct LocalStaging {
    pub(super) staged: Arc<StagedFile>,
    pub(super) id: UploadId,
    pub(super) path: RemotePath,
    pub(super) owner: Digest,
    pub(super) overwrite: bool,
    target: Target,
    /// Its number among the writers.
    number: u64,
}

impl StagedFile {
    /// Opens what is kept, or begins anew. [`Problem::Superseded`] if another process has it open.
    pub(super) fn open(sys: &Sys, target: &Target, name: &Name, file: &LargeFile) -> Result<Self, Problem> {
        let (fd, stat) = match open_own(sys, target, name, OFlags::CREATE)? {
            Some(own) => own,
            None => {
                make_room(sys, target, name)?;
                open_own(sys, target, name, OFlags::CREATE | OFlags::EXCL)?.ok_or(Problem::Superseded)?
            }
        };
        let staged = Self {
            sys: sys.clone(),
            file: fd,
            name: name.clone(),
            identity: (stat.st_dev, stat.st_ino),
            extents: file.extents,
            writer: RwLock::new(0),
            begun: (0..file.extents.count()).map(|_| Mutex::default()).collect(),
            disk: Disk::default(),
            kept: Mutex::default(),
            turns: Turns::default(),
            flush_failed: Mutex::new(false),
        };
        match staged.read_journal(stat.st_size as u64)?.filter(|_| !file.fresh) {
            Some(kept) => *staged.lock_kept() = kept,
            // After a power cut it must be found again.
            None => staged.begin_anew(file.sparse).and_then(|()| target.flush()).inspect_err(|_| {
                // On a full disk it must not keep what room it got.
                let _ = sys.unlink(&target.folder, staged.name.as_bytes());
            })?,
        }
        Ok(staged)
    }

    /// The identity of the staged file, if there is one.
    pub(super) fn find(target: &Target, name: &Name) -> Result<Option<(u64, u64)>, Problem> {
        match fs::statat(&target.folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it can be gone on with as `file`.
    pub(super) fn suits(&self, file: &LargeFile) -> bool {
        self.extents == file.extents && !file.fresh && !*self.lock_flush()
    }

    /// The next writer's number; those before may not write any more. `None` if the file was published:
    /// nobody may.
    pub(super) fn take_over(&self) -> Option<u64> {
        let mut writer = self.writer.write().unwrap_or_else(PoisonError::into_inner);
        *writer = writer.checked_add(1)?;
        Some(*writer)
    }

    /// Whether somebody has removed it: what it still takes is counted by nobody.
    pub(super) fn is_removed(&self) -> bool {
        fs::fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Asked before each block, as others may go on writing for a while.
    fn check_there(&self) -> Result<(), Problem> {
        if self.is_removed() {
            self.discard();
            return Err(Problem::NoUpload);
        }
        Ok(())
    }

    /// Gives back what it takes on disk, once it has no name: somebody may have it open for a while yet.
    pub(super) fn discard(&self) {
        let _ = self.sys.ftruncate(&self.file, 0);
    }

    /// Whether every extent is there.
    pub(super) fn is_complete(&self) -> bool {
        self.lock_kept().iter().all(|kept| kept.listed)
    }

    /// A page of the extents that are there, from the extent `from` on.
    pub(super) fn held(&self, from: u32) -> Vec<HeldExtent> {
        let kept = self.lock_kept();
        let held = (0..).zip(kept.iter()).skip(from as usize).filter(|(_, kept)| kept.listed);
        held.map(|(index, kept)| HeldExtent { index, digest: kept.digest }).take(HELD_PAGE_MAX).collect()
    }

    fn begin_anew(&self, sparse: bool) -> Result<(), Problem> {
        self.sys.ftruncate(&self.file, 0)?;
        *self.lock_kept() = vec![Kept::default(); self.extents.count() as usize];
        // First the journal, so that only publishing ever makes the file as long as it will be.
        self.write_journal()?;
        if sparse { Ok(()) } else { reserve(&self.sys, &self.file, self.extents.size()) }
    }

    /// What the journal lists; `None` if this is not a journal of this cut.
    fn read_journal(&self, size: u64) -> Result<Option<Vec<Kept>>, Problem> {
        let count = self.extents.count() as usize;
        let all = |listed| vec![Kept { listed, digest: None }; count];
        // Publishing takes the journal off, and was cut before the file had its name: all was there.
        if size == self.extents.size() {
            *self.lock_kept() = all(true);
            self.write_journal()?;
            return Ok(Some(all(true)));
        }
        let mut journal = Vec::with_capacity(HEADER + count);
        if read_full(&self.sys, &self.file, &mut journal, self.journal_at())? < HEADER + count {
            return Ok(None);
        }
        let (header, list) = journal.split_at(HEADER);
        if header != journal::header(self.extents) {
            return Ok(None);
        }
        Ok(Some(list.iter().map(|&byte| Kept { listed: byte == LISTED, digest: None }).collect()))
    }

    fn write_journal(&self) -> Result<(), Problem> {
        let mut journal = journal::header(self.extents).to_vec();
        journal.extend(self.lock_kept().iter().map(|kept| if kept.listed { LISTED } else { 0 }));
        sink::write_all(&self.sys, self.file.as_fd(), &journal, self.journal_at())
    }

    fn journal_at(&self) -> u64 {
        journal::begin(self.extents)
    }

    fn lock_kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_flush(&self) -> MutexGuard<'_, bool> {
        self.flush_failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_kept(&self, index: u32, kept: Kept) {
        if let Some(place) = self.lock_kept().get_mut(index as usize) {
            *place = kept;
        }
    }

    fn kept(&self, index: u32) -> Kept {
        self.lock_kept().get(index as usize).copied().unwrap_or_default()
    }

    /// Writes the journal's byte for `index`. It reaches the disk with a later flush.
    fn list(&self, index: u32, kept: Kept) -> Result<(), Problem> {
        let byte = if kept.listed { LISTED } else { 0 };
        let at = self.journal_at() + HEADER as u64 + u64::from(index);
        sink::write_all(&self.sys, self.file.as_fd(), &[byte], at)?;
        self.set_kept(index, kept);
        Ok(())
    }

    fn flush(&self) -> Result<(), Problem> {
        self.flush_once(|| self.sys.fdatasync(&self.file))
    }

    /// A failed flush is never tried again, and fails all that wait for one: the kernel may have
    /// dropped what it could not write, and tells only one of them.
    fn flush_once(&self, flush: impl FnOnce() -> Result<(), Errno>) -> Result<(), Problem> {
        let mut failed = self.lock_flush();
        if *failed {
            return Err(Problem::Io(std::io::Error::other("the disk has failed before")));
        }
        let flushed = flush();
        *failed = flushed.is_err();
        Ok(flushed?)
    }

    fn digest_of(&self, extent: Extent, wanted: &Wanted) -> Result<Digest, Problem> {
        let mut hasher = BodyHasher::new(Some(extent));
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        let mut block = Vec::with_capacity(BLOCK);
        while at < end {
            wanted.check()?;
            block.clear();
            let read = read_full(&self.sys, &self.file, &mut block, at)?;
            let wanted = (end - at).min(read as u64);
            if wanted == 0 {
                return Err(Problem::Changed);
            }
            hasher.update(block.get(..wanted as usize).unwrap_or_default());
            at += wanted;
        }
        Ok(hasher.finish())
    }
}

impl LocalStaging {
    /// `target` is where the file will stand; from now on this alone may write.
    pub(super) fn new(
        staged: Arc<StagedFile>,
        target: Target,
        path: RemotePath,
        file: &LargeFile,
    ) -> Result<Self, Problem> {
        let mut id = [0; 32];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        let number = staged.take_over().ok_or(Problem::Superseded)?;
        Ok(Self { staged, id: id.into(), path, owner: file.owner, overwrite: file.overwrite, target, number })
    }

    fn extent(&self, index: u32) -> Result<Extent, Problem> {
        self.staged.extents.get(index).ok_or(NO_EXTENT)
    }

    /// Begins an extent. The journal must not list one that is about to be overwritten.
    pub(super) fn begin_extent(&self, index: u32, holes: &Holes) -> Result<ExtentWriter, Problem> {
        let extent = self.extent(index)?;
        let _turn = self.my_turn()?;
        self.staged.check_there()?;
        let mut begun = self.lock_extent(index)?;
        *begun += 1;
        if self.staged.kept(index).listed {
            self.staged.list(index, Kept::default())?;
            self.staged.flush()?;
        }
        self.staged.set_kept(index, Kept::default());
        let StagedFile { sys, disk, .. } = &*self.staged;
        Ok(ExtentWriter { index, begun: *begun, sink: Sink::extent(sys.clone(), disk.clone(), extent, holes) })
    }

    pub(super) fn write(&self, writer: &mut ExtentWriter, block: &[u8]) -> Result<(), Problem> {
        let _turn = self.my_turn()?;
        let _extent = self.lock_latest(writer)?;
        self.staged.check_there()?;
        writer.sink.write(self.staged.file.as_fd(), block)
    }

    /// Makes a written extent durable, then lists it.
    pub(super) fn end_extent(&self, writer: ExtentWriter, expected: Digest) -> Result<Digest, Problem> {
        let _turn = self.my_turn()?;
        let _extent = self.lock_latest(&writer)?;
        let ExtentWriter { index, sink, .. } = writer;
        let (actual, _) = sink.finish(self.staged.file.as_fd())?;
        if actual != expected {
            return Err(Problem::DigestMismatch { expected, actual });
        }
        self.staged.flush()?;
        self.staged.list(index, Kept { listed: true, digest: Some(actual) })?;
        Ok(actual)
    }

    pub(super) fn prove(&self, index: u32, expected: Digest, wanted: &Wanted) -> Result<bool, Problem> {
        let extent = self.extent(index)?;
        let _turn = self.my_turn()?;
        let _extent = self.lock_extent(index)?;
        if !self.staged.kept(index).listed {
            return Ok(false);
        }
        let same = self.staged.digest_of(extent, wanted)? == expected;
        if same {
            self.staged.set_kept(index, Kept { listed: true, digest: Some(expected) });
        }
        Ok(same)
    }

    pub(super) fn publish(&self, publish: Publish, wanted: &Wanted) -> Result<Digest, Problem> {
        // Nobody writes from here on: what is published is what was digested.
        let mut writer = self.staged.writer.write().unwrap_or_else(PoisonError::into_inner);
        self.is_turn(*writer)?;
        let actual = self.joined(wanted)?;
        wanted.check()?;
        if actual != publish.digest {
            // Some extent is of another version: the next attempt must not meet it again.
            self.staged.lock_kept().iter_mut().for_each(|kept| *kept = Kept::default());
            self.staged.write_journal()?;
            return Err(Problem::DigestMismatch { expected: publish.digest, actual });
        }
        let StagedFile { sys, file, name, .. } = &*self.staged;
        sys.ftruncate(file, self.staged.extents.size())?;
        set_metadata(file, true, publish.mode, publish.mtime)?;
        let flushed = self.staged.flush_once(|| sys.fsync(file));
        let wanted = flushed.and_then(|()| wanted.check());
        let published = wanted.and_then(|()| self.target.publish_named(name, file, self.overwrite));
        published.map_err(|problem| {
            // Only what is private is gone on with. Its journal was cut off, and is kept on being written to.
            let _ = fs::fchmod(file, PRIVATE_FILE);
            let _ = self.staged.write_journal();
            // Somebody has removed its folder, and it with that.
            if matches!(problem, Problem::NotFound) { Problem::NoUpload } else { problem }
        })?;
        *writer = PUBLISHED;
        // Should the reserved name be left over, then it is nobody's.
        let _ = fs::flock(file, FlockOperation::Unlock);
        self.target.flush()?;
        Ok(actual)
    }

    /// The digest of the whole file. Extents that nobody has proved are read.
    fn joined(&self, wanted: &Wanted) -> Result<Digest, Problem> {
        let digests = self.staged.extents.iter().map(|extent| match self.staged.kept(extent.index) {
            Kept { digest: Some(digest), .. } => Ok(digest),
            Kept { listed: true, .. } => self.staged.digest_of(extent, wanted),
            Kept { listed: false, .. } => Err(Problem::Incomplete),
        });
        let digests = digests.collect::<Result<Vec<_>, _>>()?;
        crate::hash::join(&digests).ok_or(Problem::Refused("a file by extents has at least two"))
    }

    /// Keeps others from taking over meanwhile.
    fn my_turn(&self) -> Result<RwLockReadGuard<'_, u64>, Problem> {
        let writer = self.staged.writer.read().unwrap_or_else(PoisonError::into_inner);
        self.is_turn(*writer).map(|()| writer)
    }

    fn is_turn(&self, writer: u64) -> Result<(), Problem> {
        match writer {
            number if number == self.number => Ok(()),
            PUBLISHED => Err(Problem::NoUpload),
            _ => Err(Problem::Superseded),
        }
    }

    fn lock_extent(&self, index: u32) -> Result<MutexGuard<'_, u32>, Problem> {
        let begun = self.staged.begun.get(index as usize).ok_or(NO_EXTENT)?;
        Ok(begun.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_latest(&self, writer: &ExtentWriter) -> Result<MutexGuard<'_, u32>, Problem> {
        let begun = self.lock_extent(writer.index)?;
        if *begun != writer.begun {
            return Err(Problem::Refused("this extent was begun again"));
        }
        Ok(begun)
    }
}

/// Opens the staged file `name` and locks it. `None` if what stands there is not one to go on with: the
/// name can be guessed, and a crash may have left it to a file that is published under another as well.
fn open_own(sys: &Sys, target: &Target, name: &Name, create: OFlags) -> Result<Option<(OwnedFd, Stat)>, Problem> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | create;
    loop {
        let fd = match sys.openat(&target.folder, name.as_bytes(), flags, PRIVATE_FILE) {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(Errno::EXIST) => return Err(Problem::Superseded),
            // Publishing had set its final mode when it was cut, or it is somebody else's.
            Err(Errno::ACCESS | Errno::ISDIR) if stands(target, name) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match sys.flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            // Some network file systems have no locks: then this process alone is looked after.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => {}
            Err(Errno::WOULDBLOCK) => return Err(Problem::Superseded),
            Err(error) => return Err(error.into()),
        }
        let stat = fs::fstat(&fd)?;
        // Until it was locked, whoever had it may have published it.
        match fs::statat(&target.folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino) => {}
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        }
        return Ok(is_own(&stat).then_some((fd, stat)));
    }
}

/// Whether a file is one to go on with, by what the system says of it.
pub(super) fn is_own(stat: &Stat) -> bool {
    let own = root::kind(stat) == Kind::File && stat.st_uid == geteuid().as_raw() && stat.st_nlink == 1;
    // Others may have open what was ever open to them: they would see, or change, what comes next.
    let private = stat.st_mode & 0o077 == 0;
    own && private
}

fn stands(target: &Target, name: &Name) -> bool {
    fs::statat(&target.folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Removes what stands under the reserved name. Where somebody else's may not be removed, a name of one's
/// own has to be found.
fn make_room(sys: &Sys, target: &Target, name: &Name) -> Result<(), Problem> {
    match sys.unlink(&target.folder, name.as_bytes()) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ISDIR) => Err(Problem::Superseded),
        removed => Ok(removed?),
    }
}

/// The reserved name of what is kept for one owner and one final name.
pub(super) fn staged_name(name: &Name, file: &LargeFile) -> Result<Name, Problem> {
    let mut hasher = blake3::Hasher::new_derive_key("ftpq 2026-11-22 name of a staged file");
    hasher.update(file.owner.as_bytes());
    hasher.update(&[file.apart.is_some().into()]);
    hasher.update(file.apart.as_ref().map_or(&[], |word| word.as_bytes().as_slice()));
    hasher.update(name.as_bytes());
    root::reserved_name_of(hasher.finalize().as_bytes())
}

/// Fills the spare capacity of `buffer` from `at` on, as far as the file goes. Returns its bytes.
pub(super) fn read_full(sys: &Sys, file: &OwnedFd, buffer: &mut Vec<u8>, at: u64) -> Result<usize, Problem> {
    while buffer.len() < buffer.capacity() {
        let offset = at + buffer.len() as u64;
        match sys.pread(file, buffer, offset) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(buffer.len())
}

/// In place of a writer's number: nobody may write any more.
const PUBLISHED: u64 = u64::MAX;

const NO_EXTENT: Problem = Problem::Refused("the file has no such extent");
