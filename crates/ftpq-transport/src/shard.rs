//! A thread with a runtime of its own, for endpoints whose packets another core is to take care of.
//!
//! Where an endpoint is made, all its work is done: quinn starts its tasks on the runtime that it finds. One thread
//! for each endpoint, and not several for all: a connection that moves from core to core loses a third of its speed.

use std::{
    io,
    num::NonZero,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::yield_now,
};

/// A thread that drives endpoints. Dropped, it ends, and so do they: whoever says goodbye does so before.
#[derive(Debug)]
pub struct Shard {
    runtime: Handle,
    /// Its end ends the thread.
    _running: oneshot::Sender<()>,
}

impl Shard {
    /// Starts the thread. It may do what the calling one may: privileges are given up before.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING).build()?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("ftpq shard".into()).spawn(move || {
            runtime.block_on(async {
                let _ = stopped.await;
                // What was dropped just before tells its peer so when it next runs.
                for _ in 0..4 {
                    yield_now().await;
                }
            });
        })?;
        Ok(Self { runtime: handle, _running: running })
    }

    /// Its runtime: what is spawned there runs on its thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs `make` here, so that what it spawns and registers is the shard's.
    pub(crate) fn enter<T>(&self, make: impl FnOnce() -> T) -> T {
        let _within = self.runtime.enter();
        make()
    }
}

/// How many processors this process may use; 1 where the system does not tell.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// How much a thread has worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Which thread.
    pub thread: ThreadId,
    /// The processor's time that it has had since it began.
    pub busy: Duration,
    /// When that was so.
    pub at: Instant,
}

impl Work {
    /// Of the calling thread.
    pub(crate) fn here() -> Self {
        let busy = clock_gettime(ClockId::ThreadCPUTime);
        let busy = Duration::try_from(busy).unwrap_or_default();
        Self { thread: thread::current().id(), busy, at: Instant::now() }
    }

    /// Which part of the time since `before` it was at work, from 0 to 1.
    pub fn share_since(&self, before: &Self) -> f64 {
        let time = self.at.saturating_duration_since(before.at).as_secs_f64();
        let busy = self.busy.saturating_sub(before.busy).as_secs_f64();
        if time > 0.0 { (busy / time).min(1.0) } else { 0.0 }
    }
}

/// Threads on which a shard's files are read and written. Far fewer than a runtime usually has, 512: shards are many,
/// and a system limits the threads of a process. As many serve a disk that waits (`lane.rs` in `ftpq-storage`).
const BLOCKING: usize = 64;

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use super::*;
    use crate::{Connector, Identity, Listener};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// The thread that drives `runtime`.
    async fn thread_of(runtime: &Handle) -> ThreadId {
        runtime.spawn(async { thread::current().id() }).await.unwrap()
    }

    #[tokio::test]
    async fn a_shard_drives_what_is_made_on_it() {
        let identity = Identity::generate().unwrap();
        let shards = [(); 2].map(|()| Arc::new(Shard::start().unwrap()));
        let [server, client] = &shards;
        let bound = Listener::bind_socket((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = Listener::on_shard(bound, &identity, server.clone()).unwrap();
        let (address, key) = (listener.local_addr(), identity.fingerprint());
        let taking = listener.clone();
        let accepted = listener.runtime().spawn(async move {
            let connection = taking.accept().await.unwrap().accept(PATIENCE).await.unwrap();
            let (mut send, mut recv) = connection.accept().await.unwrap();
            send.frame(&recv.frame::<String>(PATIENCE).await.unwrap()).await.unwrap();
            (connection, send)
        });
        let connector = Connector::new(Identity::generate().unwrap()).on_shard(client.clone());
        let connection = connector.connect(&[address], &[key], PATIENCE).await.unwrap();
        // What is said and heard here goes through both of them.
        let (mut send, mut recv) = connection.open().await.unwrap();
        send.frame("across threads").await.unwrap();
        assert_eq!(recv.frame::<String>(PATIENCE).await.unwrap(), "across threads");
        let (accepted, _send) = accepted.await.unwrap();
        let threads = [accepted.work().await.unwrap().thread, connection.work().await.unwrap().thread];
        assert_eq!(threads, [thread_of(server.runtime()).await, thread_of(client.runtime()).await]);
        assert!(!threads.contains(&thread::current().id()) && threads[0] != threads[1]);
        // A goodbye is through when it returns, whichever thread sends it.
        connection.goodbye().await;
        assert_eq!(accepted.closed().await, crate::Closed::Goodbye);
    }

    #[tokio::test]
    async fn a_shard_that_ends_with_its_connection_still_tells_the_peer() {
        let identity = Identity::generate().unwrap();
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).unwrap();
        let connector = Connector::new(Identity::generate().unwrap()).on_shard(Arc::new(Shard::start().unwrap()));
        let (address, key) = (listener.local_addr(), identity.fingerprint());
        let connecting = tokio::spawn(async move { connector.connect(&[address], &[key], PATIENCE).await });
        let accepted = listener.accept().await.unwrap().accept(PATIENCE).await.unwrap();
        drop(connecting.await.unwrap().unwrap());
        assert_eq!(accepted.closed().await, crate::Closed::Goodbye);
    }

    #[tokio::test]
    async fn a_shard_ends_when_nobody_has_it_any_more() {
        let shard = Shard::start().unwrap();
        let (runtime, (alive, ended)) = (shard.runtime().clone(), oneshot::channel::<()>());
        runtime.spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(shard);
        assert!(ended.await.is_err());
        assert!(runtime.spawn(async {}).await.is_err());
    }

    #[test]
    fn work_is_a_share_of_the_time() {
        let (thread, at) = (thread::current().id(), Instant::now());
        let before = Work { thread, busy: Duration::from_secs(7), at };
        let after = |busy, time| Work { thread, busy: before.busy + busy, at: at + time };
        let [none, some, all] = [0, 300, 500].map(Duration::from_millis);
        assert_eq!(after(some, all).share_since(&before), 0.6);
        assert_eq!(after(none, all).share_since(&before), 0.0);
        // Clocks differ a little.
        assert_eq!(after(all, some).share_since(&before), 1.0);
        assert_eq!(after(all, none).share_since(&before), 0.0);
    }
}
