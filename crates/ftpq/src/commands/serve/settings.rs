//! What `ftpq serve` was told: on the command line, in the environment, in `server.toml`. What
//! comes first in that order counts.

use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ftpq_server::{
    Config, Limits, config,
    units::{bytes_text, parse_bytes},
};

use super::Args;
use crate::{commands::shown, exit::Ended, home::Home};

/// What counts.
#[derive(Debug, PartialEq)]
pub(super) struct Settings {
    /// The folder to serve; `None`: the default one.
    pub(super) root: Option<PathBuf>,
    /// Where to listen; empty: everywhere.
    pub(super) listen: Vec<SocketAddr>,
    /// How many threads and ports are to share the work; `None`: what suits the machine.
    pub(super) shards: Option<usize>,
    /// The list of clients; `None`: the one in the home folder.
    pub(super) authorized_clients: Option<PathBuf>,
    /// For how long an upload that was cut is kept.
    pub(super) keep_unfinished: Duration,
    /// Where the audit log goes; `None`: there is none.
    pub(super) audit: Option<PathBuf>,
    /// The user to become; `None`: stay who we are.
    pub(super) user: Option<String>,
    /// Whether to confine the server to its files.
    pub(super) sandbox: bool,
    /// What clients may take.
    pub(super) limits: Limits,
}

/// What clients may take, as far as it was said.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits (keys of [limits] in server.toml, without \"limit-\")")]
pub(super) struct LimitArgs {
    /// Bytes of buffers over all connections, as 512M [default: 1G]
    #[arg(long, value_name = "BYTES", env = "FTPQ_LIMIT_MEMORY", value_parser = parse_bytes)]
    limit_memory: Option<u64>,
    /// Connections at a time [default: 2048]
    #[arg(long, value_name = "COUNT", env = "FTPQ_LIMIT_CONNECTIONS")]
    limit_connections: Option<u32>,
    /// Of those, with one key [default: 256]
    #[arg(long, value_name = "COUNT", env = "FTPQ_LIMIT_CONNECTIONS_PER_KEY")]
    limit_connections_per_key: Option<u32>,
    /// Of those, from one network and with nobody known on them yet [default: 64]
    #[arg(long, value_name = "COUNT", env = "FTPQ_LIMIT_CONNECTIONS_PER_NETWORK")]
    limit_connections_per_network: Option<u32>,
    /// Connections on which nobody is known yet [default: 1024]
    #[arg(long, value_name = "COUNT", env = "FTPQ_LIMIT_HALF_OPEN")]
    limit_half_open: Option<u32>,
    /// Keep networks out for a while from where refused keys and bad tickets come [default: true]
    #[arg(long, value_name = "BOOL", env = "FTPQ_LIMIT_PENALTIES")]
    limit_penalties: Option<bool>,
}

impl LimitArgs {
    fn settle(self, file: config::Limits) -> anyhow::Result<Limits> {
        let usual = Limits::default();
        let memory = self.limit_memory.or(file.memory).unwrap_or(usual.memory);
        if memory < MEMORY_MIN {
            return Err(Ended::usage(format!("a memory of {} is too little: 16M or more", bytes_text(memory))));
        }
        let per_network = self.limit_connections_per_network.or(file.connections_per_network);
        Ok(Limits {
            memory,
            connections: self.limit_connections.or(file.connections).unwrap_or(usual.connections),
            connections_per_key: self
                .limit_connections_per_key
                .or(file.connections_per_key)
                .unwrap_or(usual.connections_per_key),
            unknown_per_network: per_network.unwrap_or(usual.unknown_per_network),
            unknown: self.limit_half_open.or(file.half_open).unwrap_or(usual.unknown),
            penalties: self.limit_penalties.or(file.penalties).unwrap_or(usual.penalties),
            ..usual
        })
    }
}

impl Settings {
    /// Puts together what `args` and the file say that they name, or else the one in `home`.
    pub(super) fn gather(mut args: Args, home: &Home) -> anyhow::Result<Self> {
        let file = match args.config.take() {
            Some(file) => read(&file)?,
            None => read_if_there(&home.server_config())?,
        };
        Self::settle(args, file)
    }

