//! A server that does as it likes: it speaks ftpq's frames, and none of ftpq's server code is in it.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use ciborium::{Value, cbor};
use ftpq_proto::{
    Digest, Extents, Status,
    codec::encode,
    message::{Failed, Reply, Request, Response, Trailer},
};
use ftpq_transport::{Connection, Identity, Listener, RecvHalf, SendError, SendHalf, tuning::Windows};
use tokio::sync::oneshot;

/// What a server does about one request.
pub(super) type Act = fn(Asked) -> Acting;
pub(super) type Acting = Pin<Box<dyn Future<Output = Done> + Send>>;
/// A client that has had enough is no error.
pub(super) type Done = Result<(), SendError>;

/// Listens until it is dropped.
pub(super) struct EvilServer {
    pub(super) address: SocketAddr,
    /// The fingerprint of its key.
    pub(super) key: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EvilServer {
    /// Answers each request by `act`.
    pub(super) fn start(act: Act) -> Self {
        let identity = Identity::generate().unwrap();
        let key = identity.fingerprint().to_string();
        let (tell, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &identity).unwrap();
                tell.send(listener.local_addr()).unwrap();
                tokio::select! {
                    () = serve(&listener, act) => {}
                    _ = stopped => {}
                }
            });
            // What never ends ends here.
            runtime.shutdown_background();
        });
        Self { address: address.recv().unwrap(), key, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for EvilServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: &Listener, act: Act) {
    while let Some(incoming) = listener.accept().await {
        tokio::spawn(async move {
            let incoming = incoming.granting(Windows { streams: 2, ..Windows::UNSETTLED });
            let Ok(connection) = incoming.accept(std::time::Duration::from_secs(10)).await else { return };
            let shared = Arc::default();
            while let Ok((send, recv)) = connection.accept().await {
                let (connection, shared) = (connection.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Some(asked) = Asked::read(send, recv, connection, shared).await {
                        let _ = act(asked).await;
                    }
                });
            }
        });
    }
}

/// A request, and the stream that it came on.
pub(super) struct Asked {
    pub(super) verb: String,
    /// What it is about, if the verb has a path.
    pub(super) path: String,
    pub(super) args: Value,
    pub(super) send: SendHalf,
    pub(super) recv: RecvHalf,
    pub(super) connection: Connection,
    /// The upload that was begun last on this connection.
    begun: Arc<Mutex<Option<Extents>>>,
}

impl Asked {
    async fn read(
        send: SendHalf,
        mut recv: RecvHalf,
        connection: Connection,
        begun: Arc<Mutex<Option<Extents>>>,
    ) -> Option<Self> {
        let Request { verb, args, .. } = recv.frame::<Request>(FOREVER).await.ok()?;
        let path = field(&args, "path").and_then(Value::as_text).unwrap_or_default().to_owned();
        Some(Self { verb, path, args, send, recv, connection, begun })
    }

    pub(super) fn is(&self, verb: &str) -> bool {
        self.verb == verb
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        field(&self.args, name)?.as_integer()?.try_into().ok()
    }

    /// The digest that a request names.
    pub(super) fn digest(&self) -> Value {
        field(&self.args, "digest").cloned().unwrap_or(Value::Null)
    }

