//! One connection between two keys.

use std::{net::SocketAddr, sync::Arc};

use ftpq_congestion::{Remembered, Report};
use ftpq_proto::{Escaped, Status, codec::clipped, commands::con::Successor};
use quinn::{ConnectionError, Endpoint, TransportErrorCode, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;

use crate::{
    counters::Counters,
    fingerprint::Fingerprint,
    fit::Fit,
    shard::{Shard, Work},
    socket,
    stream::{RecvHalf, SendHalf},
    succession::{self, SuccessionError},
    traffic::{Learnt, Paths},
    tuning::Windows,
};

/// One connection between two keys. Cheap to clone; all clones are the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: quinn::Connection,
    peer: Fingerprint,
    /// A client's own endpoint; a server's belongs to its listener.
    endpoint: Option<Endpoint>,
    /// Where what it learns is kept.
    paths: Paths,
    fit: Arc<Fit>,
    /// Where its packets are taken care of.
    runtime: Handle,
    /// What drives that for a client, unless whoever connects does.
    _shard: Option<Arc<Shard>>,
}

impl Connection {
    /// Must be called within the runtime that takes care of it. `None` where the peer proved no key, which our TLS
    /// configurations do not let happen.
    pub(crate) fn new(inner: quinn::Connection, endpoint: Option<Endpoint>, paths: Paths) -> Option<Self> {
        let peer = Fingerprint::of(&peer_certificate(&inner)?).ok()?;
        let fit = Arc::new(Fit::new(inner.clone(), endpoint.is_some()));
        Some(Self { inner, peer, endpoint, paths, fit, runtime: Handle::current(), _shard: None })
    }

    /// Keeps `shard` alive for as long as it is there itself.
    pub(crate) fn kept_by(self, shard: Option<Arc<Shard>>) -> Self {
        Self { _shard: shard, ..self }
    }

    /// The key that the other side proved to hold.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// The key that the other side will have next, if it is its own word that says so; `None` where it has
    /// that key already. `now`: seconds since 1970 (UTC).
    pub fn verify_successor(&self, said: &Successor, now: i64) -> Result<Option<Fingerprint>, SuccessionError> {
        let certificate = peer_certificate(&self.inner).ok_or(SuccessionError::Malformed)?;
        succession::verify(&certificate, said, now)
    }

    /// Where the other side is now: it may move.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.inner.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// UDP datagrams that came from the peer so far: one that is alive lets this grow.
    pub fn datagrams_received(&self) -> u64 {
        self.inner.stats().udp_rx.datagrams
    }

    /// What it has counted so far, and how its path is now. Costs some microseconds.
    pub fn counters(&self) -> Counters {
        let report = Report::of(&*self.inner.congestion_state());
        Counters::new(&self.inner.stats(), report, self.remote_address().ip().is_loopback())
    }

    /// How much the thread has worked that takes care of its packets; `None` once that has ended.
    pub async fn work(&self) -> Option<Work> {
        self.runtime.spawn(async { Work::here() }).await.ok()
    }

    /// Whether `other` is a clone of this.
    pub fn is(&self, other: &Connection) -> bool {
        self.inner.stable_id() == other.inner.stable_id()
    }

    /// Moves a client's end to a new local port. QUIC takes the connection along (RFC 9000, section
    /// 9); the server learns of it at once. Helps where a NAT or firewall has forgotten the old one.
    pub fn rebind(&self) {
        let Some(endpoint) = &self.endpoint else { return };
        // The new socket is for the same thread as the old one.
        let _within = self.runtime.enter();
        let moved = socket::bind_for(self.inner.remote_address()).and_then(|socket| endpoint.rebind_abstract(socket));
        if let Err(error) = moved {
            tracing::debug!(%error, "cannot take another local port");
        }
    }

    /// Opens a stream, waiting while the peer allows no more of them.
    pub async fn open(&self) -> Result<(SendHalf, RecvHalf), Closed> {
        let (send, recv) = self.inner.open_bi().await?;
        Ok((SendHalf::new(send, self.fit.clone()), RecvHalf::new(recv, self.fit.clone())))
    }

    /// The next stream that the peer opens.
    pub async fn accept(&self) -> Result<(SendHalf, RecvHalf), Closed> {
        let (send, recv) = self.inner.accept_bi().await.inspect_err(|_| self.learn())?;
        Ok((SendHalf::new(send, self.fit.clone()), RecvHalf::new(recv, self.fit.clone())))
    }

    /// Grants the peer the windows and streams of somebody who is known.
    pub fn settle(&self, windows: Windows) {
        self.fit.settle(windows);
        self.inner.set_max_concurrent_bi_streams(windows.streams.into());
    }

    /// Lets the windows that were [`settle`](Self::settle)d grow where the path holds more, if `grant` says that they
    /// may, from the first to the second. It is asked while bodies move, and must be quick.
    pub fn may_grow(&self, grant: impl Fn(Windows, Windows) -> bool + Send + Sync + 'static) {
        self.fit.ask(Box::new(grant));
    }

