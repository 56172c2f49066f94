//! How long a server waits for whom. Sizes stand beside the messages that they bound
//! (`ftpq-proto/src/limits.rs`), windows and streams in `ftpq-transport/src/tuning.rs`.

use std::time::Duration;

/// From the end of the handshake until CON is settled. A client does both in one round trip.
pub const SETTLE: Duration = Duration::from_secs(10);

/// For all of a request frame, once its stream is open.
pub const REQUEST: Duration = Duration::from_secs(10);

/// For the commands that run when the server is told to stop.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Bytes of the list of authorised clients: some ten thousand lines.
pub const ACCESS_FILE: u64 = 1024 * 1024;

/// Between two looks for what is unfinished and too old: it reads every folder.
pub const TIDY: Duration = Duration::from_secs(24 * 60 * 60);
