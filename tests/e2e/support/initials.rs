//! First packets of QUIC clients that do not exist (RFC 9000 section 17.2.2, RFC 9001 section 5).

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, Side,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    quic::{ClientConnection, Keys, Suite, Version},
};

use super::Random;

/// What a forged first packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initial {
    /// All that a server needs to answer, in one packet: the most work for the least.
    Hello,
    /// Nothing that could be decrypted.
    Noise,
    /// The same as `Hello`, and in the same breath the end of the connection.
    Farewell,
}

/// Makes first packets, each for a connection of its own.
pub(crate) struct Forger {
    hello: Vec<u8>,
    suite: Suite,
}

impl Forger {
    pub(crate) fn new() -> Self {
        let provider = aws_lc_rs::default_provider();
        let suites = &provider.cipher_suites;
        // QUIC's own choice for first packets.
        let aes = suites.iter().find(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256).unwrap();
        let suite = aes.tls13().and_then(|suite| suite.quic_suite()).unwrap();
        // The post-quantum key share would take two packets.
        let provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..provider };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![ftpq_proto::ALPN.to_vec()];
        config.enable_sni = false;
        // initial_source_connection_id is the one parameter that must be there.
        let mut parameters = vec![0x0f, SOURCE_ID.len() as u8];
        parameters.extend(SOURCE_ID);
        let name = ServerName::try_from("ftpq").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), Version::V1, name, parameters).unwrap();
        let mut hello = Vec::new();
        client.write_hs(&mut hello);
        Self { hello, suite }
    }

    /// A datagram of [`INITIAL_LEN`] bytes.
    pub(crate) fn initial(&self, what: Initial, random: &mut Random) -> Vec<u8> {
        let id = random.next().to_be_bytes();
        let mut packet = vec![0b1100_0011, 0, 0, 0, 1, id.len() as u8];
        packet.extend(id);
        packet.push(SOURCE_ID.len() as u8);
        packet.extend(SOURCE_ID);
        packet.push(0); // no token
        let rest = INITIAL_LEN - packet.len() - 2;
        packet.extend(varint(rest));
        let number_at = packet.len();
        packet.extend(NUMBER);
        let payload_at = packet.len();
        if what == Initial::Farewell {
            // CONNECTION_CLOSE: no error, over no frame, for no reason.
            packet.extend([0x1c, 0, 0, 0]);
        }
        packet.extend([0x06, 0]); // CRYPTO, from its beginning
        packet.extend(varint(self.hello.len()));
        packet.extend(&self.hello);
        packet.resize(INITIAL_LEN - TAG_LEN, 0); // PADDING

        let keys = Keys::initial(Version::V1, self.suite.suite, self.suite.quic, &id, Side::Client).local;
        let (header, payload) = packet.split_at_mut(payload_at);
        let tag = keys.packet.encrypt_in_place(0, header, payload).unwrap();
        packet.extend(tag.as_ref());
        if what == Initial::Noise {
            let last = packet.len() - 1;
            packet[last] ^= 1;
        }
        let (header, payload) = packet.split_at_mut(payload_at);
        let (first, number) = header.split_at_mut(number_at);
        keys.header.encrypt_in_place(&payload[..SAMPLE_LEN], &mut first[0], number).unwrap();
        packet
    }
}

/// The least that a server may take for a first packet.
pub(crate) const INITIAL_LEN: usize = 1200;

const SOURCE_ID: [u8; 8] = *b"nobody's";

/// Four bytes, so that the sample begins right behind it.
const NUMBER: [u8; 4] = [0; 4];

const SAMPLE_LEN: usize = 16;

const TAG_LEN: usize = 16;

/// In two bytes.
fn varint(number: usize) -> [u8; 2] {
    assert!(number < 0x4000);
    (number as u16 | 0x4000).to_be_bytes()
}
