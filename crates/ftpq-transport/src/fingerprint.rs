//! How a key is known: SHA-256 of its SubjectPublicKeyInfo, written as OpenSSH writes its own.
//!
//! The certificate around the key means nothing: a renewed certificate, or a raw public key
//! (RFC 7250), has the same fingerprint.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// SHA-256 of a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the key in an X.509 certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let certificate = webpki::EndEntityCert::try_from(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        Ok(Self(Sha256::digest(certificate.subject_public_key_info()).into()))
    }

    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.strip_prefix(PREFIX).ok_or(ParseFingerprintError)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| ParseFingerprintError)?;
        bytes.try_into().map(Self).map_err(|_| ParseFingerprintError)
    }
}

/// Not a fingerprint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key fingerprint looks like SHA256: and 43 letters and digits")]
pub struct ParseFingerprintError;

const PREFIX: &str = "SHA256:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_its_text() {
        let fingerprint = Fingerprint([7; 32]);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for bad in ["", "SHA256:", "SHA256:AAAA", "MD5:AAAA"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(ParseFingerprintError));
        }
    }
}
