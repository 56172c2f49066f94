//! What the files of a copy wait for.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long the files of a copy waited, on each side. Many wait at the same time, and each counts: the two
/// together may be longer than the copy took, and only their ratio says something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// For the source to open files, and to give their blocks and digests.
    pub source: Duration,
    /// For the target to create files, to take their blocks, and to have them for good.
    pub target: Duration,
    /// Files in one go, and parts of large ones, that were waited for to their end.
    pub pieces: u64,
}

impl AddAssign for Waited {
    fn add_assign(&mut self, more: Self) {
        self.source += more.source;
        self.target += more.target;
        self.pieces += more.pieces;
    }
}

/// The same while it goes on; times in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Waits {
    source: AtomicU64,
    target: AtomicU64,
    pieces: AtomicU64,
}

impl Waits {
    /// Waits for the source.
    pub(super) async fn source<T>(&self, answer: impl Future<Output = T>) -> T {
        count(&self.source, answer).await
    }

    /// Waits for the target.
    pub(super) async fn target<T>(&self, answer: impl Future<Output = T>) -> T {
        count(&self.target, answer).await
    }

    /// One more file or part of one is through.
    pub(super) fn piece(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn so_far(&self) -> Waited {
        let [source, target] =
            [&self.source, &self.target].map(|nanos| Duration::from_nanos(nanos.load(Ordering::Relaxed)));
        Waited { source, target, pieces: self.pieces.load(Ordering::Relaxed) }
    }
}

/// What is dropped before there is an answer does not count: it was cut.
async fn count<T>(waited: &AtomicU64, answer: impl Future<Output = T>) -> T {
    let since = Instant::now();
    let answer = answer.await;
    waited.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    answer
}
