//! Peers that keep to QUIC and TLS and to nothing else: as many connections as they like, each stream by
//! hand, from several networks of this machine.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use ciborium::{Value, cbor};
use ftpq_proto::{
    codec,
    message::{Reply, Response},
};
use ftpq_transport::Identity;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, RecvStream, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{runtime::Handle, sync::oneshot};

/// Runs them, on a thread of its own, so that they go on while the test waits for something else. Dropped,
/// all of them are gone without a word.
pub(crate) struct Hostile {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Hostile {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }

    /// Waits for something that they do.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// A key, as a client proves it.
pub(crate) struct Key {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// As it stands in the list of clients.
    pub(crate) fingerprint: String,
}

impl Key {
    /// The one in `file`, which is made if missing.
    pub(crate) fn at(file: &Path) -> Self {
        let fingerprint = Identity::load_or_create(file).unwrap().fingerprint().to_string();
        let pem = fs::read(file).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
        Self { certificate, key: PrivateKeyDer::from_pem_slice(&pem).unwrap(), fingerprint }
    }

    /// A client that speaks `alpn` with this key, trusts anybody, and behaves as `transport` has it.
    pub(crate) fn client(&self, alpn: &[u8], transport: TransportConfig) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        config
    }
}

/// A UDP socket on an address of its own, and all connections from there.
#[derive(Clone)]
pub(crate) struct Place {
    endpoint: Endpoint,
}

impl Place {
    /// On `address`; must be called while [`Hostile::run`] runs it.
    pub(crate) fn on(address: IpAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).unwrap();
        Self { endpoint }
    }

    /// Only the handshake.
    pub(crate) async fn connect(
        &self,
        server: SocketAddr,
        client: &ClientConfig,
    ) -> Result<Connection, quinn::ConnectionError> {
        self.endpoint.connect_with(client.clone(), server, "ftpq").unwrap().await
    }

    /// Handshake, CON, and a welcome.
    pub(crate) async fn welcome(&self, server: SocketAddr, client: &ClientConfig) -> Connection {
        self.welcome_if_let_in(server, client).await.unwrap()
    }

    /// The same, where the handshake may be refused.
    pub(crate) async fn welcome_if_let_in(
        &self,
        server: SocketAddr,
        client: &ClientConfig,
    ) -> Result<Connection, quinn::ConnectionError> {
        let connection = self.connect(server, client).await?;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let con = cbor!({ "versions" => [1], "agent" => "hostile", "features" => [] }).unwrap();
        send.write_all(&request("CON", con)).await.unwrap();
        send.finish().unwrap();
        let answer = response(&mut recv).await;
        assert!(matches!(answer, Some(Response::Reply(Reply::Ok(_)))), "{answer:?}");
        Ok(connection)
    }
}

/// Keeps alive, and takes what comes: `window` bytes of each stream that is not read.
pub(crate) fn transport(window: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(window))
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(120_000))));
    config
}

/// A request, as it goes on the wire.
pub(crate) fn request(verb: &str, args: Value) -> Vec<u8> {
    frame(&cbor!({ "verb" => verb, "cwd" => "/", "args" => args }).unwrap())
}

/// A frame.
pub(crate) fn frame(value: &Value) -> Vec<u8> {
    codec::encode(value).unwrap()
}

/// The next frame from the server; `None` where the stream or the connection ends instead.
pub(crate) async fn response(recv: &mut RecvStream) -> Option<Response> {
    let mut prefix = [0; codec::PREFIX_LEN];
    recv.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; codec::body_len(prefix).unwrap()];
    recv.read_exact(&mut body).await.ok()?;
    Some(codec::decode(&body).unwrap())
}

/// Trusts whoever is there.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
