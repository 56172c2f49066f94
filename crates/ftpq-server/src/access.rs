//! Who may come in: the list of authorised clients.
//!
//! One line a client: its key's fingerprint, then options. `#` begins a comment, at the start of a
//! line or after white space.
//!
//! ```text
//! SHA256:1Zr… name=alice rights=list,read,write,delete
//! SHA256:9fq… name=backup rights=write root=/backup
//! ```
//!
//! | option | meaning |
//! |---|---|
//! | `name` | how the log calls the client; required |
//! | `rights` | some of list, read, write, delete, admin; required |
//! | `root` | the folder that is all the client sees, as `/FOLDER/FOLDER` from the served one; all of it where absent |
//!
//! A line with anything else in it is refused as a whole and reported: an option that this version
//! does not know may be a restriction. Changes count from the next command on.

use std::{
    collections::HashMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use ftpq_handler::{Limits, User};
use ftpq_proto::{Escaped, RemotePath, Rights, UserPath};
use ftpq_transport::Fingerprint;

use crate::limits::ACCESS_FILE;

/// The list, kept up to date with its file.
#[derive(Debug)]
pub struct Access {
    file: PathBuf,
    current: Mutex<Current>,
}

/// What one client may do, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is.
    pub user: User,
    /// All that it sees.
    pub root: RemotePath,
}

/// A line that counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// From 1.
    pub number: usize,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Debug, Default)]
struct Current {
    version: Option<Version>,
    grants: HashMap<Fingerprint, Arc<Grant>>,
    /// Those that nobody was told of yet.
    rejected: Vec<RejectedLine>,
}

/// By which a change of the file is noticed.
type Version = (u64, SystemTime, u64);

impl Access {
    /// The list in `file`. A missing file authorises nobody.
    pub fn open(file: &Path) -> io::Result<Self> {
        let access = Self { file: file.into(), current: Mutex::default() };
        access.refresh(&mut access.current.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(access)
    }

    /// What `key` may do now; `None` where it may nothing.
    pub fn grant(&self, key: Fingerprint) -> Option<Arc<Grant>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.refresh(&mut current) {
            // The last good list holds: a disk error must neither lock everybody out nor let anybody in.
            tracing::warn!(%error, file = %self.file.display(), "cannot read the list of authorised clients");
        }
        current.grants.get(&key).cloned()
    }

    /// The lines that count for nothing, each told once after each change of the file.
    pub fn newly_rejected(&self) -> Vec<RejectedLine> {
        std::mem::take(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner).rejected)
    }

    /// How many clients are authorised.
    pub fn count(&self) -> usize {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).grants.len()
    }

    /// Appends a line for `user`, unless its key is in the list.
    pub fn authorise(&self, user: &User) -> io::Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut current)?;
        if current.grants.contains_key(&user.key) {
            return Ok(());
        }
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.file)?;
        writeln!(file, "{} name={} rights={}", user.key, user.name, user.rights)?;
        file.sync_all()?;
        self.refresh(&mut current)
    }

    fn refresh(&self, current: &mut Current) -> io::Result<()> {
        let version = match fs::metadata(&self.file) {
            Ok(meta) => Some(version_of(&meta)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if version == current.version {
            return Ok(());
        }
        if version.is_some_and(|(len, ..)| len > ACCESS_FILE) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
        }
        let text = if version.is_some() { fs::read_to_string(&self.file)? } else { String::new() };
        *current = parse(&text);
        current.version = version;
        Ok(())
    }
}

fn version_of(meta: &fs::Metadata) -> io::Result<Version> {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(meta);
    #[cfg(not(unix))]
    let inode = 0;
    Ok((meta.len(), meta.modified()?, inode))
}

fn parse(text: &str) -> Current {
    let mut current = Current::default();
    for (index, line) in text.lines().enumerate() {
        let line = without_comment(line).trim_ascii();
        if line.is_empty() {
            continue;
        }
        let taken = parse_line(line).and_then(|grant| match current.grants.contains_key(&grant.user.key) {
            true => Err("the key stands in a line before".into()),
            false => Ok(current.grants.insert(grant.user.key, Arc::new(grant))),
        });
        if let Err(why) = taken {
            current.rejected.push(RejectedLine { number: index + 1, why });
        }
    }
    current
}

/// `#` within a word belongs to it: `root=/shared#private` must not become `/shared`.
fn without_comment(line: &str) -> &str {
    let begins = |at: usize| line[..at].bytes().next_back().is_none_or(|before| before.is_ascii_whitespace());
    let comment = line.match_indices('#').map(|(at, _)| at).find(|&at| begins(at));
    comment.map_or(line, |at| &line[..at])
}

