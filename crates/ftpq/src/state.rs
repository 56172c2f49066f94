//! What is remembered between one-shot commands: the current server, and the folder on each.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use ftpq_proto::{RemotePath, UserPath};
use ftpq_storage::own_file::{lock, replace};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use crate::target::ServerName;

/// What is remembered.
#[derive(Debug)]
pub(crate) struct State {
    file: PathBuf,
    kept: Kept,
}

/// As it is written: folders are percent-encoded, since they need not be UTF-8.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    current: Option<String>,
    #[serde(default)]
    folders: BTreeMap<String, Folders>,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Folders {
    current: String,
    previous: String,
}

impl State {
    /// Reads `file`. One that is missing or cannot be understood counts as empty: nothing in it is
    /// worth an error.
    pub(crate) fn load(file: PathBuf) -> Self {
        Self { kept: Kept::read(&file), file }
    }

    /// The server that commands go to when none is named.
    pub(crate) fn current(&self) -> Option<&str> {
        self.kept.current.as_deref()
    }

    /// The folder on `server`.
    pub(crate) fn folder(&self, server: &ServerName) -> RemotePath {
        self.folders(server).map(|folders| decode(&folders.current)).unwrap_or_default()
    }

    /// The folder before that.
    pub(crate) fn previous(&self, server: &ServerName) -> RemotePath {
        self.folders(server).map(|folders| decode(&folders.previous)).unwrap_or_default()
    }

    /// Remembers `server` as the current one.
    pub(crate) fn set_current(&mut self, server: &ServerName) -> anyhow::Result<()> {
        self.change(|kept| kept.current = Some(server.to_string()))
    }

    /// Remembers the folder on `server`.
    pub(crate) fn set_folder(&mut self, server: &ServerName, folder: &RemotePath) -> anyhow::Result<()> {
        self.change(|kept| {
            let folders = kept.folders.entry(server.to_string()).or_default();
            folders.previous = std::mem::replace(&mut folders.current, encode(folder));
        })
    }

    fn folders(&self, server: &ServerName) -> Option<&Folders> {
        self.kept.folders.get(&server.to_string())
    }

    /// Makes the same `change` here and in the file: what others have changed there since stays, and does not move
    /// whoever is in a shell here to another server.
    fn change(&mut self, change: impl Fn(&mut Kept)) -> anyhow::Result<()> {
        change(&mut self.kept);
        let in_file = || {
            let _lock = lock(&self.file)?;
            let mut kept = Kept::read(&self.file);
            change(&mut kept);
            replace(&self.file, &serde_json::to_vec_pretty(&kept)?)
        };
        in_file().with_context(|| format!("cannot remember where you are in {}", self.file.display()))
    }
}

impl Kept {
    fn read(file: &Path) -> Self {
        fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

fn encode(folder: &RemotePath) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    percent_encode(UserPath::from(folder).as_bytes(), ENCODED).to_string()
}

fn decode(text: &str) -> RemotePath {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    UserPath::new(bytes).and_then(|path| path.resolve(&RemotePath::root())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_remember_meanwhile_stays() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("state.json");
        let [one, other] = ["one:1", "other:2"].map(|name| ServerName::parse(name, 0).unwrap());
        let docs = "/docs".parse::<UserPath>().unwrap().resolve(&RemotePath::root()).unwrap();
        let mut shell = State::load(file.clone());
        shell.set_current(&one).unwrap();
        let mut command = State::load(file.clone());
        command.set_current(&other).unwrap();
        command.set_folder(&other, &docs).unwrap();
        shell.set_folder(&one, &docs).unwrap();
        assert_eq!(shell.current(), Some("one:1"));
        let after = State::load(file);
        assert_eq!(after.current(), Some("other:2"));
        assert_eq!([&one, &other].map(|server| after.folder(server)), [docs.clone(), docs]);
    }
}
