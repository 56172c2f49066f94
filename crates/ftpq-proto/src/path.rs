//! Remote paths, parsed once into types that cannot hold anything dangerous.
//!
//! [`UserPath`] is what somebody typed: absolute or relative, with `.` and `..`. [`RemotePath`] is
//! where that leads: components from the root, none of them empty, `.`, `..`, or holding `/` or NUL.
//! `..` is resolved on the text alone, which is right because no server follows a symbolic link; at
//! the root it stays at the root.
//!
//! Both travel as CBOR text where they are UTF-8 and as a byte string where they are not.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    escape::Escaped,
    limits::{DEPTH_MAX, NAME_MAX, PATH_MAX},
};

/// Why bytes are no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A component is longer than [`NAME_MAX`] bytes.
    #[error("a name is longer than {NAME_MAX} bytes")]
    NameTooLong,
    /// The whole is longer than [`PATH_MAX`] bytes.
    #[error("the path is longer than {PATH_MAX} bytes")]
    TooLong,
    /// More than [`DEPTH_MAX`] components.
    #[error("the path is deeper than {DEPTH_MAX} folders")]
    TooDeep,
    /// A NUL byte, which no file system holds.
    #[error("the path holds a NUL byte")]
    Nul,
    /// A name that is empty, `.`, `..` or holds a `/`.
    #[error("not the name of a file or folder")]
    NotAName,
}

/// One component of a path: 1 to [`NAME_MAX`] bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check_name(&bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The name's bytes, UTF-8 or not.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A path from the root of what a server shows a user. The root itself has no components.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RemotePath {
    /// Checked components joined by `/`, none in front.
    joined: Vec<u8>,
}

impl RemotePath {
    /// `/`
    pub const fn root() -> Self {
        Self { joined: Vec::new() }
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.joined.is_empty()
    }

    /// The components from the root, each a valid name.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.joined.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// How many components.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The components joined by `/`, with none in front: empty for the root.
    pub fn as_relative_bytes(&self) -> &[u8] {
        &self.joined
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<Name> {
        self.components().next_back().map(|name| Name(name.into()))
    }

    /// The folder that holds this; the root's parent is the root.
    pub fn parent(&self) -> Self {
        let end = self.joined.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Self { joined: self.joined.get(..end).unwrap_or_default().to_vec() }
    }

    /// The path of `name` in this folder.
    pub fn join(&self, name: &Name) -> Result<Self, PathError> {
        let mut path = self.clone();
        path.push(name.as_bytes())?;
        Ok(path)
    }

    /// `below` continued from here.
    pub fn append(&self, below: &RemotePath) -> Result<Self, PathError> {
        let mut path = self.clone();
        below.components().try_for_each(|name| path.push(name))?;
        Ok(path)
    }

    /// Whether this is `folder` or lies below it.
    pub fn starts_with(&self, folder: &RemotePath) -> bool {
        let mut mine = self.components();
        folder.components().all(|name| mine.next() == Some(name))
    }

    fn push(&mut self, name: &[u8]) -> Result<(), PathError> {
        check_name(name)?;
        if self.depth() == DEPTH_MAX {
            return Err(PathError::TooDeep);
        }
        // The absolute form has one `/` before each component.
        if self.joined.len() + usize::from(!self.is_root()) + name.len() + 1 > PATH_MAX {
            return Err(PathError::TooLong);
        }
        if !self.is_root() {
            self.joined.push(b'/');
        }
        self.joined.extend_from_slice(name);
        Ok(())
    }

    fn to_absolute_bytes(&self) -> Vec<u8> {
        [b"/", self.joined.as_slice()].concat()
    }
}

/// A path as somebody typed it: absolute, or relative to a folder that is known elsewhere.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct UserPath(Vec<u8>);

impl UserPath {
    /// Checks length and NUL; names are checked when it is [resolved](Self::resolve).
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.len() > PATH_MAX {
            return Err(PathError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        Ok(Self(bytes))
    }

    /// Where this leads from the folder `cwd`. The empty path and `.` lead to `cwd` itself.
    pub fn resolve(&self, cwd: &RemotePath) -> Result<RemotePath, PathError> {
        let mut path = if self.0.starts_with(b"/") { RemotePath::root() } else { cwd.clone() };
        for part in self.0.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => path = path.parent(),
                name => path.push(name)?,
            }
        }
        Ok(path)
    }

    /// Whether it says that it must be a folder: empty, or ending in `/`, `.` or `..`.
    pub fn names_a_folder(&self) -> bool {
        matches!(self.0.rsplit(|&byte| byte == b'/').next(), None | Some(b"" | b"." | b".."))
    }

    /// The bytes as typed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for UserPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl From<RemotePath> for UserPath {
    fn from(path: RemotePath) -> Self {
        Self(path.to_absolute_bytes())
    }
}

impl From<&RemotePath> for UserPath {
    fn from(path: &RemotePath) -> Self {
        Self(path.to_absolute_bytes())
    }
}

impl FromStr for RemotePath {
    type Err = PathError;

    /// An absolute path, or one relative to the root.
    fn from_str(text: &str) -> Result<Self, PathError> {
        UserPath::new(text)?.resolve(&RemotePath::root())
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" | b"." | b".." => Err(PathError::NotAName),
        _ if name.contains(&b'/') => Err(PathError::NotAName),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ if name.len() > NAME_MAX => Err(PathError::NameTooLong),
        _ => Ok(()),
    }
}

