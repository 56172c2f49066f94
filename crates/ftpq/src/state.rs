//! What is remembered between one-shot commands: the current server, and the folder on each.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use anyhow::Context;
use ftpq_proto::{RemotePath, UserPath};
use ftpq_storage::own_file::replace;
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
        let kept = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, kept }
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
        self.kept.current = Some(server.to_string());
        self.save()
    }

    /// Remembers the folder on `server`.
    pub(crate) fn set_folder(&mut self, server: &ServerName, folder: &RemotePath) -> anyhow::Result<()> {
        let folders = self.kept.folders.entry(server.to_string()).or_default();
        folders.previous = std::mem::replace(&mut folders.current, encode(folder));
        self.save()
    }

    fn folders(&self, server: &ServerName) -> Option<&Folders> {
        self.kept.folders.get(&server.to_string())
    }

    fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.kept).map_err(io::Error::from)?;
        replace(&self.file, &text).with_context(|| format!("cannot remember where you are in {}", self.file.display()))
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