    /// Ends the connection at once, whatever is in flight. `None` is a plain goodbye.
    pub fn close(&self, status: Option<Status>, reason: &str) {
        self.learn();
        let code = status.map_or(0, Status::code);
        self.inner.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// [`Self::close`]s with a goodbye and lets it reach the wire, so that the other side need not
    /// wait for its idle timeout.
    pub async fn goodbye(&self) {
        self.close(None, "");
        // The driver's task sends the packet when it next runs, on whichever thread that is.
        let sent = self.runtime.spawn(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
        let _ = sent.await;
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> Closed {
        self.inner.closed().await.into()
    }

    /// Remembers of the path what will be of use to the next connection.
    fn learn(&self) {
        let learnt = Report::of(&*self.inner.congestion_state()).and_then(|report| report.remember());
        if let Some(Remembered { bandwidth, min_rtt }) = learnt {
            self.paths.note(self.inner.remote_address().ip(), Learnt { bandwidth, min_rtt });
        }
    }

    /// Whether the connection has ended, and why.
    pub fn close_reason(&self) -> Option<Closed> {
        self.inner.close_reason().map(Closed::from)
    }
}

fn peer_certificate(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The other side said goodbye.
    #[error("the connection was closed")]
    Goodbye,
    /// The other side ended it and said why.
    #[error("closed by the other side: {status}{}{}", if reason.is_empty() { "" } else { ": " }, Escaped::new(reason))]
    ByPeer {
        /// For programs.
        status: Status,
        /// For a person, as the peer sent it, cut to what a message may hold.
        reason: String,
    },
    /// Nothing was heard for [`crate::tuning::IDLE`].
    #[error("the other side fell silent")]
    TimedOut,
    /// The other side has forgotten the connection: it was restarted.
    #[error("the other side was restarted")]
    Forgotten,
    /// This side ended it.
    #[error("the connection was given up")]
    Here,
    /// The other side takes no connections from here now: it is full, or keeps this network out for a while.
    #[error("the other side takes no connections from here at the moment")]
    Refused,
    /// The two do not speak the same protocol (no common ALPN token or QUIC version).
    #[error("no common protocol version")]
    Version,
    /// QUIC or TLS failed. The text may hold what the peer said.
    #[error("connection failed: {}", Escaped::new(_0))]
    Transport(String),
}

impl From<ConnectionError> for Closed {
    fn from(error: ConnectionError) -> Self {
        /// TLS alert 120, `no_application_protocol` (RFC 7301), as a QUIC error (RFC 9001, section 4.8).
        const NO_COMMON_ALPN: u8 = 120;
        match error {
            ConnectionError::ApplicationClosed(close) => match u32::try_from(close.error_code.into_inner()) {
                Ok(0) => Closed::Goodbye,
                code => Closed::ByPeer {
                    status: code.map_or(Status::Internal, Status::from),
                    reason: clipped(&String::from_utf8_lossy(&close.reason)).into(),
                },
            },
            ConnectionError::TimedOut => Closed::TimedOut,
            ConnectionError::Reset => Closed::Forgotten,
            ConnectionError::LocallyClosed => Closed::Here,
            ConnectionError::VersionMismatch => Closed::Version,
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::crypto(NO_COMMON_ALPN) =>
            {
                Closed::Version
            }
            ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                Closed::Refused
            }
            ConnectionError::TransportError(error) if error.code == TransportErrorCode::crypto(NO_COMMON_ALPN) => {
                Closed::Version
            }
            other => Closed::Transport(clipped(&other.to_string()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::time::Instant;

    use super::*;
    use crate::{Connector, Identity, Listener, tuning::Windows};

    /// A few large packets fill it, fewer than are acknowledged at once.
    #[tokio::test(start_paused = true)]
    async fn a_small_window_is_not_held_up_by_late_acknowledgements() {
        // Only waiting takes time here. With 25 ms for each 64 KiB it was 1.4 s. Where the kernel is slow to hand a
        // packet over, time passes that nobody has waited.
        let mut waited = Vec::new();
        while waited.len() < 3 && waited.last().is_none_or(|last| *last >= Duration::from_millis(700)) {
            waited.push(four_mebibytes_in_a_small_window().await);
        }
        assert!(waited.last().is_some_and(|last| *last < Duration::from_millis(700)), "{waited:?}");
    }

    async fn four_mebibytes_in_a_small_window() -> Duration {
        const PATIENCE: Duration = Duration::from_secs(30);
        let identity = Identity::generate().unwrap();
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).unwrap();
        let connector = Connector::new(Identity::generate().unwrap());
        let (addresses, keys) = ([listener.local_addr()], [identity.fingerprint()]);
        let (client, server) = tokio::join!(connector.connect(&addresses, &keys, PATIENCE), async {
            listener.accept().await.unwrap().granting(Windows::UNSETTLED).accept(PATIENCE).await
        });
        let (client, server) = (client.unwrap(), server.unwrap());
        let (body, began) = (vec![0; 4 << 20], Instant::now());
        let sending = async {
            let (mut send, _recv) = server.accept().await.unwrap();
            send.block(body.clone().into()).await.unwrap();
            send.finish();
            send.delivered().await;
        };
        let receiving = async {
            let (mut send, mut recv) = client.open().await.unwrap();
            send.frame(&"please").await.unwrap();
            recv.block(body.len()).await.unwrap();
        };
        tokio::join!(sending, receiving);
        began.elapsed()
    }

    #[test]
    fn what_a_peer_says_at_the_end_cannot_drive_a_terminal() {
        let hostile = "\u{1b}[2J\nforged line";
        let by_peer = Closed::ByPeer { status: Status::Internal, reason: hostile.into() };
        for closed in [by_peer, Closed::Transport(hostile.into())] {
            assert!(!closed.to_string().contains(char::is_control), "{closed:?}");
        }
    }
}
