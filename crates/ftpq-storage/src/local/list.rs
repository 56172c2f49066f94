//! Listing a folder of any size in bounded memory.

use async_trait::async_trait;
use ftpq_proto::{
    Entry, Name, RemotePath,
    limits::{LIST_PAGE_BYTES, LIST_PAGE_MAX},
};
use rustix::{
    fs::{self, AtFlags, Dir},
    io::Errno,
};

use super::{
    lane::Lane,
    root::{self, FOLDER, Root},
};
use crate::{
    Listing,
    error::{Problem, StorageError},
};

/// An open folder and how far it was read.
pub(super) struct LocalListing {
    path: RemotePath,
    /// `None` after the last page, or after an error.
    dir: Option<Dir>,
    lane: Lane,
}

impl LocalListing {
    pub(super) fn open(root: &Root, path: &RemotePath) -> Result<Self, Problem> {
        let folder = root.open_beneath(path, FOLDER)?;
        Ok(Self { path: path.clone(), dir: Some(Dir::new(folder)?), lane: root.lane().clone() })
    }
}

#[async_trait]
impl Listing for LocalListing {
    async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, StorageError> {
        let Some(mut dir) = self.dir.take() else { return Ok(None) };
        let read = move |_: &mut _, _: &_| read_page(&mut dir).map(|page| (page, dir));
        let (page, dir) = self.lane.run(read).await.map_err(|problem| StorageError::new(&self.path, problem))?;
        if page.is_empty() {
            return Ok(None);
        }
        self.dir = Some(dir);
        Ok(Some(page))
    }
}

fn read_page(dir: &mut Dir) -> Result<Vec<Entry>, Problem> {
    let mut page = Vec::with_capacity(LIST_PAGE_MAX);
    let mut bytes = 0;
    while page.len() < LIST_PAGE_MAX && bytes < LIST_PAGE_BYTES {
        let Some(item) = dir.read() else { break };
        let item = item?;
        // `.` and `..` are no names.
        let Ok(name) = Name::new(item.file_name().to_bytes()) else { continue };
        if root::is_reserved(name.as_bytes()) {
            continue;
        }
        match fs::statat(dir.fd()?, item.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let entry = root::entry_in(dir.fd()?, name, &stat);
                bytes += entry.page_bytes();
                page.push(entry);
            }
            // Removed since the folder was read.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(page)
}
