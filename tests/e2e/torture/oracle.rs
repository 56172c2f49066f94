//! What may stand in a folder: a model of the commits that were acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::support::World;

/// The files of a folder, each with all that it may hold. What an acknowledged upload wrote is all
/// that a file may hold; until then it holds what it held, or what is being sent, as a whole.
#[derive(Default)]
pub(super) struct Oracle {
    files: BTreeMap<String, Vec<Version>>,
}

/// All that a file holds: its digest. `None`: there is no such file.
type Version = Option<blake3::Hash>;

impl Oracle {
    /// Somebody begins to send `bytes` as `path`.
    pub(super) fn sending(&mut self, path: &str, bytes: &[u8]) {
        let versions = self.files.entry(path.into()).or_insert_with(|| vec![None]);
        versions.push(Some(blake3::hash(bytes)));
    }

    /// `path` was acknowledged, as last sent.
    pub(super) fn acknowledged(&mut self, path: &str) {
        let versions = self.files.get_mut(path).expect("it was sent");
        versions.drain(..versions.len() - 1);
    }

    /// `path` was acknowledged by somebody, nobody knows who was last.
    pub(super) fn acknowledged_by_one(&mut self, path: &str) {
        self.files.get_mut(path).expect("it was sent").retain(Option::is_some);
    }

    /// Everything that was sent was acknowledged.
    pub(super) fn all_acknowledged(&mut self) {
        let paths: Vec<_> = self.files.keys().cloned().collect();
        paths.iter().for_each(|path| self.acknowledged(path));
    }

    /// Somebody removed `path`.
    pub(super) fn removed(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// Looks at every byte in `folder`.
    #[track_caller]
    pub(super) fn check(&self, folder: &Path) {
        let violations = self.violations(folder);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Looks at the names that a client sees.
    #[track_caller]
    pub(super) fn check_listing(&self, world: &World) {
        let mut folders: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (path, versions) in &self.files {
            assert!(!versions.contains(&None), "{path} may be there or not");
            let (mut folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            folders.entry(folder).or_default().insert(name.into());
            while !folder.is_empty() {
                let (above, name) = folder.rsplit_once('/').unwrap_or(("", folder));
                folders.entry(above).or_default().insert(format!("{name}/"));
                folder = above;
            }
        }
        for (folder, names) in folders {
            let listed = world.ftpq(["ls", "-a", &format!("/{folder}")]).ok();
            assert_eq!(listed.lines().into_iter().map(String::from).collect::<BTreeSet<_>>(), names, "in /{folder}");
        }
    }

    /// What is wrong in `folder`.
    fn violations(&self, folder: &Path) -> Vec<String> {
        let mut found = BTreeMap::new();
        read(folder, "", &mut found);
        let mut violations = Vec::new();
        for (path, versions) in &self.files {
            let holds = found.remove(path);
            if !versions.contains(&holds) {
                let what = if holds.is_some() { "holds what nobody sent" } else { "is gone" };
                violations.push(format!("{path} {what}"));
            }
        }
        violations.extend(found.into_keys().map(|path| format!("{path} was sent by nobody")));
        violations
    }
}

/// The digest of each file below `folder` but those that are hidden.
fn read(folder: &Path, path: &str, found: &mut BTreeMap<String, blake3::Hash>) {
    for item in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let item = item.unwrap();
        let name = item.file_name().into_string().expect("a name that was sent");
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        if is_hidden(&name) {
            continue;
        }
        if item.file_type().unwrap().is_dir() {
            read(&item.path(), &path, found);
        } else {
            found.insert(path, blake3::hash(&fs::read(item.path()).unwrap()));
        }
    }
}

/// Whether this is a name that ftpq keeps for files that are not whole.
fn is_hidden(name: &str) -> bool {
    let digits = name.strip_prefix(".ftpq-").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Each way in which a folder can be wrong is noticed.
#[test]
fn the_oracle_sees_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let mut oracle = Oracle::default();
    oracle.sending("file", b"old old");
    oracle.check(folder.path());
    write("file", b"old old");
    oracle.check(folder.path());
    oracle.acknowledged("file");
    oracle.sending("file", b"new new");
    for whole in [b"old old", b"new new"] {
        write("file", whole);
        oracle.check(folder.path());
    }
    for wrong in [&b"new old"[..], b"new", b""] {
        write("file", wrong);
        assert_eq!(oracle.violations(folder.path()), ["file holds what nobody sent"]);
    }
    fs::remove_file(folder.path().join("file")).unwrap();
    assert_eq!(oracle.violations(folder.path()), ["file is gone"]);
    oracle.acknowledged("file");
    write("file", b"old old");
    assert_eq!(oracle.violations(folder.path()), ["file holds what nobody sent"]);
    write("file", b"new new");
    write(".ftpq-0123456789abcdef0123456789abcdef", b"half");
    oracle.check(folder.path());
    write(".ftpq-tmp", b"half");
    assert_eq!(oracle.violations(folder.path()), [".ftpq-tmp was sent by nobody"]);
}
