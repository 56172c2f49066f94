//! A way to one server that outlives its connections.
//!
//! A connection that falls silent is first given a new local port: QUIC takes the same connection
//! over to it (RFC 9000, section 9), and nothing is lost. Only when that does not help and a second
//! connection comes through is the first one given up. A connection that was lost is replaced when
//! somebody asks for a session: one attempt serves all who wait. Who tries how often is not decided
//! here but in [`crate::copy`].

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ftpq_proto::{Status, TicketSecret, commands::con};
use ftpq_transport::{ConnectError, Connection, Connector, Fingerprint};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::{
    known_servers::Known,
    session::{CallError, Hello, Learn, Session},
};

/// How to reach a server, and how to know it again.
#[derive(Clone)]
pub struct Dialer {
    /// Connects as this client.
    pub connector: Connector,
    /// Where the server is.
    pub addresses: Vec<SocketAddr>,
    /// Where else it is: tried first, and alone. What fails there is tried at `addresses`.
    pub elsewhere: Vec<SocketAddr>,
    /// The keys that it may have. Once it was met, only those that are known of it count.
    pub trust: Vec<Known>,
    /// What this client calls itself.
    pub agent: String,
    /// Brought to the first connection, and never again.
    pub ticket: Option<TicketSecret>,
    /// Told at each connection which key the server has and which it will have next.
    pub learn: Option<Learn>,
    /// How long to wait for the server's answer when connecting, and for that to CON.
    pub patience: Duration,
    /// How long to wait for any other: see [`limits::ANSWER`](crate::limits::ANSWER).
    pub answers_within: Duration,
}

impl Dialer {
    async fn dial(
        &self,
        trust: &[Known],
        ticket: Option<TicketSecret>,
        patience: Duration,
    ) -> Result<Session, ConnectError> {
        let keys: Vec<_> = trust.iter().flat_map(Known::keys).collect();
        let connection = match self.connect_elsewhere(&keys, patience).await {
            Some(connection) => connection,
            None => self.connector.connect(&self.addresses, &keys, patience).await?,
        };
        let hello = Hello { agent: self.agent.clone(), ticket, learn: self.learn.clone() };
        match timeout(patience, Session::open_with(connection, hello)).await {
            Ok(Ok(session)) => {
                tokio::spawn(expect_welcome(session.clone(), self.patience));
                Ok(session.with_patience(self.answers_within))
            }
            Ok(Err(CallError::Closed(closed))) => Err(ConnectError::Failed(closed)),
            _ => Err(ConnectError::NoAnswer),
        }
    }

    /// The firewall may let nothing through there, or somebody else listen by now: then the usual port has to do.
    async fn connect_elsewhere(&self, keys: &[Fingerprint], patience: Duration) -> Option<Connection> {
        if self.elsewhere.is_empty() {
            return None;
        }
        let connected = self.connector.connect(&self.elsewhere, keys, patience.min(ELSEWHERE)).await;
        let addresses = &self.elsewhere;
        connected.inspect_err(|error| tracing::debug!(?addresses, %error, "no connection to another port")).ok()
    }
}

/// Sessions on one server, one after the other.
pub struct Link {
    /// `None`: the session that there is is the only one.
    dialer: Option<Dialer>,
    state: Mutex<State>,
    /// How many attempts to connect again have ended.
    attempts: AtomicU64,
}

struct State {
    session: Session,
    /// The key that the server was to have next, as known before this session.
    next: Option<Fingerprint>,
    /// Why the last attempt failed, and how many have in a row.
    failure: Option<Arc<ConnectError>>,
    failures: u32,
}

impl Link {
    /// Connects.
    pub async fn open(dialer: Dialer) -> Result<Arc<Self>, ConnectError> {
        let mut dialer = dialer;
        let ticket = dialer.ticket.take();
        let session = dialer.dial(&dialer.trust, ticket, dialer.patience).await?;
        // From now on the server is the one that was met.
        let met = session.connection().peer();
        let next = dialer.trust.iter().find(|known| known.key == met).and_then(|known| known.next);
        let link = Self::new(session, next, Some(dialer.clone()));
        tokio::spawn(watch(Arc::downgrade(&link), dialer));
        Ok(link)
    }

    /// Just this session: once it is lost, that is the end.
    pub fn over(session: Session) -> Arc<Self> {
        Self::new(session, None, None)
    }

