//! The server as a whole: its verbs, its mistakes, its end.

use std::{fs, sync::atomic::AtomicBool};

use async_trait::async_trait;
use ciborium::Value;
use ftpq_client::Remote;
use ftpq_handler::{Context, Exchange, Failure, Handler, Spec};
use ftpq_proto::{Digest, Holes, RemotePath, Status, Timestamp, limits::FRAME_MAX, message::Response};
use ftpq_server::{Access, Server};
use ftpq_storage::{Bytes, FileInfo, LocalFs, NewFile, Problem, Reader, Storage, StorageError};
use ftpq_transport::{Closed, RecvError};
use tokio::time::timeout;

use crate::support::{ALL, PATIENCE, Raw, TestServer, digest, names, pattern, put, remote, status};

#[test]
fn two_handlers_of_one_verb_are_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || {
        let access = Access::open(&folder.path().join("authorized_clients")).unwrap();
        Server::builder(LocalFs::open(folder.path()).unwrap(), access)
    };
    assert!(builder().with(Returns("acme.list", 0)).build().is_ok());
    let error = builder().with(Returns("LIST", 0)).with(Returns("acme.list", 0)).build().err().unwrap();
    assert!(error.to_string().contains("LIST"), "{error}");
    assert!(builder().with(Returns("acme.list", 0)).with(Returns("acme.list", 0)).build().is_err());
}

