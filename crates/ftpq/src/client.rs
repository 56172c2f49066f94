//! From what was typed to a session on the right server: names, addresses, keys, trust.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead, IsTerminal, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ftpq_client::{
    Bundle, CallError, Connections, Dialer, Known, KnownServers, Learn, Link, Remote, Session,
    known_servers::KnownServersError, verdict::Wire,
};
use ftpq_proto::{RemotePath, Status, UserPath};
use ftpq_storage::{Storage, own_file::replace};
use ftpq_transport::{ConnectError, Connector, Fingerprint, Identity, Paths, Ticket, Work, processors};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::timeout;

use crate::{
    exit::{self, Ended},
    global::Global,
    home::Home,
    output::say,
    state::State,
    target::{ServerName, Target},
};

/// Everything that client commands share.
pub(crate) struct Client {
    pub(crate) global: Global,
    pub(crate) home: Home,
    pub(crate) state: State,
    paths: Paths,
    connector: Option<Connector>,
    bundles: HashMap<ServerName, Arc<Bundle>>,
}

impl Client {
    pub(crate) fn new(home: Home, global: Global) -> anyhow::Result<Self> {
        let state = State::load(home.state());
        let paths = Paths::from_text(&fs::read_to_string(home.paths()).unwrap_or_default());
        Ok(Self { global, home, state, paths, connector: None, bundles: HashMap::new() })
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
        self.storage_over(server, Connections::UpTo(1)).await
    }

    /// The same, over `connections`.
    pub(crate) async fn storage_over(
        &mut self,
        server: &ServerName,
        connections: Connections,
    ) -> anyhow::Result<Arc<dyn Storage>> {
        let bundle = self.bundle(server).await?;
        if let Connections::UpTo(count) = connections {
            let patience = Duration::from_secs(self.global.timeout);
            bundle.widen(count).await.map_err(|error| explain(server, patience, error))?;
        }
        let remote = Remote::bundled(bundle, connections);
        Ok(Arc::new(remote.with_most_names(self.global.max_names)))
    }

    /// A session on `server`: the one that is open, or a new one.
    pub(crate) async fn session(&mut self, server: &ServerName) -> anyhow::Result<Session> {
        Ok(self.bundle(server).await?.first().session().await?)
    }

    /// Lets a server take this client in that knows nothing of it but `ticket`. What the ticket says of the
    /// server's key counts, and nothing else: nothing is sent to a server that has another one. Then the
    /// server is known.
    pub(crate) async fn redeem(&mut self, ticket: &Ticket) -> anyhow::Result<ServerName> {
        let server = ServerName::parse(&ticket.server, self.global.port)?;
        let (name, known) = (server.to_string(), KnownServers::new(self.home.known_servers()));
        if let Some(there) = known.find(&name)?
            && there.keys().all(|key| key != ticket.key)
        {
            return Err(contradicts(&server, ticket.key, there.key));
        }
        let dialer = self.dialer(&server, vec![Known::only(ticket.key)]).await?;
        let patience = dialer.patience;
        let link = match Link::open(Dialer { ticket: Some(ticket.secret), ..dialer }).await {
            Err(ConnectError::Untrusted { key }) => return Err(not_as_the_ticket_says(&server, ticket.key, key)),
            opened => opened.map_err(|error| explain(&server, patience, error))?,
        };
        if let Err(error) = link.welcome().await {
            link.close().await;
            return Err(refused(&server, error));
        }
        let met = link.known().await;
        match known.remember(&name, met.key) {
            Err(KnownServersError::Other { key, .. }) => return Err(contradicts(&server, met.key, key)),
            remembered => remembered?,
        }
        known.learn(&name, met.key, met.next)?;
        if let Some(former) = self.bundles.insert(server.clone(), Bundle::new(link, processors())) {
            former.close().await;
        }
        Ok(server)
    }

    /// Waits until every server has answered CON, so that what it says of its keys is remembered.
    pub(crate) async fn settle(&self) {
        let all = async {
            for link in self.bundles.values().flat_map(|bundle| bundle.links()) {
                let _ = link.welcome().await;
            }
        };
        let _ = timeout(SETTLE, all).await;
    }