    /// The session that is open. If it was lost, one attempt is made to open the next.
    pub async fn session(&self) -> Result<Session, CallError> {
        let attempts_before = self.attempts.load(Ordering::SeqCst);
        let mut state = self.state.lock().await;
        let Some(lost) = state.session.connection().close_reason() else { return Ok(state.session.clone()) };
        let Some(dialer) = &self.dialer else { return Err(CallError::Closed(lost)) };
        // Somebody else tried while this one waited: that was for both.
        if let Some(failure) = &state.failure
            && self.attempts.load(Ordering::SeqCst) != attempts_before
        {
            return Err(CallError::Connect(failure.clone()));
        }
        let patience = patience_for(state.failures, dialer.patience);
        let dialled = dialer.dial(&[state.known()], None, patience).await;
        self.attempts.fetch_add(1, Ordering::SeqCst);
        match dialled {
            Ok(session) => {
                tracing::info!(after = %lost, "connected again");
                state.replace(session.clone());
                Ok(session)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.failure = Some(error.clone());
                state.failures = state.failures.saturating_add(1);
                Err(CallError::Connect(error))
            }
        }
    }

    /// The session that is open, if there is one.
    pub fn live(&self) -> Option<Session> {
        let state = self.state.try_lock().ok()?;
        state.session.connection().close_reason().is_none().then(|| state.session.clone())
    }

    /// Where the server is, of the session that there is.
    pub async fn remote_address(&self) -> SocketAddr {
        self.state.lock().await.session.connection().remote_address()
    }

    /// How the server is reached: not at all where there was only the one session.
    pub(crate) fn dialer(&self) -> Option<&Dialer> {
        self.dialer.as_ref()
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.state.lock().await.session.close().await;
    }

    /// What the server answered to CON of the session that is open. Until then what there is to learn of
    /// the server's keys is learnt.
    pub async fn welcome(&self) -> Result<Arc<con::Welcome>, Arc<CallError>> {
        let session = self.state.lock().await.session.clone();
        session.welcome().await
    }

    /// The keys by which the server is known now.
    pub async fn known(&self) -> Known {
        self.state.lock().await.known()
    }

    fn new(session: Session, next: Option<Fingerprint>, dialer: Option<Dialer>) -> Arc<Self> {
        let state = Mutex::new(State { session, next, failure: None, failures: 0 });
        Arc::new(Self { dialer, state, attempts: AtomicU64::new(0) })
    }
}

/// A server that does not answer CON answers nothing else either.
async fn expect_welcome(session: Session, patience: Duration) {
    if timeout(patience, session.welcome()).await.is_err() {
        session.connection().close(Some(Status::TimedOut), "CON was not answered");
    }
}

/// How long the attempt after so many failures may take. Short, since QUIC sends its first packet again
/// ever more rarely: an attempt that began just before the network came back would notice late. But
/// not always, since some networks need more.
fn patience_for(failures: u32, most: Duration) -> Duration {
    if failures % 4 == 3 { most } else { ATTEMPT.min(most) }
}

impl State {
    /// The keys that the server may have when it is met again.
    fn known(&self) -> Known {
        Known { key: self.session.connection().peer(), next: self.session.next_key(self.next) }
    }

    fn replace(&mut self, session: Session) {
        let known = self.known();
        // If it has taken over meanwhile, what follows is not known yet.
        let next = known.next.filter(|_| session.connection().peer() == known.key);
        *self = Self { session, next, failure: None, failures: 0 };
    }
}

/// Looks after a connection that has fallen silent, for as long as the link is in use.
async fn watch(link: Weak<Link>, dialer: Dialer) {
    let mut last = Heard::default();
    loop {
        sleep(LOOK).await;
        let Some(link) = link.upgrade() else { return };
        let session = link.state.lock().await.session.clone();
        let silence = last.silence_of(&session);
        if silence < SILENCE || session.connection().close_reason().is_some() {
            continue;
        }
        if silence >= SILENCE * (last.moves + 1) {
            last.moves += 1;
            tracing::debug!(?silence, "the connection is silent: trying another local port");
            session.connection().rebind();
        }
        if silence < GIVE_UP {
            continue;
        }
        let known = link.state.lock().await.known();
        let Ok(fresh) = dialer.dial(&[known], None, ATTEMPT).await else { continue };
        let mut state = link.state.lock().await;
        // Only if it is still the one in use, and still silent: it may have come back meanwhile.
        if state.session.connection().is(session.connection()) && last.silence_of(&session) > silence {
            tracing::info!("the connection fell silent and was replaced");
            session.connection().close(None, "");
            state.replace(fresh);
        }
    }
}

