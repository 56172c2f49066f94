//! Where a link leads, for who follows links: worked out from what a storage says of one name at a time.
//!
//! Storages follow no links, so this asks [`Storage::stat`] name by name and puts a link's target in the
//! place of its name, as a system would. It never goes above the storage's root. Whatever changes
//! meanwhile, or is said by a hostile server, can only lead to another path of the same storage, which
//! is then opened as any other is.

use ftpq_proto::{Entry, Kind, LinkTarget, Name, RemotePath};
use ftpq_storage::{Problem, Storage, StorageError};

/// Where a link leads.
#[derive(Debug, PartialEq)]
pub enum Followed {
    /// To this path, on which there is no link, and what stands there.
    To(RemotePath, Entry),
    /// Above the root of its storage, or to a place of the machine's.
    Out,
    /// Over more links than anybody would make.
    Loop,
}

/// Follows a link that lies in `folder`, on whose path there is no link.
pub(super) async fn follow(
    storage: &dyn Storage,
    folder: &RemotePath,
    target: &LinkTarget,
) -> Result<Followed, StorageError> {
    let mut here = folder.clone();
    let mut links = 1;
    // What is still to go through, the next last.
    let mut rest: Vec<Vec<u8>> = Vec::new();
    let mut next = Some(target.clone());
    loop {
        if let Some(target) = next.take() {
            if target.is_absolute() {
                return Ok(Followed::Out);
            }
            rest.extend(target.components().rev().map(Vec::from));
        }
        let entry = match rest.pop() {
            // A target of dots alone.
            None => storage.stat(&here).await?,
            Some(part) if part == b".." => {
                if here.is_root() {
                    return Ok(Followed::Out);
                }
                here = here.parent();
                if !rest.is_empty() {
                    continue;
                }
                storage.stat(&here).await?
            }
            Some(part) => {
                let below = Name::new(part).and_then(|name| here.join(&name));
                let below = below.map_err(|error| StorageError::new(&here, error))?;
                let entry = storage.stat(&below).await?;
                if entry.kind == Kind::Link {
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(Followed::Loop);
                    }
                    next = entry.target;
                    if next.is_none() {
                        return Err(StorageError::new(&below, Problem::NotRegular));
                    }
                    continue;
                }
                here = below;
                entry
            }
        };
        if rest.is_empty() {
            return Ok(Followed::To(here, entry));
        }
        if entry.kind != Kind::Folder {
            return Err(StorageError::new(&here, Problem::NotFolder));
        }
    }
}

/// Links on one way, as Linux counts them.
const LINKS_MAX: usize = 40;
