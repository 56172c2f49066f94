//! What a user may do on a server.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One thing that a user may be allowed to do. Every verb names the right it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// See names, sizes and times.
    List,
    /// Download contents.
    Read,
    /// Upload new files and make folders; never replaces anything.
    Write,
    /// Remove, rename and replace.
    Delete,
    /// Administer the server.
    Admin,
}

impl Right {
    /// Every right, in the order in which they are shown.
    pub const ALL: [Right; 5] = [Right::List, Right::Read, Right::Write, Right::Delete, Right::Admin];

    /// The word for it on the wire, in files and on the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Right::List => "list",
            Right::Read => "read",
            Right::Write => "write",
            Right::Delete => "delete",
            Right::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of rights. Written as a comma-separated list, on the wire as an array of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Right>", from = "Words")]
pub struct Rights(u8);

impl Rights {
    /// No right at all.
    pub const NONE: Rights = Rights(0);

    /// Every right.
    pub const ALL: Rights = Rights(0b1_1111);

    /// This set and `right`.
    #[must_use]
    pub const fn with(self, right: Right) -> Self {
        Self(self.0 | right.bit())
    }

    /// Whether `right` is in the set.
    pub const fn contains(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// The rights in the set, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |&right| self.contains(right))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(Right::as_str).collect();
        f.write_str(if words.is_empty() { "none".into() } else { words.join(",") }.as_str())
    }
}

impl FromStr for Rights {
    type Err = UnknownRight;

    fn from_str(list: &str) -> Result<Self, UnknownRight> {
        list.split(',').try_fold(Rights::NONE, |rights, word| {
            let right = Right::ALL.into_iter().find(|right| right.as_str() == word);
            right.map(|right| rights.with(right)).ok_or_else(|| UnknownRight(word.into()))
        })
    }
}

/// A word that names no right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown right {0:?}: rights are list, read, write, delete and admin")]
pub struct UnknownRight(String);

impl From<Rights> for Vec<Right> {
    fn from(rights: Rights) -> Self {
        rights.iter().collect()
    }
}

/// Rights as they arrive. A server newer than this client may know more of them: those are skipped.
#[derive(Deserialize)]
struct Words(#[serde(deserialize_with = "crate::codec::bounded::<_, _, 32>")] Vec<String>);

impl From<Words> for Rights {
    fn from(words: Words) -> Self {
        let known = words.0.iter().filter_map(|word| Right::ALL.into_iter().find(|right| right.as_str() == word));
        known.fold(Rights::NONE, Rights::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_survive_their_written_form() {
        for rights in [Rights::ALL, Rights::NONE.with(Right::Write), Rights::NONE.with(Right::List).with(Right::Read)] {
            assert_eq!(rights.to_string().parse(), Ok(rights));
        }
        assert_eq!("list,fly".parse::<Rights>(), Err(UnknownRight("fly".into())));
        assert_eq!("".parse::<Rights>(), Err(UnknownRight("".into())));
    }
}
