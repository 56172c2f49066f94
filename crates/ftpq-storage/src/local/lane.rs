//! Short work that blocks, many pieces to a trip.
//!
//! What a small file needs of the system takes some 20 µs, and to wake a thread for it and to be woken by it
//! takes longer than that. So pieces of work queue up, and one thread does all that it finds ([`Lane`]). It is
//! sent off when whoever could bring more has had a turn. Where the work turns out to wait for a disk, more
//! threads come: a disk serves many at a time better than one after the other.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use super::publish::Near;
use crate::blocking::{Wanted, watch};

/// Threads that do short work, and what waits for them. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Lane(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Piece>,
    /// How many pieces there ever were.
    count: u64,
    workers: usize,
    /// The first worker is about to be sent off.
    starting: bool,
    /// Grows with every piece that was slow, and shrinks with every one that was not.
    slowness: u32,
    /// Workers that were sent off since others may be stuck.
    stuck: usize,
}

struct Piece {
    number: u64,
    work: Box<dyn FnOnce(&mut Trip) + Send>,
}

/// What a worker has at hand from one piece of work to the next.
pub(super) struct Trip {
    lane: Lane,
    /// Of the piece that is being done.
    number: u64,
    /// The folder that the last file went to, and how many pieces there were when it was opened.
    near: Option<(Near, u64)>,
}

impl Trip {
    fn new(lane: Lane) -> Self {
        Self { lane, number: 0, near: None }
    }

    /// The folder that was last opened, if this piece of work was waiting by then: whoever asked for it must
    /// not find what stood there before.
    pub(super) fn near(&self) -> Option<&Near> {
        self.near.as_ref().filter(|(_, count)| self.number < *count).map(|(near, _)| near)
    }

    /// How many pieces of work there were until now.
    pub(super) fn count(&self) -> u64 {
        self.lane.lock().count
    }

    /// Keeps a folder for those that were waiting by then.
    pub(super) fn keep(&mut self, near: Near, count: u64) {
        self.near = Some((near, count));
    }
}

impl Lane {
    /// Does `work` when its turn comes, as [`blocking`](crate::blocking::blocking) does.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Trip, &Wanted) -> T + Send + 'static,
    ) -> T {
        let (tell, mut told) = oneshot::channel();
        let (watched, _waiting) = watch();
        self.push(Box::new(move |trip| {
            let done = catch_unwind(AssertUnwindSafe(|| work(trip, watched.wanted())));
            drop(watched);
            // Nobody may be waiting any more.
            let _ = tell.send(done);
        }));
        let done = loop {
            match timeout(STUCK, &mut told).await {
                Ok(done) => break done,
                // What the workers wait for may never come, and need not be what the others are about.
                Err(_) => self.help(true),
            }
        };
        match done {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => resume_unwind(panic),
            // Only at shutdown is work not done, and then nobody is left to see it.
            Err(_) => resume_unwind(Box::new("shutting down")),
        }
    }

    fn push(&self, work: Box<dyn FnOnce(&mut Trip) + Send>) {
        let mut queue = self.lock();
        let number = queue.count;
        queue.count += 1;
        queue.waiting.push_back(Piece { number, work });
        if queue.workers > 0 || std::mem::replace(&mut queue.starting, true) {
            return;
        }
        drop(queue);
        let start = Start(self.clone());
        // Behind all that is about to run: some of it brings more.
        tokio::spawn(async move { drop(start) });
    }

    /// Sends another worker off, if there is something to do; for good if those that there are may be `stuck`.
    fn help(&self, stuck: bool) {
        let mut queue = self.lock();
        if !queue.waiting.is_empty() && queue.workers < WORKERS {
            queue.workers += 1;
            queue.stuck += usize::from(stuck);
            drop(queue);
            let worker = Worker { lane: self.clone(), left: false };
            spawn_blocking(move || worker.run());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped, sends the first worker off.
struct Start(Lane);

impl Drop for Start {
    fn drop(&mut self) {
        self.0.lock().starting = false;
        // Without a runtime there is nobody left to wait.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.help(false);
        }
    }
}

/// A thread that does what it finds. Dropped, it is gone.
struct Worker {
    lane: Lane,
    left: bool,
}

impl Worker {
    fn run(mut self) {
        let mut trip = Trip::new(self.lane.clone());
        let mut took = Duration::ZERO;
        while let Some(piece) = self.next(took) {
            trip.number = piece.number;
            let began = Instant::now();
            (piece.work)(&mut trip);
            took = began.elapsed();
        }
    }

    /// The next piece, if this worker is still needed. Where pieces are slow, there is one more worker for
    /// what is left.
    fn next(&mut self, took: Duration) -> Option<Piece> {
        let mut queue = self.lane.lock();
        let slow = took > SLOW;
        queue.slowness = if slow { (queue.slowness + 2).min(SLOWNESS_MAX) } else { queue.slowness.saturating_sub(1) };
        queue.stuck -= usize::from(took > STUCK && queue.stuck > 0);
        let is_slow = queue.slowness > ONCE;
        let needed = is_slow || queue.workers <= 1 + queue.stuck;
        let piece = if needed { queue.waiting.pop_front() } else { None };
        let Some(piece) = piece else {
            // Together with the look into the queue: whoever brings something finds a worker or none.
            queue.workers -= 1;
            drop(queue);
            self.left = true;
            return None;
        };
        drop(queue);
        if is_slow {
            self.lane.help(false);
        }
        Some(piece)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.left {
            self.lane.lock().workers -= 1;
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

/// Threads of a lane at the most.
const WORKERS: usize = 64;

/// A piece that takes longer waits for a disk, or for its thread's turn.
const SLOW: Duration = Duration::from_micros(500);

/// What one slow piece adds to the slowness of a lane: it may have been chance.
const ONCE: u32 = 2;

/// So many pieces that are not slow, and a lane is quick again.
const SLOWNESS_MAX: u32 = 16;

/// So long a piece may wait before one more worker is sent off.
const STUCK: Duration = Duration::from_millis(50);
