//! The points at which the power may go, the states in which the disk is found then, and what must be there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    choices::{Choices, How},
    memory::{Content, Epoch, FolderState, Memory},
    *,
};

/// The disk of one story. Contents are cut into pieces at every place where a write begins or ends, and a
/// piece is known by its digest.
pub(super) struct Disk<'a> {
    story: &'a Story,
    pub(super) steps: Vec<Step>,
    pieces: HashMap<Inode, Pieces>,
}

pub(super) struct Pieces {
    /// Where they begin, and where the last ends.
    pub(super) bounds: Vec<u64>,
    pub(super) zeros: Vec<Digest>,
    /// As they are in [`Story::versions`], and then in [`Story::old`].
    versions: Vec<Vec<Digest>>,
    /// What the journal's header is, if there is a journal.
    header: Option<Digest>,
}

pub(super) enum Step {
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
pub(super) enum Change {
    Set(Vec<u8>, Option<Inode>),
    Rename(Vec<u8>, Vec<u8>),
}

impl<'a> Disk<'a> {
    pub(super) fn new(story: &'a Story) -> Self {
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
    pub(super) fn search(&self, missed: Option<usize>) -> Result<u64, String> {
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
                if !(old || new || foreign && !duty.published) {
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

    pub(super) fn is_named(&self, inode: Inode) -> bool {
        let named = |event: &Event| matches!(event, Event::Name { file: Some(file), .. } if *file == inode);
        inode == self.story.root || self.story.events.iter().any(named)
    }

    pub(super) fn outline(&self) -> String {
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

type Found = BTreeMap<String, (Inode, Content)>;

#[derive(Default)]
struct Duty {
    published: bool,
    listed: BTreeSet<u32>,
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