/// When a connection was last heard of.
#[derive(Default)]
struct Heard {
    session: Option<Session>,
    datagrams: u64,
    since: Option<Instant>,
    /// How often it was moved to another local port since.
    moves: u32,
}

impl Heard {
    /// For how long nothing has come on `session`.
    fn silence_of(&mut self, session: &Session) -> Duration {
        let same = self.session.as_ref().is_some_and(|before| before.connection().is(session.connection()));
        let datagrams = session.connection().datagrams_received();
        if !same || datagrams != self.datagrams {
            *self = Self { session: Some(session.clone()), datagrams, since: None, moves: 0 };
        }
        self.since.get_or_insert_with(Instant::now).elapsed()
    }
}

/// How long most attempts to connect again may take: two round trips and a packet lost.
const ATTEMPT: Duration = Duration::from_secs(3);

/// How long another port is tried alone: a first packet that is lost is sent again after one second.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// How often silence is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// From when on it is one, and how often another local port is tried: the keep-alive makes a living
/// server answer more often.
const SILENCE: Duration = Duration::from_secs(4);

/// From when on a second connection is tried. What is in flight on the first begins anew, so it gets
/// its chance to come back.
const GIVE_UP: Duration = Duration::from_secs(15);

#[cfg(test)]
pub(crate) mod tests {
    use std::{net::Ipv4Addr, sync::Mutex as SyncMutex};

    use ftpq_proto::{
        Rights, VERSION,
        commands::con::Successor,
        message::{Reply, Request, Response},
    };
    use ftpq_transport::{Identity, Listener, Ticket};

    use super::*;

    /// What each connection brought: the ticket of its CON.
    type Tickets = Arc<SyncMutex<Vec<Option<TicketSecret>>>>;

    /// A server that welcomes everybody and can lose its clients.
    pub(crate) struct Server {
        pub(crate) listener: Listener,
        key: Fingerprint,
        tickets: Tickets,
        /// Which key it says will follow.
        successor: Arc<SyncMutex<Option<Successor>>>,
        connection: Arc<SyncMutex<Option<Connection>>>,
    }

