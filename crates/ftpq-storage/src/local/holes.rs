//! Where a file has holes (`SEEK_HOLE`, `lseek(2)`).

use std::os::fd::OwnedFd;

use ftpq_proto::{Hole, Holes, limits::HOLES_MAX};
use rustix::{
    fs::{SeekFrom, Stat},
    io::Errno,
};

use super::sys::Sys;

/// The holes in `length` bytes from `start` on, counted from there. A file system that knows of none,
/// or an error, is no holes: they only save work.
pub(super) fn find(sys: &Sys, file: &OwnedFd, stat: &Stat, start: u64, length: u64) -> Holes {
    if !may_have(stat) {
        return Holes::NONE;
    }
    let end = start.saturating_add(length);
    let (mut holes, mut at) = (Vec::new(), start);
    while at < end && holes.len() < HOLES_MAX {
        let Ok(hole) = sys.seek(file, SeekFrom::Hole(at)) else { break };
        if hole >= end {
            break;
        }
        at = match sys.seek(file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(end),
            // No data after the hole: it reaches to the end.
            Err(Errno::NXIO) => end,
            Err(_) => break,
        };
        if at > hole {
            holes.push(Hole { offset: hole - start, length: at - hole });
        }
    }
    Holes::new(holes).unwrap_or_default()
}

/// Most files take the room they need, and have none.
pub(super) fn may_have(stat: &Stat) -> bool {
    const BLOCK_OF_STAT: u64 = 512;
    (stat.st_blocks as u64).saturating_mul(BLOCK_OF_STAT) < stat.st_size as u64
}
