//! A way to one server that outlives its connections.
//!
//! A connection that is lost is replaced by the next one that succeeds, tried again with growing,
//! jittered pauses. One that has fallen silent is not waited for: a second one is tried beside it,
//! and takes over if it comes through first. QUIC would find its own way back, but its probes grow
//! so far apart that a network may be back for half a minute before it notices.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use ftpq_transport::{Closed, ConnectError, Connector, Fingerprint};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
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
}

impl Dialer {
    /// Connects once; the answer must come within `patience`.
    pub async fn dial(&self, patience: Duration) -> Result<Session, ConnectError> {
        let connection = self.connector.connect(&self.addresses, &self.trust, patience).await?;
        Session::open(connection, &self.agent).await.map_err(|error| match error {
            CallError::Closed(closed) => ConnectError::Failed(closed),
            other => ConnectError::Failed(Closed::Transport(other.to_string())),
        })
    }
}

/// Sessions on one server, one after the other.
pub struct Link {
    /// `None`: the session that there is is the only one.
    dialer: Option<Dialer>,
    current: Mutex<Session>,
}

impl Link {
    /// Connects, within `patience`.
    pub async fn open(dialer: Dialer, patience: Duration) -> Result<Arc<Self>, ConnectError> {
        let session = dialer.dial(patience).await?;
        // From now on the server is the one that was met.
        let dialer = Dialer { trust: vec![session.connection().peer()], ..dialer };
        let link = Arc::new(Self { dialer: Some(dialer.clone()), current: Mutex::new(session) });
        tokio::spawn(watch(Arc::downgrade(&link), dialer));
        Ok(link)
    }

    /// Just this session: once it is lost, that is the end.
    pub fn over(session: Session) -> Arc<Self> {
        Arc::new(Self { dialer: None, current: Mutex::new(session) })
    }

    /// The session that is open. If it was lost, a new one, tried for as long as `retry_for`.
    pub async fn session(&self, retry_for: Duration) -> Result<Session, CallError> {
        let mut current = self.current.lock().await;
        let Some(lost) = current.connection().close_reason() else { return Ok(current.clone()) };
        let Some(dialer) = &self.dialer else { return Err(CallError::Closed(lost)) };
        let give_up = Instant::now() + retry_for;
        let mut pause = FIRST_PAUSE;
        loop {
            match dialer.dial(DIAL).await {
                Ok(session) => {
                    tracing::info!(after = %lost, "connected again");
                    *current = session;
                    return Ok(current.clone());
                }
                Err(ConnectError::NoAnswer | ConnectError::Socket(_) | ConnectError::Failed(_))
                    if Instant::now() < give_up =>
                {
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(_) => return Err(CallError::Closed(lost)),
            }
        }
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.current.lock().await.close().await;
    }
}

/// Replaces a connection that has fallen silent, for as long as the link is in use.
async fn watch(link: Weak<Link>, dialer: Dialer) {
    let (mut heard, mut since) = (0, Instant::now());
    loop {
        sleep(LOOK).await;
        let Some(link) = link.upgrade() else { return };
        let session = link.current.lock().await.clone();
        let now_heard = session.connection().datagrams_received();
        if now_heard != heard || session.connection().close_reason().is_some() {
            (heard, since) = (now_heard, Instant::now());
            continue;
        }
        if since.elapsed() < SILENCE {
            continue;
        }
        let Ok(fresh) = dialer.dial(DIAL).await else { continue };
        let mut current = link.current.lock().await;
        // The old one may have come back meanwhile: then it has the state and stays.
        if session.connection().datagrams_received() == heard {
            tracing::info!("the connection fell silent and was replaced");
            session.connection().close(None, "");
            *current = fresh;
        }
    }
}

/// How long one attempt may take when there will be another.
const DIAL: Duration = Duration::from_secs(2);

/// Between attempts.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// See [`FIRST_PAUSE`].
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often silence is looked for, and from when on it is one: the keep-alive makes a living server
/// answer more often.
const LOOK: Duration = Duration::from_secs(1);
/// See [`LOOK`].
const SILENCE: Duration = Duration::from_secs(5);

/// Half to all of `pause`: clients that lost the same server must not come back in step.
pub(crate) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) as u32;
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}
