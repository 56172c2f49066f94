//! The start screen: what is served, where, for whom, and what to type next.

use std::{
    io::{self, Write},
    path::Path,
};

use ftpq_server::Server;
use ftpq_transport::{Fingerprint, Listener};

use crate::commands::shown;

/// What the start screen tells.
pub(super) struct Screen<'a> {
    /// The served folder.
    pub(super) root: &'a Path,
    /// Where the server listens.
    pub(super) listeners: &'a [Listener],
    /// Its key.
    pub(super) key: Fingerprint,
    /// What there is to say of the next one.
    pub(super) next_key: Option<String>,
    pub(super) server: &'a Server,
    /// The list of authorised clients.
    pub(super) list: &'a Path,
    /// How many are in it, and how many invitations.
    pub(super) clients: (usize, usize),
}

impl Screen<'_> {
    /// Prints it. Nobody need be there to read it.
    pub(super) fn show(&self) {
        let _ = writeln!(io::stdout(), "{}", self.lines().join("\n"));
    }

    fn open_invitations(&self) -> String {
        match self.clients.1 {
            0 => String::new(),
            count => format!(", and {count} invited"),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("ftpq {} serves {}", env!("CARGO_PKG_VERSION"), shown(self.root))];
        let listening = |listener: &Listener| format!("  listening    {} (UDP)", listener.local_addr());
        lines.extend(self.listeners.iter().map(listening));
        let verbs: Vec<_> = self.server.verbs().iter().map(|spec| spec.verb.as_str()).collect();
        let port = self.listeners.first().map_or(DEFAULT_PORT, |listener| listener.local_addr().port());
        let (own, host) = (at("localhost", port), at(&host_name(), port));
        lines.push(format!("  key          {}", self.key));
        lines.extend(self.next_key.clone());
        lines.extend([
            format!("  verbs        {}", verbs.join(" ")),
            format!("  clients      {} in {}{}", self.clients.0, shown(self.list), self.open_invitations()),
            format!("  from here    ftpq ls -s {own}"),
            format!("  elsewhere    ftpq invite prints a ticket to {host} for somebody else"),
        ]);
        lines
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn at(host: &str, port: u16) -> String {
    if port == DEFAULT_PORT { host.into() } else { format!("{host}:{port}") }
}

/// The port of servers named without one.
const DEFAULT_PORT: u16 = 4433;
