//! A server: put together by a builder, run on listeners until told to stop.

use std::{
    future::Future,
    net::IpAddr,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::Duration,
};

use ftpq_handler::{Handler, RegisterError, Registry, Service, Succession};
use ftpq_proto::{Spec, Status, commands::con::Successor};
use ftpq_storage::{KEPT_FOR, Storage};
use ftpq_transport::Listener;
use futures_util::future::join_all;
use tokio::time::{interval, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    clients::Clients,
    commands,
    gate::{Gate, Verdict},
    limits::{CLOSE_IDLE, DRAIN, Limits, TIDY, WATCH},
    observer::{Event, Observer},
    pace::Paces,
    penalties::Offence,
    quota::Quotas,
    session::{self, Sessions},
};

/// A server that is ready to run.
pub struct Server {
    pub(crate) shared: Arc<Shared>,
}

/// What all sessions of a server share.
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) service: Arc<Service>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) access: Access,
    pub(crate) gate: Arc<Gate>,
    pub(crate) clients: Clients,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) paces: Paces,
    pub(crate) sessions: Sessions,
    /// Told through [`Shared::tell`] only.
    observer: Box<dyn Observer>,
    /// For how long what is unfinished is kept.
    keep_unfinished: Duration,
    /// Cancelled when no new command may begin.
    pub(crate) draining: CancellationToken,
    /// The commands that run.
    pub(crate) commands: TaskTracker,
}

impl Server {
    /// A server of `storage` for the clients in `access`, with ftpq's own verbs.
    pub fn builder(storage: impl Storage, access: Access) -> ServerBuilder {
        let mut registry = Registry::new();
        let problem = commands::register_all(&mut registry).err();
        let (storage, observer) = (Arc::new(storage), Box::new(()));
        ServerBuilder {
            registry,
            problem,
            storage,
            access,
            observer,
            keep_unfinished: KEPT_FOR,
            limits: Limits::default(),
            succession: Succession::default(),
            ports: Vec::new(),
        }
    }

    /// The verbs, in the order of their names.
    pub fn verbs(&self) -> &[Spec] {
        &self.shared.service.verbs
    }

    /// Serves on `listeners` until `shutdown` resolves. Then takes nothing new, gives the commands
    /// that run up to [`DRAIN`] to finish, tells every client, and returns.
    ///
    /// What comes at a listener is done on [its runtime](Listener::runtime), up to the last command.
    pub async fn serve(self, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
        self.shared.report_rejected_lines();
        let sessions = TaskTracker::new();
        let accepting = TaskTracker::new();
        let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
        for listener in &listeners {
            let (shared, sessions, taking) = (self.shared.clone(), sessions.clone(), listener.clone());
            let accept = async move {
                while let Some(incoming) = taking.accept().await {
                    match shared.gate.judge(incoming.remote_address().ip(), incoming.is_validated()) {
                        Verdict::Enter(pass) => drop(sessions.spawn(session::run(shared.clone(), incoming, pass))),
                        Verdict::Retry => incoming.retry(),
                        Verdict::Refuse => incoming.refuse(),
                        Verdict::Ignore => incoming.ignore(),
                    }
                }
            };
            accepting.spawn_on(accept, listener.runtime());
        }
        let tidying = tokio::spawn(tidy(self.shared.clone()));
        let closing = tokio::spawn(close_idle(self.shared.clone()));
        let watching = tokio::spawn(watch_access(self.shared.clone()));
        shutdown.await;
        tidying.abort();
        closing.abort();

        listeners.iter().for_each(|listener| listener.refuse_new());
        self.shared.draining.cancel();
        self.shared.commands.close();
        let _ = timeout(DRAIN, self.shared.commands.wait()).await;
        let closing = listeners.iter().map(|listener| listener.close(Status::Unavailable, "the server is stopping"));
        join_all(closing).await;
        watching.abort();
        accepting.close();
        sessions.close();
        let _ = timeout(DRAIN, sessions.wait()).await;
    }
}

/// Removes, at the start and then daily, what nobody came back for.
async fn tidy(shared: Arc<Shared>) {
    loop {
        let swept = shared.storage.sweep(shared.keep_unfinished).await;
        shared.quotas.freed();
        match swept {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "unfinished uploads that nobody came back for were removed"),
            Err(error) => tracing::warn!(%error, "cannot look for unfinished uploads"),
        }
        sleep(TIDY).await;
    }
}

/// Closes, now and then, what is open of uploads that nobody goes on with.
async fn close_idle(shared: Arc<Shared>) {
    loop {
        sleep(CLOSE_IDLE).await;
        shared.storage.close_idle().await;
    }
}

/// Ends the connections of those who are let in no more, or not as they were.
async fn watch_access(shared: Arc<Shared>) {
    let (mut ticks, mut seen) = (interval(WATCH), None);
    for tick in 0_u32.. {
        ticks.tick().await;
        let generation = Some(shared.access.generation());
        // Time alone may end what was granted, and a client may move to another address.
        if generation != seen || tick % 4 == 0 {
            seen = generation;
            shared.report_rejected_lines();
            shared.sessions.check();
        }
    }
}

impl Shared {
    /// Blames a network for what came from there.
    pub(crate) fn blame(&self, address: IpAddr, offence: Offence) {
        if let Some((network, time)) = self.gate.blame(address, offence) {
            self.tell(Event::KeptOut { network, time });
        }
    }

