//! The servers that this client knows, by the key each had when it was first trusted.
//!
//! One line a server: `HOST:PORT SHA256:…`, and behind it `next=SHA256:…` where the server has said,
//! signed with its key, which one it will have next. `#` begins a comment. A line that cannot be read
//! makes the whole file an error: half a list of trusted keys is worse than none.
//!
//! Whoever changes the list holds its lock meanwhile, so that of several processes none undoes
//! what another remembers. Lines that are not concerned stay as they are.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ftpq_storage::own_file;
use ftpq_transport::Fingerprint;

/// A server's key, and the one that it has announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The key that it has.
    pub key: Fingerprint,
    /// The key that it will have next, by its own word.
    pub next: Option<Fingerprint>,
}

impl Known {
    /// A key, and no other.
    pub fn only(key: Fingerprint) -> Self {
        Self { key, next: None }
    }

    /// Both keys: either may be the server's.
    pub fn keys(&self) -> impl Iterator<Item = Fingerprint> + use<> {
        [Some(self.key), self.next].into_iter().flatten()
    }

    /// What is known after the server proved to have `key` and said that `next` will follow.
    fn after(&self, key: Fingerprint, next: Option<Fingerprint>) -> Self {
        if self.keys().any(|known| known == key) { Self { key, next } } else { *self }
    }
}

/// The list, read when it is needed: other processes write it too.
#[derive(Clone, Debug)]
pub struct KnownServers {
    file: PathBuf,
}

impl KnownServers {
    /// The list in `file`, which may be missing.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// Where the list is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All servers, by their names (`HOST:PORT`).
    pub fn all(&self) -> Result<BTreeMap<String, Known>, KnownServersError> {
        self.parsed(&self.read()?)
    }

    /// What is known of `server` (`HOST:PORT`).
    pub fn find(&self, server: &str) -> Result<Option<Known>, KnownServersError> {
        Ok(self.all()?.get(server).copied())
    }

    /// Remembers the key of `server`. A key that is there already is never replaced: that is an error,
    /// and for a person to remove first.
    pub fn remember(&self, server: &str, key: Fingerprint) -> Result<(), KnownServersError> {
        self.change(|known| match known.get(server) {
            Some(there) if there.keys().any(|known| known == key) => Ok(Vec::new()),
            Some(there) => {
                Err(KnownServersError::Other { file: self.file.clone(), server: server.into(), key: there.key })
            }
            None => Ok(vec![(server.to_owned(), Some(Known::only(key)))]),
        })
    }

    /// Takes over what `server` proved, that it has `key`, and what it said, that `next` will follow or
    /// none. Only for a server that is known, and by that key or as the one that was to follow.
    pub fn learn(&self, server: &str, key: Fingerprint, next: Option<Fingerprint>) -> Result<(), KnownServersError> {
        let learnt = |known: &BTreeMap<String, Known>| {
            let there = known.get(server)?;
            Some(there.after(key, next)).filter(|learnt| learnt != there)
        };
        // Mostly nothing is new: then nobody is kept waiting.
        if learnt(&self.all()?).is_none() {
            return Ok(());
        }
        self.change(|known| Ok(learnt(known).map(|learnt| (server.to_owned(), Some(learnt))).into_iter().collect()))
    }

    /// Forgets `servers` (`HOST:PORT`). Returns what was known of each.
    pub fn forget(&self, servers: &[String]) -> Result<Vec<Option<Known>>, KnownServersError> {
        let mut forgotten = Vec::new();
        self.change(|known| {
            forgotten = servers.iter().map(|server| known.get(server).copied()).collect();
            Ok(servers
                .iter()
                .filter(|server| known.contains_key(*server))
                .map(|server| (server.clone(), None))
                .collect())
        })?;
        Ok(forgotten)
    }

    /// Reads, decides and writes as one step among all processes. What is decided are lines: a server, and
    /// what is to be known of it.
    fn change(
        &self,
        decide: impl FnOnce(&BTreeMap<String, Known>) -> Result<Vec<Change>, KnownServersError>,
    ) -> Result<(), KnownServersError> {
        let _lock = own_file::lock(&self.file).map_err(|error| self.io(error))?;
        let text = self.read()?;
        let changes = decide(&self.parsed(&text)?)?;
        if changes.is_empty() {
            return Ok(());
        }
        let text = changes.iter().fold(text, |text, (server, known)| with_line(&text, server, *known));
        if text.len() > FILE_MAX {
            return Err(KnownServersError::TooLarge { file: self.file.clone() });
        }
        own_file::replace(&self.file, text.as_bytes()).map_err(|error| self.io(error))
    }

