//! The servers that this client knows, by the key each had when it was first trusted.
//!
//! One line a server: `HOST:PORT SHA256:…`. `#` begins a comment. A line that cannot be read makes
//! the whole file an error: half a list of trusted keys is worse than none.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use ftpq_transport::Fingerprint;

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

    /// The key of `server` (`HOST:PORT`), if it is known.
    pub fn key_of(&self, server: &str) -> Result<Option<Fingerprint>, KnownServersError> {
        Ok(self.read()?.get(server).copied())
    }

    /// Remembers the key of `server`, replacing none: a changed key is for a person to remove first.
    pub fn remember(&self, server: &str, key: Fingerprint) -> Result<(), KnownServersError> {
        let mut known = self.read()?;
        if known.contains_key(server) {
            return Ok(());
        }
        known.insert(server.to_owned(), key);
        let mut text = String::from("# Servers whose keys this client trusts: HOST:PORT and fingerprint.\n");
        known.iter().for_each(|(server, key)| text += &format!("{server} {key}\n"));
        replace(&self.file, text.as_bytes()).map_err(|error| KnownServersError::Io { file: self.file.clone(), error })
    }

    fn read(&self) -> Result<BTreeMap<String, Fingerprint>, KnownServersError> {
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            read => read.map_err(|error| KnownServersError::Io { file: self.file.clone(), error })?,
        };
        let mut known = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(server) = words.next() else { continue };
            match (words.next().map(str::parse), words.next()) {
                (Some(Ok(key)), None) => known.insert(server.to_owned(), key),
                _ => return Err(KnownServersError::Line { file: self.file.clone(), number: index + 1 }),
            };
        }
        Ok(known)
    }
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
    #[error("{}:{number}: not a server and its key: mend or remove the line", file.display())]
    Line {
        /// Which file.
        file: PathBuf,
        /// From 1.
        number: usize,
    },
}

/// Replaces a small file of the user's own in one step, readable by its owner alone.
pub fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_private(folder)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&temporary)?;
    out.write_all(contents)?;
    out.sync_all()?;
    fs::rename(&temporary, file)
}

/// Makes what is missing of a folder for ftpq's own files, open to its owner alone.
pub fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

#[cfg(test)]
mod tests {
    use ftpq_transport::Identity;

    use super::*;

    #[test]
    fn keys_are_remembered_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownServers::new(folder.path().join("state/known_servers"));
        let [first, second] = [(); 2].map(|()| Identity::generate().unwrap().fingerprint());
        assert_eq!(known.key_of("a:4433").unwrap(), None);
        known.remember("a:4433", first).unwrap();
        known.remember("b:4433", second).unwrap();
        known.remember("a:4433", second).unwrap();
        assert_eq!(known.key_of("a:4433").unwrap(), Some(first));
        assert_eq!(known.key_of("b:4433").unwrap(), Some(second));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_servers");
        fs::write(&file, "# mine\na:1 SHA256:short\n").unwrap();
        let error = KnownServers::new(&file).key_of("a:1").unwrap_err();
        assert!(matches!(error, KnownServersError::Line { number: 2, .. }), "{error}");
    }
}
