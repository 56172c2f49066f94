//! TLS 1.3 between two pinned keys. Certificates are only envelopes for keys: names, dates and
//! issuers in them mean nothing, and nobody but the pin (client) or the list of authorised keys
//! (server, after the handshake) says who is trusted.
//!
//! Deliberately absent: session tickets and 0-RTT. rustls offers both by default; the first would
//! let a revoked key resume, the second replay commands.

use std::sync::{Arc, Mutex, PoisonError};

use ftpq_proto::ALPN;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::{fingerprint::Fingerprint, identity::Identity};

/// aws-lc-rs, the one provider of the whole program, with our order of preference.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    let suites = [
        // AES-128 first: 8 % faster than AES-256 for whole transfers, and strong enough.
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let mut suites = suites.to_vec();
    if !has_aes() {
        // Without AES instructions ChaCha20 is the fast one. QUIC still needs AES-128 listed.
        suites.rotate_right(1);
    }
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        // Post-quantum first: what is recorded today must not be readable in ten years.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
}

/// What a client presents and whom it accepts. `seen` receives the server's key, trusted or not.
pub(crate) fn client_config(
    identity: &Identity,
    trusted: Vec<Fingerprint>,
    seen: SeenKey,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = PinnedServer { trusted, seen, provider: provider.clone() };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // no certificate authority: the pin decides
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false; // keys have no names
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// What a server presents. Any client key is accepted here; whether it may do anything is decided
/// before its first command, where a refusal can say what to do about it.
pub(crate) fn server_config(identity: &Identity) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClientKey { provider }))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The key that a server presented, for the error that asks a person about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenKey(Arc<Mutex<Option<Fingerprint>>>);

impl SeenKey {
    pub(crate) fn get(&self) -> Option<Fingerprint> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, key: Fingerprint) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

#[derive(Debug)]
struct PinnedServer {
    trusted: Vec<Fingerprint>,
    seen: SeenKey,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = Fingerprint::of(end_entity)?;
        self.seen.set(key);
        if self.trusted.contains(&key) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Requires a key and proof that the client holds it; trusts it with nothing.
#[derive(Debug)]
struct AnyClientKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClientKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Fingerprint::of(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use rustls::quic;

    use super::*;

    /// A whole handshake in memory: quinn does not say which group was negotiated, rustls does.
    fn handshake(
        client: rustls::ClientConfig,
        server: rustls::ServerConfig,
    ) -> Result<(quic::ClientConnection, quic::ServerConnection), rustls::Error> {
        let name = ServerName::try_from("ftpq").unwrap();
        let mut client = quic::ClientConnection::new(Arc::new(client), quic::Version::V1, name, vec![])?;
        let mut server = quic::ServerConnection::new(Arc::new(server), quic::Version::V1, vec![])?;
        // What is written under different keys must not be read as one flight.
        let mut silent = 0;
        while silent < 2 {
            silent += 1;
            let mut flight = Vec::new();
            if client.write_hs(&mut flight).is_some() || !flight.is_empty() {
                silent = 0;
                server.read_hs(&flight)?;
            }
            let mut flight = Vec::new();
            if server.write_hs(&mut flight).is_some() || !flight.is_empty() {
                silent = 0;
                client.read_hs(&flight)?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    fn identity() -> Identity {
        Identity::generate().unwrap()
    }

    #[test]
    fn the_key_exchange_is_post_quantum_and_the_cipher_aes_128() {
        let (client_key, server_key) = (identity(), identity());
        let client = client_config(&client_key, vec![server_key.fingerprint()], SeenKey::default()).unwrap();
        let (client, server) = handshake(client, server_config(&server_key).unwrap()).unwrap();
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(server.alpn_protocol(), Some(ALPN));
        if has_aes() {
            let suite = client.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        }
    }

    #[test]
    fn a_server_with_another_key_is_refused_and_its_key_reported() {
        let (pinned, imposter) = (identity(), identity());
        let seen = SeenKey::default();
        let client = client_config(&identity(), vec![pinned.fingerprint()], seen.clone()).unwrap();
        assert!(handshake(client, server_config(&imposter).unwrap()).is_err());
        assert_eq!(seen.get(), Some(imposter.fingerprint()));
    }

    #[test]
    fn a_client_without_a_key_is_refused() {
        let server_key = identity();
        let mut client = client_config(&identity(), vec![server_key.fingerprint()], SeenKey::default()).unwrap();
        client.client_auth_cert_resolver = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
            .client_auth_cert_resolver;
        assert!(handshake(client, server_config(&server_key).unwrap()).is_err());
    }

    #[test]
    fn nothing_can_be_resumed_or_replayed() {
        let config = server_config(&identity()).unwrap();
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
    }
}
