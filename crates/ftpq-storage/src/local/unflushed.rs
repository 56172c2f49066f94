//! Folders that are being made. Others find them before their names are flushed, and what they put there would be lost
//! with them in a power cut, whatever they flush of it: so they flush the folder above, too.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{self, AtFlags, Mode},
    io::Errno,
};

use super::sys::Sys;

/// Those of one storage, and by how many they are being made. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unflushed(Arc<Mutex<HashMap<Entry, usize>>>);

/// A folder (device and inode), and a name in it.
type Entry = (u64, u64, Vec<u8>);

impl Unflushed {
    /// Makes the folder `name` in `parent`, durably. One that could not be flushed goes again; if something is in it
    /// already, it stays, and stays listed.
    pub(super) fn make(&self, sys: &Sys, parent: impl AsFd, name: &[u8], mode: Mode) -> Result<(), Errno> {
        let entry = entry(&parent, name)?;
        // Before it is there: whoever finds it must find this.
        *self.lock().entry(entry.clone()).or_default() += 1;
        let made = sys.mkdir(&parent, name, mode);
        let flushed = if made.is_ok() { sys.fsync(&parent) } else { Ok(()) };
        if flushed.is_err() && fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
            return flushed;
        }
        let mut list = self.lock();
        if let Some(count) = list.get_mut(&entry) {
            *count -= 1;
            if *count == 0 {
                list.remove(&entry);
            }
        }
        made.and(flushed)
    }

    /// Whether there are none, as nearly always.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Flushes `parent` if the folder `name` in it may not be on disk.
    pub(super) fn flush(&self, sys: &Sys, parent: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        let listed = self.lock().contains_key(&entry(&parent, name)?);
        if listed { sys.fsync(&parent) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Entry, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(parent: impl AsFd, name: &[u8]) -> Result<Entry, Errno> {
    let stat = fs::fstat(parent)?;
    Ok((stat.st_dev, stat.st_ino, name.to_vec()))
}
