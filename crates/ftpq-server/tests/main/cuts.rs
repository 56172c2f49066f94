//! Whatever is cut, wherever it is cut: the old file or the whole new one, never anything between.

use std::{fs, net::Ipv4Addr, sync::Arc};

use ciborium::Value;
use ftpq_client::{
    Remote, Session,
    copy::{Copy, Options},
};
use ftpq_proto::{
    Holes, Rights, Status, Timestamp, VERSION,
    commands::{con, dwld, upld},
    message::{Reply, Request, Response, Trailer},
};
use ftpq_storage::{BLOCK, Bytes, LocalFs, NewFile, Storage};
use ftpq_transport::{Connector, Identity, Listener, SendHalf};

use crate::support::{PATIENCE, Raw, TestServer, digest, pattern, put, remote, shared, status};

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_the_old_file() {
    let server = server_with_old_file().await;
    let files = server.files("write,delete").await;
    let mut upload = files.create(&remote("f"), replacing(1_000_000)).await.unwrap();
    upload.write(pattern(500_000).into()).await.unwrap();
    drop(upload);
    assert_eq!(server.outcome_of(upld::VERB).await, Err(Status::Cancelled));
    only_the_old_file_is_there(&server);
    put(&files, "f", b"new", replacing(3)).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), b"new");
}

#[tokio::test]
async fn an_upload_whose_connection_is_closed_leaves_the_old_file() {
    let server = server_with_old_file().await;
    let files = server.files("write,delete").await;
    let mut upload = files.create(&remote("f"), replacing(1_000_000)).await.unwrap();
    upload.write(pattern(500_000).into()).await.unwrap();
    files.session().await.unwrap().close().await;
    assert_eq!(server.outcome_of(upld::VERB).await, Err(Status::Cancelled));
    only_the_old_file_is_there(&server);
    assert!(upload.commit(digest(&pattern(1_000_000))).await.is_err());
}

#[tokio::test]
async fn an_upload_that_is_reset_leaves_the_old_file() {
    for size in [1000, 1_000_000] {
        let server = server_with_old_file().await;
        let mut raw = upload_by_hand(&server, size, false).await;
        raw.bytes(pattern(size / 2)).await;
        raw.send.reset(Status::Changed);
        assert_eq!(server.outcome_of(upld::VERB).await, Err(Status::Cancelled));
        only_the_old_file_is_there(&server);
    }
}

#[tokio::test]
async fn an_upload_that_ends_early_is_refused() {
    for (size, eager) in [(1000, true), (1000, false), (1_000_000, false)] {
        for sent in [0, 1, size / 2, size] {
            let server = server_with_old_file().await;
            let mut raw = upload_by_hand(&server, size, eager).await;
            raw.bytes(pattern(sent)).await;
            raw.send.finish();
            assert_eq!(raw.refusal().await.status, Status::Truncated, "{sent} of {size} bytes");
            only_the_old_file_is_there(&server);
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_not_what_was_sent_is_refused() {
    let bytes = pattern(1_000_000);
    for size in [1000, 1_000_000] {
        let server = server_with_old_file().await;
        let mut raw = upload_by_hand(&server, size, false).await;
        raw.bytes(&bytes[..size]).await;
        raw.send.frame(&Trailer { digest: digest(b"something else") }).await.unwrap();
        assert_eq!(raw.refusal().await.status, Status::DigestMismatch);
        only_the_old_file_is_there(&server);
    }
}

#[tokio::test]
async fn a_file_that_appears_during_an_upload_is_not_replaced() {
    let server = TestServer::start().await;
    let files = server.files("write").await;
    let bytes = pattern(1_000_000);
    let mut upload = files.create(&remote("f"), NewFile { size: Some(1_000_000), ..NewFile::default() }).await.unwrap();
    upload.write(bytes.clone().into()).await.unwrap();
    fs::write(server.path("f"), b"old").unwrap();
    assert_eq!(status(upload.commit(digest(&bytes)).await), Status::Exists);
    only_the_old_file_is_there(&server);
}

#[tokio::test]
async fn a_source_that_changes_during_a_download_is_an_error() {
    for change in ["truncated", "rewritten"] {
        let server = TestServer::start().await;
        // More than all windows and buffers on the way hold: the server cannot have read it all.
        let size = 64 * 1024 * 1024;
        fs::File::create(server.path("f")).unwrap().set_len(size).unwrap();
        let files = server.files("read").await;
        let mut reader = files.open(&remote("f")).await.unwrap();
        reader.next_block().await.unwrap().unwrap();
        let file = fs::File::options().write(true).open(server.path("f")).unwrap();
        file.set_len(1000).unwrap();
        if change == "rewritten" {
            file.set_len(size).unwrap();
        }
        assert_eq!(status(reader.finish().await), Status::Changed, "{change}");
        assert_eq!(server.outcome_of(dwld::VERB).await, Err(Status::Changed), "{change}");
    }
}

#[tokio::test]
async fn a_download_that_the_client_gives_up_ends_on_the_server() {
    let server = TestServer::start().await;
    fs::File::create(server.path("f")).unwrap().set_len(64 * 1024 * 1024).unwrap();
    let files = server.files("read").await;
    let mut reader = files.open(&remote("f")).await.unwrap();
    reader.next_block().await.unwrap().unwrap();
    drop(reader);
    assert_eq!(server.outcome_of(dwld::VERB).await, Err(Status::Cancelled));
}

/// What a bad server, or a bad network, makes of the end of a download.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Finished,
    Reset,
    WithoutTrailer,
    WithoutReply,
    WrongDigest,
    ClosedWhenAsked,
}

#[tokio::test]
async fn a_download_that_is_cut_is_an_error_and_leaves_nothing() {
    for cut in [Cut::Finished, Cut::Reset, Cut::WithoutTrailer, Cut::WithoutReply, Cut::WrongDigest] {
        // What one read takes, and what takes many.
        for size in [1000, 1_000_000] {
            let files = server_that_cuts(cut, size).await;
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("f"), b"old").unwrap();
            let here = shared(LocalFs::open(folder.path()).unwrap());
            let options = Options {
                overwrite: true,
                preserve: false,
                follow_links: false,
                keep_existing: false,
                parents: false,
                parallel: 1,
                extents: 1,
                resume: true,
                retry_for: std::time::Duration::ZERO,
            };
            let copy = Copy::new(shared(files), here, options, Arc::new(()));
            let result = copy.file(&remote("f"), &remote("f")).await;
            assert!(result.is_err(), "{cut:?} of {size} bytes");
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
            assert_eq!(left, ["f"], "{cut:?} of {size} bytes");
            assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"old", "{cut:?} of {size} bytes");
        }
    }
}

