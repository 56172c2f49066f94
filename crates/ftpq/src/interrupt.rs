//! Signals that end a command.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::{exit, output::say};

/// Does `work` until a signal comes. Says then what that means, behind "interrupted". Dropping the work ends its
/// transfers: of what was not committed, only whole extents are kept, unseen.
pub(crate) async fn unless_interrupted(
    work: impl Future<Output = anyhow::Result<u8>>,
    meaning: impl FnOnce() -> String,
) -> anyhow::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => {
            say(format_args!("ftpq: interrupted{}", meaning()));
            Ok(exit::SIGINT)
        }
        _ = terminate.recv() => Ok(exit::SIGTERM),
    }
}

/// Of anything.
pub(crate) const WHOLE: &str = "what is complete stays, nothing half is seen";
