//! CON: the first command of a connection. Agrees on a version and tells the client where it is.
//!
//! ```text
//! Request{verb: "CON", args: Args}  ──▶
//!                                   ◀──  Reply{ok: Welcome}
//! ```
//! A client whose key the server does not know yet may bring the secret of a one-time ticket: the key is
//! then known, and the ticket spent. Other streams may be opened in the same flight; the server holds them until CON is settled.

use serde::{Deserialize, Serialize};

use crate::{Rights, Spec, TicketSecret, limits};

/// The verb's name.
pub const VERB: &str = "CON";

/// What a client says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// Protocol versions that it speaks.
    #[serde(deserialize_with = "crate::codec::bounded::<_, _, { limits::FEATURES_MAX }>")]
    pub versions: Vec<u32>,
    /// Its name and release, for the server's log.
    #[serde(deserialize_with = "crate::codec::text")]
    pub agent: String,
    /// Optional parts of the protocol that it can use.
    #[serde(default, deserialize_with = "crate::codec::bounded::<_, _, { limits::FEATURES_MAX }>")]
    pub features: Vec<String>,
    /// Lets a key in that the server does not know yet, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketSecret>,
}

/// What the server says of itself and of the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both will speak.
    pub version: u32,
    /// The server's name and release.
    #[serde(deserialize_with = "crate::codec::text")]
    pub agent: String,
    /// Optional parts of the protocol that both can use.
    #[serde(deserialize_with = "crate::codec::bounded::<_, _, { limits::FEATURES_MAX }>")]
    pub features: Vec<String>,
    /// Every verb that the server has a handler for.
    #[serde(deserialize_with = "crate::codec::bounded::<_, _, { limits::VERBS_MAX }>")]
    pub verbs: Vec<Spec>,
    /// The user's name on this server.
    #[serde(deserialize_with = "crate::codec::text")]
    pub user: String,
    /// The fingerprint of the key by which the user is known.
    #[serde(deserialize_with = "crate::codec::text")]
    pub key: String,
    /// What the user may do.
    pub rights: Rights,
    /// How much of it.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The key that the server will have after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Successor>,
    /// Further UDP ports of the same host at which this server is met, with the same key: each has a core of its
    /// own, so that connections of one client may go to different ones.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::codec::bounded::<_, _, { limits::PORTS_MAX }>"
    )]
    pub ports: Vec<u16>,
}

/// How much a user may do. What is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes that all of the user's files may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files, folders and links that the user may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes a second that all of the user's transfers may move, each way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// When the user is let in no more: seconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

impl Limits {
    /// No limit at all.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A server's word on the key that it will have next, signed with the key that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The fingerprint of the key to come.
    #[serde(deserialize_with = "crate::codec::text")]
    pub key: String,
    /// Until when the word holds: seconds since 1970 (UTC).
    pub until: i64,
    /// The signature: base64 without padding.
    #[serde(deserialize_with = "crate::codec::text")]
    pub signature: String,
}