    /// The environment is in `args` already.
    fn settle(args: Args, file: Config) -> anyhow::Result<Self> {
        let days = args.keep_unfinished.or(file.keep_unfinished).unwrap_or(KEEP_DAYS);
        let sandbox = if args.no_sandbox { Some(false) } else { args.sandbox };
        let listen = if args.listen.is_empty() { file.listen.unwrap_or_default() } else { args.listen };
        Ok(Self {
            root: args.root.or(file.root),
            listen,
            shards: args.shards.map(usize::from).or(file.shards),
            authorized_clients: args.authorized_clients.or(file.authorized_clients),
            keep_unfinished: Duration::from_secs(days * 24 * 60 * 60),
            audit: args.audit.or(file.audit),
            user: args.user.or(file.user),
            sandbox: sandbox.or(file.sandbox).unwrap_or(true),
            limits: args.limits.settle(file.limits)?,
        })
    }
}

fn read_if_there(file: &Path) -> anyhow::Result<Config> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        // Whatever else is the matter, reading it tells.
        _ => read(file),
    }
}

fn read(file: &Path) -> anyhow::Result<Config> {
    let text = text_of(file).map_err(|error| Ended::usage(format!("cannot read {}: {error}", shown(file))))?;
    let config = Config::parse(&text).map_err(|error| Ended::usage(format!("{}: {error}", shown(file))))?;
    Ok(from_folder(config, file.parent().unwrap_or(Path::new(""))))
}

