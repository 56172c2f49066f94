//! A temporary folder that is gone afterwards: after success, after an error, and after Ctrl-C.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// The folder. What runs in it must be dropped first.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    keep: bool,
}

impl Scratch {
    /// A new folder in `place`, or where the system keeps such things. `keep` leaves it there and says where.
    pub(crate) fn new(place: Option<&Path>, keep: bool) -> Result<Self> {
        outlive_interrupts()?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("ftpq-").disable_cleanup(keep);
        let folder = match place {
            Some(place) => builder.tempdir_in(place),
            None => builder.tempdir(),
        };
        let folder = folder.context("cannot make a temporary folder")?;
        if keep {
            println!("everything is kept in {}", folder.path().display());
        }
        Ok(Self { folder, keep })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes the folder now, with an error where that fails, which a drop would swallow.
    pub(crate) fn close(self) -> Result<()> {
        if self.keep {
            return Ok(());
        }
        let path = self.path().to_owned();
        self.folder.close().with_context(|| format!("cannot remove {}", path.display()))
    }
}

/// An error once the user has asked to stop: own loops ask, children see the signal themselves.
pub(crate) fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Turns the signals that would end this process on the spot into a flag, so that drops run.
fn outlive_interrupts() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}
