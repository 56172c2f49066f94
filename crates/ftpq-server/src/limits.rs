//! What a server grants whom, and for how long it waits. Sizes stand beside the messages that they bound
//! (`ftpq-proto/src/limits.rs`), windows and streams in `ftpq-transport/src/tuning.rs`.

use std::time::Duration;

/// What a server grants all of its clients together, and each of them. `docs/security.md` has the table
/// with the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of buffers for all connections together: their windows, their streams, what handlers hold.
    pub memory: u64,
    /// Connections at a time, those that nobody is known on yet among them.
    pub connections: u32,
    /// Connections at a time with one key.
    pub connections_per_key: u32,
    /// Connections at a time from one network (/32 or /64) on which nobody is known yet; twice as many for those
    /// who have proved their address.
    pub unknown_per_network: u32,
    /// Connections on which nobody is known yet, above which an address must prove that it is real before
    /// anything is kept for it (Retry, RFC 9000 section 8.1.2).
    pub retry_from: u32,
    /// Connections on which nobody is known yet, above which new ones are dropped unanswered; twice as many for
    /// those who have proved their address.
    pub unknown: u32,
    /// Costly commands (hashing what is on disk, searching for room) at a time with one key; others wait.
    pub costly_per_key: u32,
    /// Networks that earn refusals are kept out for a while.
    pub penalties: bool,
    /// Also those of this machine. Off where tunnels and proxies on it stand for many.
    pub penalise_loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 1024 * 1024 * 1024,
            connections: 2048,
            connections_per_key: 256,
            unknown_per_network: 64,
            retry_from: 64,
            unknown: 1024,
            costly_per_key: 16,
            penalties: true,
            penalise_loopback: false,
        }
    }
}

/// From the first packet until CON is settled, the handshake included. A client does all of it in two round
/// trips.
pub const SETTLE: Duration = Duration::from_secs(10);

/// For all of a request frame, once its stream is open.
pub const REQUEST: Duration = Duration::from_secs(10);

/// Commands of one connection at a time before it is known: CON, and one that waits for it.
pub const COMMANDS_UNSETTLED: usize = 2;

/// Connections at a time from one network that may send more before they are known, as clients were let in from
/// there. Anybody could forge the addresses of more.
pub const RETURNING_AT_ONCE: u32 = 4;

/// Commands of one connection at a time; what else it sends waits in its windows. A client may open more
/// streams than that ([`STREAMS`](ftpq_transport::tuning::STREAMS)): one that was answered is not free before
/// the answer was acknowledged, and so that the next command is here when it can begin.
pub const COMMANDS: usize = 256;

/// For a client that was refused to read why.
pub const PARTING: Duration = Duration::from_secs(5);

/// For the commands that run when the server is told to stop.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Bytes of the list of authorised clients: some ten thousand lines.
pub const ACCESS_FILE: u64 = 1024 * 1024;

/// Between two looks at the list of authorised clients: a removed key is out within a second.
pub const WATCH: Duration = Duration::from_millis(250);

/// Between two looks for what is unfinished and too old: it reads every folder.
pub const TIDY: Duration = Duration::from_secs(24 * 60 * 60);

/// Between two looks for what is open of uploads that nobody goes on with, or that other programs removed.
pub const CLOSE_IDLE: Duration = Duration::from_secs(60);
