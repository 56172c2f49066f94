//! A power cut at every point, on a model of a disk that may lose or keep whatever was not flushed.
//!
//! First every recipe by which a file appears is carried out, and what it asks of the system is recorded.
//! Then, for every point at which the power may go, the states are made in which the disk may be found:
//! - A folder has any number of the changes since its last flush, in order.
//! - A file has any of the lengths since its last flush; and of its contents each piece as it was, as any of
//!   the writes since has left it, or as nobody has written it. What was written behind a cut is there only
//!   if the cut is.
//!
//! Where these are too many, the worst ones are made (a single effect lost or kept), and random ones.

mod choices;
mod disk;
mod memory;
mod recorder;

use std::os::unix::fs::MetadataExt;

use ftpq_proto::Holes;

use self::{
    disk::{Disk, Step},
    recorder::{Event, Inode, Recorder},
};
use super::{
    staging::{BODY, extents, large},
    *,
};
use crate::{Publish, hash::BodyHasher};

#[tokio::test]
async fn t06_a_power_cut_at_every_point_loses_nothing_that_was_acknowledged() {
    let (mut states, mut points, mut flushes) = (0, 0, 0);
    for recipe in Recipe::ALL {
        let story = recipe.carry_out().await;
        let disk = Disk::new(&story);
        points += disk.steps.len() + 1 - story.prepared;
        states += disk.search(None).unwrap_or_else(|bad| panic!("{recipe:?}: {bad}"));
        // No flush is there in vain, and the model is not blind: without any one of them something is lost.
        for (at, step) in disk.steps.iter().enumerate().skip(story.prepared) {
            // What never got a name is flushed only in case it does.
            if let Step::Flush(inode) = step
                && disk.is_named(*inode)
            {
                let found = disk.search(Some(at));
                assert!(found.is_err(), "{recipe:?}: nobody misses the flush {at} of {}", disk.outline());
                flushes += 1;
            }
        }
    }
    println!("{states} states at {points} points; each of {flushes} flushes is missed");
    assert!(states > 50_000 && flushes > 25, "{states} states, {flushes} flushes");
}

/// How a file comes to be.
#[derive(Clone, Copy, Debug)]
enum Recipe {
    New,
    Blocks,
    Parents,
    Replace,
    /// Without `O_TMPFILE`.
    Named {
        overwrite: bool,
    },
    /// It is there already, but nobody knows whether on disk.
    Same,
    Extents {
        overwrite: bool,
    },
    SameExtents,
}

impl Recipe {
    const ALL: [Self; 10] = [
        Self::New,
        Self::Blocks,
        Self::Parents,
        Self::Replace,
        Self::Named { overwrite: false },
        Self::Named { overwrite: true },
        Self::Same,
        Self::Extents { overwrite: false },
        Self::Extents { overwrite: true },
        Self::SameExtents,
    ];

    fn path(self) -> &'static str {
        if let Self::Parents = self { "a/b/f" } else { "f" }
    }

    fn body(self) -> &'static [u8] {
        match self {
            Self::Extents { .. } | Self::SameExtents => &BODY,
            Self::Blocks => &BODY[..2 * BLOCK + 10],
            _ => &BODY[..1000],
        }
    }

    /// Carries it out; returns what the disk has seen.
    async fn carry_out(self) -> Story {
        let mut folder = Folder::new();
        let (path, body) = (remote(self.path()), self.body());
        let old = matches!(self, Self::Replace | Self::Named { overwrite: true } | Self::Extents { overwrite: true });
        let recorder = Arc::new(Recorder::default());
        if old {
            fs::write(folder.path("f"), OLD).unwrap();
            recorder.existing(&folder, OLD, true);
        }
        if let Self::Same | Self::SameExtents = self {
            fs::write(folder.path("f"), body).unwrap();
            recorder.existing(&folder, body, false);
        }
        let prepared = recorder.count();
        folder.hook(recorder.clone());
        let mut versions = vec![body.to_vec()];
        let file = NewFile {
            size: Some(body.len() as u64),
            overwrite: old,
            accept_same: matches!(self, Self::Same),
            parents: true,
            ..NewFile::default()
        };
        match self {
            Self::Extents { overwrite } => {
                let mut other = BODY.clone();
                other[..8 << 20].iter_mut().for_each(|byte| *byte ^= 0xff);
                by_extents(&folder, overwrite, &other, &recorder).await.unwrap();
                versions.push(other);
            }
            Self::SameExtents => {
                let file = LargeFile { same: Some(digest(body)), ..large() };
                assert!(folder.storage.begin(&path, file).await.unwrap().is_none());
            }
            Self::Named { .. } => {
                let root = &folder.storage.root;
                let target = publish::Target::find(root, &path, false).unwrap();
                let mut staged = write::Staged::begin_named(root.sys(), target, file).unwrap();
                staged.write(body).unwrap();
                staged.commit(digest(body), &Wanted::default()).unwrap();
            }
            _ => {
                let mut upload = folder.storage.create(&path, file).await.unwrap();
                for block in body.chunks(BLOCK) {
                    upload.write(Bytes::from_static(block)).await.unwrap();
                }
                upload.commit(digest(body)).await.unwrap();
            }
        }
        recorder.note(Event::Published);
        let root = fs::metadata(folder.path("")).unwrap().ino();
        Story { root, path: self.path(), old: old.then_some(OLD), versions, prepared, events: recorder.finish() }
    }
}

/// Three extents: the first of them in another version before, the other two at once.
async fn by_extents(folder: &Folder, overwrite: bool, other: &[u8], recorder: &Recorder) -> Result<(), Problem> {
    let LocalFs { root, stagings } = &folder.storage;
    let file = LargeFile { overwrite, ..large() };
    let staging = stagings.begin(root.clone(), remote("f"), file).await?.unwrap();
    for together in [vec![(0, other)], vec![(0, &BODY)], vec![(1, &BODY), (2, &BODY)]] {
        let mut writers = Vec::new();
        for (index, body) in together {
            recorder.note(Event::Begun(index));
            let extent = extents().get(index).unwrap();
            let bytes = &body[extent.offset as usize..][..extent.length as usize];
            let mut hasher = BodyHasher::new(Some(extent));
            hasher.update(bytes);
            writers.push((index, staging.begin_extent(index, &Holes::NONE)?, bytes.chunks(1 << 20), hasher));
        }
        while !writers.is_empty() {
            for (at, (_, writer, blocks, _)) in writers.iter_mut().enumerate().rev() {
                match blocks.next() {
                    Some(block) => staging.write(writer, block)?,
                    None => {
                        let (index, writer, _, hasher) = writers.remove(at);
                        staging.end_extent(writer, hasher.finish())?;
                        recorder.note(Event::Ended(index));
                        break;
                    }
                }
            }
        }
    }
    staging.publish(Publish { digest: digest(&BODY), mode: None, mtime: None }, &Wanted::default()).map(drop)
}

/// What stands there before, where something does.
const OLD: &[u8] = b"what was there before";

/// What was recorded of one recipe.
struct Story {
    root: Inode,
    path: &'static str,
    old: Option<&'static [u8]>,
    /// What the file may contain: first what is published, then what its extents were before.
    versions: Vec<Vec<u8>>,
    /// How many of the events were before.
    prepared: usize,
    events: Vec<Event>,
}
