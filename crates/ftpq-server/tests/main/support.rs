//! A server to test, its clients, and what both leave on disk.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ciborium::Value;
use ftpq_client::{CallError, Link, Remote, Session, copy::CopyError};
use ftpq_proto::{
    Digest, RemotePath, Status,
    commands::con,
    message::{Failed, Reply, Request, Response},
};
use ftpq_server::{Access, Event, Limits, Observer, Server, ServerBuilder};
use ftpq_storage::{Bytes, LocalFs, NewFile, Storage, StorageError};
use ftpq_transport::{ConnectError, Connection, Connector, Fingerprint, Identity, Listener, RecvHalf, SendHalf};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Everything that a user may do.
pub(crate) const ALL: &str = "list,read,write,delete,admin";

/// A server of a folder of its own.
pub(crate) struct TestServer {
    outer: TempDir,
    address: SocketAddr,
    key: Fingerprint,
    seen: watch::Receiver<Vec<Seen>>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// What the server told its observer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Command { user: String, verb: String, path: Option<String>, bytes: u64, outcome: Result<(), Status> },
    NotAuthorised(Fingerprint),
    KeptOut,
    Revoked,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// With more verbs than ftpq's own.
    pub(crate) async fn start_with(extend: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("served")).unwrap();
        Self::start_in(outer, extend).await
    }

    /// With its folder in memory, where there is such a place: for those that change it thousands of times.
    pub(crate) async fn start_in_memory() -> Self {
        let outer = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        fs::create_dir(outer.path().join("served")).unwrap();
        Self::start_in(outer, |builder| builder).await
    }

    /// Another process, so to say, with the same folder and the same clients.
    pub(crate) async fn restart(self) -> Self {
        let (outer, stopped) = self.begin_to_stop();
        stopped.await.unwrap();
        Self::start_in(outer, |builder| builder).await
    }

    async fn start_in(outer: TempDir, extend: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let files = LocalFs::open(&outer.path().join("served")).unwrap();
        let access = Access::open(&outer.path().join("authorized_clients")).unwrap();
        let (record, seen) = watch::channel(Vec::new());
        let server = extend(Server::builder(files, access)).observer(Recorder(record)).build().unwrap();
        let identity = Identity::generate().unwrap();
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).unwrap();
        let address = listener.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(vec![listener], stop.clone().cancelled_owned()));
        Self { outer, address, key: identity.fingerprint(), seen, stop: stop.drop_guard(), task }
    }

    /// A path in the served folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("served").join(name)
    }

    /// A path beside the served folder, which no client may reach.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    /// All that is in the served folder.
    pub(crate) fn on_disk(&self) -> BTreeMap<PathBuf, Node> {
        on_disk(&self.path(""))
    }

    /// Adds a client to the list.
    pub(crate) fn authorise(&self, identity: &Identity, options: &str) {
        let list = fs::read_to_string(self.outside("authorized_clients")).unwrap_or_default();
        self.set_list(&format!("{list}{} {options}\n", identity.fingerprint()));
    }

    /// Makes this client the only one in the list, in one step. Its connections end: it gets a new one.
    pub(crate) async fn change(&self, identity: &Identity, options: &str) -> Session {
        self.set_list(&format!("{} {options}\n", identity.fingerprint()));
        self.session(identity).await
    }

    /// In one step, which counts at once.
    pub(crate) fn set_list(&self, list: &str) {
        let new = self.outside("authorized_clients.new");
        fs::write(&new, list).unwrap();
        fs::rename(new, self.outside("authorized_clients")).unwrap();
    }

    /// Removes everybody from the list.
    pub(crate) fn authorise_nobody(&self) {
        self.set_list("# nobody\n");
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection on which nothing was said.
    pub(crate) async fn connect(&self, identity: &Identity) -> Connection {
        self.connect_to(self.address, identity).await.unwrap()
    }

    /// The same by another way, perhaps in vain.
    pub(crate) async fn connect_to(
        &self,
        address: SocketAddr,
        identity: &Identity,
    ) -> Result<Connection, ConnectError> {
        Connector::new(identity.clone()).connect(&[address], &[self.key], PATIENCE).await
    }

    /// A connection on which CON was sent.
    pub(crate) async fn session(&self, identity: &Identity) -> Session {
        Session::open(self.connect(identity).await, "test/1").await.unwrap()
    }

    /// A new client in the list, connected.
    pub(crate) async fn user(&self, options: &str) -> Session {
        let identity = Identity::generate().unwrap();
        self.authorise(&identity, options);
        self.session(&identity).await
    }

    /// The files as a client sees them that has two connections.
    pub(crate) async fn spread(&self, identity: &Identity) -> Remote {
        let [one, other] = [self.session(identity).await, self.session(identity).await].map(Link::over);
        Remote::spread(one, [other])
    }

    /// The files as a client with these rights sees them.
    pub(crate) async fn files(&self, rights: &str) -> Remote {
        Remote::over(self.user(&format!("name=someone rights={rights}")).await)
    }

    /// What was observed so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until something like this was observed.
    pub(crate) async fn until_seen(&self, what: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        timeout(PATIENCE, seen.wait_for(|all| all.iter().any(&what))).await.expect("it happens").unwrap();
    }

    /// Waits until the server is done with a command of this verb, and says how it ended.
    pub(crate) async fn outcome_of(&self, awaited: &str) -> Result<(), Status> {
        let mut seen = self.seen.clone();
        let outcome = |seen: &Vec<Seen>| {
            seen.iter().rev().find_map(|seen| match seen {
                Seen::Command { verb, outcome, .. } if verb == awaited => Some(*outcome),
                _ => None,
            })
        };
        let found = timeout(PATIENCE, seen.wait_for(|seen| outcome(seen).is_some())).await.expect("an end").unwrap();
        outcome(&found).unwrap()
    }

    /// Tells the server to stop. The task ends when it has.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        drop(self.stop);
        self.task
    }

    /// The same, for who needs the server's folder until then.
    pub(crate) fn begin_to_stop(self) -> (TempDir, JoinHandle<()>) {
        drop(self.stop);
        (self.outer, self.task)
    }
}