// Shown, these are always escaped: most come from a peer.

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped::new(&self.0).fmt(f)
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", Escaped::new(&self.joined))
    }
}

impl fmt::Display for UserPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped::new(&self.0).fmt(f)
    }
}

macro_rules! debug_as_shown {
    ($($type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{self}\"")
            }
        }
    )*};
}
debug_as_shown!(Name, RemotePath, UserPath);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text_or_bytes(&self.0, serializer)
    }
}

impl Serialize for RemotePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text_or_bytes(&self.to_absolute_bytes(), serializer)
    }
}

impl Serialize for UserPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text_or_bytes(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Name::new(bytes_of(deserializer)?).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RemotePath {
    /// Only the canonical form: a peer that sends `/a/../b` or `a//b` here is mistaken.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes_of(deserializer)?;
        let typed = UserPath::new(bytes.as_slice()).map_err(de::Error::custom)?;
        let path = typed.resolve(&RemotePath::root()).map_err(de::Error::custom)?;
        if path.to_absolute_bytes() == bytes { Ok(path) } else { Err(de::Error::custom("not a canonical path")) }
    }
}

impl<'de> Deserialize<'de> for UserPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UserPath::new(bytes_of(deserializer)?).map_err(de::Error::custom)
    }
}

pub(crate) fn text_or_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        // JSON has no bytes: there, a name that is not UTF-8 is shown escaped.
        Err(_) if serializer.is_human_readable() => serializer.collect_str(&Escaped::new(bytes)),
        Err(_) => serializer.serialize_bytes(bytes),
    }
}

pub(crate) fn bytes_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path as text or bytes")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }
        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    deserializer.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(cwd: &str, typed: &str) -> String {
        UserPath::new(typed).unwrap().resolve(&cwd.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn typed_paths_lead_where_people_expect() {
        for (cwd, typed, to) in [
            ("/", "", "/"),
            ("/a/b", "c", "/a/b/c"),
            ("/a/b", "..", "/a"),
            ("/a/b", "../..", "/"),
            ("/a/b", "../../../../etc", "/etc"),
            ("/", "..", "/"),
            ("/a", "/x//y/./z/", "/x/y/z"),
            ("/a", ".", "/a"),
            ("/a", "...", "/a/..."),
        ] {
            assert_eq!(resolve(cwd, typed), to, "{typed} from {cwd}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let longest = "n".repeat(NAME_MAX);
        assert!(Name::new(longest.clone()).is_ok());
        assert_eq!(Name::new(longest + "n"), Err(PathError::NameTooLong));
        let deep = "a/".repeat(DEPTH_MAX);
        assert!(deep.parse::<RemotePath>().is_ok());
        assert_eq!((deep + "a").parse::<RemotePath>(), Err(PathError::TooDeep));
        assert_eq!(UserPath::new("x".repeat(PATH_MAX + 1)), Err(PathError::TooLong));
        assert_eq!(UserPath::new("a\0b"), Err(PathError::Nul));
        let folder: RemotePath = format!("{}/{}", "n".repeat(200), "m".repeat(200)).parse().unwrap();
        let mut path = folder.clone();
        while let Ok(longer) = path.append(&folder) {
            path = longer;
        }
        assert!(path.to_absolute_bytes().len() <= PATH_MAX);
    }

    #[test]
    fn only_canonical_paths_are_taken_as_a_remote_path() {
        for bad in ["", "a", "/a/", "/a//b", "/a/../b", "/.", "//"] {
            let body = crate::codec::encode(bad).unwrap();
            assert!(crate::codec::decode::<RemotePath>(&body[4..]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn starts_with_compares_whole_names() {
        let path = |text: &str| text.parse::<RemotePath>().unwrap();
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&RemotePath::root()));
        assert!(!path("/ab").starts_with(&path("/a")));
    }

    proptest! {
        #[test]
        fn no_input_resolves_to_a_dangerous_component(cwd: Vec<u8>, typed: Vec<u8>) {
            let Ok(cwd) = UserPath::new(cwd).and_then(|cwd| cwd.resolve(&RemotePath::root())) else { return Ok(()) };
            let Ok(path) = UserPath::new(typed).and_then(|typed| typed.resolve(&cwd)) else { return Ok(()) };
            for name in path.components() {
                prop_assert!(check_name(name).is_ok());
            }
            prop_assert!(path.depth() <= DEPTH_MAX && path.to_absolute_bytes().len() <= PATH_MAX);
        }

        #[test]
        fn a_resolved_path_survives_the_wire(typed in "[a-z./é]{0,40}", raw: Vec<u8>) {
            for typed in [typed.into_bytes(), raw] {
                let Ok(path) = UserPath::new(typed).and_then(|typed| typed.resolve(&RemotePath::root())) else { continue };
                let body = crate::codec::encode(&path).unwrap();
                prop_assert_eq!(crate::codec::decode::<RemotePath>(&body[4..]).unwrap(), path.clone());
                prop_assert_eq!(UserPath::from(&path).resolve(&RemotePath::root()).unwrap(), path);
            }
        }

        #[test]
        fn the_parent_of_a_child_is_its_folder(folder in "(/[a-z]{1,5}){0,5}", name in "[a-z]{1,9}") {
            let folder: RemotePath = folder.parse().unwrap();
            let child = folder.join(&Name::new(name.clone()).unwrap()).unwrap();
            prop_assert_eq!(child.parent(), folder);
            prop_assert_eq!(child.name(), Some(Name::new(name).unwrap()));
        }
    }
}
