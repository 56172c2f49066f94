//! What has holes costs the server a digest of their zeros, and a turn for that alone.

use std::sync::Arc;

use ftpq_server::Limits;
use futures_util::FutureExt;
use tokio::{sync::Semaphore, time::timeout};

use super::*;
use crate::limits::Costly;

/// Its client may take as long as it likes.
#[tokio::test]
async fn what_has_holes_holds_no_turn_while_it_travels() {
    let limits = Limits { costly_per_key: 1, ..Limits::default() };
    let server = TestServer::start_with(|builder| builder.limits(limits)).await;
    let session = server.user("name=a rights=write").await;
    let args = begin::Args { sparse: true, ..begin_args() };
    let (upload, _) = begin(&session, &args).await.unwrap();
    write(&session, upload, 2, part(2)).await.unwrap();
    let holes = Holes::new(vec![Hole { offset: 0, length: EXTENT_MIN - MIB }]).unwrap();
    let args = write::Args { holes, ..write_args(upload, 1) };
    let mut hollow = Raw::request(session.connection(), write::VERB, args).await;
    let body = [vec![0; (EXTENT_MIN - MIB) as usize], pattern(MIB as usize)].concat();
    let (sent, rest) = body[(EXTENT_MIN - MIB) as usize..].split_at(MIB as usize / 2);
    hollow.bytes(sent).await;
    assert!(timeout(PATIENCE, prove(&session, upload, 2, part_digest(2))).await.unwrap().unwrap());
    hollow.bytes(rest).await;
    let digest = subtree(EXTENT_MIN, &body);
    hollow.send.frame(&Trailer { digest }).await.unwrap();
    assert_eq!(hollow.reply::<write::Written>().await.digest, digest);
}

#[tokio::test]
async fn what_has_holes_waits_for_its_turn() {
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = Costly { gate: gate.clone(), running: running.clone() };
    let limits = Limits { costly_per_key: 1, ..Limits::default() };
    let server = TestServer::start_with(|builder| builder.limits(limits).with(handler)).await;
    let session = server.user("name=a rights=list,read,write").await;
    hollow_file(&server.path("there"));
    let mut costly = Raw::request(session.connection(), "acme.costly", true).await;
    running.acquire().await.unwrap().forget();
    let mut hollow = download(&session, "there", None, true).await;
    let Response::Head(_) = hollow.response().await else { panic!("not a head") };
    // By then its body would have come.
    let mut solid = download(&session, "there", None, false).await;
    let Response::Head(_) = solid.response().await else { panic!("not a head") };
    solid.recv.block(HOLLOW as usize).await.unwrap();
    assert!(hollow.recv.block(1).now_or_never().is_none());
    gate.add_permits(1);
    costly.reply::<()>().await;
}

/// A hole of a terabyte takes minutes to digest, for a request of some bytes.
#[tokio::test]
async fn only_small_files_are_sent_whole_without_their_holes() {
    let server = TestServer::start().await;
    hollow_file(&server.path("small"));
    sparse_file(&server.path("large"));
    let session = server.user("name=a rights=read").await;
    for (path, size, up_to, sparse, body) in [
        ("small", HOLLOW, None, false, HOLLOW),
        ("small", HOLLOW, None, true, DATA.len() as u64),
        ("small", HOLLOW, Some(HOLLOW), true, DATA.len() as u64),
        ("large", SPARSE, None, false, SPARSE),
        ("large", SPARSE, None, true, SPARSE),
        ("large", SPARSE, Some(SPARSE), true, SPARSE),
    ] {
        let mut raw = download(&session, path, up_to, sparse).await;
        let Response::Head(head) = raw.response().await else { panic!("not a head") };
        let head: dwld::File = head.deserialized().unwrap();
        assert_eq!((head.sparse, head.holes.data_in(size)), (true, Some(body)), "{path} {up_to:?} {sparse}");
        raw.recv.block(body as usize).await.unwrap();
        let trailer: Trailer = raw.recv.frame(PATIENCE).await.unwrap();
        assert_eq!(trailer.digest, digest(&fs::read(server.path(path)).unwrap()));
    }
}

async fn download(session: &Session, path: &str, up_to: Option<u64>, sparse: bool) -> Raw {
    Raw::request(session.connection(), dwld::VERB, dwld::Args { path: path.parse().unwrap(), up_to, sparse }).await
}

const HOLLOW: u64 = 2 * MIB;

/// [`DATA`] behind a hole, small enough to be sent whole.
fn hollow_file(path: &std::path::Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(HOLLOW).unwrap();
    file.write_all_at(&DATA, MIB).unwrap();
}
