//! What is served where memory is short: with small windows and blocks, and to the end.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ftpq_client::Remote;
use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{
    Digest, Status,
    limits::{CHUNK_MAX, EAGER_BODY_MAX},
    message::Trailer,
};
use ftpq_server::Limits;
use ftpq_storage::{Bytes, NewFile, Storage, StorageError, Upload};
use ftpq_transport::tuning::{STREAMS_MIN, Windows};
use futures_util::future::join_all;
use tokio::{sync::Semaphore, task::yield_now, time::timeout};

use crate::support::{
    ALL, PATIENCE, Raw, TestServer, args, assert_welcome, digest, get, identity, limited, pattern, put, status,
};

/// With so little memory, all that there is are the least windows.
#[tokio::test]
async fn a_server_of_little_memory_serves_all_the_same() {
    let server = limited(Limits { memory: 1 << 20, ..Limits::default() }).await;
    let files = server.files(ALL).await;
    let bytes = pattern(3_000_000);
    put(&files, "file", &bytes, NewFile::default()).await.unwrap();
    let (one, other) = tokio::join!(get(&files, "file"), get(&files, "file"));
    assert!(one.unwrap() == bytes && other.unwrap() == bytes);
}

/// Each of those that come last could fill the window with what nobody reads, while those before them wait for theirs.
#[tokio::test]
async fn nothing_that_comes_before_con_waits_where_memory_is_short() {
    let server = limited(Limits { memory: 1 << 20, ..Limits::default() }).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list,write");
    let files = Remote::over(server.session(&friend).await);
    let (asking, unasked) = (pattern(EAGER_BODY_MAX as usize + 1), pattern(EAGER_BODY_MAX as usize));
    let puts = (1..Windows::UNSETTLED.streams).map(async |number| {
        let bytes = if number <= 4 { &asking } else { &unasked };
        put(&files, &number.to_string(), bytes, NewFile::default()).await.map(drop)
    });
    let ended = timeout(PATIENCE / 4, join_all(puts)).await.expect("an end");
    let (done, sent_away): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    assert!(done.len() >= STREAMS_MIN as usize - 1, "{sent_away:?}");
    // They come again.
    assert!(sent_away.into_iter().all(|ended| status(ended) == Status::Unavailable));
    put(&files, "later", &asking, NewFile::default()).await.unwrap();
}

/// As long as its memory is plenty, but its key has had its part.
#[tokio::test]
async fn a_connection_of_a_key_that_holds_much_gets_its_least() {
    let server = limited(Limits { memory: 64 << 20, ..Limits::default() }).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list");
    let mut connections = Vec::new();
    for _ in 0..8 {
        let connection = server.connect(&friend).await;
        assert_welcome(&connection).await;
        // What was answered makes room for as much again.
        for _ in 0..3 {
            let mut commands = Vec::new();
            for _ in 0..STREAMS_MIN {
                let command = Raw::request(&connection, "CD", args([("path", "/".into())]));
                commands.push(timeout(PATIENCE, command).await.expect("a stream"));
            }
            for mut command in commands {
                let _: ciborium::Value = command.reply().await;
            }
        }
        connections.push(connection);
    }
}

/// Whoever keeps all the room for blocks of bodies, and reads as slowly as can be, holds up nobody.
#[tokio::test]
async fn a_download_goes_on_where_no_room_is_left() {
    let server = limited(Limits { memory: 2 << 20, ..Limits::default() }).await;
    // More than all windows on the way hold.
    fs::write(server.path("large"), pattern(40_000_000)).unwrap();
    fs::write(server.path("f"), pattern(3_000_000)).unwrap();
    let key = identity();
    server.authorise(&key, "name=a rights=read");
    let slow = Remote::over(server.session(&key).await);
    let mut reader = slow.open(&"large".parse().unwrap()).await.unwrap();
    reader.next_block().await.unwrap();
    let other = Remote::over(server.session(&key).await);
    let got = timeout(PATIENCE, get(&other, "f")).await.expect("it need not wait");
    assert!(got.unwrap() == pattern(3_000_000));
    reader.next_block().await.unwrap();
}

/// Also those of bodies of which nobody knows the size; and while another has come, but is not where it goes.
#[tokio::test]
async fn blocks_are_small_where_no_room_is_left() {
    let limits = Limits { memory: 2 << 20, ..Limits::default() };
    let takes = Takes::default();
    let server = TestServer::start_with(|builder| builder.limits(limits).with(takes.clone())).await;
    let key = identity();
    server.authorise(&key, "name=a rights=list");
    let connection = server.connect(&key).await;
    assert_welcome(&connection).await;
    let take = async || {
        let mut raw = Raw::request(&connection, "acme.take", ()).await;
        raw.bytes([&(CHUNK_MAX as u32).to_be_bytes()[..], &pattern(CHUNK_MAX)].concat()).await;
        until(|| takes.sizes.lock().unwrap().iter().sum::<usize>() == CHUNK_MAX).await;
        (raw, std::mem::take(&mut *takes.sizes.lock().unwrap()))
    };
    let small = vec![16 * 1024; CHUNK_MAX / (16 * 1024)];
    let (mut first, sizes) = take().await;
    assert_eq!(sizes, [CHUNK_MAX]);
    let (_second, sizes) = take().await;
    assert_eq!(sizes, small);
    first.send.chunk(Bytes::new()).await.unwrap();
    first.send.frame(&Trailer { digest: digest(b"") }).await.unwrap();
    takes.came.acquire().await.unwrap().forget();
    let (_third, sizes) = take().await;
    assert_eq!(sizes, small);
    takes.go_on.add_permits(1);
    first.reply::<()>().await;
    let (_fourth, sizes) = take().await;
    assert_eq!(sizes, [CHUNK_MAX]);
}

/// Takes a body of any length, and notes the sizes of its blocks.
#[derive(Clone)]
struct Takes {
    sizes: Arc<Mutex<Vec<usize>>>,
    /// A body has come to its end.
    came: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
}

impl Default for Takes {
    fn default() -> Self {
        let [came, go_on] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
        Self { sizes: Arc::default(), came, go_on }
    }
}

impl Handler for Takes {
    type Args = ();
    type Reply = ();

    fn spec(&self) -> Spec {
        Spec::new("acme.take", Right::List, "take what comes")
    }

    async fn handle(&self, _: &Context, (): (), exchange: &mut Exchange) -> Result<(), Failure> {
        exchange.receive_file(None::<&()>, None, &mut Sizes(self.sizes.clone())).await?;
        self.came.add_permits(1);
        self.go_on.acquire().await.map_err(Failure::internal)?.forget();
        Ok(())
    }
}

struct Sizes(Arc<Mutex<Vec<usize>>>);

#[async_trait]
impl Upload for Sizes {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        self.0.lock().unwrap().push(block.len());
        Ok(())
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        Ok(expected)
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        yield_now().await;
    }
}