    fn read(&self) -> Result<String, KnownServersError> {
        let mut text = String::new();
        match fs::File::open(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(text),
            opened => opened.and_then(|file| file.take(FILE_MAX as u64 + 1).read_to_string(&mut text)),
        }
        .map_err(|error| self.io(error))?;
        if text.len() > FILE_MAX {
            return Err(KnownServersError::TooLarge { file: self.file.clone() });
        }
        Ok(text)
    }

    fn parsed(&self, text: &str) -> Result<BTreeMap<String, Known>, KnownServersError> {
        parse(text).map_err(|number| KnownServersError::Line { file: self.file.clone(), number })
    }

    fn io(&self, error: io::Error) -> KnownServersError {
        KnownServersError::Io { file: self.file.clone(), error }
    }
}

/// What a list says. The error is the number, from 1, of the first line that is not a server and its
/// key, or is the second one for its server.
pub fn parse(text: &str) -> Result<BTreeMap<String, Known>, usize> {
    let mut known = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let parsed = parse_line(line).map_err(|NotALine| number)?;
        let Some((server, keys)) = parsed else { continue };
        if known.insert(server.to_owned(), keys).is_some() {
            return Err(number);
        }
    }
    Ok(known)
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownServersError {
    /// The file cannot be read or written.
    #[error("{}: {error}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is not a server and its key.
    #[error(
        "{}:{number}: not a server and its key, or a second line for a server: mend or remove the line",
        file.display()
    )]
    Line {
        /// Which file.
        file: PathBuf,
        /// From 1.
        number: usize,
    },
    /// The file is larger than any such list.
    #[error("{}: more than 1 MiB: remove the servers that you do not use", file.display())]
    TooLarge {
        /// Which file.
        file: PathBuf,
    },
    /// Another key stands there.
    #[error("{server} is known by another key, {key}, in {}", file.display())]
    Other {
        /// Which file.
        file: PathBuf,
        /// Which server.
        server: String,
        /// The key that is there.
        key: Fingerprint,
    },
}

/// A server, and what is to be known of it: `None` for nothing.
type Change = (String, Option<Known>);

struct NotALine;

/// What one line says; `None` where it says nothing.
fn parse_line(line: &str) -> Result<Option<(&str, Known)>, NotALine> {
    let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
    let Some(server) = words.next() else { return Ok(None) };
    let key = words.next().and_then(|word| word.parse().ok()).ok_or(NotALine)?;
    let next = match words.next() {
        None => None,
        Some(word) => Some(word.strip_prefix(NEXT).and_then(|key| key.parse().ok()).ok_or(NotALine)?),
    };
    if words.next().is_some() { Err(NotALine) } else { Ok(Some((server, Known { key, next }))) }
}

/// `text` with the line of `server` changed, added, or taken out. A comment behind it stays.
fn with_line(text: &str, server: &str, known: Option<Known>) -> String {
    let mut changed = String::new();
    let mut found = false;
    let written = |known: Known| {
        let next = known.next.map(|next| format!(" {NEXT}{next}")).unwrap_or_default();
        format!("{server} {}{next}", known.key)
    };
    for line in text.lines() {
        if !matches!(parse_line(line), Ok(Some((name, _))) if name == server) {
            changed += &format!("{line}\n");
            continue;
        }
        found = true;
        let comment = line.split_once('#').map(|(_, comment)| format!(" #{comment}")).unwrap_or_default();
        changed += &known.map(|known| format!("{}{comment}\n", written(known))).unwrap_or_default();
    }
    if let (Some(known), false) = (known, found) {
        let header = if text.is_empty() { HEADER } else { "" };
        changed += &format!("{header}{}\n", written(known));
    }
    changed
}

const HEADER: &str = "# Servers whose keys this client trusts: HOST:PORT and fingerprint.\n";

const NEXT: &str = "next=";