    /// What each connection has counted so far; nothing of one that is lost.
    pub(crate) fn wires(&self) -> Vec<Wire> {
        let links = self.bundles.values().flat_map(|bundle| bundle.links());
        links.map(|link| link.live().map(|session| session.wire()).unwrap_or_default()).collect()
    }

    /// How much each thread has worked that drives connections.
    pub(crate) async fn work(&self) -> Vec<Work> {
        let mut work = Vec::new();
        for bundle in self.bundles.values() {
            work.extend(bundle.work().await);
        }
        work
    }

    /// Says goodbye to every server, and remembers what was learnt of the paths to them.
    pub(crate) async fn close(&mut self) {
        let before = self.paths.to_text();
        for (_, bundle) in self.bundles.drain() {
            bundle.close().await;
        }
        let learnt = self.paths.to_text();
        if learnt != before
            && let Err(error) = replace(&self.home.paths(), learnt.as_bytes())
        {
            tracing::info!(%error, "cannot remember the paths to servers");
        }
    }

    async fn bundle(&mut self, server: &ServerName) -> anyhow::Result<Arc<Bundle>> {
        if let Some(bundle) = self.bundles.get(server) {
            return Ok(bundle.clone());
        }
        let bundle = Bundle::new(self.connect(server).await?, processors());
        self.bundles.insert(server.clone(), bundle.clone());
        Ok(bundle)
    }

    async fn connect(&mut self, server: &ServerName) -> anyhow::Result<Arc<Link>> {
        let known = KnownServers::new(self.home.known_servers());
        let pinned = known.find(&server.to_string())?;
        let mut trust: Vec<_> = pinned.into_iter().collect();
        // A server whose private key lies in this home is this user's own.
        trust.extend(self.own_server());
        let dialer = self.dialer(server, trust).await?;
        let patience = dialer.patience;
        let link = match Link::open(dialer.clone()).await {
            Err(ConnectError::Untrusted { key }) => {
                self.decide(&known, server, pinned, key).await?;
                Link::open(Dialer { trust: vec![Known::only(key)], ..dialer }).await
            }
            opened => opened,
        };
        link.map_err(|error| explain(server, patience, error))
    }

    /// How to reach `server`, if it has one of the keys in `trust`.
    async fn dialer(&mut self, server: &ServerName, trust: Vec<Known>) -> anyhow::Result<Dialer> {
        Ok(Dialer {
            addresses: self.resolve_host(server).await?,
            elsewhere: Vec::new(),
            connector: self.connector()?,
            trust,
            agent: concat!("ftpq/", env!("CARGO_PKG_VERSION")).to_owned(),
            ticket: None,
            learn: Some(self.learner(server)),
            patience: Duration::from_secs(self.global.timeout),
            answers_within: Duration::from_secs(self.global.patience),
        })
    }

    /// Remembers what `server` says of its keys, if it is a known one.
    fn learner(&self, server: &ServerName) -> Learn {
        let (known, server) = (KnownServers::new(self.home.known_servers()), server.to_string());
        Arc::new(move |key, next| {
            if let Err(error) = known.learn(&server, key, next) {
                say(format_args!("ftpq: cannot remember the next key of {server}: {error}"));
            }
        })
    }

