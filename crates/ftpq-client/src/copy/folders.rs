//! What a walk keeps in mind of the folders on its way. It takes little memory, however many names there
//! are: whoever lists them may be hostile.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    iter::repeat_n,
};

use ftpq_proto::{Entry, Name, RemotePath, Timestamp};

use crate::limits;

/// A folder of the tree that is being gone through.
pub(super) struct Folder {
    /// No link is on this path.
    pub(super) source: RemotePath,
    pub(super) target: RemotePath,
    /// How many folders of the tree hold it.
    pub(super) depth: usize,
    /// How its source is.
    pub(super) mode: u32,
    pub(super) mtime: Timestamp,
    /// How many of the folders in it are still waiting.
    waiting: usize,
}

impl Folder {
    /// The tree's own.
    pub(super) fn first(source: RemotePath, target: RemotePath) -> Self {
        Self { source, target, depth: 0, mode: 0, mtime: Timestamp::default(), waiting: 0 }
    }

    /// Lets the folder `name` in this one, of which `entry` tells, wait for its turn. `real` is where it is
    /// if a link led there. `false` if too many wait.
    pub(super) fn add(&mut self, waiting: &mut Waiting, name: &Name, real: Option<RemotePath>, entry: &Entry) -> bool {
        let fits = waiting.push(name, real, entry);
        self.waiting += usize::from(fits);
        fits
    }

    /// The next folder in this one, if it is the innermost.
    pub(super) fn next(&mut self, waiting: &mut Waiting) -> Option<Folder> {
        self.waiting = self.waiting.checked_sub(1)?;
        let (name, real, Packed { mode, mtime, .. }) = waiting.pop()?;
        // Both were joined before, when it was listed.
        let source = real.map_or_else(|| self.source.join(&name), Ok).ok()?;
        let target = self.target.join(&name).ok()?;
        Some(Self { source, target, depth: self.depth + 1, mode, mtime, waiting: 0 })
    }
}

/// The folders that come next, the first of them first, if there is nothing but files in them.
pub(super) fn next_ones<'a>(open: &'a [Folder], waiting: &'a Waiting) -> impl Iterator<Item = RemotePath> + 'a {
    let above = open.iter().rev().flat_map(|folder| repeat_n(&folder.source, folder.waiting));
    above.zip(waiting.next_ones()).filter_map(|(above, (name, real))| match real {
        Some(real) => Some(real.clone()),
        None => above.join(&Name::new(name).ok()?).ok(),
    })
}

/// Folders to go through, the next last. Of each there is little more than its name.
#[derive(Default)]
pub(super) struct Waiting {
    folders: Vec<Packed>,
    names: Vec<u8>,
    reals: Vec<RemotePath>,
    bytes: usize,
}

struct Packed {
    mtime: Timestamp,
    mode: u32,
    /// Bytes at the end of `names`.
    name: u16,
    /// The last of `reals` is where it is.
    is_real: bool,
}

impl Waiting {
    fn push(&mut self, name: &Name, real: Option<RemotePath>, entry: &Entry) -> bool {
        let name = name.as_bytes();
        let bytes = self.bytes + cost(name, real.as_ref());
        if bytes > limits::WAITING {
            return false;
        }
        self.bytes = bytes;
        self.names.extend_from_slice(name);
        let Entry { mode, mtime, .. } = *entry;
        self.folders.push(Packed { mtime, mode, name: name.len() as u16, is_real: real.is_some() });
        self.reals.extend(real);
        true
    }

    fn pop(&mut self) -> Option<(Name, Option<RemotePath>, Packed)> {
        let folder = self.folders.pop()?;
        let name = self.names.split_off(self.names.len().saturating_sub(folder.name.into()));
        let real = if folder.is_real { self.reals.pop() } else { None };
        self.bytes -= cost(&name, real.as_ref());
        Some((Name::new(name).ok()?, real, folder))
    }
}

impl Waiting {
    /// Their names, the next first, and where they are if links led there.
    fn next_ones(&self) -> impl Iterator<Item = (&[u8], Option<&RemotePath>)> {
        let (mut names, mut reals) = (self.names.as_slice(), self.reals.iter().rev());
        self.folders.iter().rev().map(move |folder| {
            let (others, name) = names.split_at(names.len().saturating_sub(folder.name.into()));
            names = others;
            (name, if folder.is_real { reals.next() } else { None })
        })
    }
}