    impl Server {
        pub(crate) fn start(identity: &Identity) -> Self {
            let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), identity).unwrap();
            let server = Self {
                listener: listener.clone(),
                key: identity.fingerprint(),
                tickets: Tickets::default(),
                successor: Arc::default(),
                connection: Arc::default(),
            };
            let (tickets, successor) = (server.tickets.clone(), server.successor.clone());
            let current = server.connection.clone();
            tokio::spawn(async move {
                while let Some(incoming) = listener.accept().await {
                    let Ok(connection) = incoming.accept(Duration::from_secs(10)).await else { continue };
                    let (mut send, mut recv) = connection.accept().await.unwrap();
                    let request: Request = recv.frame(PATIENCE).await.unwrap();
                    let args: con::Args = ftpq_proto::codec::from_value(&request.args).unwrap();
                    tickets.lock().unwrap().push(args.ticket);
                    current.lock().unwrap().replace(connection);
                    let welcome = welcome(successor.lock().unwrap().clone());
                    send.frame(&Response::Reply(Reply::Ok(ciborium::Value::serialized(&welcome).unwrap())))
                        .await
                        .unwrap();
                    send.finish();
                }
            });
            server
        }

        /// Loses its client, which then knows it.
        async fn lose(&self, link: &Link) {
            let connection = self.connection.lock().unwrap().take().unwrap();
            connection.goodbye().await;
            let session = link.state.lock().await.session.clone();
            session.connection().closed().await;
        }

        fn announce(&self, said: Option<Successor>) {
            *self.successor.lock().unwrap() = said;
        }

        pub(crate) fn dialer(&self, trust: Vec<Known>, learnt: &Learnt) -> Dialer {
            let learnt = learnt.clone();
            Dialer {
                connector: Connector::new(Identity::generate().unwrap()),
                addresses: vec![self.listener.local_addr()],
                elsewhere: Vec::new(),
                trust,
                agent: "test/1".into(),
                ticket: None,
                learn: Some(Arc::new(move |key, next| learnt.lock().unwrap().push((key, next)))),
                answers_within: Duration::from_secs(60),
                patience: PATIENCE,
            }
        }
    }

    /// What was learnt of the server's keys.
    pub(crate) type Learnt = Arc<SyncMutex<Vec<(Fingerprint, Option<Fingerprint>)>>>;

    fn welcome(successor: Option<Successor>) -> con::Welcome {
        con::Welcome {
            version: VERSION,
            agent: "test/1".into(),
            features: Vec::new(),
            verbs: Vec::new(),
            user: "anybody".into(),
            key: String::new(),
            rights: Rights::NONE,
            limits: con::Limits::default(),
            successor,
            ports: Vec::new(),
        }
    }

    /// Two keys of one server.
    fn keys() -> [Identity; 2] {
        [(); 2].map(|()| Identity::generate().unwrap())
    }

    #[tokio::test]
    async fn a_ticket_is_brought_once() {
        let [key, _] = keys();
        let server = Server::start(&key);
        let secret = Ticket::generate_secret().unwrap();
        let dialer = server.dialer(vec![Known::only(server.key)], &Learnt::default());
        let link = Link::open(Dialer { ticket: Some(secret), ..dialer }).await.unwrap();
        link.welcome().await.unwrap();
        server.lose(&link).await;
        link.session().await.unwrap().welcome().await.unwrap();
        assert_eq!(*server.tickets.lock().unwrap(), [Some(secret), None]);
    }

    #[tokio::test]
    async fn a_link_goes_on_with_the_key_that_was_announced() {
        let [old, new] = keys();
        let server = Server::start(&old);
        server.announce(Some(old.announce(new.fingerprint(), i64::MAX).unwrap()));
        let learnt = Learnt::default();
        let link = Link::open(server.dialer(vec![Known::only(old.fingerprint())], &learnt)).await.unwrap();
        link.welcome().await.unwrap();
        server.listener.change_identity(&new).unwrap();
        // What it says then is signed with the former key and proves nothing: nothing is learnt.
        let [old_key, new_key] = [&old, &new].map(Identity::fingerprint);
        server.announce(Some(old.announce(old_key, i64::MAX).unwrap()));
        server.lose(&link).await;
        link.session().await.unwrap().welcome().await.unwrap();
        assert_eq!(*learnt.lock().unwrap(), [(old_key, Some(new_key))]);
        // The way back is closed.
        server.listener.change_identity(&old).unwrap();
        server.lose(&link).await;
        assert!(matches!(link.session().await, Err(CallError::Connect(error)) if is_untrusted(&error, old_key)));
    }

    #[tokio::test]
    async fn a_key_that_nobody_announced_is_not_trusted() {
        let [old, new] = keys();
        // Forged, withdrawn, or never said.
        let forged = Some(new.announce(new.fingerprint(), i64::MAX).unwrap());
        let forged = forged.map(|said| Successor { key: new.fingerprint().to_string(), ..said });
        for (before, after) in
            [(forged, None), (Some(old.announce(new.fingerprint(), i64::MAX).unwrap()), None), (None, None)]
        {
            let server = Server::start(&old);
            let link = Link::open(server.dialer(vec![Known::only(server.key)], &Learnt::default())).await.unwrap();
            for said in [before, after] {
                server.announce(said);
                link.welcome().await.unwrap();
                server.lose(&link).await;
                link.session().await.unwrap().welcome().await.unwrap();
            }
            server.listener.change_identity(&new).unwrap();
            server.lose(&link).await;
            let error = link.session().await.err().unwrap();
            assert!(matches!(error, CallError::Connect(error) if is_untrusted(&error, new.fingerprint())));
        }
    }

    /// A statement that proves nothing changes nothing: neither what is to follow, nor that it follows.
    #[tokio::test]
    async fn a_forged_statement_is_ignored() {
        let [old, new] = keys();
        let server = Server::start(&old);
        server.announce(Some(new.announce(Identity::generate().unwrap().fingerprint(), i64::MAX).unwrap()));
        let learnt = Learnt::default();
        let known = Known { key: server.key, next: Some(new.fingerprint()) };
        let link = Link::open(server.dialer(vec![known], &learnt)).await.unwrap();
        link.welcome().await.unwrap();
        assert_eq!(*learnt.lock().unwrap(), []);
        server.listener.change_identity(&new).unwrap();
        server.lose(&link).await;
        assert_eq!(link.session().await.unwrap().connection().peer(), new.fingerprint());
    }

    fn is_untrusted(error: &ConnectError, presented: Fingerprint) -> bool {
        matches!(error, ConnectError::Untrusted { key } if *key == presented)
    }

    const PATIENCE: Duration = Duration::from_secs(30);
}