struct Recorder(watch::Sender<Vec<Seen>>);

impl Observer for Recorder {
    fn event(&self, event: Event<'_>) {
        let seen = match event {
            Event::Command { user, verb, path, bytes, outcome, .. } => Seen::Command {
                user: user.into(),
                verb: verb.into(),
                path: path.map(ToString::to_string),
                bytes,
                outcome: outcome.map_err(|failure| failure.status()),
            },
            Event::NotAuthorised { key, .. } => Seen::NotAuthorised(key),
            Event::KeptOut { .. } => Seen::KeptOut,
            Event::Revoked { .. } => Seen::Revoked,
            _ => return,
        };
        self.0.send_modify(|all| all.push(seen));
    }
}

/// One stream, spoken by hand.
pub(crate) struct Raw {
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
}

impl Raw {
    pub(crate) async fn open(connection: &Connection) -> Self {
        let (send, recv) = connection.open().await.unwrap();
        Self { send, recv }
    }

    /// Opens a stream and sends a request from the root.
    pub(crate) async fn request(connection: &Connection, verb: &str, args: impl Serialize) -> Self {
        let mut raw = Self::open(connection).await;
        raw.send.frame(&Request { verb: verb.into(), cwd: RemotePath::root(), args }).await.unwrap();
        raw
    }

    /// Sends bytes as they are.
    pub(crate) async fn bytes(&mut self, bytes: impl Into<Vec<u8>>) {
        self.send.block(Bytes::from(bytes.into())).await.unwrap();
    }

