//! A server's end: a socket that takes connections.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use ftpq_proto::Status;
use quinn::{
    Endpoint, EndpointConfig, ServerConfig, TokioRuntime, ValidationTokenConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    connection::{Closed, Connection},
    identity::Identity,
    shard::Shard,
    socket,
    traffic::Traffic,
    tuning::{self, Windows},
};

/// A UDP socket on which a server takes connections. Clones share it.
#[derive(Clone)]
pub struct Listener {
    endpoint: Endpoint,
    /// What the next connection is taken with.
    config: Arc<Mutex<ServerConfig>>,
    /// Runs before each connection is taken.
    before_each: Arc<OnceLock<Hook>>,
    traffic: Traffic,
    address: SocketAddr,
    /// Where its packets are taken care of.
    runtime: Handle,
    /// What drives that, unless the caller does.
    _shard: Option<Arc<Shard>>,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// A UDP socket that is bound, and on which nothing is taken yet. A process may need other rights for
/// binding than for reading its key.
#[derive(Debug)]
pub struct BoundSocket {
    socket: UdpSocket,
    address: SocketAddr,
}

impl BoundSocket {
    /// Where it is bound: the port that port 0 got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Listener {
    /// Binds `address`. Port 0 takes a free one; `[::]` takes IPv4 as well.
    pub fn bind(address: SocketAddr, identity: &Identity) -> Result<Self, BindError> {
        Self::on(Self::bind_socket(address)?, identity)
    }

    /// Binds `address` as [`bind`](Self::bind) does, for an identity that comes later.
    pub fn bind_socket(address: SocketAddr) -> Result<BoundSocket, BindError> {
        let bind = || {
            let socket = socket::bind(address)?;
            Ok(BoundSocket { address: socket.local_addr()?, socket })
        };
        bind().map_err(|error| BindError::Socket { address, error })
    }

    /// Takes connections on a socket that is bound, as [`on`](Self::on) does, and has `shard` take care of their
    /// packets. Whoever accepts them does so on [its runtime](Self::runtime), so that all their work is done there.
    pub fn on_shard(bound: BoundSocket, identity: &Identity, shard: Arc<Shard>) -> Result<Self, BindError> {
        let listener = shard.enter(|| Self::on(bound, identity))?;
        Ok(Self { _shard: Some(shard), ..listener })
    }

    /// Takes connections on a socket that is bound.
    pub fn on(bound: BoundSocket, identity: &Identity) -> Result<Self, BindError> {
        let BoundSocket { socket, address } = bound;
        let mut config = ServerConfig::with_crypto(crypto(identity)?);
        // Clients keep no tokens for their next connection: Retry asks them to prove their address when need be.
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0);
        config.validation_token_config(tokens);
        config
            .max_incoming(tuning::INCOMING_MAX)
            .incoming_buffer_size(tuning::INCOMING_BUFFER)
            .incoming_buffer_size_total(tuning::INCOMING_BUFFER_TOTAL);
        let start = || {
            let mut endpoint_config = endpoint_config()?;
            remember_across_restarts(&mut endpoint_config, identity, address);
            let socket = socket::listen(socket)?;
            let runtime = Arc::new(TokioRuntime);
            Endpoint::new_with_abstract_socket(endpoint_config, Some(config.clone()), socket, runtime)
        };
        let endpoint = start().map_err(|error| BindError::Socket { address, error })?;
        let (config, traffic) = (Arc::new(Mutex::new(config)), Traffic::default());
        let (before_each, runtime) = (Arc::default(), Handle::current());
        Ok(Self { endpoint, config, before_each, traffic, address, runtime, _shard: None })
    }

    /// Its connections do as `traffic` says.
    #[must_use]
    pub fn with_traffic(self, traffic: Traffic) -> Self {
        Self { traffic, ..self }
    }

    /// Takes connections as `identity` from now on. Those that are there go on.
    ///
    /// What `remember_across_restarts` made of the former identity stays until the next start.
    pub fn change_identity(&self, identity: &Identity) -> Result<(), rustls::Error> {
        let crypto = crypto(identity)?;
        // Each attempt is accepted with a copy of this: the endpoint itself need not know.
        self.config().crypto = crypto;
        Ok(())
    }

    /// Runs `hook` before each connection is taken: it may still [change the identity](Self::change_identity).
    /// It must be quick, since nothing else happens meanwhile. The first hook counts.
    pub fn before_each(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.before_each.set(Box::new(hook));
    }

    /// Where it listens: the port that port 0 got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The runtime on which it takes connections: the caller's, or its shard's.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The next connection attempt; `None` once it is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        let inner = self.endpoint.accept().await?;
        self.before_each.get().iter().for_each(|hook| hook());
        let config = self.config().clone();
        Some(Incoming { inner, config, traffic: self.traffic.clone(), windows: Windows::UNSETTLED })
    }

    /// Takes no more connections. Those that are there go on.
    pub fn refuse_new(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Ends every connection, saying why, and waits until the peers were told.
    pub async fn close(&self, status: Status, reason: &str) {
        self.endpoint.close(VarInt::from_u32(status.code()), reason.as_bytes());
        let _ = timeout(tuning::FAREWELL, self.endpoint.wait_idle()).await;
    }

    fn config(&self) -> MutexGuard<'_, ServerConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.address).finish()
    }
}

