//! What is kept of a ticket's secret: its hash, from which nobody can make the secret.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ftpq_proto::TicketSecret;
use sha2::{Digest, Sha256};

/// SHA-256 of a secret. 128 random bits need no salt and no slow hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketHash([u8; 32]);

impl TicketHash {
    /// What stands before it in the list of authorised clients.
    pub const PREFIX: &str = "ticket:";

    /// Of `secret`.
    pub fn of(secret: &TicketSecret) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl fmt::Display for TicketHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TicketHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TicketHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| "a ticket's hash has 43 letters and digits".into())
    }
}
