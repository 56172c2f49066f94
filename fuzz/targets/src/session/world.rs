//! The server, its folder, and how one sees that both are well.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    panic,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use ftpq_proto::{
    RemotePath, Status,
    commands::stat,
    message::{Reply, Request, Response},
};
use ftpq_server::{Access, Event, Observer, Server};
use ftpq_storage::LocalFs;
use ftpq_transport::{Connection, Connector, Fingerprint, Identity, Listener};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

/// After this long, something has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server that serves `served` in a folder of its own, and what its clients need.
///
/// ```text
/// authorized_clients
/// canary               outside of what is served
/// served/canary        outside of what the member sees
/// served/work/         all that the member sees
/// ```
pub(crate) struct World {
    /// The clients'; the server has one on its own thread.
    pub(crate) runtime: Runtime,
    /// May do everything in `work`.
    pub(crate) member: Identity,
    /// Is in no list.
    pub(crate) stranger: Identity,
    /// Sees everything, and looks whether the server answers.
    watching: Connection,
    connect_to: (SocketAddr, Fingerprint),
    faults: Faults,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
    outer: TempDir,
}

/// What the server did that it never should.
type Faults = Arc<Mutex<Vec<String>>>;

impl World {
    pub(crate) fn start() -> Self {
        let outer = tempfile::Builder::new().prefix("ftpq-fuzz-").tempdir().expect("a folder");
        let [member, stranger, watcher] = [(); 3].map(|()| Identity::generate().expect("a key"));
        lay_out(outer.path(), &member, &watcher);
        let faults = Faults::default();
        record_panics(faults.clone());
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let (folder, observer) = (outer.path().to_owned(), Recorder(faults.clone()));
        let server = thread::Builder::new()
            .name(SERVER_THREADS.into())
            .spawn(move || serve(&folder, observer, &tell, stopped))
            .expect("a thread");
        let connect_to = told.recv_timeout(PATIENCE).expect("a server");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let watching = runtime.block_on(connect(&watcher, connect_to));
        runtime.block_on(introduce(&watching));
        Self { runtime, member, stranger, watching, connect_to, faults, stop: Some(stop), server: Some(server), outer }
    }

    /// A new connection, on which nothing was said.
    pub(crate) async fn connect(&self, identity: &Identity) -> Connection {
        connect(identity, self.connect_to).await
    }

    /// Removes what earlier inputs have left to the member.
    pub(crate) fn clear(&self) {
        clear(&self.path("served/work"));
    }

    /// The server answers somebody else, on a new stream.
    pub(crate) async fn assert_alive(&self) {
        let path = "/canary".parse().expect("a path");
        let answer = ask(&self.watching, stat::VERB, stat::Args { path }).await;
        let Reply::Ok(found) = answer else { panic!("the canary is not seen: {answer:?}") };
        let found: stat::Found = found.deserialized().expect("what STAT found");
        assert_eq!(found.entry.size, CANARY.len() as u64);
    }

