//! `server.toml`: how a server is set up, in a file.
//!
//! ```toml
//! root = "/srv/files"
//! listen = ["[::]:4433"]
//! user = "ftpq"
//! audit = "/var/log/ftpq/audit.jsonl"
//!
//! [limits]
//! memory = "512M"
//! ```
//!
//! Every key may be absent. One that this version does not know is an error: it may be a
//! restriction. What a key means is said where it is used; here it is only read.

use std::{net::SocketAddr, path::PathBuf};

use ftpq_proto::{Escaped, limits::PORTS_MAX};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::units::parse_bytes;

/// What a file sets. Each field is a key, written with hyphens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The folder to serve.
    pub root: Option<PathBuf>,
    /// Addresses to listen on, as `ADDR:PORT`.
    pub listen: Option<Vec<SocketAddr>>,
    /// Threads, and ports, that share the work: some of [`SHARDS`](Self::SHARDS).
    #[serde(deserialize_with = "shards")]
    pub shards: Option<usize>,
    /// The list of the clients that may connect.
    pub authorized_clients: Option<PathBuf>,
    /// Days for which an upload that was cut can be gone on with: one of [`KEEP_DAYS`](Self::KEEP_DAYS).
    #[serde(deserialize_with = "days")]
    pub keep_unfinished: Option<u64>,
    /// Where to write a line about each command.
    pub audit: Option<PathBuf>,
    /// The user of this machine as whom to serve.
    pub user: Option<String>,
    /// Whether the server confines itself to its files.
    pub sandbox: Option<bool>,
    /// What clients may take, one by one and all together.
    pub limits: Limits,
}

/// The table `[limits]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Bytes, over all connections: a number, or a text such as `"512M"`.
    #[serde(deserialize_with = "bytes")]
    pub memory: Option<u64>,
    /// Connections at a time.
    pub connections: Option<u32>,
    /// Of those, with one key.
    pub connections_per_key: Option<u32>,
    /// Of those, from one network.
    pub connections_per_network: Option<u32>,
    /// Connections of which nobody knows yet who it is.
    pub half_open: Option<u32>,
    /// Whether whoever fails to come in waits before the next attempt.
    pub penalties: Option<bool>,
}

impl Config {
    /// Bytes that a file may have: its text is read at once.
    pub const MAX_LEN: usize = 64 * 1024;

    /// What `keep-unfinished` may be.
    pub const KEEP_DAYS: std::ops::RangeInclusive<u64> = 1..=3650;

    /// What `shards` may be: the usual port and those that CON announces.
    pub const SHARDS: std::ops::RangeInclusive<usize> = 1..=PORTS_MAX;

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > Self::MAX_LEN {
            return Err(ConfigError::TooLong);
        }
        toml::from_str(text).map_err(|error| ConfigError::Line {
            number: error.span().map_or(1, |span| line_at(text, span.start)),
            why: Escaped::new(error.message()).to_string(),
        })
    }
}

/// Why a file sets nothing. Each is one line, fit for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is longer than [`Config::MAX_LEN`].
    #[error("longer than 64 KiB")]
    TooLong,
    /// Something in it is no TOML, no known key, or no value for its key.
    #[error("line {number}: {why}")]
    Line {
        /// From 1.
        number: usize,
        /// What is wrong there.
        why: String,
    },
}

/// The line, from 1, in which the byte at `offset` stands.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn days<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let days = u64::deserialize(from)?;
    let range = Config::KEEP_DAYS;
    let out = || D::Error::custom(format!("{days} is not in {} to {} days", range.start(), range.end()));
    if range.contains(&days) { Ok(Some(days)) } else { Err(out()) }
}

