//! Short work that blocks, many pieces to a trip.
//!
//! What a small file needs of the system takes some 20 µs, and to wake a thread for it and to be woken by it
//! takes longer than that. So pieces of work queue up, and one thread does all that it finds ([`Lane`]). It is
//! sent off when whoever could bring more has had a turn, and tells of what is done by the dozen: so what
//! follows travels together, too. Where the work turns out to wait for a disk, more threads come: a disk serves
//! many at a time better than one after the other.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use super::publish::Near;
use crate::blocking::{Wanted, Watched, watch};

/// Threads that do short work, and what waits for them. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Lane(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Piece>,
    /// Who is still to be told.
    done: Vec<Box<dyn Work>>,
    /// How many pieces there ever were.
    count: u64,
    workers: usize,
    /// The first worker is about to be sent off.
    starting: bool,
    /// Grows with every piece that was slow, and shrinks with every one that was not.
    slowness: u32,
    /// Workers that may be stuck: for each of them there may be another.
    stuck: usize,
}

struct Piece {
    number: u64,
    work: Box<dyn Work>,
}

/// Something to do, and somebody to tell.
trait Work: Send {
    fn run(&mut self, trip: &mut Trip);

    /// Tells whoever waits, who then tells the `others`: to be told by another thread costs a system call.
    fn tell(self: Box<Self>, others: Others);
}

struct Asked<F, T> {
    work: Option<(F, Watched)>,
    done: Option<thread::Result<T>>,
    tell: oneshot::Sender<(Option<thread::Result<T>>, Others)>,
}

impl<T: Send, F: FnOnce(&mut Trip, &Wanted) -> T + Send> Work for Asked<F, T> {
    fn run(&mut self, trip: &mut Trip) {
        // Nothing is begun for those who are gone.
        if let Some((work, watched)) = self.work.take().filter(|(_, watched)| watched.is_wanted()) {
            self.done = Some(catch_unwind(AssertUnwindSafe(|| work(trip, watched.wanted()))));
        }
    }

    fn tell(self: Box<Self>, others: Others) {
        // Nobody may be waiting any more.
        let _ = self.tell.send((self.done, others));
    }
}

/// Those who are still to be told. Dropped, tells them.
struct Others(Vec<Box<dyn Work>>);

impl Drop for Others {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|work| work.tell(Others(Vec::new())));
    }
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
        self.push(Box::new(Asked { work: Some((work, watched)), done: None, tell }));
        let done = loop {
            match timeout(STUCK, &mut told).await {
                Ok(done) => break done.ok().and_then(|(done, _others)| done),
                // What the workers wait for may never come, and need not be what the others are about.
                Err(_) => {
                    tell_all(std::mem::take(&mut self.lock().done));
                    self.help(true);
                }
            }
        };
        match done {
            Some(Ok(done)) => done,
            Some(Err(panic)) => resume_unwind(panic),
            // Only at shutdown is work not done, and then nobody is left to see it.
            None => resume_unwind(Box::new("shutting down")),
        }
    }

    fn push(&self, work: Box<dyn Work>) {
        let mut queue = self.lock();
        let number = queue.count;
        queue.count += 1;
        queue.waiting.push_back(Piece { number, work });
        if queue.workers > queue.stuck || std::mem::replace(&mut queue.starting, true) {
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
            // Those that there were.
            queue.stuck = (queue.stuck + usize::from(stuck)).min(queue.workers);
            queue.workers += 1;
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
        let (mut done, mut took) = (None, Duration::ZERO);
        while let Some(Piece { number, mut work }) = self.next(done.take(), took) {
            trip.number = number;
            let began = Instant::now();
            work.run(&mut trip);
            took = began.elapsed();
            done = Some(work);
        }
    }

    /// The next piece, if this worker is still needed. Where pieces are slow, there is one more worker for
    /// what is left.
    fn next(&mut self, done: Option<Box<dyn Work>>, took: Duration) -> Option<Piece> {
        let mut queue = self.lane.lock();
        queue.done.extend(done);
        let slow = took > SLOW;
        queue.slowness = if slow { (queue.slowness + 2).min(SLOWNESS_MAX) } else { queue.slowness.saturating_sub(1) };
        queue.stuck -= usize::from(took > STUCK && queue.stuck > 0);
        let is_slow = queue.slowness > ONCE;
        let needed = is_slow || queue.workers <= 1 + queue.stuck;
        let piece = if needed { queue.waiting.pop_front() } else { None };
        if piece.is_none() {
            // Together with the look into the queue: whoever brings something finds a worker or none.
            queue.workers -= 1;
            queue.stuck = queue.stuck.min(queue.workers);
            self.left = true;
        }
        let enough = slow || piece.is_none() || queue.done.len() >= TOGETHER;
        let done = if enough { std::mem::take(&mut queue.done) } else { Vec::new() };
        drop(queue);
        tell_all(done);
        if is_slow && piece.is_some() {
            self.lane.help(false);
        }
        piece
    }
}

