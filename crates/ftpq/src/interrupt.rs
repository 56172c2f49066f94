//! Signals that end a command.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::{exit, output::say};

/// Does `work` until a signal comes, and says then what that means. Dropping it ends its transfers: of what was not
/// committed, only whole extents are kept, unseen.
pub(crate) async fn unless_interrupted(
    work: impl Future<Output = anyhow::Result<u8>>,
    meaning: &str,
) -> anyhow::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => {
            say(format_args!("ftpq: interrupted{meaning}"));
            Ok(exit::SIGINT)
        }
        _ = terminate.recv() => Ok(exit::SIGTERM),
    }
}

/// Of a copy that the next one goes on with.
pub(crate) const GOES_ON: &str = ": what is complete stays, nothing half is seen; the same again goes on from there (a \
                                  tree: with --no-clobber)";

/// Of a copy of which nothing is kept.
pub(crate) const BEGINS_ANEW: &str = ": nothing half is seen";
