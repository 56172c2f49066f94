//! What was flushed, and what may have reached the disk besides.

use std::collections::{BTreeMap, HashMap};

use super::{
    choices::Choices,
    disk::{Change, Pieces},
    *,
};

/// Everything that is on disk or on its way there.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) folders: HashMap<Inode, FolderState>,
    /// A file's epochs, each of them begun by a cut.
    pub(super) files: HashMap<Inode, Vec<Epoch>>,
}

impl Memory {
    pub(super) fn latest(&mut self, file: Inode, pieces: &Pieces) -> &mut Epoch {
        let new = || Epoch { lengths: vec![0], pieces: pieces.zeros.iter().map(|&zeros| vec![zeros]).collect() };
        self.files.entry(file).or_insert_with(|| vec![new()]).last_mut().unwrap()
    }
}

#[derive(Default)]
pub(super) struct FolderState {
    flushed: BTreeMap<Vec<u8>, Inode>,
    pub(super) changes: Vec<Change>,
}

impl FolderState {
    pub(super) fn flush(&mut self) {
        self.flushed = self.after(self.changes.len());
        self.changes.clear();
    }

    pub(super) fn pick(&self, choices: &mut Choices) -> BTreeMap<Vec<u8>, Inode> {
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
pub(super) struct Epoch {
    lengths: Vec<u64>,
    pieces: Vec<Vec<Digest>>,
}

impl Epoch {
    pub(super) fn put(&mut self, piece: usize, value: Digest) {
        if self.pieces[piece].last() != Some(&value) {
            self.pieces[piece].push(value);
        }
    }

    pub(super) fn grow(&mut self, length: u64) {
        if *self.lengths.last().unwrap() < length {
            self.lengths.push(length);
        }
    }

    pub(super) fn truncated(mut self, length: u64, pieces: &Pieces) -> Self {
        self.lengths = vec![length];
        for (index, at) in pieces.bounds.windows(2).enumerate() {
            if at[0] >= length {
                self.pieces[index] = vec![pieces.zeros[index]];
            }
        }
        self
    }

    pub(super) fn flushed(&self) -> Self {
        let newest = |values: &Vec<Digest>| vec![*values.last().unwrap()];
        Self { lengths: vec![*self.lengths.last().unwrap()], pieces: self.pieces.iter().map(newest).collect() }
    }

    pub(super) fn pick(epochs: &[Self], choices: &mut Choices) -> Content {
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

#[derive(Clone)]
pub(super) struct Content {
    pub(super) length: u64,
    pub(super) pieces: Vec<Digest>,
}

impl Content {
    pub(super) fn is(&self, length: usize, version: &[Digest]) -> bool {
        self.length == length as u64 && self.pieces.starts_with(version)
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.length)
    }
}