    /// Nothing has panicked, nothing outside the member's folder has changed, and nothing piles up.
    pub(crate) fn assert_well(&self) {
        let faults = std::mem::take(&mut *self.faults.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(names(&self.path("")), ["authorized_clients", "canary", "served"]);
        assert_eq!(names(&self.path("served")), ["canary", "work"]);
        for canary in ["canary", "served/canary"] {
            assert_eq!(fs::read(self.path(canary)).ok().as_deref(), Some(CANARY), "{canary}");
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            assert!(open.count() < FILES_MAX, "open files pile up");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.watching.close(None, "");
        if let Some(server) = self.server.take() {
            let ended = server.join();
            assert!(ended.is_ok() || thread::panicking(), "the server's thread panicked");
        }
    }
}

/// What stands in both canaries.
const CANARY: &[u8] = b"untouched";

/// The name of the server's thread, and of those on which it blocks.
const SERVER_THREADS: &str = "ftpq-fuzz-server";

/// More files than the server keeps open for 64 uploads, and for all connections that are just ending.
const FILES_MAX: usize = 1000;

fn lay_out(outer: &Path, member: &Identity, watcher: &Identity) {
    fs::create_dir_all(outer.join("served/work")).expect("a folder");
    for canary in ["canary", "served/canary"] {
        fs::write(outer.join(canary), CANARY).expect("a canary");
    }
    let list = format!(
        "{} name=member rights=list,read,write,delete,admin root=/work\n{} name=watcher rights=list\n",
        member.fingerprint(),
        watcher.fingerprint()
    );
    fs::write(outer.join("authorized_clients"), list).expect("a list");
}

/// The server's thread: runs until `stopped`.
fn serve(
    folder: &Path,
    observer: Recorder,
    tell: &mpsc::Sender<(SocketAddr, Fingerprint)>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = Builder::new_current_thread().enable_all().thread_name(SERVER_THREADS).build().expect("a runtime");
    runtime.block_on(async {
        let files = LocalFs::open(&folder.join("served")).expect("the folder");
        let access = Access::open(&folder.join("authorized_clients")).expect("the list");
        let server = Server::builder(files, access).observer(observer).build().expect("a server");
        let identity = Identity::generate().expect("a key");
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).expect("a socket");
        tell.send((listener.local_addr(), identity.fingerprint())).expect("somebody who waits");
        server.serve(vec![listener], async { drop(stopped.await) }).await;
    });
}

/// Takes note of each panic on the server's threads: the server itself hides a handler's.
fn record_panics(faults: Faults) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() == Some(SERVER_THREADS) {
            faults.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
        }
        before(info);
    }));
}

/// Takes note of commands that ended as a bug of the server's.
struct Recorder(Faults);

impl Observer for Recorder {
    fn event(&self, event: Event<'_>) {
        if let Event::Command { verb, outcome: Err(failure), .. } = event
            && failure.status() == Status::Internal
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{verb}: {:?}", failure.cause()));
        }
    }
}

async fn connect(identity: &Identity, (address, key): (SocketAddr, Fingerprint)) -> Connection {
    let connected = Connector::new(identity.clone()).connect(&[address], &[key], PATIENCE).await;
    connected.unwrap_or_else(|error| panic!("the server does not take a connection: {error}"))
}

async fn introduce(connection: &Connection) {
    let answer = ask(connection, ftpq_proto::commands::con::VERB, super::requests::con_args()).await;
    assert!(matches!(answer, Reply::Ok(_)), "not welcome: {answer:?}");
}

/// The reply to a request that has neither items nor a body.
async fn ask(connection: &Connection, verb: &str, args: impl serde::Serialize) -> Reply {
    let asking = async {
        let (mut send, mut recv) = connection.open().await.expect("a stream");
        send.frame(&Request { verb: verb.into(), cwd: RemotePath::root(), args }).await.expect("a request");
        send.finish();
        let response = recv.frame::<Response>(PATIENCE).await.expect("an answer");
        recv.end().await;
        response
    };
    match tokio::time::timeout(PATIENCE, asking).await.expect("an answer in time") {
        Response::Reply(reply) => reply,
        other => panic!("not a reply: {other:?}"),
    }
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("the folder").map(|item| item.expect("an item").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Removes all that is in `folder`. What the server still does there may be in the way, once.
fn clear(folder: &Path) {
    let Ok(items) = fs::read_dir(folder) else { return };
    for path in items.flatten().map(|item| item.path()) {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            open_up(&path);
            clear(&path);
            let _ = fs::remove_dir(&path);
        } else {
            if meta.is_file() {
                // The server may hold it open for long: its room is needed.
                let _ = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
            }
            let _ = fs::remove_file(&path);
        }
    }
    open_up(folder);
}

/// The member may have closed a folder.
fn open_up(folder: &Path) {
    #[cfg(unix)]
    let _ = fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755));
}
