//! How a large file is cut into extents, and which parts of a file are holes.
//!
//! An extent is a power of two of MiB long, lies at a multiple of its length, and is therefore one
//! subtree of BLAKE3's tree (BLAKE3 paper, section 2.1): its digest can be computed alone, and the
//! digests of all extents joined into that of the file.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    digest::Digest,
    limits::{EXTENT_MAX, EXTENT_MIN, EXTENTS_MAX, HOLES_MAX},
};

/// How a file of some size is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    size: u64,
    length: u64,
}

/// One part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which one, from 0.
    pub index: u32,
    /// Bytes before it.
    pub offset: u64,
    /// Its bytes; the last extent alone may be shorter than the others.
    pub length: u64,
}

impl Extents {
    /// The cut that both sides should use: the shortest extents of which there are not too many.
    /// `None` for a file that is too large for any.
    pub fn of(size: u64) -> Option<Self> {
        let length = size.div_ceil(EXTENTS_MAX.into()).next_power_of_two().max(EXTENT_MIN);
        Self::new(size, length)
    }

    /// Extents of `length` bytes each; `None` unless that is a power of two from [`EXTENT_MIN`] to
    /// [`EXTENT_MAX`], and there are 2 to [`EXTENTS_MAX`] of them. (One alone would be no subtree.)
    pub fn new(size: u64, length: u64) -> Option<Self> {
        let fits = length.is_power_of_two() && (EXTENT_MIN..=EXTENT_MAX).contains(&length);
        let count = size.div_ceil(length.max(1));
        (fits && (2..=EXTENTS_MAX.into()).contains(&count)).then_some(Self { size, length })
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of every extent but the last.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.size.div_ceil(self.length) as u32
    }

    /// The extent with this number.
    pub fn get(&self, index: u32) -> Option<Extent> {
        let offset = u64::from(index) * self.length;
        (offset < self.size).then(|| Extent { index, offset, length: self.length.min(self.size - offset) })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + use<> {
        let extents = *self;
        (0..self.count()).filter_map(move |index| extents.get(index))
    }
}

/// A part that holds nothing but zeros and takes no room on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "(u64, u64)")]
pub struct Hole {
    /// Bytes before it.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

impl From<(u64, u64)> for Hole {
    fn from((offset, length): (u64, u64)) -> Self {
        Self { offset, length }
    }
}

impl From<Hole> for (u64, u64) {
    fn from(hole: Hole) -> Self {
        (hole.offset, hole.length)
    }
}

/// Two numbers and no more: what is said of a hole must not be ignored.
impl<'de> Deserialize<'de> for Hole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [offset, length] = crate::codec::bounded::<_, u64, 2>(deserializer)?
            .try_into()
            .map_err(|_| serde::de::Error::custom("a hole has an offset and a length"))?;
        Ok(Self { offset, length })
    }
}

/// The holes of a file or extent: in order, apart, none of them empty, at most [`HOLES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Holes(Vec<Hole>);

impl Holes {
    /// No holes.
    pub const NONE: Holes = Holes(Vec::new());

    /// Checks `holes`.
    pub fn new(holes: Vec<Hole>) -> Result<Self, BadHoles> {
        let mut end = 0;
        for (index, hole) in holes.iter().enumerate() {
            let apart = index == 0 || hole.offset > end;
            let next = hole.offset.checked_add(hole.length).ok_or(BadHoles)?;
            if !apart || hole.length == 0 || index == HOLES_MAX {
                return Err(BadHoles);
            }
            end = next;
        }
        Ok(Self(holes))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Hole> + '_ {
        self.0.iter().copied()
    }

    /// Bytes outside of them, of `length` in all; `None` if they do not fit in there.
    pub fn data_in(&self, length: u64) -> Option<u64> {
        let end = self.0.last().map_or(0, |hole| hole.offset + hole.length);
        let holes: u64 = self.0.iter().map(|hole| hole.length).sum();
        if end > length { None } else { Some(length - holes) }
    }
}

impl<'de> Deserialize<'de> for Holes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let holes = crate::codec::bounded::<_, Hole, HOLES_MAX>(deserializer)?;
        Holes::new(holes).map_err(serde::de::Error::custom)
    }
}

/// Holes that are empty, overlap, touch, are out of order or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the holes of a file")]
pub struct BadHoles;

/// Which state of a file: differs whenever its contents may differ. Says nothing else to whoever
/// sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Digest);

impl From<Digest> for Version {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

/// An upload that was begun. Nobody can guess one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UploadId(Digest);

impl From<[u8; 32]> for UploadId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }
}

/// Whoever reads a log must not be able to take part.
impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn extents_cover_a_file_without_gaps() {
        for size in [16 * MIB, 16 * MIB + 1, 24 * MIB - 1, 1 << 37, (1 << 37) + 1, 1 << 44] {
            let extents = Extents::of(size).unwrap();
            assert!(extents.count() <= EXTENTS_MAX);
            let mut end = 0;
            for extent in extents.iter() {
                assert_eq!((extent.offset, extent.offset % extents.length()), (end, 0));
                end += extent.length;
            }
            assert_eq!((end, extents.get(extents.count())), (size, None));
        }
        assert_eq!(Extents::of(16 * MIB).unwrap().length(), 8 * MIB);
        assert_eq!(Extents::of(1 << 40).unwrap().length(), 64 * MIB);
        assert_eq!(Extents::of((1 << 44) + 1), None);
        assert_eq!(Extents::of(u64::MAX), None);
        assert_eq!(Extents::of(0), None);
    }

    #[test]
    fn only_subtrees_are_extents() {
        for length in [0, 1, MIB, 12 * MIB, EXTENT_MAX * 2, u64::MAX] {
            assert_eq!(Extents::new(1 << 33, length), None, "{length}");
        }
        assert_eq!(Extents::new(8 * MIB, 8 * MIB), None);
        assert!(Extents::new(8 * MIB + 1, 8 * MIB).is_some());
    }

    #[test]
    fn holes_are_in_order_and_apart() {
        let holes = |pairs: &[(u64, u64)]| Holes::new(pairs.iter().copied().map(Hole::from).collect());
        let good = holes(&[(0, 10), (20, 5)]).unwrap();
        assert_eq!((good.data_in(30), good.data_in(25), good.data_in(24)), (Some(15), Some(10), None));
        for bad in [&[(5, 0)][..], &[(0, 10), (10, 5)], &[(0, 10), (5, 10)], &[(9, 1), (0, 1)], &[(1, u64::MAX)]] {
            assert_eq!(holes(bad), Err(BadHoles), "{bad:?}");
        }
        let many: Vec<_> = (0..=HOLES_MAX as u64).map(|index| (index * 2, 1)).collect();
        assert_eq!(holes(&many), Err(BadHoles));
        assert!(holes(&many[1..]).is_ok());
    }
}