fn cost(name: &[u8], real: Option<&RemotePath>) -> usize {
    let real = real.map_or(0, |real| size_of::<RemotePath>() + real.as_relative_bytes().len());
    size_of::<Packed>() + name.len() + real
}

/// The names in a folder that were dealt with, so that it can be begun again, as long as they fit.
#[derive(Default)]
pub(super) struct Seen {
    /// Two hashes of each name under keys that nobody knows: no two names have both in common.
    names: HashSet<u128>,
    keys: [RandomState; 2],
    /// More than are kept: this folder cannot be begun again.
    pub(super) overflown: bool,
}

impl Seen {
    /// Whether `entry` is new, as far as anybody remembers.
    pub(super) fn add(&mut self, entry: &Entry) -> bool {
        let Some(name) = entry.name.as_ref().filter(|_| !self.overflown) else { return true };
        if self.names.len() == limits::SEEN {
            self.overflown = true;
            self.names = HashSet::new();
            return true;
        }
        let hash = self.keys.iter().fold(0, |hash, key| (hash << 64) | u128::from(key.hash_one(name)));
        self.names.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use ftpq_proto::Kind;

    use super::*;

    fn entry(name: Option<Name>, mode: u32) -> Entry {
        Entry { name, kind: Kind::Folder, size: 0, mtime: Timestamp::default(), mode, target: None }
    }

    fn name(text: impl ToString) -> Name {
        Name::new(text.to_string()).unwrap()
    }

    fn path(text: &str) -> RemotePath {
        text.parse().unwrap()
    }

    #[test]
    fn folders_come_back_as_they_went() {
        let mut waiting = Waiting::default();
        let mut first = Folder::first(path("/a"), path("/b"));
        assert!(first.add(&mut waiting, &name("one"), None, &entry(None, 1)));
        assert!(first.add(&mut waiting, &name("two"), Some(path("/else/where")), &entry(None, 2)));
        let next = |open: &[Folder], waiting: &Waiting| next_ones(open, waiting).collect::<Vec<_>>();
        assert_eq!(next(std::slice::from_ref(&first), &waiting), [path("/else/where"), path("/a/one")]);
        let mut two = first.next(&mut waiting).unwrap();
        assert_eq!((&two.source, &two.target, two.depth), (&path("/else/where"), &path("/b/two"), 1));
        assert!(two.add(&mut waiting, &name("three"), None, &entry(None, 3)));
        let open = [first, two];
        assert_eq!(next(&open, &waiting), [path("/else/where/three"), path("/a/one")]);
        let [mut first, mut two] = open;
        let mut three = two.next(&mut waiting).unwrap();
        assert_eq!((&three.source, &three.target), (&path("/else/where/three"), &path("/b/two/three")));
        assert_eq!((three.depth, three.mode), (2, 3));
        assert!(three.next(&mut waiting).is_none() && two.next(&mut waiting).is_none());
        let one = first.next(&mut waiting).unwrap();
        assert_eq!((&one.source, &one.target, one.mode), (&path("/a/one"), &path("/b/one"), 1));
        assert!(first.next(&mut waiting).is_none());
        assert_eq!((waiting.bytes, waiting.names.len(), waiting.reals.len()), (0, 0, 0));
    }

    #[test]
    fn only_so_many_wait() {
        let mut waiting = Waiting::default();
        let mut folder = Folder::first(path("/a"), path("/b"));
        let entry = entry(None, 0);
        let fit = (0..).take_while(|index| folder.add(&mut waiting, &name(format!("{index:020}")), None, &entry));
        assert!(fit.count() > 250_000);
        assert!(folder.next(&mut waiting).is_some());
        assert!(folder.add(&mut waiting, &name("x"), None, &entry));
        assert!(!folder.add(&mut waiting, &name("n".repeat(255)), None, &entry));
    }

    #[test]
    fn names_are_new_once_and_all_of_them_when_there_are_too_many() {
        let mut seen = Seen::default();
        let named = |index: usize| entry(Some(name(index)), 0);
        assert!((0..limits::SEEN).all(|index| seen.add(&named(index))));
        assert!(!seen.overflown);
        assert!(seen.add(&named(limits::SEEN)));
        assert!(seen.overflown);
        assert!(seen.add(&named(7)));
        let mut seen = Seen::default();
        assert!(seen.add(&named(7)) && !seen.add(&named(7)) && seen.add(&named(8)));
        assert!(seen.add(&entry(None, 0)) && seen.add(&entry(None, 0)));
    }
}
