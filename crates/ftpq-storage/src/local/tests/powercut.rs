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

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::Mutex,
};

use ftpq_proto::Holes;
use rustix::{
    fs::{AtFlags, FallocateFlags, OFlags, fstat, statat},
    io::Errno,
};

use super::{
    staging::{BODY, extents, large},
    sys::Call,
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
        let prepared = recorder.0.lock().unwrap().events.len();
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
                by_extents(&folder, overwrite, &other, &recorder).unwrap();
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
                staged.commit(digest(body)).unwrap();
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
fn by_extents(folder: &Folder, overwrite: bool, other: &[u8], recorder: &Recorder) -> Result<(), Problem> {
    let LocalFs { root, stagings } = &folder.storage;
    let staging = stagings.begin(root, &remote("f"), &LargeFile { overwrite, ..large() })?.unwrap();
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
    staging.publish(Publish { digest: digest(&BODY), mode: None, mtime: None }).map(drop)
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

type Inode = u64;

enum Event {
    Name {
        folder: Inode,
        name: Vec<u8>,
        file: Option<Inode>,
    },
    Rename {
        folder: Inode,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Write {
        file: Inode,
        offset: u64,
        bytes: Vec<u8>,
    },
    Reserve {
        file: Inode,
        length: u64,
    },
    Truncate {
        file: Inode,
        length: u64,
    },
    Flush(Inode),
    /// An extent is about to be written: what was acknowledged of it is void.
    Begun(u32),
    /// An extent was acknowledged.
    Ended(u32),
    /// The file was acknowledged.
    Published,
}

/// Writes down what the disk is asked for.
#[derive(Default)]
struct Recorder(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    events: Vec<Event>,
    /// What is about to be made, so that it can be looked at afterwards.
    coming: Option<(OwnedFd, Vec<u8>)>,
    /// No number may be given to another file meanwhile.
    open: HashMap<Inode, OwnedFd>,
}

impl Recorder {
    /// The file `f`, which is there already.
    fn existing(&self, folder: &Folder, bytes: &[u8], flushed: bool) {
        let inode = |name| fs::metadata(folder.path(name)).unwrap().ino();
        let (root, file) = (inode(""), inode("f"));
        self.0.lock().unwrap().open.insert(file, fs::File::open(folder.path("f")).unwrap().into());
        self.note(Event::Name { folder: root, name: b"f".to_vec(), file: Some(file) });
        self.note(Event::Write { file, offset: 0, bytes: bytes.to_vec() });
        if flushed {
            self.note(Event::Flush(file));
            self.note(Event::Flush(root));
        }
    }

    fn note(&self, event: Event) {
        let mut notes = self.0.lock().unwrap();
        notes.look_at_new();
        notes.events.push(event);
    }

    fn finish(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }
}

impl Notes {
    fn look_at_new(&mut self) {
        if let Some((folder, name)) = self.coming.take()
            && let Ok(stat) = statat(&folder, &*name, AtFlags::SYMLINK_NOFOLLOW)
        {
            let folder = self.inode(folder.as_fd());
            self.events.push(Event::Name { folder, name, file: Some(stat.st_ino) });
        }
    }

    fn inode(&mut self, file: BorrowedFd<'_>) -> Inode {
        let inode = fstat(file).unwrap().st_ino;
        self.open.entry(inode).or_insert_with(|| file.try_clone_to_owned().unwrap());
        inode
    }
}

impl sys::Hook for Recorder {
    fn call(&self, call: Call<'_>) -> Result<usize, Errno> {
        let notes = &mut *self.0.lock().unwrap();
        notes.look_at_new();
        let there = |folder, name: &[u8]| statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let event = match call {
            Call::Openat { folder, name, flags } if flags.contains(OFlags::CREATE) && !there(folder, name) => {
                notes.coming = Some((folder.try_clone_to_owned().unwrap(), name.to_vec()));
                return Ok(usize::MAX);
            }
            Call::Mkdirat { folder, name } if !there(folder, name) => {
                notes.coming = Some((folder.try_clone_to_owned().unwrap(), name.to_vec()));
                return Ok(usize::MAX);
            }
            Call::Openat2 | Call::Openat { .. } | Call::Mkdirat { .. } | Call::Pread => return Ok(usize::MAX),
            Call::Pwrite { file, bytes, offset } => {
                Event::Write { file: notes.inode(file), offset, bytes: bytes.to_vec() }
            }
            Call::Fallocate { file, flags, offset, length } => {
                assert_eq!(flags, FallocateFlags::empty(), "no recipe has holes");
                Event::Reserve { file: notes.inode(file), length: offset + length }
            }
            Call::Ftruncate { file, length } => Event::Truncate { file: notes.inode(file), length },
            Call::Fsync { file } => Event::Flush(notes.inode(file)),
            Call::Linkat { file, folder, name } => {
                if there(folder, name) {
                    return Ok(usize::MAX);
                }
                let (folder, file) = (notes.inode(folder), Some(notes.inode(file)));
                Event::Name { folder, name: name.to_vec(), file }
            }
            Call::Unlinkat { folder, name } => {
                Event::Name { folder: notes.inode(folder), name: name.to_vec(), file: None }
            }
            Call::Renameat { folder, from, to_folder, to } => {
                let (folder, to_folder) = (notes.inode(folder), notes.inode(to_folder));
                assert_eq!(folder, to_folder, "no recipe moves a file to another folder");
                Event::Rename { folder, from: from.to_vec(), to: to.to_vec() }
            }
        };
        notes.events.push(event);
        Ok(usize::MAX)
    }
}

/// The disk of one story. Contents are cut into pieces at every place where a write begins or ends, and a
/// piece is known by its digest.
struct Disk<'a> {
    story: &'a Story,
    steps: Vec<Step>,
    pieces: HashMap<Inode, Pieces>,
}

struct Pieces {
    /// Where they begin, and where the last ends.
    bounds: Vec<u64>,
    zeros: Vec<Digest>,
    /// As they are in [`Story::versions`], and then in [`Story::old`].
    versions: Vec<Vec<Digest>>,
    /// What the journal's header is, if there is a journal.
    header: Option<Digest>,
}

enum Step {
    Name { folder: Inode, change: Change },
    Write { file: Inode, pieces: Vec<(usize, Digest)>, end: u64 },
    Reserve { file: Inode, length: u64 },
    Truncate { file: Inode, length: u64 },
    Flush(Inode),
    Begun(u32),
    Ended(u32),
    Published,
}

#[derive(Clone)]
enum Change {
    Set(Vec<u8>, Option<Inode>),
    Rename(Vec<u8>, Vec<u8>),
}

impl<'a> Disk<'a> {
    fn new(story: &'a Story) -> Self {
        let mut bounds: HashMap<Inode, BTreeSet<u64>> = HashMap::new();
        for event in &story.events {
            let (file, places) = match event {
                Event::Write { file, offset, bytes } => (file, [*offset, offset + bytes.len() as u64]),
                Event::Reserve { file, length } | Event::Truncate { file, length } => (file, [0, *length]),
                _ => continue,
            };
            bounds.entry(*file).or_default().extend(places);
        }
        let bodies = || story.versions.iter().map(Vec::as_slice).chain(story.old);
        let pieces = bounds.into_iter().map(|(file, mut bounds)| {
            bounds.extend(bodies().map(|body| body.len() as u64));
            bounds.insert(0);
            let bounds: Vec<_> = bounds.into_iter().collect();
            let cut = |body: &[u8]| bounds.windows(2).map_while(|at| piece(body, at[0], at[1])).collect();
            let zeros = bounds.windows(2).map(|at| digest(&vec![0; (at[1] - at[0]) as usize])).collect();
            let header = story.events.iter().find_map(|event| match event {
                Event::Write { offset, bytes, .. } if *offset == journal_at() => Some(digest(&bytes[..HEADER])),
                _ => None,
            });
            (file, Pieces { versions: bodies().map(cut).collect(), zeros, bounds, header })
        });
        let pieces: HashMap<_, _> = pieces.collect();
        let steps = story.events.iter().map(|event| Step::of(event, &pieces)).collect();
        Self { story, steps, pieces }
    }

    /// Goes through all states after all points. `missed` is a flush that was not made. Returns how many, or
    /// what is wrong with one.
    fn search(&self, missed: Option<usize>) -> Result<u64, String> {
        let mut states = 0;
        for point in self.story.prepared..=self.steps.len() {
            let memory = self.replay(point, missed);
            let duty = self.duty(point);
            let mut look = |choices: &mut Choices| {
                states += 1;
                choices.at = 0;
                let found = self.found(&memory, choices);
                self.check(&found, &duty).map_err(|bad| {
                    let how = choices.how;
                    format!("{bad}, after {point} of {}; {how:?}, {found:?}", self.outline())
                })
            };
            let mut choices = Choices::new(How::All);
            loop {
                look(&mut choices)?;
                if !choices.next() || choices.tried > ALL_UP_TO {
                    break;
                }
            }
            if choices.tried <= ALL_UP_TO {
                continue;
            }
            look(&mut Choices::new(How::Oldest))?;
            for place in 0..choices.taken.len() * 2 {
                look(&mut Choices::new(How::AllButOneOldest(place)))?;
                for option in 1..4 {
                    look(&mut Choices::new(How::OneNotNewest(place, option)))?;
                }
            }
            for seed in 0..RANDOM {
                look(&mut Choices::new(How::Random(seed + point as u64 * RANDOM)))?;
            }
        }
        Ok(states)
    }

    /// What is in memory and on disk after the first `point` steps.
    fn replay(&self, point: usize, missed: Option<usize>) -> Memory {
        let mut memory = Memory::default();
        memory.folders.insert(self.story.root, FolderState::default());
        for (at, step) in self.steps[..point].iter().enumerate() {
            match step {
                Step::Name { folder, change } => {
                    memory.folders.entry(*folder).or_default().changes.push(change.clone());
                }
                Step::Write { file, pieces, end } => {
                    let epoch = memory.latest(*file, &self.pieces[file]);
                    for (piece, value) in pieces {
                        epoch.put(*piece, *value);
                    }
                    epoch.grow(*end);
                }
                Step::Reserve { file, length } => memory.latest(*file, &self.pieces[file]).grow(*length),
                Step::Truncate { file, length } => {
                    let pieces = &self.pieces[file];
                    let before = memory.latest(*file, pieces).clone();
                    let epochs = memory.files.get_mut(file).unwrap();
                    epochs.push(before.truncated(*length, pieces));
                }
                Step::Flush(_) if missed == Some(at) => {}
                Step::Flush(inode) => match memory.files.get_mut(inode) {
                    Some(epochs) => *epochs = vec![epochs.last().unwrap().flushed()],
                    None => memory.folders.entry(*inode).or_default().flush(),
                },
                Step::Begun(_) | Step::Ended(_) | Step::Published => {}
            }
        }
        memory
    }

    /// What must be there after `point`.
    fn duty(&self, point: usize) -> Duty {
        let steps = &self.steps[..point];
        let mut duty = Duty { published: steps.iter().any(|step| matches!(step, Step::Published)), ..Duty::default() };
        // An extent's byte in the journal is on disk with the next flush.
        let mut ended = BTreeSet::new();
        for step in steps {
            match step {
                Step::Ended(index) => drop(ended.insert(*index)),
                Step::Begun(index) => {
                    ended.remove(index);
                    duty.listed.remove(index);
                }
                Step::Flush(inode) if self.pieces.contains_key(inode) => duty.listed.extend(&ended),
                _ => {}
            }
        }
        duty
    }

    /// One of the states in which the disk may be found.
    fn found(&self, memory: &Memory, choices: &mut Choices) -> Found {
        let mut found = Found::new();
        let mut contents = HashMap::new();
        let mut folders = vec![(String::new(), self.story.root)];
        while let Some((path, folder)) = folders.pop() {
            for (name, inode) in memory.folders.get(&folder).map(|state| state.pick(choices)).unwrap_or_default() {
                let path = format!("{path}{}", String::from_utf8_lossy(&name));
                match memory.files.get(&inode) {
                    Some(epochs) => {
                        let content = contents.entry(inode).or_insert_with(|| Epoch::pick(epochs, choices));
                        found.insert(path, (inode, content.clone()));
                    }
                    None => folders.push((path + "/", inode)),
                }
            }
        }
        found
    }

    /// Whether every promise is kept.
    fn check(&self, found: &Found, duty: &Duty) -> Result<(), String> {
        let there = match found.get(self.story.path) {
            None if self.story.old.is_some() => return Err("the old file is gone".into()),
            None => false,
            Some((file, content)) => {
                let versions = &self.pieces[file].versions;
                let old = self.story.old.is_some_and(|old| content.is(old.len(), versions.last().unwrap()));
                let new = content.is(self.story.versions[0].len(), &versions[0]);
                // What somebody else has written is his own affair until it is acknowledged.
                let foreign = self.story.prepared > 0 && self.story.old.is_none();
                if !old && !new && !(foreign && !duty.published) {
                    return Err("the file is neither the old nor the new one".into());
                }
                new
            }
        };
        if duty.published && !there {
            return Err("what was acknowledged is gone".into());
        }
        let mut listed = BTreeSet::new();
        for (path, (file, content)) in found {
            if path == self.story.path {
                continue;
            }
            if !root::is_reserved(path.as_bytes()) {
                return Err(format!("nobody made {path}"));
            }
            listed.extend(self.listed(*file, content)?);
        }
        if !there && !duty.listed.is_subset(&listed) {
            return Err(format!("{listed:?} are listed, {:?} were acknowledged", duty.listed));
        }
        Ok(())
    }

    /// What the journal of a staged file lists: only what is there.
    fn listed(&self, file: Inode, content: &Content) -> Result<BTreeSet<u32>, String> {
        let pieces = &self.pieces[&file];
        let Some(header) = pieces.header else { return Ok(BTreeSet::new()) };
        let at = |place: u64| content.pieces[pieces.bounds.binary_search(&place).unwrap()];
        let count = extents().count();
        let byte = |index: u32| at(journal_at() + HEADER as u64 + u64::from(index)) == digest(&[1]);
        let listed: BTreeSet<u32> = if content.length == extents().size() {
            (0..count).collect()
        } else if content.length < journal_at() + HEADER as u64 + u64::from(count) || at(journal_at()) != header {
            BTreeSet::new()
        } else {
            (0..count).filter(|&index| byte(index)).collect()
        };
        for index in &listed {
            let extent = extents().get(*index).unwrap();
            let begin = pieces.bounds.binary_search(&extent.offset).unwrap();
            let end = pieces.bounds.binary_search(&(extent.offset + extent.length)).unwrap();
            let exact = |version: &Vec<Digest>| version.get(begin..end) == content.pieces.get(begin..end);
            if !pieces.versions[..self.story.versions.len()].iter().any(exact) {
                return Err(format!("extent {index} is listed, and is not there"));
            }
        }
        Ok(listed)
    }

    fn is_named(&self, inode: Inode) -> bool {
        let named = |event: &Event| matches!(event, Event::Name { file: Some(file), .. } if *file == inode);
        inode == self.story.root || self.story.events.iter().any(named)
    }

    fn outline(&self) -> String {
        let names: Vec<_> = self.steps.iter().map(Step::name).collect();
        names.join(" ")
    }
}

impl Step {
    fn of(event: &Event, pieces: &HashMap<Inode, Pieces>) -> Self {
        match event {
            Event::Name { folder, name, file } => {
                Self::Name { folder: *folder, change: Change::Set(name.clone(), *file) }
            }
            Event::Rename { folder, from, to } => {
                Self::Name { folder: *folder, change: Change::Rename(from.clone(), to.clone()) }
            }
            Event::Write { file, offset, bytes } => {
                let (bounds, end) = (&pieces[file].bounds, offset + bytes.len() as u64);
                let written = bounds.windows(2).enumerate().filter(|(_, at)| at[0] >= *offset && at[1] <= end);
                let written = written.map(|(index, at)| (index, piece(bytes, at[0] - offset, at[1] - offset).unwrap()));
                Self::Write { file: *file, pieces: written.collect(), end }
            }
            Event::Reserve { file, length } => Self::Reserve { file: *file, length: *length },
            Event::Truncate { file, length } => Self::Truncate { file: *file, length: *length },
            Event::Flush(inode) => Self::Flush(*inode),
            Event::Begun(index) => Self::Begun(*index),
            Event::Ended(index) => Self::Ended(*index),
            Event::Published => Self::Published,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Name { change: Change::Set(_, Some(_)), .. } => "link",
            Self::Name { change: Change::Set(_, None), .. } => "unlink",
            Self::Name { change: Change::Rename(..), .. } => "rename",
            Self::Write { .. } => "write",
            Self::Reserve { .. } => "reserve",
            Self::Truncate { .. } => "truncate",
            Self::Flush(_) => "flush",
            Self::Begun(_) => "(begun)",
            Self::Ended(_) => "(ended)",
            Self::Published => "(published)",
        }
    }
}

/// Everything that is on disk or on its way there.
#[derive(Default)]
struct Memory {
    folders: HashMap<Inode, FolderState>,
    /// A file's epochs, each of them begun by a cut.
    files: HashMap<Inode, Vec<Epoch>>,
}

impl Memory {
    fn latest(&mut self, file: Inode, pieces: &Pieces) -> &mut Epoch {
        let new = || Epoch { lengths: vec![0], pieces: pieces.zeros.iter().map(|&zeros| vec![zeros]).collect() };
        self.files.entry(file).or_insert_with(|| vec![new()]).last_mut().unwrap()
    }
}

#[derive(Default)]
struct FolderState {
    flushed: BTreeMap<Vec<u8>, Inode>,
    changes: Vec<Change>,
}

impl FolderState {
    fn flush(&mut self) {
        self.flushed = self.after(self.changes.len());
        self.changes.clear();
    }

    fn pick(&self, choices: &mut Choices) -> BTreeMap<Vec<u8>, Inode> {
        self.after(self.changes.len() - choices.pick(self.changes.len() + 1))
    }

    fn after(&self, count: usize) -> BTreeMap<Vec<u8>, Inode> {
        let mut names = self.flushed.clone();
        for change in &self.changes[..count] {
            match change {
                Change::Set(name, Some(inode)) => drop(names.insert(name.clone(), *inode)),
                Change::Set(name, None) => drop(names.remove(name)),
                Change::Rename(from, to) => {
                    let inode = names.remove(from).unwrap();
                    names.insert(to.clone(), inode);
                }
            }
        }
        names
    }
}

/// What a file's length and pieces may be, the newest last.
#[derive(Clone)]
struct Epoch {
    lengths: Vec<u64>,
    pieces: Vec<Vec<Digest>>,
}

impl Epoch {
    fn put(&mut self, piece: usize, value: Digest) {
        if self.pieces[piece].last() != Some(&value) {
            self.pieces[piece].push(value);
        }
    }

    fn grow(&mut self, length: u64) {
        if *self.lengths.last().unwrap() < length {
            self.lengths.push(length);
        }
    }

    fn truncated(mut self, length: u64, pieces: &Pieces) -> Self {
        self.lengths = vec![length];
        for (index, at) in pieces.bounds.windows(2).enumerate() {
            if at[0] >= length {
                self.pieces[index] = vec![pieces.zeros[index]];
            }
        }
        self
    }

    fn flushed(&self) -> Self {
        let newest = |values: &Vec<Digest>| vec![*values.last().unwrap()];
        Self { lengths: vec![*self.lengths.last().unwrap()], pieces: self.pieces.iter().map(newest).collect() }
    }

    fn pick(epochs: &[Self], choices: &mut Choices) -> Content {
        let epoch = &epochs[epochs.len() - 1 - choices.pick(epochs.len())];
        let length = epoch.lengths[epoch.lengths.len() - 1 - choices.pick(epoch.lengths.len())];
        let pieces = epoch.pieces.iter().map(|values| match values.as_slice() {
            [only] => *only,
            values => match choices.pick(values.len() + 1) {
                0 => values[values.len() - 1],
                1 => Digest::from(GARBAGE),
                option => values[values.len() - option],
            },
        });
        Content { length, pieces: pieces.collect() }
    }
}

/// What nobody has written.
const GARBAGE: [u8; 32] = *b"a torn write, or a fresh block  ";

type Found = BTreeMap<String, (Inode, Content)>;

#[derive(Clone)]
struct Content {
    length: u64,
    pieces: Vec<Digest>,
}

impl Content {
    fn is(&self, length: usize, version: &[Digest]) -> bool {
        self.length == length as u64 && self.pieces.starts_with(version)
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.length)
    }
}

#[derive(Default)]
struct Duty {
    published: bool,
    listed: BTreeSet<u32>,
}

/// Which of the states is looked at: for each thing that may have one of several values, which one. 0 is the
/// newest, the last the oldest.
struct Choices {
    how: How,
    /// What was taken, and of how many.
    taken: Vec<(usize, usize)>,
    at: usize,
    tried: usize,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
enum How {
    All,
    Oldest,
    OneNotNewest(usize, usize),
    AllButOneOldest(usize),
    /// The seed.
    Random(u64),
}

impl Choices {
    fn new(how: How) -> Self {
        let random = if let How::Random(seed) = how { seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 } else { 0 };
        Self { how, taken: Vec::new(), at: 0, tried: 0, random }
    }

    fn pick(&mut self, of: usize) -> usize {
        if of == 1 {
            return 0;
        }
        let at = self.at;
        self.at += 1;
        match self.how {
            How::All => {
                if at == self.taken.len() {
                    self.taken.push((0, of));
                }
                self.taken[at].0
            }
            How::Oldest => of - 1,
            How::OneNotNewest(place, option) => {
                if at == place {
                    option.min(of - 1)
                } else {
                    0
                }
            }
            How::AllButOneOldest(place) => {
                if at == place {
                    0
                } else {
                    of - 1
                }
            }
            How::Random(_) => {
                // xorshift64
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                (self.random >> 33) as usize % of
            }
        }
    }

    /// The next of all; false after the last.
    fn next(&mut self) -> bool {
        self.tried += 1;
        self.taken.truncate(self.at);
        while let Some((taken, of)) = self.taken.pop() {
            if taken + 1 < of {
                self.taken.push((taken + 1, of));
                return true;
            }
        }
        false
    }
}

/// States after one point that are all looked at; and how many random ones, where there are more.
const ALL_UP_TO: usize = 7000;
const RANDOM: u64 = 1000;

/// The digest of `bytes` from `begin` to `end`, if it has them.
fn piece(bytes: &[u8], begin: u64, end: u64) -> Option<Digest> {
    bytes.get(begin as usize..end as usize).map(digest)
}

/// Where the journal is, and how long its header. As in `stage.rs`, on purpose once more.
fn journal_at() -> u64 {
    extents().size().next_multiple_of(4096)
}
const HEADER: usize = 64;
