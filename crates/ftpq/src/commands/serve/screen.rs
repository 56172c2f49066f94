//! The start screen: what is served, where, for whom, and what to type next.

use std::{
    io::{self, Write},
    path::Path,
};

use ftpq_server::Server;
use ftpq_transport::{Fingerprint, Listener};

use super::{audit::Audit, sandbox::Confined, user};
use crate::{commands::shown, global::DEFAULT_PORT};

/// What the start screen tells.
pub(super) struct Screen<'a> {
    /// The served folder.
    pub(super) root: &'a Path,
    /// Where the server listens.
    pub(super) listeners: &'a [Listener],
    /// At which further ports.
    pub(super) ports: &'a [u16],
    /// Its key.
    pub(super) key: Fingerprint,
    /// What there is to say of the next one.
    pub(super) next_key: Option<String>,
    pub(super) server: &'a Server,
    /// The list of authorised clients.
    pub(super) list: &'a Path,
    /// How many are in it, and how many invitations.
    pub(super) clients: (usize, usize),
    pub(super) confined: &'a Confined,
    pub(super) audit: Option<&'a Audit>,
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
        if !self.ports.is_empty() {
            let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
            lines.push(format!("  more ports   {} (UDP, for several connections of one client)", ports.join(" ")));
        }
        let verbs: Vec<_> = self.server.verbs().iter().map(|spec| spec.verb.as_str()).collect();
        let port = self.listeners.first().map_or(DEFAULT_PORT, |listener| listener.local_addr().port());
        let own = if port == DEFAULT_PORT { "localhost".into() } else { format!("localhost:{port}") };
        lines.push(format!("  key          {}", self.key));
        lines.extend(self.next_key.clone());
        lines.extend([
            format!("  verbs        {}", verbs.join(" ")),
            format!("  clients      {} in {}{}", self.clients.0, shown(self.list), self.open_invitations()),
            format!("  user         {}", user::current()),
            format!("  sandbox      {}", self.confined),
        ]);
        lines.extend(self.audit.map(|audit| format!("  audit log    {}", shown(audit.file()))));
        lines.extend([
            format!("  from here    ftpq ls -s {own}"),
            "  elsewhere    ftpq invite prints a ticket for somebody else".into(),
        ]);
        lines
    }
}
