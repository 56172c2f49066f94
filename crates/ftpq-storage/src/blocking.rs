//! Work that blocks, on threads where it may. It goes on when nobody waits for it any more: here is how
//! it learns of that, and what it keeps until it has ended.

use std::{
    any::Any,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::error::Problem;

/// What work of a storage keeps until it has ended.
pub type Held = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    static HELD: Held;
}

/// Does `work`, and drops `held` when that has ended on disk: not earlier, even if `work` is dropped halfway,
/// as a file may still appear then. So whoever keeps account of a storage knows when nothing changes any more.
/// Holds for a [`LocalFs`](crate::LocalFs); another storage may let go of it with `work`.
pub async fn holding<F: Future>(held: Held, work: F) -> F::Output {
    HELD.scope(held, work).await
}

/// Runs `work` on a thread that may block, never on the one that drives the connections. It does not begin when
/// nobody waits for it by the time that a thread is free.
pub(crate) async fn blocking<T, E>(work: impl FnOnce(&Wanted) -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let (watched, _waiting) = watch();
    let task = tokio::task::spawn_blocking(move || watched.is_wanted().then(|| work(watched.wanted())));
    match task.await {
        Ok(Some(done)) => done,
        // Whoever comes here waits for it.
        Ok(None) => pending().await,
        // Only at shutdown is such work cancelled, and then nobody is left to see it; a bug in it
        // is for the dispatcher to contain.
        Err(error) => std::panic::resume_unwind(error.try_into_panic().unwrap_or_else(|_| Box::new("shutting down"))),
    }
}

/// What work has with it, and what is kept by whoever waits for it, until it does not any more.
pub(crate) fn watch() -> (Watched, Waiting) {
    let wanted = Wanted::default();
    (Watched { wanted: wanted.clone(), _held: HELD.try_with(Arc::clone).ok() }, Waiting(wanted))
}

/// Dropped when the work has ended.
pub(crate) struct Watched {
    wanted: Wanted,
    _held: Option<Held>,
}

impl Watched {
    /// Whether to begin at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.check().is_ok()
    }

    /// For what asks again now and then.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }
}

/// Whether anybody waits for some work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    given_up: Arc<AtomicBool>,
}

impl Wanted {
    /// [`Problem::Cancelled`] once nobody does. What takes long asks now and then, and what has consequences
    /// asks before the first of them.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.given_up.load(Ordering::Relaxed) { Err(Problem::Cancelled) } else { Ok(()) }
    }
}

/// Dropped with the future that waits.
pub(crate) struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    /// On a thread, until told to go on: begun, then whether it was wanted at the end.
    fn slow(
        go_on: mpsc::Receiver<()>,
        begun: oneshot::Sender<()>,
        end: oneshot::Sender<bool>,
    ) -> impl Future<Output = Result<(), Problem>> {
        blocking(move |wanted| {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
            end.send(wanted.check().is_ok()).unwrap();
            Ok(())
        })
    }

    #[tokio::test]
    async fn work_learns_that_nobody_waits_for_it_and_keeps_what_is_held_until_it_ends() {
        for dropped in [true, false] {
            let (go, go_on) = mpsc::channel();
            let (begun, has_begun) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let held = Arc::new(());
            let work = tokio::spawn(holding(held.clone(), slow(go_on, begun, end)));
            has_begun.await.unwrap();
            if dropped {
                work.abort();
                assert!(work.await.unwrap_err().is_cancelled());
                assert_eq!(Arc::strong_count(&held), 2, "the thread goes on");
                go.send(()).unwrap();
            } else {
                go.send(()).unwrap();
                work.await.unwrap().unwrap();
                assert_eq!(Arc::strong_count(&held), 1);
            }
            assert_eq!(ended.await.unwrap(), !dropped);
        }
    }

    /// There are so many threads, and a key can be removed while something waits for one.
    #[test]
    fn work_that_nobody_waits_for_when_its_turn_comes_does_not_begin() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (go, go_on) = mpsc::channel();
            let (begin, begun) = oneshot::channel();
            let first = tokio::spawn(blocking(move |_| {
                begin.send(()).unwrap();
                go_on.recv().map_err(drop)
            }));
            begun.await.unwrap();
            let (end, mut ended) = oneshot::channel::<()>();
            let held = Arc::new(());
            let second = tokio::spawn(holding(held.clone(), blocking(move |_| end.send(()))));
            while Arc::strong_count(&held) < 3 {
                tokio::task::yield_now().await;
            }
            second.abort();
            assert!(second.await.unwrap_err().is_cancelled());
            go.send(()).unwrap();
            first.await.unwrap().unwrap();
            // There is one thread: what comes last comes after it.
            blocking(|_| Ok::<_, ()>(())).await.unwrap();
            assert!(ended.try_recv().is_err());
            assert_eq!(Arc::strong_count(&held), 1);
        });
    }
}
