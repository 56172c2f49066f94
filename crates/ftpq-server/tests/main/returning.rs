//! What a client may send before it has said who it is: more where somebody was let in from before.

use ftpq_proto::{Status, VERSION, commands::con};
use ftpq_storage::Bytes;
use ftpq_transport::{Closed, Connection, Identity, tuning::Windows};
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::support::{PATIENCE, Raw, TestServer, args, con_with};

/// Streams and bytes for which there is credit. What there is none for is never ready, as nobody gives more.
async fn credit(connection: &Connection) -> (usize, usize) {
    let mut streams = Vec::new();
    while let Some(stream) = connection.open().now_or_never() {
        streams.push(stream.unwrap());
    }
    let (block, mut bytes) = (Bytes::from(vec![0; 1024]), 0);
    for (send, _) in &mut streams {
        while send.block(block.clone()).now_or_never().is_some_and(|sent| sent.is_ok()) {
            bytes += block.len();
        }
    }
    (streams.len(), bytes)
}

fn granted(windows: Windows) -> (usize, usize) {
    (windows.streams as usize, windows.receive as usize)
}

#[tokio::test]
async fn whoever_comes_from_where_somebody_was_let_in_may_send_more() {
    let server = TestServer::start().await;
    let [friend, stranger] = [(); 2].map(|()| Identity::generate().unwrap());
    server.authorise(&friend, "name=friend rights=list");
    assert_eq!(credit(&server.connect(&friend).await).await, granted(Windows::UNSETTLED));
    // Who was refused is no reason.
    let refused = server.connect(&stranger).await;
    let refusal = Raw::request(&refused, con::VERB, con_with(&[VERSION])).await.refusal().await;
    assert_eq!(refusal.status, Status::NotAuthorised);
    assert_eq!(credit(&server.connect(&friend).await).await, granted(Windows::UNSETTLED));
    drop(server.session(&friend).await.welcome().await.unwrap());
    assert_eq!(credit(&server.connect(&friend).await).await, granted(Windows::RETURNING));
}

#[tokio::test]
async fn no_more_is_read_before_con_than_two_commands() {
    let server = TestServer::start().await;
    let friend = Identity::generate().unwrap();
    server.authorise(&friend, "name=friend rights=list");
    let connection = server.connect(&friend).await;
    let stat = || args([("path", "/".into())]);
    let _first = Raw::request(&connection, "STAT", stat()).await;
    let _second = Raw::request(&connection, "STAT", stat()).await;
    // It should have come first.
    let _con = Raw::request(&connection, con::VERB, con_with(&[VERSION])).await;
    let closed = timeout(PATIENCE, connection.closed()).await.expect("the server waits for CON no longer");
    assert!(matches!(closed, Closed::ByPeer { status: Status::TimedOut, .. }), "{closed:?}");
}
