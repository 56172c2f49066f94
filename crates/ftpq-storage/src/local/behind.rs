//! Work that blocks, one step behind whoever hands it over: a block may be on its way to the disk while
//! the next one arrives.

use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::Problem;

/// What does the work, between its steps.
pub(super) enum Behind<W> {
    Ready(W),
    Working(JoinHandle<Result<W, Problem>>),
    /// An earlier step failed, or was dropped halfway.
    Lost,
}

impl<W: Send + 'static> Behind<W> {
    /// Begins the next step when the one before is done. How it went, a later call tells.
    pub(super) async fn next(
        &mut self,
        step: impl FnOnce(&mut W) -> Result<(), Problem> + Send + 'static,
    ) -> Result<(), Problem> {
        let mut worker = self.take().await?;
        *self = Behind::Working(spawn_blocking(move || step(&mut worker).map(|()| worker)));
        Ok(())
    }

    /// Waits until all steps are done.
    pub(super) async fn done(&mut self) -> Result<(), Problem> {
        *self = Behind::Ready(self.take().await?);
        Ok(())
    }

    /// What does the work, when all steps are done.
    pub(super) async fn take(&mut self) -> Result<W, Problem> {
        match std::mem::replace(self, Behind::Lost) {
            Behind::Ready(worker) => Ok(worker),
            Behind::Working(task) => task.await.unwrap_or_else(|error| Err(Problem::Io(error.into()))),
            Behind::Lost => Err(Problem::Refused("writing has failed before")),
        }
    }
}
