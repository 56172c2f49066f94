//! A client's end: from a server's addresses and trusted keys to a connection.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ftpq_proto::Escaped;
use quinn::{ClientConfig, Endpoint, TokioRuntime, crypto::rustls::QuicClientConfig};
use tokio::{task::JoinSet, time};

use crate::{
    connection::{Closed, Connection},
    fingerprint::Fingerprint,
    identity::Identity,
    listener::endpoint_config,
    shard::Shard,
    socket,
    tls::{self, SeenKey},
    traffic::Traffic,
    tuning,
};

/// Connects as one identity.
#[derive(Clone, Debug)]
pub struct Connector {
    identity: Identity,
    traffic: Traffic,
    /// What drives its connections, unless whoever connects does.
    shard: Option<Arc<Shard>>,
}

impl Connector {
    /// As `identity`.
    pub fn new(identity: Identity) -> Self {
        Self { identity, traffic: Traffic::default(), shard: None }
    }

    /// Its connections do as `traffic` says.
    #[must_use]
    pub fn with_traffic(self, traffic: Traffic) -> Self {
        Self { traffic, ..self }
    }

    /// The packets of its connections are taken care of by `shard`, for as long as any of them is there.
    #[must_use]
    pub fn on_shard(self, shard: Arc<Shard>) -> Self {
        Self { shard: Some(shard), ..self }
    }

    /// This side's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Connects to the first of `addresses` that answers, if it has one of the keys in `trust`. With
    /// none in it, the handshake ends with [`ConnectError::Untrusted`] before this client's own key
    /// is shown. Each address is tried a moment after the one before
    /// (RFC 8305); the answer must come within `patience`. [`Closed::Refused`] is no answer while there are others.
    pub async fn connect(
        &self,
        addresses: &[SocketAddr],
        trust: &[Fingerprint],
        patience: Duration,
    ) -> Result<Connection, ConnectError> {
        let mut attempts = JoinSet::new();
        for (turn, &address) in addresses.iter().enumerate() {
            let (this, trust) = (self.clone(), trust.to_vec());
            let attempt = async move {
                time::sleep(HEAD_START * turn as u32).await;
                this.connect_to(address, trust).await
            };
            match &self.shard {
                Some(shard) => attempts.spawn_on(attempt, shard.runtime()),
                None => attempts.spawn(attempt),
            };
        }
        let (mut refused, mut unasked) = (false, None);
        let answer = async {
            let mut silent = addresses.is_empty();
            while let Some(attempt) = attempts.join_next().await {
                match attempt {
                    Ok(Err(ConnectError::NoAnswer)) | Err(_) => silent = true,
                    // One of this client's networks is kept out, and another may be welcome.
                    Ok(Err(ConnectError::Failed(Closed::Refused))) => refused = true,
                    // This machine may have no IPv6, say. Then it is the others that count.
                    Ok(Err(error @ ConnectError::Socket(_))) => unasked = Some(error),
                    Ok(answer) => return answer,
                }
            }
            Err(unasked.filter(|_| !silent).unwrap_or(ConnectError::NoAnswer))
        };
        match time::timeout(patience, answer).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(ConnectError::NoAnswer | ConnectError::Socket(_))) | Err(_) if refused => {
                Err(ConnectError::Failed(Closed::Refused))
            }
            Ok(failed) => failed,
            Err(_) => Err(ConnectError::NoAnswer),
        }
    }

    async fn connect_to(self, address: SocketAddr, trust: Vec<Fingerprint>) -> Result<Connection, ConnectError> {
        let seen = SeenKey::default();
        let tls = tls::client_config(&self.identity, trust.clone(), seen.clone())?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(tuning::client(address.ip(), &self.traffic));
        let socket = socket::bind_for(address)?;
        let endpoint = Endpoint::new_with_abstract_socket(endpoint_config()?, None, socket, Arc::new(TokioRuntime))?;
        // The name is never sent and means nothing.
        let connecting = endpoint
            .connect_with(config, address, "ftpq")
            .map_err(|error| ConnectError::Failed(Closed::Transport(error.to_string())))?;
        match connecting.await {
            Ok(inner) => Connection::new(inner, Some(endpoint), self.traffic.paths.clone())
                .map(|connection| connection.kept_by(self.shard))
                .ok_or_else(|| ConnectError::Failed(Closed::Transport("the server proved no key".into()))),
            Err(error) => Err(match (seen.get(), Closed::from(error)) {
                (Some(key), _) if !trust.contains(&key) => ConnectError::Untrusted { key },
                (_, Closed::TimedOut) => ConnectError::NoAnswer,
                (_, Closed::Version) => ConnectError::Version,
                (_, closed) => ConnectError::Failed(closed),
            }),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing came back.
    #[error("no answer")]
    NoAnswer,
    /// The server's key is not one of those that were trusted. Nothing was sent to it, and it does
    /// not know this client's key.
    #[error("the server's key {key} is not trusted")]
    Untrusted {
        /// The key it has.
        key: Fingerprint,
    },
    /// The server speaks another version of ftpq, or not ftpq at all.
    #[error("the server does not speak {}", Escaped::new(ftpq_proto::ALPN))]
    Version,
    /// The server answered and the connection failed.
    #[error("{0}")]
    Failed(Closed),
    /// No socket on this side.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// This side's identity does not make a TLS configuration.
    #[error("cannot use this identity: {0}")]
    Tls(#[from] rustls::Error),
}

/// How long an address is tried alone before the next one is tried as well (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::Listener;

    /// A server may keep out one of a client's networks: its IPv6, say.
    #[tokio::test]
    async fn where_one_address_is_refused_the_next_is_tried() {
        let key = Identity::generate().unwrap();
        let listeners = [(); 2].map(|()| Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &key).unwrap());
        let addresses = listeners.each_ref().map(Listener::local_addr);
        let [refusing, accepting] = listeners;
        tokio::spawn(async move {
            while let Some(incoming) = refusing.accept().await {
                incoming.refuse();
            }
        });
        let accepted = tokio::spawn(async move { accepting.accept().await.unwrap().accept(PATIENCE).await.map(drop) });
        let client = Connector::new(Identity::generate().unwrap());
        let connection = client.connect(&addresses, &[key.fingerprint()], PATIENCE).await.unwrap();
        assert_eq!(connection.remote_address(), addresses[1]);
        accepted.await.unwrap().unwrap();
        let refused = client.connect(&addresses[..1], &[key.fingerprint()], PATIENCE).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Failed(Closed::Refused)), "{refused}");
    }

    const PATIENCE: Duration = Duration::from_secs(30);
}