/// Tells one, who tells the others.
fn tell_all(mut done: Vec<Box<dyn Work>>) {
    if let Some(one) = done.pop() {
        one.tell(Others(done));
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

/// Pieces that are told of together at the most.
const TOGETHER: usize = 32;

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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ftpq_proto::RemotePath;

    use super::*;

    /// A disk that never answers, say.
    #[tokio::test]
    async fn what_is_stuck_holds_up_nothing_else() {
        let lane = Lane::default();
        let (go, go_on) = mpsc::channel();
        let stuck = tokio::spawn({
            let lane = lane.clone();
            async move { lane.run(move |_, _| go_on.recv().unwrap()).await }
        });
        for round in 0..100 {
            assert_eq!(lane.run(move |_, _| round).await, round);
        }
        assert!(!stuck.is_finished());
        go.send(7).unwrap();
        assert_eq!(stuck.await.unwrap(), 7);
        assert_eq!(lane.run(|_, _| 8).await, 8);
    }

    #[tokio::test]
    async fn all_that_is_asked_is_done_and_told_and_a_panic_goes_to_who_asked() {
        let lane = Lane::default();
        let asked: Vec<_> = (0..1000)
            .map(|number| {
                let lane = lane.clone();
                tokio::spawn(async move { lane.run(move |_, _| assert_ne!(number, 500)).await })
            })
            .collect();
        // Who does not wait any more is no reason not to tell the others.
        asked.iter().step_by(7).for_each(|asked| asked.abort());
        let mut panicked = 0;
        for (number, asked) in asked.into_iter().enumerate() {
            match asked.await {
                Err(error) if error.is_panic() => panicked += 1,
                Err(_) => assert_eq!(number % 7, 0),
                Ok(()) => {}
            }
        }
        assert_eq!(panicked, 1);
        let queue = lane.lock();
        assert_eq!((queue.waiting.len(), queue.done.len(), queue.starting), (0, 0, false));
    }

    /// What takes its time has more threads than one, and as many go away again.
    #[tokio::test]
    async fn slow_work_is_done_side_by_side() {
        let lane = Lane::default();
        let meeting = Arc::new(std::sync::Barrier::new(8));
        // Slow enough that others come, before it needs them.
        let asked: Vec<_> = (0..16 + 8)
            .map(|number| {
                let (lane, meeting) = (lane.clone(), meeting.clone());
                let work = move |_: &mut Trip, _: &Wanted| match number < 16 {
                    true => thread::sleep(2 * SLOW),
                    false => drop(meeting.wait()),
                };
                tokio::spawn(async move { lane.run(work).await })
            })
            .collect();
        for asked in asked {
            asked.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_folder_is_kept_for_those_who_waited_when_it_was_opened() {
        let lane = Lane::default();
        let mut trip = Trip::new(lane.clone());
        lane.run(|_, _| ()).await;
        let folder = std::fs::File::open("/").unwrap();
        trip.keep(Near::new(RemotePath::root(), Arc::new(folder.into())), trip.count());
        assert!(trip.near().is_some(), "the first piece waited");
        trip.number = 1;
        assert!(trip.near().is_none(), "the second one may have asked since");
    }
}