    async fn resolve_host(&self, server: &ServerName) -> anyhow::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
        let found = found.map_err(|error| not_looked_up(&server.host, &error))?;
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
        let connector = Connector::new(identity).with_traffic(self.global.traffic(self.paths.clone()));
        Ok(self.connector.insert(connector).clone())
    }

    /// The key of this user's own server, and the one that it will have next.
    fn own_server(&self) -> impl Iterator<Item = Known> + use<> {
        let files = [self.home.server_identity(), self.home.next_server_identity()];
        files.into_iter().filter_map(|file| Some(Known::only(Identity::load(&file).ok()?.fingerprint())))
    }

    /// A server presented a key that is not trusted: an error, unless a person or `--accept-new`
    /// takes it. A changed key is always an error.
    async fn decide(
        &self,
        known: &KnownServers,
        server: &ServerName,
        pinned: Option<Known>,
        key: Fingerprint,
    ) -> anyhow::Result<()> {
        if let Some(pinned) = pinned {
            let next = pinned.next.map(|next| format!(" (and {next} was to follow)")).unwrap_or_default();
            let message = format!(
                "the key of {server} has CHANGED: it was {}{next} and is now {key}. Somebody may be in between. \
                 If its owner says that the new key is right, forget the old one: ftpq servers remove {server}",
                pinned.key
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
        match known.remember(&server.to_string(), key) {
            // Another process was faster, and met another server.
            Err(error @ KnownServersError::Other { .. }) => Err(Ended::with(exit::REFUSED, error.to_string())),
            remembered => Ok(remembered?),
        }
    }
}

/// Asks on a terminal; anywhere else the answer is no. Whoever drops this (Ctrl-C does) takes no key from
/// what reads next, such as the shell's prompt.
async fn ask_about(server: &ServerName, key: Fingerprint) -> io::Result<bool> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Ok(false);
    }
    writeln!(stderr, "{server} is not known yet. Its key is\n  {key}")?;
    write!(stderr, "Compare it with what `ftpq serve` shows there. Trust it from now on? [y/N] ")?;
    stderr.flush()?;
    let answer = typed_line(16).await?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// A line of standard input, up to `most` bytes of it. Nothing is read before there is one.
pub(crate) async fn typed_line(most: u64) -> io::Result<String> {
    let stdin = io::stdin();
    // A terminal is readable once a line is whole, or closed.
    while poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&Timespec::default()))? == 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut line = String::new();
    stdin.lock().take(most).read_line(&mut line)?;
    Ok(line)
}

/// How long to wait for what a server says of itself once all else is done: a round trip.
const SETTLE: Duration = Duration::from_secs(1);

/// How often to look whether a person has answered.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The ticket names another key than the list of known servers.
fn contradicts(server: &ServerName, ticket: Fingerprint, known: Fingerprint) -> anyhow::Error {
    let message = format!(
        "the ticket says that the key of {server} is {ticket}, but it is known to be {known}: nothing was sent. If its \
         owner says that the ticket is right, forget the known key, then try again: ftpq servers remove {server}"
    );
    Ended::with(exit::REFUSED, message)
}

/// The server has another key than the ticket says.
fn not_as_the_ticket_says(server: &ServerName, ticket: Fingerprint, presented: Fingerprint) -> anyhow::Error {
    let message = format!(
        "{server} is not the server of this ticket: its key is {presented}, and the ticket says {ticket}. Somebody may \
         be in between, or the server has a new key since: ask its owner. Nothing was sent, and the ticket is not spent"
    );
    Ended::with(exit::REFUSED, message)
}

/// The server answers CON with an error.
fn refused(server: &ServerName, error: Arc<CallError>) -> anyhow::Error {
    if error.status() != Status::BadTicket {
        return error.into();
    }
    let message =
        format!("{server} does not take this ticket: it is spent, too old, or was never given out: ask for a new one");
    Ended::with(exit::REFUSED, message)
}

/// The name of a host led nowhere. That there is none is for good; that nobody could be asked is not.
fn not_looked_up(host: &str, error: &io::Error) -> anyhow::Error {
    /// What glibc and musl say of a name that is not there (getaddrinfo(3), `EAI_NONAME` and `EAI_NODATA`): the error
    /// has no code that tells it.
    const NO_SUCH: [&str; 3] =
        ["Name or service not known", "No address associated with hostname", "Name does not resolve"];
    let why = error.to_string();
    if NO_SUCH.iter().any(|text| why.contains(text)) {
        return Ended::with(exit::FAILED, format!("{host}: no such host"));
    }
    let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
    Ended::with(exit::TEMPORARY, format!("{host}: cannot look up its address: {why}: try again"))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_is_not_there_is_no_such_host() {
        let failed = |why: &str| {
            let error = not_looked_up("h", &io::Error::other(format!("failed to lookup address information: {why}")));
            (exit::code_of(&error), exit::line(&error))
        };
        assert_eq!(failed("Name or service not known"), (exit::FAILED, "h: no such host".into()));
        let line = "h: cannot look up its address: Temporary failure in name resolution: try again";
        assert_eq!(failed("Temporary failure in name resolution"), (exit::TEMPORARY, line.into()));
    }
}
