//! Bytes on their way into a part of an open file: digested, and put where they belong between the
//! holes. Everything here blocks.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
};

use ftpq_proto::{Digest, Extent, Hole, Holes};
use rustix::{fs::FallocateFlags, io::Errno};

use super::sys::Sys;
use crate::{error::Problem, hash::BodyHasher};

pub(super) struct Sink {
    sys: Sys,
    disk: Disk,
    hasher: BodyHasher,
    /// Where the part begins in the file, and its bytes if anybody knows.
    start: u64,
    length: Option<u64>,
    /// Bytes of the part that are dealt with, holes included.
    done: u64,
    /// Those that are not, in order.
    holes: std::vec::IntoIter<Hole>,
    next_hole: Option<Hole>,
}

/// One of a file's, held while bytes are written. The kernel lets one at a time write into a file, and has the
/// others burn a processor meanwhile that a transfer has better use for.
pub(super) type Disk = Arc<Mutex<()>>;

impl Sink {
    /// For a whole file of `length` bytes.
    pub(super) fn whole(sys: Sys, length: Option<u64>, holes: &Holes) -> Self {
        Self::new(sys, Disk::default(), None, length, holes)
    }

    /// For one extent of a file, whose other extents have the same `disk`.
    pub(super) fn extent(sys: Sys, disk: Disk, extent: Extent, holes: &Holes) -> Self {
        Self::new(sys, disk, Some(extent), Some(extent.length), holes)
    }

    fn new(sys: Sys, disk: Disk, extent: Option<Extent>, length: Option<u64>, holes: &Holes) -> Self {
        let mut holes = holes.iter().collect::<Vec<_>>().into_iter();
        let next_hole = holes.next();
        let start = extent.map_or(0, |extent| extent.offset);
        Self { sys, disk, hasher: BodyHasher::new(extent), start, length, done: 0, holes, next_hole }
    }

    /// The next bytes that are in no hole.
    pub(super) fn write(&mut self, file: BorrowedFd<'_>, mut block: &[u8]) -> Result<(), Problem> {
        while !block.is_empty() {
            self.pass_holes(file)?;
            let until_hole = self.next_hole.map_or(u64::MAX, |hole| hole.offset - self.done);
            let (bytes, rest) = block.split_at(until_hole.min(block.len() as u64) as usize);
            self.fits(bytes.len() as u64)?;
            self.hasher.update(bytes);
            let _alone = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
            write_all(&self.sys, file, bytes, self.start + self.done)?;
            self.done += bytes.len() as u64;
            block = rest;
        }
        Ok(())
    }

    /// After the last byte: the part's digest and bytes.
    pub(super) fn finish(mut self, file: BorrowedFd<'_>) -> Result<(Digest, u64), Problem> {
        self.pass_holes(file)?;
        match self.length {
            Some(announced) if announced != self.done => Err(Problem::Length { announced, actual: self.done }),
            _ => Ok((self.hasher.finish(), self.done)),
        }
    }

    fn pass_holes(&mut self, file: BorrowedFd<'_>) -> Result<(), Problem> {
        while let Some(hole) = self.next_hole
            && hole.offset <= self.done
        {
            self.fits(hole.length)?;
            clear(&self.sys, file, self.start + hole.offset, hole.length)?;
            self.hasher.zeros(hole.length);
            self.done += hole.length;
            self.next_hole = self.holes.next();
        }
        Ok(())
    }

    fn fits(&self, more: u64) -> Result<(), Problem> {
        let actual = self.done.saturating_add(more);
        match self.length {
            Some(announced) if actual > announced => Err(Problem::Length { announced, actual }),
            _ => Ok(()),
        }
    }
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all(sys: &Sys, file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> Result<(), Problem> {
    while !bytes.is_empty() {
        match sys.pwrite(file, bytes, offset) {
            Ok(0) => return Err(Problem::Io(std::io::ErrorKind::WriteZero.into())),
            Ok(len) => {
                bytes = bytes.get(len..).unwrap_or_default();
                offset += len as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes a hole: an earlier attempt may have left something there.
fn clear(sys: &Sys, file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Problem> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match sys.fallocate(file, flags, offset, length) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => return write_zeros(sys, file, offset, length),
            Err(error) => return Err(error.into()),
        }
    }
}

/// On file systems without holes.
fn write_zeros(sys: &Sys, file: BorrowedFd<'_>, mut offset: u64, mut length: u64) -> Result<(), Problem> {
    let zeros = vec![0; length.min(crate::BLOCK as u64) as usize];
    while length > 0 {
        let some = length.min(zeros.len() as u64);
        write_all(sys, file, zeros.get(..some as usize).unwrap_or_default(), offset)?;
        (offset, length) = (offset + some, length - some);
    }
    Ok(())
}