    /// Tells the observer. One that panics, over a log that cannot be written, say, costs its line
    /// and nothing else: the client gets its answer.
    pub(crate) fn tell(&self, event: Event<'_>) {
        if panic::catch_unwind(AssertUnwindSafe(|| self.observer.event(event))).is_err() {
            tracing::error!("the observer panicked");
        }
    }

    /// Tells of the lines in the list of authorised clients that count for nothing.
    pub(crate) fn report_rejected_lines(&self) {
        for line in &self.access.newly_rejected() {
            self.tell(Event::AccessLineRejected(line));
        }
    }
}

/// Puts a [`Server`] together.
pub struct ServerBuilder {
    registry: Registry,
    problem: Option<RegisterError>,
    storage: Arc<dyn Storage>,
    access: Access,
    observer: Box<dyn Observer>,
    keep_unfinished: Duration,
    limits: Limits,
    succession: Succession,
    ports: Vec<u16>,
}

impl ServerBuilder {
    /// Adds a verb. [`build`](Self::build) reports a name that is taken.
    #[must_use]
    pub fn with(mut self, handler: impl Handler) -> Self {
        let registered = self.registry.register(handler);
        self.problem = self.problem.or(registered.err());
        self
    }

    /// Tells `observer` what happens.
    #[must_use]
    pub fn observer(self, observer: impl Observer) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// Keeps uploads that were cut for `age`: so long may whoever sent them take to go on.
    #[must_use]
    pub fn keep_unfinished(self, age: Duration) -> Self {
        Self { keep_unfinished: age, ..self }
    }

    /// Grants all clients together, and each of them, what `limits` say.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Tells each client that is welcomed what `provider` says of the server's next key.
    #[must_use]
    pub fn successor(self, provider: impl Fn() -> Option<Successor> + Send + Sync + 'static) -> Self {
        Self { succession: Succession::by(provider), ..self }
    }

    /// Tells clients of these further ports: there must be a listener at each.
    #[must_use]
    pub fn ports(self, ports: Vec<u16>) -> Self {
        Self { ports, ..self }
    }

    /// The server, if all its verbs have names of their own.
    pub fn build(self) -> Result<Server, BuildError> {
        if let Some(problem) = self.problem {
            return Err(BuildError(problem));
        }
        let service = Service {
            agent: concat!("ftpq/", env!("CARGO_PKG_VERSION")).into(),
            verbs: self.registry.specs().cloned().collect(),
            succession: self.succession,
            ports: self.ports,
        };
        Ok(Server {
            shared: Arc::new(Shared {
                registry: self.registry,
                service: Arc::new(service),
                storage: self.storage,
                access: self.access,
                clients: Clients::new(&self.limits),
                quotas: Arc::default(),
                paces: Paces::default(),
                gate: Arc::new(Gate::new(self.limits)),
                sessions: Sessions::default(),
                observer: self.observer,
                keep_unfinished: self.keep_unfinished,
                draining: CancellationToken::new(),
                commands: TaskTracker::new(),
            }),
        })
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("cannot register all verbs: {0}")]
pub struct BuildError(#[from] RegisterError);

#[cfg(test)]
mod tests {
    use std::fs;

    use ftpq_proto::Extents;
    use ftpq_storage::{LargeFile, LocalFs};
    use tokio::time::Instant;

    use super::*;
    use crate::access::RejectedLine;

    struct Broken;

    impl Observer for Broken {
        fn event(&self, _: Event<'_>) {
            panic!("the log cannot be written");
        }
    }

    /// Nobody comes back for it, and nobody begins another.
    #[tokio::test(start_paused = true)]
    async fn removed_uploads_are_closed_with_time() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(&folder.path().join("authorized_clients")).unwrap();
        let server = Server::builder(LocalFs::open(folder.path()).unwrap(), access).build().unwrap();
        let file = LargeFile {
            extents: Extents::new(20 << 20, 8 << 20).unwrap(),
            owner: [1; 32].into(),
            fresh: false,
            apart: None,
            sparse: true,
            overwrite: false,
            same: None,
            parents: true,
        };
        let path = "d/f".parse().unwrap();
        let staging = server.shared.storage.begin(&path, file).await.unwrap().unwrap();
        fs::remove_dir_all(folder.path().join("d")).unwrap();
        drop(staging);
        let is_open = || {
            let open =
                fs::read_dir("/proc/self/fd").unwrap().filter_map(|item| fs::read_link(item.unwrap().path()).ok());
            open.filter(|file| file.starts_with(folder.path().join("d"))).count() > 0
        };
        assert!(is_open());
        let closing = tokio::spawn(close_idle(server.shared.clone()));
        let began = Instant::now();
        while is_open() {
            assert!(began.elapsed() < 3 * CLOSE_IDLE);
            sleep(CLOSE_IDLE / 4).await;
        }
        closing.abort();
    }

    #[test]
    fn an_observer_that_panics_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(&folder.path().join("authorized_clients")).unwrap();
        let server = Server::builder(LocalFs::open(folder.path()).unwrap(), access).observer(Broken).build().unwrap();
        server.shared.tell(Event::AccessLineRejected(&RejectedLine { number: 1, why: "nonsense".into() }));
    }
}