    fn says(&self, name: &str) -> bool {
        field(&self.args, name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Raw bytes.
    pub(super) async fn raw(&mut self, bytes: impl Into<Bytes>) -> Done {
        self.send.block(bytes.into()).await?;
        // Whoever says a lot must not keep quinn from sending it.
        tokio::task::yield_now().await;
        Ok(())
    }

    pub(super) async fn item(&mut self, item: Value) -> Done {
        self.raw(encode(&Response::Item(item)).unwrap()).await
    }

    pub(super) async fn head(&mut self, head: Value) -> Done {
        self.send.frame(&Response::Head(head)).await
    }

    /// The last word.
    pub(super) async fn reply(&mut self, reply: Value) -> Done {
        self.send.frame(&Response::Reply(Reply::Ok(reply))).await?;
        self.send.finish();
        // The runtime may end with the connection: what was said must have left before.
        self.send.delivered().await;
        Ok(())
    }

    /// The last word, if it is no.
    pub(super) async fn refuse(&mut self, status: Status, message: &str) -> Done {
        let failed = Failed { status, message: message.into() };
        self.send.frame(&Response::Reply(Reply::Error(failed))).await?;
        self.send.finish();
        self.send.delivered().await;
        Ok(())
    }

    /// A whole listing.
    pub(super) async fn list(mut self, entries: Vec<Value>) -> Done {
        if !entries.is_empty() {
            self.item(cbor!({ "entries" => entries }).unwrap()).await?;
        }
        self.reply(cbor!({ "path" => "/", "folder" => true, "count" => 0 }).unwrap()).await
    }

    /// The head of a file of `size` bytes.
    pub(super) async fn file(&mut self, size: u64) -> Done {
        self.head(file(size)).await
    }

    /// The digest behind a body.
    pub(super) async fn trailer(&mut self, body: &[u8]) -> Done {
        self.send.frame(&digest_of(body)).await
    }

    /// A whole file, as it should be.
    pub(super) async fn body(mut self, body: &'static [u8]) -> Done {
        self.file(body.len() as u64).await?;
        self.raw(body).await?;
        self.trailer(body).await?;
        self.reply(sent(body)).await
    }

    /// Waits for ever, and holds the stream open.
    pub(super) async fn silence(&self) -> Done {
        std::future::pending().await
    }

    /// Does what a server should: folders are what is called `tree`, and empty; every file is the
    /// same; every upload is taken.
    pub(super) async fn honestly(mut self) -> Done {
        match self.verb.as_str() {
            "CON" => {
                self.connection.settle(Windows::FULL);
                self.reply(welcome()).await
            }
            "LIST" => self.list(Vec::new()).await,
            "STAT" => {
                let name = self.path.rsplit('/').next().unwrap_or_default().to_owned();
                let kind = if name.is_empty() || name.contains("tree") { "folder" } else { "file" };
                let name = if name.is_empty() { Value::Null } else { name.into() };
                self.reply(cbor!({ "path" => "/", "entry" => entry(name, kind) }).unwrap()).await
            }
            "DWLD" => self.body(BODY).await,
            "UPLD" => self.take_file().await,
            "BEGIN" => {
                self.begin();
                self.reply(cbor!({ "upload" => Value::Bytes(vec![7; 32]) }).unwrap()).await
            }
            "WRITE" => {
                let digest = self.take_extent().await;
                self.reply(cbor!({ "digest" => digest }).unwrap()).await
            }
            "COMMIT" => {
                let size = self.begun().map_or(0, |extents| extents.size());
                let digest = self.digest();
                self.reply(committed(size, digest)).await
            }
            _ => self.refuse(Status::UnknownVerb, "this server does not know that").await,
        }
    }

    /// Takes a file and says that it is there.
    async fn take_file(mut self) -> Done {
        if !self.says("eager") {
            self.head(cbor!({}).unwrap()).await?;
        }
        let size = self.number("size").unwrap();
        let digest = self.take(size).await;
        self.reply(committed(size, digest)).await
    }

    /// Notes what is coming.
    pub(super) fn begin(&mut self) {
        *self.begun() = Extents::new(self.number("size").unwrap(), self.number("extent").unwrap());
    }

    /// Takes an extent and returns the digest that its sender names.
    pub(super) async fn take_extent(&mut self) -> Value {
        let index = u32::try_from(self.number("index").unwrap()).unwrap();
        let length = self.begun().and_then(|extents| extents.get(index)).map_or(0, |extent| extent.length);
        let holes = field(&self.args, "holes").and_then(Value::as_array).into_iter().flatten();
        let holes = holes.map(|hole| hole.deserialized::<(u64, u64)>().unwrap().1).sum::<u64>();
        self.take(length - holes).await
    }

    /// Takes a body and returns the digest that its sender names.
    pub(super) async fn take(&mut self, mut length: u64) -> Value {
        while length > 0 {
            let Ok(block) = self.recv.block(length.min(1 << 18) as usize).await else { return Value::Null };
            length -= block.len() as u64;
        }
        let trailer = self.recv.frame::<Trailer>(FOREVER).await;
        trailer.map_or(Value::Null, |trailer| Value::serialized(&trailer.digest).unwrap())
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Option<Extents>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said is heard to its end: a reset would overtake it.
impl Drop for Asked {
    fn drop(&mut self) {
        self.send.finish();
    }
}

fn field<'a>(args: &'a Value, name: &str) -> Option<&'a Value> {
    args.as_map()?.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
}

/// What every file holds, unless something else is said.
pub(super) const BODY: &[u8] = b"harmless\n";

/// An entry of a listing: `name` is whatever one likes.
pub(super) fn entry(name: impl Into<Value>, kind: &str) -> Value {
    sized(name, kind, if kind == "file" { BODY.len() as u64 } else { 0 })
}

/// The same, of a size.
pub(super) fn sized(name: impl Into<Value>, kind: &str, size: u64) -> Value {
    cbor!({
        "name" => name.into(), "kind" => kind, "size" => size,
        "mtime" => { "secs" => 1_700_000_000, "nanos" => 0 }, "mode" => 0o755
    })
    .unwrap()
}

/// A link.
pub(super) fn link(name: &str, target: &str) -> Value {
    with(entry(name, "link"), "target", target)
}

/// `map` with one field set.
pub(super) fn with(map: Value, name: &str, value: impl Into<Value>) -> Value {
    let Value::Map(mut pairs) = map else { panic!("not a map: {map:?}") };
    pairs.retain(|(key, _)| key.as_text() != Some(name));
    pairs.push((name.into(), value.into()));
    Value::Map(pairs)
}

/// What DWLD says of a file of `size` bytes.
pub(super) fn file(size: u64) -> Value {
    cbor!({
        "path" => "/", "size" => size, "version" => Value::Bytes(vec![1; 32]),
        "mtime" => { "secs" => 1_700_000_000, "nanos" => 0 }, "mode" => 0o644
    })
    .unwrap()
}

/// What is said when all of a file was sent.
pub(super) fn sent(body: &[u8]) -> Value {
    let digest = Value::serialized(&digest_of(body).digest).unwrap();
    cbor!({ "length" => body.len(), "digest" => digest }).unwrap()
}

pub(super) fn committed(length: u64, digest: Value) -> Value {
    cbor!({ "path" => "/", "length" => length, "digest" => digest }).unwrap()
}

pub(super) fn digest_of(body: &[u8]) -> Trailer {
    Trailer { digest: Digest::from(*blake3::hash(body).as_bytes()) }
}

/// What CON says.
pub(super) fn welcome() -> Value {
    cbor!({
        "version" => 1, "agent" => "evil/1", "features" => [], "verbs" => [], "user" => "somebody", "key" => "SHA256:x",
        "rights" => ["list", "read", "write", "delete"]
    })
    .unwrap()
}

/// A frame with anything in it.
pub(super) fn frame(value: &Value) -> Vec<u8> {
    encode(value).unwrap()
}

/// A page of a listing as its frame. Where each name is in it: so that it need not be made anew.
pub(super) fn page_of(names: usize, length: usize, kind: &str) -> (Vec<u8>, Vec<usize>) {
    let name = |index: usize| format!("{index:0>length$}");
    let entries: Vec<_> = (0..names).map(|index| entry(name(index), kind)).collect();
    let page = frame(&cbor!({ "item" => { "entries" => entries } }).unwrap());
    let mut at = 0;
    let places = (0..names).map(|index| {
        let wanted = name(index);
        at += page[at..].windows(length).position(|bytes| bytes == wanted.as_bytes()).unwrap();
        at
    });
    let places = places.collect();
    (page, places)
}

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);
