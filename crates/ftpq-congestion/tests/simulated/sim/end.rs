//! The two ends of a flow: real connections of quinn-proto, driven by hand.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, MtuDiscoveryConfig, ServerConfig, StreamEvent, StreamId, TransportConfig, ValidationTokenConfig,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

use super::Flow;

#[derive(Clone)]
pub(crate) enum Algorithm {
    Ours(ftpq_congestion::Config),
    Cubic,
    NewReno,
    Bbr,
}

/// When the application has something to send.
#[derive(Clone, Copy)]
pub(crate) enum App {
    /// Always.
    Bulk,
    /// Only so many bytes per second until a moment, always afterwards.
    Slow { rate: f64, until: Duration },
    /// Not between these moments.
    Pause { from: Duration, until: Duration },
    /// Only so many bytes per second from a moment on.
    Fade { from: Duration, rate: f64 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    peer: SocketAddr,
    /// The timer that is set.
    timer: Option<Instant>,
    replies: Vec<BytesMut>,
}

pub(super) struct Ends {
    pub(super) flow: Flow,
    sender: End,
    receiver: End,
    streams: Vec<StreamId>,
    written: u64,
    read: u64,
    writes_at: Option<Duration>,
    /// Bytes written before the application became slow.
    faded: Option<u64>,
}

/// Bytes that the application hands over at once.
const BLOCK: usize = 16 * 1024;

/// A gap in one stream must not hold up the others, and quinn bounds the gaps of a stream.
const STREAMS: usize = 8;

/// Larger than any path here needs, so that flow control is not what is measured.
const WINDOW: u32 = 64 * 1024 * 1024;

impl Ends {
    pub(super) fn new(index: usize, flow: &Flow) -> Self {
        let address = |host| SocketAddr::from((Ipv4Addr::new(10, 0, host, 1), 1000 + index as u16));
        let mut config = EndpointConfig::default();
        config.rng_seed(Some([index as u8 + 1; 32]));
        let config = Arc::new(config);
        let mut server = tls().1.clone();
        server.transport = Arc::new(transport(Arc::new(CubicConfig::default())));
        let end = |server, peer| End {
            endpoint: Endpoint::new(config.clone(), server, false, None),
            connection: None,
            peer,
            timer: None,
            replies: Vec::new(),
        };
        Self {
            flow: flow.clone(),
            sender: end(None, address(2)),
            receiver: end(Some(Arc::new(server)), address(1)),
            streams: Vec::new(),
            written: 0,
            read: 0,
            writes_at: None,
            faded: None,
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        let mut config = tls().0.clone();
        config.transport_config(Arc::new(transport(match self.flow.algorithm.clone() {
            Algorithm::Ours(config) => Arc::new(config),
            Algorithm::Cubic => Arc::new(CubicConfig::default()),
            Algorithm::NewReno => Arc::new(NewRenoConfig::default()),
            Algorithm::Bbr => Arc::new(BbrConfig::default()),
        })));
        self.sender.connection = Some(self.sender.endpoint.connect(now, config, self.sender.peer, "server").unwrap());
    }

    pub(super) fn receive(&mut self, now: Instant, side: Side, packet: BytesMut) {
        let end = self.end(side);
        let mut reply = Vec::new();
        match end.endpoint.handle(now, end.peer, None, None, packet, &mut reply) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut end.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                end.connection = Some(end.endpoint.accept(incoming, now, &mut reply, None).ok().unwrap());
            }
            Some(DatagramEvent::Response(transmit)) => end.replies.push(BytesMut::from(&reply[..transmit.size])),
            None => {}
        }
    }

    /// Whether a timer was due.
    pub(super) fn timeout(&mut self, now: Instant, side: Side) -> bool {
        let end = self.end(side);
        let Some((_, connection)) = &mut end.connection else { return false };
        let due = connection.poll_timeout().is_some_and(|at| at <= now);
        if due {
            connection.handle_timeout(now);
        }
        end.timer = None;
        true
    }

    /// The deadline for which a timer must be set.
    pub(super) fn deadline(&mut self, side: Side) -> Option<Instant> {
        let end = self.end(side);
        let deadline = end.connection.as_mut()?.1.poll_timeout()?;
        if end.timer.is_some_and(|timer| timer <= deadline) {
            return None;
        }
        end.timer = Some(deadline);
        Some(deadline)
    }

    /// Lets the application read or write; bytes that were read.
    pub(super) fn pump(&mut self, since: Duration, side: Side) -> u64 {
        self.events(side);
        match side {
            Side::Sender => {
                self.write(since);
                0
            }
            Side::Receiver => self.read_all(),
        }
    }

    pub(super) fn done(&self) -> bool {
        self.read >= self.flow.bytes
    }