fn shards<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    let shards = usize::deserialize(from)?;
    let range = Config::SHARDS;
    let out = || D::Error::custom(format!("{shards} is not in {} to {} shards", range.start(), range.end()));
    if range.contains(&shards) { Ok(Some(shards)) } else { Err(out()) }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a size, as in \"512M\" or 536870912")]
    enum Size {
        Number(u64),
        Text(String),
    }
    match Size::deserialize(from)? {
        Size::Number(bytes) => Ok(Some(bytes)),
        Size::Text(text) => parse_bytes(&text).map(Some).map_err(D::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            root = "/srv/files"
            listen = ["[::]:4433", "127.0.0.1:4434"] # two
            shards = 4
            authorized-clients = "clients"
            keep-unfinished = 30
            audit = "/var/log/ftpq/audit.jsonl"
            user = "ftpq"
            sandbox = false
            [limits]
            memory = "512M"
            connections = 1000
            connections-per-key = 10
            connections-per-network = 100
            half-open = 64
            penalties = true
        "#;
        let config = Config::parse(text).unwrap();
        // Whoever adds a key adds it here.
        let Config { root, listen, shards, authorized_clients, keep_unfinished, audit, user, sandbox, limits } = config;
        assert_eq!(root, Some("/srv/files".into()));
        assert_eq!(listen, Some(vec!["[::]:4433".parse().unwrap(), "127.0.0.1:4434".parse().unwrap()]));
        assert_eq!((shards, authorized_clients), (Some(4), Some("clients".into())));
        assert_eq!((keep_unfinished, audit), (Some(30), Some("/var/log/ftpq/audit.jsonl".into())));
        assert_eq!((user, sandbox), (Some("ftpq".into()), Some(false)));
        let Limits { memory, connections, connections_per_key, connections_per_network, half_open, penalties } = limits;
        assert_eq!((memory, connections, connections_per_key), (Some(512 << 20), Some(1000), Some(10)));
        assert_eq!((connections_per_network, half_open, penalties), (Some(100), Some(64), Some(true)));
    }

    #[test]
    fn every_key_may_be_absent() {
        for text in ["", "\u{feff}", "# nothing\r\n", "[limits]\n"] {
            assert_eq!(Config::parse(text), Ok(Config::default()), "{text:?}");
        }
        assert_eq!(Config::parse("limits.memory = 1").unwrap().limits.memory, Some(1));
    }

    /// Whoever mistypes a restriction must not get a server without it.
    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        for (text, line, what) in [
            ("\n\nrooot = \"/\"\n", 3, "unknown field `rooot`"),
            ("authorized_clients = \"x\"", 1, "unknown field `authorized_clients`"),
            ("root = \"a\"\nroot = \"b\"", 2, "duplicate key"),
            ("root = 1", 1, "expected path string"),
            ("listen = \"127.0.0.1:1\"", 1, "expected a sequence"),
            ("listen = [\n\"127.0.0.1:1\",\n\"localhost\"]", 3, "invalid socket address"),
            ("keep-unfinished = 0", 1, "0 is not in 1 to 3650 days"),
            ("keep-unfinished = 3651", 1, "3651 is not in 1 to 3650 days"),
            ("keep-unfinished = \"7\"", 1, "expected u64"),
            ("shards = 0", 1, "0 is not in 1 to 16 shards"),
            ("shards = 17", 1, "17 is not in 1 to 16 shards"),
            ("sandbox = \"no\"", 1, "expected a boolean"),
            ("user = \"a", 1, "invalid basic string"),
            ("[limits]\nmemory = \"512MB\"", 2, "as in 512M"),
            ("[limits]\nmemory = -1", 2, "a size"),
            ("[limits]\nmemory = 1.5", 2, "a size"),
            ("[limits]\nconnections = 4294967296", 2, "expected u32"),
            ("[limits]\nfiles = 1", 2, "unknown field `files`"),
            ("[limit]\n", 1, "unknown field `limit`"),
            ("[limits]\n[limits]\n", 2, "duplicate key"),
        ] {
            let said = error(text);
            assert!(said.starts_with(&format!("line {line}: ")) && said.contains(what), "{text:?}: {said}");
        }
    }

    #[test]
    fn an_error_is_one_harmless_line() {
        for text in
            ["\"a\\nb\\u001b[2J\\u202e\" = 1", "\u{1b}[2J", "\u{0}", "root = \"\\q\"", "[[limits]]", "\u{202e}=1"]
        {
            let said = error(text);
            assert!(!said.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}: {said:?}");
        }
    }

    #[test]
    fn a_file_that_is_long_or_deep_is_refused() {
        let long = "#".repeat(Config::MAX_LEN);
        assert_eq!(Config::parse(&long), Ok(Config::default()));
        assert_eq!(Config::parse(&format!("{long}#")), Err(ConfigError::TooLong));
        let half = Config::MAX_LEN / 2;
        for text in ["[".repeat(half), format!("a = {}", "[".repeat(half)), format!("a{} = 1", ".a".repeat(half - 8))] {
            error(&text);
        }
    }
}