/// Bytes of a list at most: ten thousand servers.
const FILE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    fn key(byte: u8) -> Fingerprint {
        Fingerprint::from([byte; 32])
    }

    fn list() -> (tempfile::TempDir, KnownServers) {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownServers::new(folder.path().join("state/known_servers"));
        (folder, known)
    }

    #[test]
    fn keys_are_remembered_and_never_replaced() {
        let (_folder, known) = list();
        assert_eq!(known.find("a:4433").unwrap(), None);
        known.remember("a:4433", key(1)).unwrap();
        known.remember("b:4433", key(2)).unwrap();
        known.remember("a:4433", key(1)).unwrap();
        let error = known.remember("a:4433", key(2)).unwrap_err();
        assert!(matches!(error, KnownServersError::Other { key: there, .. } if there == key(1)), "{error}");
        assert_eq!(known.find("a:4433").unwrap(), Some(Known::only(key(1))));
        assert_eq!(known.find("b:4433").unwrap(), Some(Known::only(key(2))));
    }

    #[test]
    fn the_next_key_is_learnt_kept_and_takes_over() {
        let (_folder, known) = list();
        let now = || known.find("a:1").unwrap().map(|known| (known.key, known.next));
        known.learn("a:1", key(1), Some(key(2))).unwrap();
        assert_eq!(now(), None, "nobody told of this server");
        known.remember("a:1", key(1)).unwrap();
        known.learn("a:1", key(1), Some(key(2))).unwrap();
        assert_eq!(now(), Some((key(1), Some(key(2)))));
        known.learn("a:1", key(3), Some(key(4))).unwrap();
        assert_eq!(now(), Some((key(1), Some(key(2)))), "a key that is not trusted says nothing");
        known.learn("a:1", key(1), None).unwrap();
        assert_eq!(now(), Some((key(1), None)), "withdrawn");
        known.learn("a:1", key(1), Some(key(2))).unwrap();
        known.learn("a:1", key(2), None).unwrap();
        assert_eq!(now(), Some((key(2), None)));
        known.learn("a:1", key(1), None).unwrap();
        assert_eq!(now(), Some((key(2), None)), "the former key is nobody");
    }

    #[test]
    fn what_is_forgotten_is_gone_and_the_rest_stays_as_it_was_written() {
        let (folder, known) = list();
        let (a, b) = (key(1), key(2));
        let text = format!("# mine\n  a:1   {a} # at work\n\nb:1 {b} next={a}# home\n");
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::write(known.file(), &text).unwrap();
        known.learn("b:1", b, None).unwrap();
        assert_eq!(fs::read_to_string(known.file()).unwrap(), text.replace(&format!(" next={a}#"), " #"));
        known.remember("c:1", b).unwrap();
        let names = ["b:1", "nobody:1", "c:1"].map(str::to_owned);
        assert_eq!(known.forget(&names).unwrap(), [Some(Known::only(b)), None, Some(Known::only(b))]);
        assert_eq!(fs::read_to_string(known.file()).unwrap(), format!("# mine\n  a:1   {a} # at work\n\n"));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error() {
        let (a, b) = (key(1), key(2));
        for line in [
            "a:1".into(),
            "a:1 SHA256:short".into(),
            format!("a:1 {a} {b}"),
            format!("a:1 {a} next=SHA256:short"),
            format!("a:1 {a} Next={b}"),
            format!("a:1 {a} next={b} more"),
            format!("a:1 next={b}"),
            format!("b:1 {a}"),
        ] {
            assert_eq!(parse(&format!("# mine\nb:1 {b}\n{line}\nworse")), Err(3), "{line}");
        }
        let (_folder, known) = list();
        known.remember("b:1", b).unwrap();
        fs::write(known.file(), "b:1").unwrap();
        for failed in [known.find("b:1").map(drop), known.remember("c:1", a), known.forget(&["b:1".into()]).map(drop)] {
            assert!(matches!(failed, Err(KnownServersError::Line { number: 1, .. })), "{failed:?}");
        }
        assert_eq!(fs::read_to_string(known.file()).unwrap(), "b:1");
    }

    #[test]
    fn a_file_that_is_no_list_is_not_read_into_memory() {
        let (_folder, known) = list();
        known.remember("a:1", key(1)).unwrap();
        let full = format!("#{}\n", "x".repeat(FILE_MAX - 2));
        fs::write(known.file(), &full).unwrap();
        assert_eq!(known.find("a:1").unwrap(), None);
        let grown = known.remember("a:1", key(1)).unwrap_err();
        assert!(matches!(grown, KnownServersError::TooLarge { .. }), "{grown}");
        assert_eq!(fs::read_to_string(known.file()).unwrap(), full);
        fs::write(known.file(), format!("{full}#")).unwrap();
        assert!(matches!(known.find("a:1"), Err(KnownServersError::TooLarge { .. })));
    }

    #[test]
    fn many_that_remember_at_once_lose_nothing() {
        let (_folder, known) = list();
        const WRITERS: u8 = 16;
        let together = Barrier::new(WRITERS.into());
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (known, together) = (&known, &together);
                scope.spawn(move || {
                    together.wait();
                    for turn in 0..8 {
                        known.remember(&format!("host-{writer}:{turn}"), key(writer)).unwrap();
                    }
                    known.forget(&[format!("host-{writer}:0")]).unwrap();
                });
            }
        });
        let all = known.all().unwrap();
        assert_eq!(all.len(), usize::from(WRITERS) * 7);
        assert!((0..WRITERS).all(|writer| all.get(&format!("host-{writer}:7")) == Some(&Known::only(key(writer)))));
    }
}
