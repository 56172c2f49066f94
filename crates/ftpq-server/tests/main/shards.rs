//! A server that shares its work among threads, each at a port of its own: all of it is one server.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
    time::Duration,
};

use ftpq_client::{
    Bundle, Connections, Dialer, Known, Link, Remote, Session,
    copy::{Copy, EXTENTS_PER_CONNECTION, Options},
};
use ftpq_proto::{RemotePath, Status};
use ftpq_server::{Access, Event, Observer, Server};
use ftpq_storage::{LocalFs, NewFile, Storage};
use ftpq_transport::{Closed, Connector, Identity, Listener, Shard};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{ALL, PATIENCE, digest, pattern, remote, shared};

/// A server with three shards, the first of which is the test's own thread.
struct Sharded {
    folder: TempDir,
    addresses: Vec<SocketAddr>,
    threads: Vec<ThreadId>,
    served: Served,
    server: Identity,
    client: Identity,
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// Which command ran on which thread.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<Vec<(String, ThreadId)>>>);

impl Observer for Served {
    fn event(&self, event: Event<'_>) {
        if let Event::Command { verb, .. } = event {
            self.0.lock().unwrap().push((verb.into(), thread::current().id()));
        }
    }
}

impl Served {
    fn threads(&self, verb: &str) -> HashSet<ThreadId> {
        self.0.lock().unwrap().iter().filter(|(served, _)| served == verb).map(|(_, thread)| *thread).collect()
    }
}

impl Sharded {
    /// It announces the ports of its shards, or those that are `said` to be its own.
    async fn start(said: Option<Vec<u16>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("served")).unwrap();
        let [server, client] = [(); 2].map(|()| Identity::generate().unwrap());
        let list = folder.path().join("authorized_clients");
        fs::write(&list, format!("{} name=a rights={ALL}\n", client.fingerprint())).unwrap();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let mut listeners = vec![Listener::bind(any, &server).unwrap()];
        for _ in 0..2 {
            let (bound, shard) = (Listener::bind_socket(any).unwrap(), Arc::new(Shard::start().unwrap()));
            listeners.push(Listener::on_shard(bound, &server, shard).unwrap());
        }
        let mut threads = Vec::new();
        for listener in &listeners {
            threads.push(listener.runtime().spawn(async { thread::current().id() }).await.unwrap());
        }
        let addresses: Vec<_> = listeners.iter().map(Listener::local_addr).collect();
        let ports = said.unwrap_or_else(|| addresses[1..].iter().map(SocketAddr::port).collect());
        let (files, served) = (LocalFs::open(&folder.path().join("served")).unwrap(), Served::default());
        let builder = Server::builder(files, Access::open(&list).unwrap()).observer(served.clone()).ports(ports);
        let stop = CancellationToken::new();
        let task = tokio::spawn(builder.build().unwrap().serve(listeners, stop.clone().cancelled_owned()));
        Self { folder, addresses, threads, served, server, client, stop: stop.drop_guard(), task }
    }

    async fn session(&self, address: SocketAddr) -> Session {
        let connector = Connector::new(self.client.clone());
        let connection = connector.connect(&[address], &[self.server.fingerprint()], PATIENCE).await.unwrap();
        Session::open(connection, "test/1").await.unwrap()
    }

    /// A client's connections, beginning with one to the usual port, on a machine of so many processors.
    async fn bundle(&self, processors: usize) -> Arc<Bundle> {
        let dialer = Dialer {
            connector: Connector::new(self.client.clone()),
            addresses: vec![self.addresses[0]],
            elsewhere: Vec::new(),
            trust: vec![Known::only(self.server.fingerprint())],
            agent: "test/1".into(),
            ticket: None,
            learn: None,
            patience: PATIENCE,
            answers_within: PATIENCE,
        };
        Bundle::new(Link::open(dialer).await.unwrap(), processors)
    }

    /// Uploads a file of so many extents, and looks at what has come.
    async fn upload(&self, bundle: &Arc<Bundle>, connections: Connections, extents: usize) {
        let here = tempfile::tempdir().unwrap();
        let bytes = pattern(extents * (8 << 20));
        fs::write(here.path().join("f"), &bytes).unwrap();
        let (from, to) = (shared(LocalFs::open(here.path()).unwrap()), Remote::bundled(bundle.clone(), connections));
        let copy = Copy::new(from, Arc::new(to), OPTIONS, Arc::new(()));
        assert_eq!(copy.file(&remote("f"), &remote("f")).await.unwrap().bytes, bytes.len() as u64);
        assert!(fs::read(self.folder.path().join("served/f")).unwrap() == bytes);
    }
}