/// No more than a little beyond what [`Config::parse`] takes.
fn text_of(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(Config::MAX_LEN as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// A relative path in a file counts from the file, wherever the server is started.
fn from_folder(config: Config, folder: &Path) -> Config {
    let from = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    Config {
        root: from(config.root),
        authorized_clients: from(config.authorized_clients),
        audit: from(config.audit),
        ..config
    }
}

/// Bytes: with less, no connection could have all that is of use to it.
const MEMORY_MIN: u64 = 16 * 1024 * 1024;

/// Days for which an upload that was cut is kept, where nothing else is said.
pub(super) const KEEP_DAYS: u64 = 7;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use clap::{Args as _, Command, FromArgMatches};

    use super::*;

    fn command() -> Command {
        super::super::Args::augment_args(Command::new("serve"))
    }

    /// Without the environment, which tests share.
    fn args(typed: &[&str]) -> Args {
        let mut command = command();
        let ids: Vec<_> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
        for id in ids {
            command = command.mut_arg(id, |arg| arg.env(None::<&str>));
        }
        let matches = command.try_get_matches_from([&["serve"], typed].concat()).unwrap();
        Args::from_arg_matches(&matches).unwrap()
    }

    fn settled(typed: &[&str], file: &str) -> Settings {
        Settings::settle(args(typed), Config::parse(file).unwrap()).unwrap()
    }

    #[test]
    fn every_key_is_a_flag_and_a_variable_and_the_other_way_round() {
        let keys = serde_json::to_value(Config::default()).unwrap();
        let keys = keys.as_object().unwrap();
        let limits = keys["limits"].as_object().unwrap().keys().map(|key| format!("limit-{key}"));
        let keys: BTreeSet<_> = keys.keys().filter(|key| *key != "limits").cloned().chain(limits).collect();
        let command = command();
        // Where the file is, and another word for sandbox=false.
        let flags = command.get_arguments().filter(|arg| !["config", "no_sandbox"].contains(&arg.get_id().as_str()));
        let mut names = BTreeSet::new();
        for arg in flags {
            // The root has a place of its own.
            let name = arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned();
            let variable = format!("FTPQ_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(variable.as_str()), "{name}");
            names.insert(name);
        }
        assert_eq!(keys, names);
    }

    #[test]
    fn what_is_typed_counts_before_what_the_file_says() {
        let file = "root = \"f\"\nlisten = [\"127.0.0.1:1\"]\nshards = 2\nauthorized-clients = \"fc\"\n\
                    keep-unfinished = 2\naudit = \"fa\"\nuser = \"fu\"\nsandbox = false\n";
        let of_file = Settings {
            root: Some("f".into()),
            listen: vec!["127.0.0.1:1".parse().unwrap()],
            shards: Some(2),
            authorized_clients: Some("fc".into()),
            keep_unfinished: Duration::from_secs(2 * 86_400),
            audit: Some("fa".into()),
            user: Some("fu".into()),
            sandbox: false,
            limits: Limits::default(),
        };
        assert_eq!(settled(&[], file), of_file);
        let typed = [
            "t",
            "--listen=127.0.0.1:2",
            "--listen=127.0.0.1:3",
            "--shards=3",
            "--authorized-clients=tc",
            "--keep-unfinished=3",
            "--audit=ta",
            "--user=tu",
            "--sandbox",
        ];
        let of_line = Settings {
            root: Some("t".into()),
            listen: vec!["127.0.0.1:2".parse().unwrap(), "127.0.0.1:3".parse().unwrap()],
            shards: Some(3),
            authorized_clients: Some("tc".into()),
            keep_unfinished: Duration::from_secs(3 * 86_400),
            audit: Some("ta".into()),
            user: Some("tu".into()),
            sandbox: true,
            limits: Limits::default(),
        };
        assert_eq!(settled(&typed, file), of_line);
        let nothing = Settings {
            root: None,
            listen: Vec::new(),
            shards: None,
            authorized_clients: None,
            keep_unfinished: Duration::from_secs(7 * 86_400),
            audit: None,
            user: None,
            sandbox: true,
            limits: Limits::default(),
        };
        assert_eq!(settled(&[], ""), nothing);
    }

    #[test]
    fn the_sandbox_is_what_was_said_last() {
        for (typed, file, sandbox) in [
            (&[][..], "", true),
            (&["--no-sandbox"], "", false),
            (&["--no-sandbox"], "sandbox = true", false),
            (&["--sandbox=no"], "", false),
            (&["--sandbox"], "sandbox = false", true),
            (&["--sandbox", "--no-sandbox"], "", false),
            (&["--no-sandbox", "--sandbox"], "", true),
        ] {
            assert_eq!(settled(typed, file).sandbox, sandbox, "{typed:?} {file:?}");
        }
    }

    #[test]
    fn paths_in_a_file_count_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.toml");
        fs::write(&file, "root = \"files\"\naudit = \"/var/log/a\"\n").unwrap();
        let config = read(&file).unwrap();
        assert_eq!(config.root, Some(folder.path().join("files")));
        assert_eq!((config.audit, config.authorized_clients), (Some("/var/log/a".into()), None));
    }

    #[test]
    fn limits_come_from_flags_and_from_the_file() {
        let file = "[limits]\nmemory = \"64M\"\nconnections = 5\npenalties = false\n";
        let of_file = settled(&[], file).limits;
        assert_eq!((of_file.memory, of_file.connections, of_file.penalties), (64 << 20, 5, false));
        assert_eq!(of_file.unknown, Limits::default().unknown);
        let typed = settled(&["--limit-memory=32M", "--limit-half-open=7", "--limit-penalties=true"], file).limits;
        assert_eq!((typed.memory, typed.connections, typed.unknown, typed.penalties), (32 << 20, 5, 7, true));
        assert!(Settings::settle(args(&["--limit-memory=1M"]), Config::default()).is_err());
    }

    /// What the help says is what counts.
    #[test]
    fn the_defaults_in_the_help_are_those_of_the_server() {
        let help = command().render_long_help().to_string();
        let Limits { memory, connections, connections_per_key, unknown_per_network, unknown, .. } = Limits::default();
        for (flag, default) in [
            ("--limit-memory", bytes_text(memory)),
            ("--limit-connections ", connections.to_string()),
            ("--limit-connections-per-key", connections_per_key.to_string()),
            ("--limit-connections-per-network", unknown_per_network.to_string()),
            ("--limit-half-open", unknown.to_string()),
        ] {
            let text = help.split_once(flag).unwrap().1;
            let said = text.split_once("[default: ").unwrap().1.split_once(']').unwrap().0;
            assert_eq!(said, default, "{flag}");
        }
    }
}
