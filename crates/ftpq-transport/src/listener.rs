//! A server's end: a socket that takes connections.

use std::{io, net::SocketAddr, sync::Arc};

use aws_lc_rs::hmac;
use ftpq_proto::Status;
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, VarInt, crypto::rustls::QuicServerConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::time::timeout;

use crate::{
    connection::{Closed, Connection},
    identity::Identity,
    socket, tuning,
};

/// A UDP socket on which a server takes connections.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    config: ServerConfig,
    address: SocketAddr,
}

/// A UDP socket that is bound, and on which nothing is taken yet. A process may need other rights for
/// binding than for reading its key.
#[derive(Debug)]
pub struct BoundSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    address: SocketAddr,
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

    /// Takes connections on a socket that is bound.
    pub fn on(bound: BoundSocket, identity: &Identity) -> Result<Self, BindError> {
        let BoundSocket { socket, address } = bound;
        let crypto = QuicServerConfig::try_from(crate::tls::server_config(identity)?)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config
            .max_incoming(tuning::INCOMING_MAX)
            .incoming_buffer_size(tuning::INCOMING_BUFFER)
            .incoming_buffer_size_total(tuning::INCOMING_BUFFER_TOTAL);
        let start = || {
            let mut endpoint_config = endpoint_config()?;
            remember_across_restarts(&mut endpoint_config, identity);
            let runtime = Arc::new(TokioRuntime);
            Endpoint::new_with_abstract_socket(endpoint_config, Some(config.clone()), socket, runtime)
        };
        let endpoint = start().map_err(|error| BindError::Socket { address, error })?;
        Ok(Self { endpoint, config, address })
    }

    /// Where it listens: the port that port 0 got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection attempt; `None` once it is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        let inner = self.endpoint.accept().await?;
        Some(Incoming { inner, config: self.config.clone() })
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
}

/// A connection attempt that nothing was answered yet.
#[derive(Debug)]
pub struct Incoming {
    inner: quinn::Incoming,
    config: ServerConfig,
}

impl Incoming {
    /// Where it comes from, perhaps forged.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.inner.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Goes through the handshake, within [`tuning::HANDSHAKE`].
    pub async fn accept(mut self) -> Result<Connection, Closed> {
        self.config.transport_config(tuning::server(self.inner.remote_address().ip()));
        let connecting = self.inner.accept_with(Arc::new(self.config))?;
        let inner = timeout(tuning::HANDSHAKE, connecting).await.map_err(|_| Closed::TimedOut)??;
        Connection::new(inner, None).ok_or_else(|| Closed::Transport("the client proved no key".into()))
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

/// Ready to receive the largest datagram that any path may carry.
pub(crate) fn endpoint_config() -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(65_527).map_err(io::Error::other)?;
    Ok(config)
}

/// Lets a restarted server tell the clients of its former life that their connections are gone
/// (stateless reset, RFC 9000 section 10.3), instead of leaving them to their idle timeout: the key
/// of the resets, and the one by which it knows a connection ID for its own, come from its identity.
fn remember_across_restarts(config: &mut EndpointConfig, identity: &Identity) {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &identity.derive("ftpq/1 stateless reset"));
    config.reset_key(Arc::new(reset_key));
    let [a, b, c, d, e, f, g, h, ..] = identity.derive("ftpq/1 connection ids");
    let ids_key = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids_key)));
}
