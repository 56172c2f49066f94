//! The secret of a one-time ticket: 128 random bits that let a key in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of the secret: as hard to guess as a key.
pub const LEN: usize = 16;

/// The secret of a ticket. Never shown by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketSecret([u8; LEN]);

impl TicketSecret {
    /// The secret's bytes.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl From<[u8; LEN]> for TicketSecret {
    fn from(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(…)")
    }
}

impl Serialize for TicketSecret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TicketSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = TicketSecret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{LEN} bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<TicketSecret, E> {
                bytes.try_into().map(TicketSecret).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_a_secret() {
        assert_eq!(format!("{:?}", TicketSecret::from([7; LEN])), "TicketSecret(…)");
    }
}