#[tokio::test]
async fn a_download_whose_connection_is_closed_is_an_error() {
    let files = server_that_cuts(Cut::ClosedWhenAsked, 2 * BLOCK).await;
    let mut reader = files.open(&remote("f")).await.unwrap();
    assert_eq!(reader.next_block().await.unwrap().unwrap(), pattern(2 * BLOCK)[..BLOCK]);
    assert_eq!(status(files.stat(&remote("f")).await), Status::Unavailable);
    assert_eq!(status(reader.next_block().await), Status::Unavailable);
}

/// The files of a server whose downloads never end well.
async fn server_that_cuts(cut: Cut, size: usize) -> Remote {
    let identity = Identity::generate().unwrap();
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).unwrap();
    let address = listener.local_addr();
    tokio::spawn(async move {
        let connection = listener.accept().await.unwrap().accept(PATIENCE).await.unwrap();
        let mut open = Vec::new();
        while let Ok((mut send, mut recv)) = connection.accept().await {
            let request: Request = recv.frame(PATIENCE).await.unwrap();
            match request.verb.as_str() {
                con::VERB => welcome(&mut send).await,
                dwld::VERB => send_and_cut(&mut send, cut, size).await,
                _ => connection.close(Some(Status::Unavailable), ""),
            }
            open.push(send);
        }
    });
    let connector = Connector::new(Identity::generate().unwrap());
    let connection = connector.connect(&[address], &[identity.fingerprint()], PATIENCE).await.unwrap();
    Remote::over(Session::open(connection, "test/1").await.unwrap())
}

async fn welcome(send: &mut SendHalf) {
    let welcome = con::Welcome {
        version: VERSION,
        agent: "cutter/1".into(),
        features: Vec::new(),
        verbs: Vec::new(),
        user: "anybody".into(),
        key: String::new(),
        rights: Rights::ALL,
        limits: con::Limits::default(),
        successor: None,
        ports: Vec::new(),
    };
    reply(send, &welcome).await;
    send.finish();
}

/// All of it but its end.
async fn send_and_cut(send: &mut SendHalf, cut: Cut, size: usize) {
    let (bytes, mtime) = (pattern(size), Timestamp::default());
    let head = dwld::File {
        path: remote("f"),
        size: size as u64,
        version: digest(&bytes).into(),
        sparse: false,
        holes: Holes::NONE,
        mtime,
        mode: 0o644,
    };
    send.frame(&Response::Head(Value::serialized(&head).unwrap())).await.unwrap();
    let whole = matches!(cut, Cut::WithoutTrailer | Cut::WithoutReply | Cut::WrongDigest);
    let len = if whole { size } else { size / 2 };
    send.block(Bytes::copy_from_slice(&bytes[..len])).await.unwrap();
    match cut {
        Cut::Finished | Cut::WithoutTrailer => send.finish(),
        Cut::Reset => send.reset(Status::Io),
        Cut::ClosedWhenAsked => {}
        Cut::WithoutReply => {
            send.frame(&Trailer { digest: digest(&bytes) }).await.unwrap();
            send.finish();
        }
        Cut::WrongDigest => {
            let digest = digest(b"something else");
            send.frame(&Trailer { digest }).await.unwrap();
            reply(send, &dwld::Sent { length: size as u64, digest }).await;
            send.finish();
        }
    }
}

async fn reply<T: serde::Serialize>(send: &mut SendHalf, value: &T) {
    send.frame(&Response::Reply(Reply::Ok(Value::serialized(value).unwrap()))).await.unwrap();
}

async fn server_with_old_file() -> TestServer {
    let server = TestServer::start().await;
    fs::write(server.path("f"), b"old").unwrap();
    server
}

fn only_the_old_file_is_there(server: &TestServer) {
    assert_eq!(server.on_disk().len(), 1, "{:?}", server.on_disk().keys());
    assert_eq!(fs::read(server.path("f")).unwrap(), b"old");
}

fn replacing(size: u64) -> NewFile {
    NewFile { size: Some(size), overwrite: true, ..NewFile::default() }
}

/// An upload of `/f`, to the point where the body is due.
async fn upload_by_hand(server: &TestServer, size: usize, eager: bool) -> Raw {
    let session = server.user("name=a rights=write,delete").await;
    let args = upld::Args {
        path: "f".parse().unwrap(),
        size: Some(size as u64),
        holes: Holes::NONE,
        overwrite: true,
        accept_same: false,
        parents: false,
        eager,
        mode: None,
        mtime: None,
    };
    let mut raw = Raw::request(session.connection(), upld::VERB, args).await;
    if !eager {
        assert!(matches!(raw.response().await, Response::Head(_)));
    }
    raw
}