#[tokio::test]
async fn a_verb_of_a_plug_in_is_announced_and_runs() {
    let server = TestServer::start_with(|builder| builder.with(Returns("acme.zeros", 3))).await;
    let session = server.user("name=a rights=list").await;
    let welcome = session.welcome().await.unwrap();
    assert!(welcome.verbs.iter().any(|spec| spec.verb == "acme.zeros" && spec.summary == "return zeros"));
    let zeros: Vec<u8> = session.call("acme.zeros", &RemotePath::root(), &Value::Null).await.unwrap();
    assert_eq!(zeros, [0; 3]);
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_for_and_the_server_goes_on() {
    let server = TestServer::start_with(|builder| builder.with(Panics(AtomicBool::new(true)))).await;
    let session = server.user("name=a rights=list").await;
    let call = async || session.call::<_, ()>("PANIC", &RemotePath::root(), &()).await;
    let error = call().await.unwrap_err();
    assert_eq!(error.status(), Status::Internal);
    assert!(!error.to_string().contains("the insides"), "{error}");
    assert_eq!(server.outcome_of("PANIC").await, Err(Status::Internal));
    // On the same connection, in the same handler, and for somebody else.
    call().await.unwrap();
    names(&Remote::over(session), "/").await.unwrap();
    names(&server.files("list").await, "/").await.unwrap();
}

#[tokio::test]
async fn a_reply_that_fits_no_frame_is_answered_for() {
    let server = TestServer::start_with(|builder| builder.with(Returns("acme.zeros", FRAME_MAX + 1))).await;
    let session = server.user("name=a rights=list").await;
    let reply = session.call::<_, Vec<u8>>("acme.zeros", &RemotePath::root(), &Value::Null).await;
    assert_eq!(status(reply), Status::Internal);
}

/// Nothing that follows half a body can be told from it.
#[tokio::test]
async fn a_handler_that_gives_up_a_body_and_replies_is_cut() {
    let server = TestServer::start_with(|builder| builder.with(GivesUp)).await;
    let session = server.user("name=a rights=list").await;
    let mut raw = Raw::request(session.connection(), "acme.give-up", ()).await;
    // The end may be faster than the head.
    let reset = loop {
        match raw.recv.frame::<Response>(PATIENCE).await {
            Ok(Response::Head(_)) => {}
            Ok(other) => panic!("not a head: {other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(reset, RecvError::Reset(Status::Internal)), "{reset:?}");
    assert_eq!(server.outcome_of("acme.give-up").await, Err(Status::Internal));
}

#[tokio::test]
async fn a_server_that_stops_lets_uploads_finish_and_begins_nothing_new() {
    let server = TestServer::start().await;
    let session = server.user(&format!("name=a rights={ALL}")).await;
    let files = Remote::over(session.clone());
    let bytes = pattern(1_000_000);
    let size = bytes.len() as u64;
    let mut upload = files.create(&remote("f"), NewFile { size: Some(size), ..NewFile::default() }).await.unwrap();
    let (first, second) = bytes.split_at(500_000);
    upload.write(Bytes::copy_from_slice(first)).await.unwrap();

    let (folder, stopped) = server.begin_to_stop();
    // The server needs a moment to hear of it: until then, commands run.
    let refused = timeout(PATIENCE, async {
        loop {
            if let Err(error) = files.stat(&RemotePath::root()).await {
                return error;
            }
        }
    });
    assert_eq!(refused.await.expect("a refusal").status(), Status::Unavailable);
    assert_eq!(status(put(&files, "late", b"x", NewFile::default()).await), Status::Unavailable);

    upload.write(Bytes::copy_from_slice(second)).await.unwrap();
    upload.commit(digest(&bytes)).await.unwrap();
    stopped.await.unwrap();
    assert_eq!(fs::read(folder.path().join("served/f")).unwrap(), bytes);
    assert!(!folder.path().join("served/late").exists());
    let closed = session.connection().closed().await;
    assert!(matches!(closed, Closed::ByPeer { status: Status::Unavailable, .. }), "{closed:?}");
}

#[tokio::test]
async fn a_server_without_commands_stops_at_once_and_says_goodbye() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=list").await;
    session.welcome().await.unwrap();
    server.stop().await.unwrap();
    assert!(matches!(session.connection().closed().await, Closed::ByPeer { status: Status::Unavailable, .. }));
}

/// Replies with so many zeros.
struct Returns(&'static str, usize);

impl Handler for Returns {
    type Args = ();
    type Reply = Vec<u8>;

    fn spec(&self) -> Spec {
        Spec::for_everyone(self.0, "return zeros").repeatable()
    }

    async fn handle(&self, _: &Context, (): (), _: &mut Exchange) -> Result<Vec<u8>, Failure> {
        Ok(vec![0; self.1])
    }
}

/// Begins a body, and replies.
struct GivesUp;

impl Handler for GivesUp {
    type Args = ();
    type Reply = ();

    fn spec(&self) -> Spec {
        Spec::for_everyone("acme.give-up", "begin a body")
    }

    async fn handle(&self, _: &Context, (): (), exchange: &mut Exchange) -> Result<(), Failure> {
        exchange.send_file(&(), Box::new(Unreadable)).await.unwrap_err();
        Ok(())
    }
}

struct Unreadable;

#[async_trait]
impl Reader for Unreadable {
    fn info(&self) -> FileInfo {
        FileInfo { size: 1, version: Digest::from([0; 32]).into(), sparse: false, mtime: Timestamp::default(), mode: 0 }
    }

    fn holes(&self) -> &Holes {
        static NONE: Holes = Holes::NONE;
        &NONE
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        Err(StorageError::new(&RemotePath::root(), Problem::Changed))
    }

    async fn finish(self: Box<Self>) -> Result<Digest, StorageError> {
        Err(StorageError::new(&RemotePath::root(), Problem::Changed))
    }
}

/// Panics the first time.
struct Panics(AtomicBool);

impl Handler for Panics {
    type Args = ();
    type Reply = ();

    fn spec(&self) -> Spec {
        Spec::for_everyone("PANIC", "panic once")
    }

    async fn handle(&self, _: &Context, (): (), _: &mut Exchange) -> Result<(), Failure> {
        assert!(!self.0.swap(false, std::sync::atomic::Ordering::Relaxed), "the insides");
        Ok(())
    }
}