    pub(crate) async fn response(&mut self) -> Response {
        self.recv.frame(PATIENCE).await.unwrap()
    }

    /// The reply, which must say no.
    pub(crate) async fn refusal(&mut self) -> Failed {
        match self.response().await {
            Response::Reply(Reply::Error(failed)) => failed,
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// The reply, which must say yes.
    pub(crate) async fn reply<T: DeserializeOwned>(&mut self) -> T {
        match self.response().await {
            Response::Reply(Reply::Ok(value)) => value.deserialized().unwrap(),
            other => panic!("not a success: {other:?}"),
        }
    }
}

/// A server with these limits.
pub(crate) async fn limited(limits: Limits) -> TestServer {
    TestServer::start_with(|builder| builder.limits(limits)).await
}

pub(crate) fn identity() -> Identity {
    Identity::generate().unwrap()
}

/// CON's answer, which must be yes.
pub(crate) async fn assert_welcome(connection: &Connection) {
    let _: con::Welcome = Raw::request(connection, con::VERB, con_with(&[1])).await.reply().await;
}

/// CON's arguments with these versions.
pub(crate) fn con_with(versions: &[u32]) -> con::Args {
    con::Args { versions: versions.to_vec(), agent: "test/1".into(), features: Vec::new(), ticket: None }
}

/// Arguments by name.
pub(crate) fn args<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

pub(crate) fn remote(path: &str) -> RemotePath {
    path.parse().unwrap()
}

pub(crate) async fn put(
    storage: &dyn Storage,
    path: &str,
    bytes: &[u8],
    file: NewFile,
) -> Result<Digest, StorageError> {
    let mut upload = storage.create(&remote(path), NewFile { size: Some(bytes.len() as u64), ..file }).await?;
    for block in bytes.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(block)).await?;
    }
    upload.commit(digest(bytes)).await
}

pub(crate) async fn get(storage: &dyn Storage, path: &str) -> Result<Vec<u8>, StorageError> {
    let mut reader = storage.open(&remote(path)).await?;
    let mut all = Vec::new();
    while let Some(block) = reader.next_block().await? {
        all.extend_from_slice(&block);
    }
    assert_eq!(reader.finish().await?, digest(&all));
    Ok(all)
}

/// The names in a folder, sorted.
pub(crate) async fn names(storage: &dyn Storage, path: &str) -> Result<Vec<String>, StorageError> {
    let mut listing = storage.list(&remote(path)).await?;
    let mut names = Vec::new();
    while let Some(page) = listing.next_page().await? {
        names.extend(page.into_iter().map(|entry| entry.name.unwrap().to_string()));
    }
    names.sort();
    Ok(names)
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    (*blake3::hash(bytes).as_bytes()).into()
}

/// Bytes in which no block is like another.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// How something failed, which it must.
pub(crate) fn status<T>(result: Result<T, impl Failing>) -> Status {
    result.err().expect("an error").status()
}

pub(crate) trait Failing {
    fn status(&self) -> Status;
}

impl Failing for StorageError {
    fn status(&self) -> Status {
        self.status()
    }
}

impl Failing for CallError {
    fn status(&self) -> Status {
        self.status()
    }
}

impl Failing for CopyError {
    fn status(&self) -> Status {
        self.status()
    }
}

/// What stands on disk under a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    File(Vec<u8>),
    Folder,
    Link(PathBuf),
}

/// All that is in a folder, hidden names included.
pub(crate) fn on_disk(folder: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for item in fs::read_dir(&next).unwrap() {
            let path = item.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let node = if kind.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap())
            } else if kind.is_dir() {
                folders.push(path.clone());
                Node::Folder
            } else {
                Node::File(fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), node);
        }
    }
    found
}

/// Shared, as a copy wants it.
pub(crate) fn shared(storage: impl Storage) -> Arc<dyn Storage> {
    Arc::new(storage)
}

/// After this long, which is longer than any timeout of client or server, a test has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
