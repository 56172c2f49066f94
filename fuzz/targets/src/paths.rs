//! Paths, names and links as a peer sends them.

use ftpq_proto::{
    LinkTarget, Name, PathError, RemotePath, UserPath,
    codec::{self, PREFIX_LEN},
    limits::{DEPTH_MAX, NAME_MAX, PATH_MAX},
};

use crate::{
    Input,
    input::split_line,
    text::{assert_printable, unescape},
};

/// The first line is the folder in which the rest was typed.
pub fn path(data: &[u8]) {
    let (folder, typed) = split_line(data);
    name(typed);
    canonical(typed);
    let Some(folder) = resolved(folder, &RemotePath::root()) else { return };
    let Some(path) = resolved(typed, &folder) else { return };
    lies_where_it_says(&path);
    if let Ok(longer) = folder.append(&path) {
        lies_where_it_says(&longer);
        assert!(longer.starts_with(&folder) && longer.depth() == folder.depth() + path.depth());
    }
}

/// A byte for the depth of the link's folder, then where it points.
pub fn link_target(data: &[u8]) {
    let mut input = Input::new(data);
    let depth = input.below(8);
    let bytes = input.rest();
    let valid = (1..=PATH_MAX).contains(&bytes.len()) && !bytes.contains(&0);
    let Ok(target) = LinkTarget::new(bytes) else {
        assert!(!valid, "refused: {bytes:?}");
        return;
    };
    assert!(valid && target.as_bytes() == bytes, "not what was given: {bytes:?}");
    assert_printable(&target.to_string());
    assert_eq!(target.stays_within(depth), leads_inside(bytes, depth), "{target:?} at {depth}");
    assert!(!target.stays_within(depth) || target.stays_within(depth + 1), "{target:?} at {depth}");
    let frame = codec::encode(&target).unwrap();
    assert_eq!(codec::decode::<LinkTarget>(&frame[PREFIX_LEN..]).unwrap(), target);
}

/// Follows a link name by name, in the worst tree there is: each name may be a link to the root itself.
fn leads_inside(target: &[u8], depth: usize) -> bool {
    let mut folders_above = depth;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if folders_above == 0 => return false,
            b".." => folders_above -= 1,
            _ => folders_above = 0,
        }
    }
    !target.starts_with(b"/")
}

/// Where `typed` leads from `folder`, if it leads anywhere; a plain model agrees.
fn resolved(typed: &[u8], folder: &RemotePath) -> Option<RemotePath> {
    let path = UserPath::new(typed);
    assert_eq!(path.is_ok(), typed.len() <= PATH_MAX && !typed.contains(&0));
    let path = path.ok()?;
    assert_eq!(path.as_bytes(), typed);
    assert_printable(&path.to_string());
    let frame = codec::encode(&path).unwrap();
    assert_eq!(codec::decode::<UserPath>(&frame[PREFIX_LEN..]).unwrap(), path);
    let resolved = path.resolve(folder);
    match (&resolved, walked(typed, folder)) {
        (Ok(path), Some(names)) => assert_eq!(path.components().collect::<Vec<_>>(), names),
        (Err(_), None) => {}
        (resolved, walked) => panic!("{path:?} from {folder}: {resolved:?}, and {walked:?} by the model"),
    }
    resolved.ok()
}

/// The names that one goes through, or `None` where one of them, or all, are too long at any time.
fn walked<'a>(typed: &'a [u8], folder: &'a RemotePath) -> Option<Vec<&'a [u8]>> {
    let mut names: Vec<&[u8]> = if typed.starts_with(b"/") { Vec::new() } else { folder.components().collect() };
    let mut bytes: usize = names.iter().map(|name| 1 + name.len()).sum();
    for part in typed.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            bytes -= names.pop().map_or(0, |name| 1 + name.len());
            continue;
        }
        names.push(part);
        bytes += 1 + part.len();
        if part.len() > NAME_MAX || names.len() > DEPTH_MAX || bytes > PATH_MAX {
            return None;
        }
    }
    Some(names)
}

/// A path keeps its limits, survives the wire and the screen, and its parts fit together.
fn lies_where_it_says(path: &RemotePath) {
    for name in path.components() {
        assert!(!matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX);
        assert!(!name.contains(&b'/') && !name.contains(&0));
    }
    let typed = UserPath::from(path);
    assert!(path.depth() <= DEPTH_MAX && typed.as_bytes().len() <= PATH_MAX);
    assert_eq!(typed.resolve(&RemotePath::root()).as_ref(), Ok(path));
    let frame = codec::encode(path).unwrap();
    assert_eq!(codec::decode::<RemotePath>(&frame[PREFIX_LEN..]).as_ref(), Ok(path));
    let shown = path.to_string();
    assert_printable(&shown);
    assert_eq!(unescape(&shown), typed.as_bytes());
    assert_eq!(path.name().is_none(), path.is_root());
    if let Some(name) = path.name() {
        assert_eq!(path.parent().join(&name).as_ref(), Ok(path));
        assert!(path.starts_with(&path.parent()) && !path.parent().starts_with(path));
    }
}

/// Bytes that are a name, by the rule as it is written, and only those.
fn name(bytes: &[u8]) {
    let valid = match bytes {
        b"" | b"." | b".." => Err(PathError::NotAName),
        _ if bytes.contains(&b'/') => Err(PathError::NotAName),
        _ if bytes.contains(&0) => Err(PathError::Nul),
        _ if bytes.len() > NAME_MAX => Err(PathError::NameTooLong),
        _ => Ok(bytes),
    };
    let name = Name::new(bytes);
    assert_eq!(name.as_ref().map(Name::as_bytes).map_err(|error| *error), valid);
    let Ok(name) = name else { return };
    assert_eq!(unescape(&name.to_string()), bytes);
    let frame = codec::encode(&name).unwrap();
    assert_eq!(codec::decode::<Name>(&frame[PREFIX_LEN..]).unwrap(), name);
}

/// As a [`RemotePath`] on the wire, only the canonical form counts.
fn canonical(bytes: &[u8]) {
    let Ok(typed) = UserPath::new(bytes) else { return };
    // On the wire both kinds of path are the same: text or bytes.
    let frame = codec::encode(&typed).unwrap();
    let decoded = codec::decode::<RemotePath>(&frame[PREFIX_LEN..]).ok();
    let resolved = typed.resolve(&RemotePath::root()).ok();
    let expected = resolved.filter(|path| UserPath::from(path).as_bytes() == bytes);
    assert_eq!(decoded, expected);
}
