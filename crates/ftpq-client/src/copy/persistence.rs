//! Trying again what was interrupted, for as long as anything new moves now and then.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::CopyError;

/// One clock for all that is being copied.
pub(super) struct Persistence {
    retry_for: Duration,
    moved: Mutex<Moved>,
}

struct Moved {
    /// When something new last did.
    at: Instant,
    /// A server that is alive has left a command without an answer since.
    stalled: bool,
}

impl Persistence {
    pub(super) fn new(retry_for: Duration) -> Self {
        Self { retry_for, moved: Mutex::new(Moved { at: Instant::now(), stalled: false }) }
    }

    /// Something moved that had not moved before.
    pub(super) fn note_progress(&self) {
        *self.lock() = Moved { at: Instant::now(), stalled: false };
    }

    /// Whether it is worth trying again after `error`.
    pub(super) fn tries_again(&self, error: &CopyError) -> bool {
        let mut moved = self.lock();
        // To wait for the answer may have taken longer than all of that: it is asked for once more.
        let first = error.is_stall() && !self.retry_for.is_zero() && !std::mem::replace(&mut moved.stalled, true);
        error.is_interruption() && (first || moved.at.elapsed() < self.retry_for)
    }

    fn lock(&self) -> MutexGuard<'_, Moved> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use ftpq_proto::RemotePath;
    use ftpq_storage::{Problem, StorageError};
    use tokio::time::advance;

    use super::{super::Side, *};
    use crate::session::CallError;

    fn failed(error: CallError) -> CopyError {
        let problem = Problem::Remote { status: error.status(), names_path: true, error: Box::new(error) };
        Side::Target.of(StorageError::new(&RemotePath::root(), problem))
    }

    /// A server may be given longer for an answer than a copy for its interruptions.
    #[tokio::test(start_paused = true)]
    async fn what_was_not_answered_is_asked_for_again_once() {
        let persistence = Persistence::new(Duration::from_secs(600));
        let [stalled, lost] = [CallError::Stalled, CallError::Closed(ftpq_transport::Closed::TimedOut)].map(failed);
        advance(Duration::from_secs(900)).await;
        assert!(!persistence.tries_again(&lost));
        assert!(persistence.tries_again(&stalled) && !persistence.tries_again(&stalled));
        persistence.note_progress();
        assert!(persistence.tries_again(&lost));
        assert!(!Persistence::new(Duration::ZERO).tries_again(&stalled));
    }
}
