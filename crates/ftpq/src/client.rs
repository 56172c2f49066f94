//! From what was typed to a session on the right server: names, addresses, keys, trust.

use std::{
    collections::HashMap,
    io::{self, BufRead, IsTerminal, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ftpq_client::{Dialer, KnownServers, Link, Remote, Session};
use ftpq_proto::{RemotePath, UserPath};
use ftpq_storage::Storage;
use ftpq_transport::{ConnectError, Connector, Fingerprint, Identity};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    exit::{self, Ended},
    global::Global,
    home::Home,
    state::State,
    target::{ServerName, Target},
};

/// Everything that client commands share.
pub(crate) struct Client {
    pub(crate) global: Global,
    pub(crate) home: Home,
    pub(crate) state: State,
    connector: Option<Connector>,
    links: HashMap<ServerName, Vec<Arc<Link>>>,
}

impl Client {
    pub(crate) fn new(home: Home, global: Global) -> anyhow::Result<Self> {
        let state = State::load(home.state());
        Ok(Self { global, home, state, connector: None, links: HashMap::new() })
    }

    /// The server to talk to: the one named, or `--server`, or the current one.
    pub(crate) fn server(&self, named: Option<&ServerName>) -> anyhow::Result<ServerName> {
        if let Some(named) = named {
            return Ok(named.clone());
        }
        let typed = self.global.server.as_deref().or(self.state.current());
        let none =
            || Ended::usage("which server? Name it with -s HOST or as HOST:PATH, or connect once: ftpq con HOST");
        ServerName::parse(typed.ok_or_else(none)?, self.global.port)
    }

    /// What was typed as a remote path: its server, and the path from that server's root.
    pub(crate) fn locate(&self, target: &Target) -> anyhow::Result<(ServerName, RemotePath)> {
        let server = self.server(target.server.as_ref())?;
        let path = self.resolve(&server, &target.path)?;
        Ok((server, path))
    }

    /// Where `path` leads from the folder on `server`.
    pub(crate) fn resolve(&self, server: &ServerName, path: &UserPath) -> anyhow::Result<RemotePath> {
        path.resolve(&self.state.folder(server)).map_err(|error| Ended::usage(format!("{path}: {error}")))
    }

    /// The files of `server`.
    pub(crate) async fn storage(&mut self, server: &ServerName) -> anyhow::Result<Arc<dyn Storage>> {
        self.storage_over(server, 1).await
    }

    /// The same, over so many connections.
    pub(crate) async fn storage_over(
        &mut self,
        server: &ServerName,
        connections: u32,
    ) -> anyhow::Result<Arc<dyn Storage>> {
        let first = self.link(server).await?;
        let count = connections as usize;
        while self.links.get(server).map_or(count, Vec::len) < count {
            let link = self.connect(server).await?;
            self.links.entry(server.clone()).or_default().push(link);
        }
        let links = self.links.get(server).map(Vec::as_slice).unwrap_or_default();
        let remote = Remote::spread(first, links.iter().take(count).skip(1).cloned());
        Ok(Arc::new(remote.with_most_names(self.global.max_names)))
    }

    /// A session on `server`: the one that is open, or a new one.
    pub(crate) async fn session(&mut self, server: &ServerName) -> anyhow::Result<Session> {
        Ok(self.link(server).await?.session().await?)
    }

    /// Says goodbye to every server.
    pub(crate) async fn close(&mut self) {
        for link in self.links.drain().flat_map(|(_, links)| links) {
            link.close().await;
        }
    }

    async fn link(&mut self, server: &ServerName) -> anyhow::Result<Arc<Link>> {
        if let Some(link) = self.links.get(server).and_then(|links| links.first()) {
            return Ok(link.clone());
        }
        let link = self.connect(server).await?;
        self.links.insert(server.clone(), vec![link.clone()]);
        Ok(link)
    }

    async fn connect(&mut self, server: &ServerName) -> anyhow::Result<Arc<Link>> {
        let addresses = self.resolve_host(server).await?;
        let connector = self.connector()?;
        let known = KnownServers::new(self.home.known_servers());
        let name = server.to_string();
        let mut trust: Vec<_> = known.key_of(&name)?.into_iter().collect();
        let pinned = trust.first().copied();
        // A server whose private key lies in this home is this user's own.
        trust.extend(self.own_server());
        let patience = Duration::from_secs(self.global.timeout);
        let agent = concat!("ftpq/", env!("CARGO_PKG_VERSION")).to_owned();
        let answers_within = Duration::from_secs(self.global.patience);
        let dialer = Dialer { connector, addresses, trust, agent, patience, answers_within };
        let link = match Link::open(dialer.clone()).await {
            Err(ConnectError::Untrusted { key }) => {
                self.decide(&known, server, pinned, key).await?;
                Link::open(Dialer { trust: vec![key], ..dialer }).await
            }
            opened => opened,
        };
        link.map_err(|error| explain(server, patience, error))
    }

    async fn resolve_host(&self, server: &ServerName) -> anyhow::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
        let found = found.map_err(|_| Ended::with(exit::FAILED, format!("{}: no such host", server.host)))?;
        let (v4, v6) = (self.global.ipv4, self.global.ipv6);
        let addresses: Vec<_> = found.filter(|a| (!v4 || a.is_ipv4()) && (!v6 || a.is_ipv6())).collect();
        if addresses.is_empty() {
            let family = if v4 { "IPv4" } else { "IPv6" };
            return Err(Ended::with(exit::FAILED, format!("{}: has no {family} address", server.host)));
        }
        Ok(addresses)
    }

    fn connector(&mut self) -> anyhow::Result<Connector> {
        if let Some(connector) = &self.connector {
            return Ok(connector.clone());
        }
        let identity = match &self.global.identity {
            Some(file) => Identity::load(file)?,
            None => Identity::load_or_create(&self.home.client_identity())?,
        };
        Ok(self.connector.insert(Connector::new(identity)).clone())
    }

    fn own_server(&self) -> Option<Fingerprint> {
        Identity::load(&self.home.server_identity()).ok().map(|identity| identity.fingerprint())
    }

    /// A server presented a key that is not trusted: an error, unless a person or `--accept-new`
    /// takes it. A changed key is always an error.
    async fn decide(
        &self,
        known: &KnownServers,
        server: &ServerName,
        pinned: Option<Fingerprint>,
        key: Fingerprint,
    ) -> anyhow::Result<()> {
        if let Some(pinned) = pinned {
            let message = format!(
                "the key of {server} has CHANGED: it was {pinned} and is now {key}. Somebody may be in between. \
                 If its owner says that the new key is right, remove the line of {server} from {}",
                known.file().display()
            );
            return Err(Ended::with(exit::REFUSED, message));
        }
        if !self.global.accept_new && !ask_about(server, key).await? {
            let message = format!(
                "{server} is not known and was not trusted: its key is {key}. If its owner says that this is right, \
                 connect with: ftpq con {server} --accept-new"
            );
            return Err(Ended::with(exit::REFUSED, message));
        }
        Ok(known.remember(&server.to_string(), key)?)
    }
}

