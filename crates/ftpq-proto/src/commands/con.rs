//! CON: the first command of a connection. Agrees on a version and tells the client where it is.
//!
//! ```text
//! Request{verb: "CON", args: Args}  ──▶
//!                                   ◀──  Reply{ok: Welcome}
//! ```
//! Other streams may be opened in the same flight; the server holds them until CON is settled.

use serde::{Deserialize, Serialize};

use crate::{Rights, Spec, limits};

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
}