/// A root as it must be written. Nothing is made of another spelling: what was meant might be less.
fn parse_root(value: &str) -> Result<RemotePath, String> {
    let root = value.parse::<RemotePath>().map_err(|error| error.to_string())?;
    if UserPath::from(&root).as_bytes() == value.as_bytes() {
        return Ok(root);
    }
    Err(format!("root={} is not written as /FOLDER/FOLDER", Escaped::new(value)))
}

fn parse_line(line: &str) -> Result<Grant, String> {
    let mut words = line.split_ascii_whitespace();
    let key = words.next().unwrap_or_default().parse::<Fingerprint>().map_err(|error| error.to_string())?;
    let (mut name, mut rights, mut root) = (None, None, None);
    for word in words {
        let (option, value) = word.split_once('=').ok_or_else(|| format!("{} is no option", Escaped::new(word)))?;
        let again = match option {
            "name" if !value.is_empty() => name.replace(value.to_owned()).is_some(),
            "rights" => rights.replace(value.parse::<Rights>().map_err(|error| error.to_string())?).is_some(),
            "root" => root.replace(parse_root(value)?).is_some(),
            _ => return Err(format!("unknown option {}", Escaped::new(word))),
        };
        if again {
            return Err(format!("{option} is given twice"));
        }
    }
    Ok(Grant {
        user: User {
            name: name.ok_or("name= is missing")?,
            key,
            rights: rights.ok_or("rights= is missing")?,
            limits: Limits::default(),
        },
        root: root.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use ftpq_proto::Right;
    use ftpq_transport::Identity;

    use super::*;

    fn key() -> Fingerprint {
        Identity::generate().unwrap().fingerprint()
    }

    #[test]
    fn lines_are_taken_whole_or_not_at_all() {
        let (a, b, c) = (key(), key(), key());
        let text = format!(
            "# friends\n\n{a} name=alice rights=list,read root=/home/alice # since May\n\
             {b} name=bob rights=all\n{b} name=bob rights=list color=red\n{c} rights=list\nnonsense\n\
             {a} name=again rights=admin\n{c} name=c rights=list rights=admin\n"
        );
        let current = parse(&text);
        assert_eq!(current.grants.len(), 1);
        let alice = &current.grants[&a];
        assert_eq!(alice.user.name, "alice");
        assert_eq!(alice.root.to_string(), "/home/alice");
        assert!(alice.user.rights.contains(Right::Read) && !alice.user.rights.contains(Right::Write));
        let rejected: Vec<_> = current.rejected.iter().map(|line| line.number).collect();
        assert_eq!(rejected, [4, 5, 6, 7, 8, 9]);
    }

    /// What is cut off or made out of an option could be the restriction in it.
    #[test]
    fn a_hash_within_a_word_is_no_comment() {
        let (a, b) = (key(), key());
        let current = parse(&format!(
            "#{a} name=no rights=all\n \t# {a} name=no rights=all\n{a} name=a#1 rights=list root=/shared#private #x\n\
             {b} name=b rights=list#,read\n"
        ));
        assert_eq!(current.grants.len(), 1);
        assert_eq!(current.grants[&a].user.name, "a#1");
        assert_eq!(current.grants[&a].root, "/shared#private".parse().unwrap());
        assert_eq!(current.rejected.iter().map(|line| line.number).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_root_is_absolute_and_canonical_or_the_line_counts_for_nothing() {
        let a = key();
        for bad in ["", "shared", "./shared", "/shared/", "//shared", "/a//b", "/a/../b", "/..", "/a/.", "/a/..", "#x"]
        {
            let current = parse(&format!("{a} name=a rights=list root={bad}\n"));
            assert!(current.grants.is_empty() && current.rejected.len() == 1, "{bad:?}");
        }
        for good in ["/", "/a", "/a/b", "/.a/b..", "/a#b"] {
            let current = parse(&format!("{a} name=a rights=list root={good}\n"));
            assert_eq!(current.grants[&a].root, good.parse().unwrap(), "{good:?}");
        }
    }

    #[test]
    fn a_change_of_the_file_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authorized_clients");
        let access = Access::open(&file).unwrap();
        let user = User { name: "me".into(), key: key(), rights: Rights::ALL, limits: Limits::default() };
        assert_eq!(access.grant(user.key), None);
        access.authorise(&user).unwrap();
        access.authorise(&user).unwrap();
        assert_eq!(access.grant(user.key).unwrap().user, user);
        assert_eq!(access.count(), 1);
        fs::write(&file, "").unwrap();
        assert_eq!(access.grant(user.key), None);
    }
}
