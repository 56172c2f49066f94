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

use ftpq_proto::Status;
use ftpq_transport::{ConnectError, Connector, Fingerprint};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::session::{CallError, Session};

/// How to reach a server, and how to know it again.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Connects as this client.
    pub connector: Connector,
    /// Where the server is.
    pub addresses: Vec<SocketAddr>,
    /// The keys that it may have.
    pub trust: Vec<Fingerprint>,
    /// What this client calls itself.
    pub agent: String,
    /// How long to wait for the server's answer when connecting, and for that to CON.
    pub patience: Duration,
    /// How long to wait for any other: see [`limits::ANSWER`](crate::limits::ANSWER).
    pub answers_within: Duration,
}

impl Dialer {
    async fn dial(&self, patience: Duration) -> Result<Session, ConnectError> {
        let connection = self.connector.connect(&self.addresses, &self.trust, patience).await?;
        match timeout(patience, Session::open(connection, &self.agent)).await {
            Ok(Ok(session)) => {
                tokio::spawn(expect_welcome(session.clone(), self.patience));
                Ok(session.with_patience(self.answers_within))
            }
            Ok(Err(CallError::Closed(closed))) => Err(ConnectError::Failed(closed)),
            _ => Err(ConnectError::NoAnswer),
        }
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
    /// Why the last attempt failed, and how many have in a row.
    failure: Option<Arc<ConnectError>>,
    failures: u32,
}

impl Link {
    /// Connects.
    pub async fn open(dialer: Dialer) -> Result<Arc<Self>, ConnectError> {
        let session = dialer.dial(dialer.patience).await?;
        // From now on the server is the one that was met.
        let dialer = Dialer { trust: vec![session.connection().peer()], ..dialer };
        let link = Self::new(session, Some(dialer.clone()));
        tokio::spawn(watch(Arc::downgrade(&link), dialer));
        Ok(link)
    }

    /// Just this session: once it is lost, that is the end.
    pub fn over(session: Session) -> Arc<Self> {
        Self::new(session, None)
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
        let dialled = dialer.dial(patience).await;
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

    /// Says goodbye.
    pub async fn close(&self) {
        self.state.lock().await.session.close().await;
    }

    fn new(session: Session, dialer: Option<Dialer>) -> Arc<Self> {
        let state = Mutex::new(State { session, failure: None, failures: 0 });
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
    fn replace(&mut self, session: Session) {
        *self = Self { session, failure: None, failures: 0 };
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
        let Ok(fresh) = dialer.dial(ATTEMPT).await else { continue };
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

/// How often silence is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// From when on it is one, and how often another local port is tried: the keep-alive makes a living
/// server answer more often.
const SILENCE: Duration = Duration::from_secs(4);

/// From when on a second connection is tried. What is in flight on the first begins anew, so it gets
/// its chance to come back.
const GIVE_UP: Duration = Duration::from_secs(15);