/// A connection attempt that nothing was answered yet.
#[derive(Debug)]
pub struct Incoming {
    inner: quinn::Incoming,
    config: ServerConfig,
    traffic: Traffic,
    windows: Windows,
}

impl Incoming {
    /// Where it comes from, perhaps forged.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.inner.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Whether it came from there: what was sent there has come back.
    pub fn is_validated(&self) -> bool {
        self.inner.remote_address_validated()
    }

    /// Has it prove its address first (Retry, RFC 9000 section 8.1.2). Nothing is kept for it meanwhile.
    pub fn retry(self) {
        // Fails only for one that has proved it.
        let _ = self.inner.retry();
    }

    /// Turns it down with one small packet.
    pub fn refuse(self) {
        self.inner.refuse();
    }

    /// Drops it unanswered.
    pub fn ignore(self) {
        self.inner.ignore();
    }

    /// What its peer may send before it is known; [`Windows::UNSETTLED`] otherwise.
    #[must_use]
    pub fn granting(self, windows: Windows) -> Self {
        Self { windows, ..self }
    }

    /// Goes through the handshake, within `patience`.
    pub async fn accept(mut self, patience: Duration) -> Result<Connection, Closed> {
        self.config.transport_config(tuning::server(self.inner.remote_address().ip(), &self.traffic, self.windows));
        let connecting = self.inner.accept_with(Arc::new(self.config))?;
        let inner = timeout(patience, connecting).await.map_err(|_| Closed::TimedOut)??;
        Connection::new(inner, None, self.traffic.paths)
            .ok_or_else(|| Closed::Transport("the client proved no key".into()))
    }
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on UDP {address}: {error}")]
    Socket {
        /// Which address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The identity does not make a TLS configuration.
    #[error("cannot use this identity: {0}")]
    Tls(#[from] rustls::Error),
}

fn crypto(identity: &Identity) -> Result<Arc<QuicServerConfig>, rustls::Error> {
    let tls = crate::tls::server_config(identity)?;
    QuicServerConfig::try_from(tls).map(Arc::new).map_err(|error| rustls::Error::General(error.to_string()))
}

/// Ready to receive the largest datagram that any path may carry.
pub(crate) fn endpoint_config() -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(65_527).map_err(io::Error::other)?;
    Ok(config)
}

/// Lets a restarted server tell the clients of its former life that their connections are gone
/// (stateless reset, RFC 9000 section 10.3), instead of leaving them to their idle timeout: the key
/// of the resets, and the one by which it knows a connection ID for its own, come from its identity.
///
/// And from its address: whoever saw a connection at one port could otherwise ask another for the reset that ends
/// it (section 21.11).
fn remember_across_restarts(config: &mut EndpointConfig, identity: &Identity, address: SocketAddr) {
    let [reset, ids] = secrets(identity, address);
    config.reset_key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    let [a, b, c, d, e, f, g, h, ..] = ids;
    let ids_key = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids_key)));
}

fn secrets(identity: &Identity, address: SocketAddr) -> [[u8; 32]; 2] {
    ["stateless reset", "connection ids"].map(|purpose| identity.derive(&format!("ftpq/1 {purpose} {address}")))
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::connector::Connector;

    /// Connects, trusting both keys, and returns both ends.
    async fn meet(listener: &Listener, trust: &[&Identity]) -> (Connection, Connection) {
        let connector = Connector::new(Identity::generate().unwrap());
        let (address, keys) = (listener.local_addr(), trust.iter().map(|key| key.fingerprint()).collect::<Vec<_>>());
        let connecting =
            tokio::spawn(async move { connector.connect(&[address], &keys, Duration::from_secs(30)).await });
        let server = listener.accept().await.unwrap().accept(Duration::from_secs(10)).await.unwrap();
        (connecting.await.unwrap().unwrap(), server)
    }

    #[test]
    fn no_port_can_reset_the_connections_of_another() {
        let identity = Identity::generate().unwrap();
        let [one, other] = [4433, 4434].map(|port| secrets(&identity, (Ipv4Addr::LOCALHOST, port).into()));
        assert!(one.iter().all(|secret| !other.contains(secret)) && one[0] != one[1]);
        // A restart changes nothing.
        assert_eq!(secrets(&identity, (Ipv4Addr::LOCALHOST, 4433).into()), one);
    }

    #[tokio::test]
    async fn a_listener_takes_another_key_and_keeps_its_connections() {
        let [old, new] = [(); 2].map(|()| Identity::generate().unwrap());
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &old).unwrap();
        let (before, server_before) = meet(&listener, &[&old, &new]).await;
        let (same, next) = (listener.clone(), new.clone());
        listener.before_each(move || same.change_identity(&next).unwrap());
        let (after, _server_after) = meet(&listener, &[&old, &new]).await;
        assert_eq!((before.peer(), after.peer()), (old.fingerprint(), new.fingerprint()));
        let said = old.announce(new.fingerprint(), 1).unwrap();
        assert_eq!(before.verify_successor(&said, 0), Ok(Some(new.fingerprint())));
        assert_eq!(after.verify_successor(&said, 0), Ok(None));
        // The one from before goes on.
        let (mut send, _recv) = before.open().await.unwrap();
        send.frame(&"still there").await.unwrap();
        let (_send, mut recv) = server_before.accept().await.unwrap();
        assert_eq!(recv.frame::<String>(Duration::from_secs(30)).await.unwrap(), "still there");
    }
}