#[tokio::test]
async fn every_port_is_the_same_server_on_a_thread_of_its_own() {
    let sharded = Sharded::start(None).await;
    for (address, thread) in sharded.addresses.iter().zip(&sharded.threads) {
        let session = sharded.session(*address).await;
        assert_eq!(session.welcome().await.unwrap().ports, [1, 2].map(|at| sharded.addresses[at].port()));
        sharded.served.0.lock().unwrap().clear();
        let files = Remote::over(session);
        files.make_folder(&remote("d"), true).await.unwrap();
        assert_eq!(files.list(&RemotePath::root()).await.unwrap().next_page().await.unwrap().unwrap().len(), 1);
        assert_eq!(sharded.served.threads("MKDIR"), [*thread].into());
    }
    assert_eq!(sharded.threads.iter().collect::<HashSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_transfer_over_three_connections_uses_all_three_ports() {
    for processors in [2, 4] {
        let sharded = Sharded::start(None).await;
        let bundle = sharded.bundle(processors).await;
        bundle.widen(3).await.unwrap();
        let mut ports = Vec::new();
        let mut threads = HashSet::new();
        for link in bundle.links() {
            ports.push(link.remote_address().await);
            threads.insert(link.session().await.unwrap().connection().work().await.unwrap().thread);
        }
        assert_eq!(ports, sharded.addresses);
        // On two processors all stays on one thread.
        assert_eq!(threads.len(), if processors == 2 { 1 } else { 3 });
        sharded.upload(&bundle, Connections::UpTo(3), 9).await;
        assert_eq!(sharded.served.threads("WRITE"), sharded.threads.iter().copied().collect());
        bundle.close().await;
    }
}

/// A firewall that lets nothing through, and a port at which somebody else listens.
#[tokio::test]
async fn where_a_port_is_not_the_servers_the_usual_one_takes_its_place() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &Identity::generate().unwrap()).unwrap();
    let answering = other.clone();
    tokio::spawn(async move {
        while let Some(incoming) = answering.accept().await {
            tokio::spawn(incoming.accept(PATIENCE));
        }
    });
    let ports = vec![silent.local_addr().unwrap().port(), 0, other.local_addr().port()];
    let sharded = Sharded::start(Some(ports)).await;
    let bundle = sharded.bundle(2).await;
    bundle.widen(3).await.unwrap();
    for link in bundle.links() {
        assert_eq!(link.remote_address().await, sharded.addresses[0]);
    }
    sharded.upload(&bundle, Connections::UpTo(3), 3).await;
}

#[tokio::test]
async fn all_ports_finish_what_runs_and_say_goodbye() {
    let sharded = Sharded::start(None).await;
    let (bytes, mut uploads) = (pattern(300_000), Vec::new());
    for (number, address) in sharded.addresses.iter().enumerate() {
        let session = sharded.session(*address).await;
        let files = Remote::over(session.clone());
        let file = NewFile { size: Some(bytes.len() as u64), ..NewFile::default() };
        let upload = files.create(&remote(&format!("f{number}")), file).await.unwrap();
        uploads.push((session, files, upload));
    }
    let Sharded { folder, stop, task, .. } = sharded;
    drop(stop);
    let mut sessions = Vec::new();
    for (session, files, mut upload) in uploads {
        // Each needs a moment to hear of it: until then, commands run.
        let refused = async {
            loop {
                if let Err(error) = files.stat(&RemotePath::root()).await {
                    return error;
                }
            }
        };
        assert_eq!(timeout(PATIENCE, refused).await.expect("a refusal").status(), Status::Unavailable);
        upload.write(bytes.clone().into()).await.unwrap();
        upload.commit(digest(&bytes)).await.unwrap();
        sessions.push(session);
    }
    for session in sessions {
        let closed = timeout(PATIENCE, session.connection().closed()).await.expect("a goodbye");
        assert!(matches!(closed, Closed::ByPeer { status: Status::Unavailable, .. }), "{closed:?}");
    }
    task.await.unwrap();
    for number in 0..3 {
        assert!(fs::read(folder.path().join(format!("served/f{number}"))).unwrap() == bytes);
    }
}

const OPTIONS: Options = Options {
    overwrite: false,
    preserve: false,
    follow_links: false,
    keep_existing: false,
    parents: false,
    parallel: 512,
    extents: EXTENTS_PER_CONNECTION,
    resume: true,
    retry_for: Duration::ZERO,
};