/// Asks on a terminal; anywhere else the answer is no. Nothing is read before there is a line, so
/// whoever drops this (Ctrl-C does) takes no key from what reads next, such as the shell's prompt.
async fn ask_about(server: &ServerName, key: Fingerprint) -> io::Result<bool> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Ok(false);
    }
    writeln!(stderr, "{server} is not known yet. Its key is\n  {key}")?;
    write!(stderr, "Compare it with what `ftpq serve` shows there. Trust it from now on? [y/N] ")?;
    stderr.flush()?;
    // A terminal is readable once a line is whole, or closed.
    while poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&Timespec::default()))? == 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// How often to look whether a person has answered.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn explain(server: &ServerName, patience: Duration, error: ConnectError) -> anyhow::Error {
    let message = match &error {
        ConnectError::NoAnswer => format!(
            "no answer from {server} within {} s: is ftpq serving there, and does UDP port {} get through?",
            patience.as_secs(),
            server.port
        ),
        ConnectError::Version => format!("{server} {error}: one of the two needs a newer release"),
        ConnectError::Untrusted { .. } => format!("{server} changed its key while connecting: try again"),
        other => format!("{server}: {other}"),
    };
    let code = exit::code_of(&anyhow::Error::new(error));
    Ended::with(code, message)
}
