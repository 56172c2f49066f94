//! Trying again what was interrupted, for as long as anything new moves now and then.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::CopyError;

/// One clock for all that is being copied.
pub(super) struct Persistence {
    retry_for: Duration,
    /// When something new last moved.
    moved: Mutex<Instant>,
}

impl Persistence {
    pub(super) fn new(retry_for: Duration) -> Self {
        Self { retry_for, moved: Mutex::new(Instant::now()) }
    }

    /// Something moved that had not moved before.
    pub(super) fn note_progress(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether it is worth trying again after `error`.
    pub(super) fn tries_again(&self, error: &CopyError) -> bool {
        let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        error.is_interruption() && moved.elapsed() < self.retry_for
    }

    /// Does `work` until it succeeds, or until it is not worth trying again.
    pub(super) async fn again<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, CopyError>
    where
        F: Future<Output = Result<T, CopyError>>,
    {
        let mut pause = Pause::new();
        loop {
            match work().await {
                Err(error) if self.tries_again(&error) => pause.wait().await,
                Ok(done) => {
                    self.note_progress();
                    return Ok(done);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits longer each time, and never in step with other clients that lost the same server.
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Self {
        Self(Duration::from_millis(100))
    }

    pub(super) async fn wait(&mut self) {
        use std::hash::{BuildHasher, RandomState};
        let random = f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX);
        sleep(self.0.mul_f64(0.5 + random / 2.0)).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(2));
    }
}
