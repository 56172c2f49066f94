//! A server's word on the key that it will have next, signed with the key that it has.
//!
//! The statement that is signed is text, so that it can be no other thing that a key of ours signs
//! (TLS 1.3 begins with 64 spaces, a certificate with 0x30), and both keys are in it by their hashes:
//!
//! ```text
//! "ftpq/1 successor" 0x00, old fingerprint (32 bytes), new fingerprint (32 bytes), until (8 bytes, big-endian)
//! ```
//! Whoever is connected checks the signature with the key that the other side has just proved to hold,
//! so that the statement of one server says nothing about another.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ftpq_proto::commands::con::Successor;
use rustls::{SignatureScheme, pki_types::CertificateDer};

use crate::{fingerprint::Fingerprint, identity::Identity, tls};

impl Identity {
    /// Says that this key is followed by `next`. The word holds until `until`, in seconds since 1970 (UTC).
    pub fn announce(&self, next: Fingerprint, until: i64) -> Result<Successor, AnnounceError> {
        let schemes: Vec<SignatureScheme> = tls::provider().signature_verification_algorithms.supported_schemes();
        let signer = self.certified.key.choose_scheme(&schemes).ok_or(AnnounceError::NoScheme)?;
        let signature = signer.sign(&statement(self.fingerprint(), next, until))?;
        Ok(Successor { key: next.to_string(), until, signature: STANDARD_NO_PAD.encode(signature) })
    }
}

/// Why a key cannot be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The key that should sign knows no signature that clients know.
    #[error("this key cannot sign for its successor")]
    NoScheme,
    /// Signing failed.
    #[error("cannot sign for the successor: {0}")]
    Sign(#[from] rustls::Error),
}

/// Checks what a peer, whose `certificate` holds the key that it proved, says at `now` (seconds since
/// 1970, UTC). Returns the key that it will have next: `None` where that is the one that it has already.
pub(crate) fn verify(
    certificate: &CertificateDer<'_>,
    said: &Successor,
    now: i64,
) -> Result<Option<Fingerprint>, SuccessionError> {
    let next: Fingerprint = said.key.parse().map_err(|_| SuccessionError::Malformed)?;
    let old = Fingerprint::of(certificate).map_err(|_| SuccessionError::Malformed)?;
    if next == old {
        // It took over while this was on its way.
        return Ok(None);
    }
    if said.until < now {
        return Err(SuccessionError::Expired);
    }
    if said.signature.len() > SIGNATURE_MAX {
        return Err(SuccessionError::Malformed);
    }
    let signature = STANDARD_NO_PAD.decode(&said.signature).map_err(|_| SuccessionError::Malformed)?;
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|_| SuccessionError::Malformed)?;
    let message = statement(old, next, said.until);
    let known = tls::provider().signature_verification_algorithms.all;
    let good = known.iter().any(|&algorithm| certificate.verify_signature(algorithm, &message, &signature).is_ok());
    if good { Ok(Some(next)) } else { Err(SuccessionError::Signature) }
}

/// Why a statement counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// Its parts are not what they should be.
    #[error("it cannot be read")]
    Malformed,
    /// Its time is over.
    #[error("it has expired, or one of the two clocks is wrong")]
    Expired,
    /// It was not signed by the server's key, or was changed since.
    #[error("its signature is not the server's")]
    Signature,
}

fn statement(old: Fingerprint, new: Fingerprint, until: i64) -> Vec<u8> {
    [LABEL, old.as_bytes(), new.as_bytes(), &until.to_be_bytes()].concat()
}

const LABEL: &[u8] = b"ftpq/1 successor\0";

/// Letters of a signature: more than RSA of 8192 bits needs.
const SIGNATURE_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's key, the one that follows, and what the first says of it.
    fn announced() -> (Identity, Identity, Successor) {
        let [old, new] = [(); 2].map(|()| Identity::generate().unwrap());
        let said = old.announce(new.fingerprint(), 1000).unwrap();
        (old, new, said)
    }

    fn checked(presented: &Identity, said: &Successor, now: i64) -> Result<Option<Fingerprint>, SuccessionError> {
        verify(&presented.certified.cert[0], said, now)
    }

    #[test]
    fn a_key_speaks_for_the_one_that_follows() {
        let (old, new, said) = announced();
        assert_eq!(checked(&old, &said, 999), Ok(Some(new.fingerprint())));
        assert_eq!(checked(&old, &said, 1000), Ok(Some(new.fingerprint())));
        assert_eq!(checked(&new, &said, 999), Ok(None), "the new key needs nobody's word");
    }

    #[test]
    fn a_statement_that_was_changed_or_is_anothers_counts_for_nothing() {
        let (old, new, said) = announced();
        let other = Identity::generate().unwrap();
        let bad = Err(SuccessionError::Signature);
        assert_eq!(checked(&old, &said, 1001), Err(SuccessionError::Expired));
        assert_eq!(checked(&old, &Successor { until: 2000, ..said.clone() }, 1001), bad);
        assert_eq!(checked(&old, &Successor { key: other.fingerprint().to_string(), ..said.clone() }, 0), bad);
        assert_eq!(checked(&other, &said, 0), bad, "another server has it from this one");
        let forged = new.announce(other.fingerprint(), 1000).unwrap();
        assert_eq!(checked(&old, &forged, 0), bad);
        let mut bytes = STANDARD_NO_PAD.decode(&said.signature).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(checked(&old, &Successor { signature: STANDARD_NO_PAD.encode(bytes), ..said.clone() }, 0), bad);
        assert_eq!(checked(&old, &Successor { signature: String::new(), ..said.clone() }, 0), bad);
        for malformed in [
            Successor { key: "SHA256:short".into(), ..said.clone() },
            Successor { signature: "no base64!".into(), ..said.clone() },
            Successor { signature: "A".repeat(SIGNATURE_MAX + 4), ..said },
        ] {
            assert_eq!(checked(&old, &malformed, 0), Err(SuccessionError::Malformed));
        }
    }

    /// A signature that this key made for something else must not pass for a statement.
    #[test]
    fn the_label_is_signed() {
        let (old, new, said) = announced();
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let signer = old.certified.key.choose_scheme(&[scheme]).unwrap();
        let (old_key, new_key) = (old.fingerprint(), new.fingerprint());
        let unlabelled = [old_key.as_bytes().as_slice(), new_key.as_bytes(), &1000i64.to_be_bytes()].concat();
        assert_eq!(statement(old_key, new_key, 1000), [b"ftpq/1 successor\0", unlabelled.as_slice()].concat());
        let signature = STANDARD_NO_PAD.encode(signer.sign(&unlabelled).unwrap());
        assert_eq!(checked(&old, &Successor { signature, ..said }, 0), Err(SuccessionError::Signature));
    }
}
