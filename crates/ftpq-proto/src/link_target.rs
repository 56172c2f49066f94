//! Where a symbolic link points, as bytes, and whether that is a place one may be sent to.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    escape::Escaped,
    limits::PATH_MAX,
    path::{self, PathError},
};

/// What a symbolic link holds: 1 to [`PATH_MAX`] bytes, no NUL. Anything else may be in it, so whoever
/// makes a link asks [`stays_within`](Self::stays_within) first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkTarget(Box<[u8]>);

impl LinkTarget {
    /// Checks length and NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(PathError::NotAName),
            len if len > PATH_MAX => Err(PathError::TooLong),
            _ if bytes.contains(&0) => Err(PathError::Nul),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The target's bytes, UTF-8 or not.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it begins at the root of whatever machine it is on.
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with(b"/")
    }

    /// The names to go through, and `..`; without what changes nothing.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
    }

    /// Whether a link with this target, in a folder that lies `depth` folders below the root of a tree,
    /// leads to something in that tree.
    ///
    /// Only `..` in front counts as going up, and one after a name is refused, even where the text as a
    /// whole stays inside: in `a/../../x`, `a` may itself be a link to somewhere less deep, and `..` goes
    /// up from where that leads. The `..` in front go up from the link's own folder, whose depth is known.
    pub fn stays_within(&self, depth: usize) -> bool {
        let up = self.components().take_while(|part| *part == b"..").count();
        let up_again = self.components().skip(up).any(|part| part == b"..");
        !self.is_absolute() && up <= depth && !up_again
    }
}

impl fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped::new(&self.0).fmt(f)
    }
}

impl fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for LinkTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        path::text_or_bytes(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for LinkTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        LinkTarget::new(path::bytes_of(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(bytes: &[u8]) -> LinkTarget {
        LinkTarget::new(bytes).unwrap()
    }

    #[test]
    fn a_target_that_could_lead_out_does_not_stay_within() {
        for (bytes, least_depth) in [
            (&b"f"[..], 0),
            (b".", 0),
            (b"./a//b/", 0),
            (b"...", 0),
            (b"..x/y", 0),
            (b"caf\xe9\n", 0),
            (b"..", 1),
            (b"../f", 1),
            (b"./.././../f", 2),
        ] {
            assert!(target(bytes).stays_within(least_depth), "{:?}", target(bytes));
            assert_eq!(least_depth > 0, !target(bytes).stays_within(0), "{:?}", target(bytes));
            assert!(least_depth == 0 || !target(bytes).stays_within(least_depth - 1));
        }
        for bytes in [&b"/"[..], b"/f", b"//f", b"a/..", b"a/../b", b"../a/../b", b"a/./../../../etc"] {
            assert!(!target(bytes).stays_within(100), "{:?}", target(bytes));
        }
    }

    #[test]
    fn limits_are_exact() {
        assert!(LinkTarget::new(vec![b'x'; PATH_MAX]).is_ok());
        assert_eq!(LinkTarget::new(vec![b'x'; PATH_MAX + 1]), Err(PathError::TooLong));
        assert_eq!(LinkTarget::new(""), Err(PathError::NotAName));
        assert_eq!(LinkTarget::new("a\0"), Err(PathError::Nul));
    }

    proptest! {
        /// In a tree without links, where the text alone says where a target leads.
        #[test]
        fn what_stays_within_never_goes_above_the_root(text in "[ab./]{1,20}", depth in 0_usize..4) {
            let target = LinkTarget::new(text).unwrap();
            let mut level = Some(depth);
            for part in target.components() {
                level = level.and_then(|level| if part == b".." { level.checked_sub(1) } else { Some(level + 1) });
            }
            prop_assert!(!target.stays_within(depth) || level.is_some());
        }
    }
}