    pub(super) fn next_write(&mut self, since: Duration) -> Option<Duration> {
        let next = match self.flow.app {
            App::Bulk => return None,
            App::Slow { until, .. } if since >= until => return None,
            App::Slow { .. } | App::Fade { .. } => since + Duration::from_millis(5),
            App::Pause { until, .. } if since >= until => return None,
            App::Pause { until, .. } => until,
        };
        if self.writes_at.is_some_and(|at| at > since) {
            return None;
        }
        self.writes_at = Some(next);
        Some(next)
    }

    pub(super) fn transmit(&mut self, now: Instant, side: Side) -> Vec<BytesMut> {
        let end = self.end(side);
        let mut packets = std::mem::take(&mut end.replies);
        let Some((handle, connection)) = &mut end.connection else { return packets };
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 10, &mut buffer) {
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            packets.extend(buffer[..transmit.size].chunks(segment).map(BytesMut::from));
            buffer.clear();
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = end.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        packets
    }

    pub(super) fn report(&self) -> Option<ftpq_congestion::Report> {
        let (_, connection) = self.sender.connection.as_ref()?;
        ftpq_congestion::Report::of(connection.congestion_state())
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Sender => &mut self.sender,
            Side::Receiver => &mut self.receiver,
        }
    }

    fn events(&mut self, side: Side) {
        let end = self.end(side);
        let Some((_, connection)) = &mut end.connection else { return };
        let mut connected = false;
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => connected = true,
                Event::Stream(StreamEvent::Opened { .. }) => while connection.streams().accept(Dir::Uni).is_some() {},
                Event::ConnectionLost { reason } => panic!("{reason}"),
                _ => {}
            }
        }
        if side == Side::Sender && connected {
            // The receiver knows them by the same identifiers.
            self.streams = (0..STREAMS).map(|_| connection.streams().open(Dir::Uni).unwrap()).collect();
        }
    }

    fn write(&mut self, since: Duration) {
        let budget = match self.flow.app {
            App::Slow { rate, until } if since < until => {
                (rate * since.saturating_sub(self.flow.start).as_secs_f64()) as u64
            }
            App::Pause { from, until } if (from..until).contains(&since) => 0,
            App::Fade { from, rate } if since >= from => {
                let before = *self.faded.get_or_insert(self.written);
                before + (rate * (since - from).as_secs_f64()) as u64
            }
            _ => u64::MAX,
        };
        let budget = budget.min(self.flow.bytes);
        let Some((_, connection)) = &mut self.sender.connection else { return };
        let mut blocked = false;
        while !blocked {
            blocked = true;
            for &id in &self.streams {
                let size = (budget.saturating_sub(self.written)).min(BLOCK as u64) as usize;
                let block = &mut [zeros().slice(..size)];
                if size > 0
                    && connection.send_stream(id).write_chunks(block).is_ok_and(|written| {
                        self.written += written.bytes as u64;
                        written.bytes > 0
                    })
                {
                    blocked = false;
                }
            }
        }
    }

    fn read_all(&mut self) -> u64 {
        let Some((_, connection)) = &mut self.receiver.connection else { return 0 };
        let mut bytes = 0;
        for id in self.streams.clone() {
            let mut stream = connection.recv_stream(id);
            let Ok(mut chunks) = stream.read(true) else { continue };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                bytes += chunk.bytes.len() as u64;
            }
            let _ = chunks.finalize().should_transmit();
        }
        self.read += bytes;
        bytes
    }
}

fn zeros() -> &'static Bytes {
    static ZEROS: OnceLock<Bytes> = OnceLock::new();
    ZEROS.get_or_init(|| Bytes::from(vec![0; BLOCK]))
}

/// As ftpq tunes it, but for the windows.
fn transport(congestion: Arc<dyn ControllerFactory + Send + Sync>) -> TransportConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(10u32.into());
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(1452);
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(WINDOW.into())
        .ack_frequency_config(Some(acks))
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(congestion);
    config
}

/// A key that is always the same, so that the handshake is always as long.
fn tls() -> &'static (ClientConfig, ServerConfig) {
    static TLS: OnceLock<(ClientConfig, ServerConfig)> = OnceLock::new();
    TLS.get_or_init(|| {
        // PKCS #8 of an Ed25519 key that is no secret.
        let mut key = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        key.extend([7; 32]);
        let key = rcgen::KeyPair::try_from(key).unwrap();
        let mut certificate = rcgen::CertificateParams::new(vec!["server".into()]).unwrap();
        certificate.serial_number = Some(1.into());
        let certificate = certificate.self_signed(&key).unwrap();
        let certificate = CertificateDer::from(certificate);
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], // ftpq's first choice, and the longest
            ..aws_lc_rs::default_provider()
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let versions = &[&rustls::version::TLS13];
        let client = rustls::ClientConfig::builder_with_provider(provider.clone());
        let client = client.with_protocol_versions(versions).unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider);
        let server = server.with_protocol_versions(versions).unwrap().with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let server = server.with_single_cert(vec![certificate], key.into()).unwrap();
        let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
        // As ftpq has it, and the same whatever features quinn is built with.
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0);
        server.validation_token_config(tokens);
        (client, server)
    })
}
