//! Large files by extents: what is acknowledged stays, belongs to one user, and becomes a file only as a
//! whole.

mod flights;
mod hollow;

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    sync::LazyLock,
};

use blake3::hazmat::HasherExt;
use ciborium::Value;
use ftpq_client::{CallError, Remote, Session, copy};
use ftpq_proto::{
    Digest, Extents, Hole, Holes, RemotePath, Status, UploadId, UserPath, Version,
    commands::{
        begin::{self, HeldExtent},
        commit, dwld, prove, read, upld, write,
    },
    limits::{CHUNK_MAX, EXTENT_MAX, EXTENT_MIN},
    message::{Reply, Response, Trailer},
};
use ftpq_storage::{Bytes, LargeFile, LocalFs, NewFile, Opened, Pinned, Publish, Storage};
use ftpq_transport::Identity;
use serde::Serialize;

use crate::support::{
    ALL, Node, PATIENCE, Raw, Seen, TestServer, args, digest, get, names, pattern, remote, shared, status,
};

#[tokio::test]
async fn extents_come_in_any_order_side_by_side_over_two_connections() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=write");
    let (one, other) = (server.session(&identity).await, server.session(&identity).await);
    let (upload, held) = begin(&one, &begin_args()).await.unwrap();
    assert_eq!(held, []);
    let mut streams = Vec::new();
    for (session, index) in [(&other, 2), (&one, 0), (&other, 1)] {
        let mut raw = Raw::request(session.connection(), write::VERB, write_args(upload, index)).await;
        raw.bytes(&part(index)[..500_000]).await;
        streams.push((raw, index));
    }
    for (mut raw, index) in streams {
        raw.bytes(&part(index)[500_000..]).await;
        raw.send.frame(&Trailer { digest: part_digest(index) }).await.unwrap();
        assert_eq!(raw.reply::<write::Written>().await.digest, part_digest(index));
    }
    let committed = commit(&other, upload).await.unwrap();
    assert_eq!(committed, upld::Committed { path: remote("f"), length: BYTES.len() as u64, digest: digest(&BYTES) });
    assert_eq!(server.on_disk(), [("f".into(), Node::File(BYTES.clone()))].into());
    // It has ended, for every verb and on every connection.
    for session in [&one, &other] {
        assert_eq!(write(session, upload, 0, part(0)).await, Err(Status::NoUpload));
        assert_eq!(status(prove(session, upload, 0, part_digest(0)).await), Status::NoUpload);
        assert_eq!(status(commit(session, upload).await), Status::NoUpload);
    }
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

#[tokio::test]
async fn a_server_is_a_storage_for_extents_as_any_other() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, &format!("name=a rights={ALL}"));
    let files = server.spread(&identity).await;
    let file = large_file();
    let staging = files.begin(&remote("f"), file.clone()).await.unwrap().unwrap();
    for index in [1, 2, 0] {
        let mut extent = staging.write(index, Holes::NONE).await.unwrap();
        for block in part(index).chunks(1_000_000) {
            extent.write(Bytes::copy_from_slice(block)).await.unwrap();
        }
        assert_eq!(extent.commit(part_digest(index)).await.unwrap(), part_digest(index));
    }
    // What follows begins again, as after a cut.
    let again = files.begin(&remote("f"), file.clone()).await.unwrap().unwrap();
    assert_eq!(again.held(0), [0, 1, 2].map(|index| HeldExtent { index, digest: Some(part_digest(index)) }));
    assert!(again.prove(1, part_digest(1)).await.unwrap());
    assert!(!again.prove(1, part_digest(0)).await.unwrap());
    let publish = Publish { digest: digest(&BYTES), mode: Some(0o640), mtime: None };
    assert_eq!(status(staging.commit(publish).await), Status::Superseded);
    assert_eq!(again.commit(publish).await.unwrap(), digest(&BYTES));
    let same = LargeFile { same: Some(digest(&BYTES)), ..file };
    assert!(files.begin(&remote("f"), same).await.unwrap().is_none());

    let Opened::Large(info) = files.open_up_to(&remote("f"), 1000).await.unwrap() else { panic!("not large") };
    assert_eq!((info.size, info.mode, info.sparse), (BYTES.len() as u64, 0o640, false));
    let pinned = Pinned { path: remote("f"), version: info.version, extents: extents() };
    let mut all = Vec::new();
    for index in 0..3 {
        let mut reader = files.open_extent(&pinned, index).await.unwrap();
        while let Some(block) = reader.next_block().await.unwrap() {
            all.extend_from_slice(&block);
        }
        assert_eq!(reader.finish().await.unwrap(), part_digest(index));
        assert_eq!(files.extent_digest(&pinned, index).await.unwrap(), part_digest(index));
    }
    assert_eq!(all, *BYTES);
}

#[tokio::test]
async fn a_large_file_and_its_holes_come_back_from_a_server_as_they_went_there() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, &format!("name=a rights={ALL}"));
    let (here, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(here.path().join("full"), &*BYTES).unwrap();
    sparse_file(&here.path().join("sparse"));
    let options = copy::Options { preserve: true, ..OPTIONS };
    let local = |folder: &tempfile::TempDir| shared(LocalFs::open(folder.path()).unwrap());
    let files = shared(server.spread(&identity).await);
    for (from, to) in [(local(&here), files.clone()), (files, local(&back))] {
        let copy = copy::Copy::new(from, to, options, std::sync::Arc::new(()));
        let summary = copy.tree(&RemotePath::root(), &RemotePath::root()).await.unwrap();
        assert_eq!((summary.files, summary.failed, summary.resumed), (2, 0, 0));
    }
    for folder in [server.path(""), back.path().into()] {
        assert_eq!(fs::read(folder.join("full")).unwrap(), *BYTES);
        assert_eq!(fs::read(folder.join("sparse")).unwrap(), fs::read(here.path().join("sparse")).unwrap());
        assert!(fs::metadata(folder.join("sparse")).unwrap().blocks() * 512 < MIB, "{folder:?}");
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_listed_when_the_connection_is_gone() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=write");
    let session = server.session(&identity).await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    for index in [2, 0] {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    // Of the one between, half is under way.
    let mut cut = Raw::request(session.connection(), write::VERB, write_args(upload, 1)).await;
    cut.bytes(&part(1)[..1_000_000]).await;
    session.close().await;

    let session = server.session(&identity).await;
    let (again, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, [0, 2].map(|index| HeldExtent { index, digest: Some(part_digest(index)) }));
    assert_ne!(again, upload);
    write(&session, again, 1, part(1)).await.unwrap();
    commit(&session, again).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

#[tokio::test]
async fn what_was_acknowledged_is_listed_by_the_next_server_and_has_to_be_proved() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=write");
    let session = server.session(&identity).await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    for index in [0, 1] {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    session.close().await;
    let server = server.restart().await;
    let session = server.session(&identity).await;
    assert_eq!(write(&session, upload, 2, part(2)).await, Err(Status::NoUpload));
    let (upload, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, [0, 1].map(|index| HeldExtent { index, digest: None }));
    assert!(!prove(&session, upload, 0, part_digest(1)).await.unwrap());
    assert!(prove(&session, upload, 0, part_digest(0)).await.unwrap());
    // What is not there is not proved, whatever it is said to be.
    assert!(!prove(&session, upload, 2, part_digest(2)).await.unwrap());
    write(&session, upload, 2, part(2)).await.unwrap();
    commit(&session, upload).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

#[tokio::test]
async fn what_somebody_else_has_staged_is_not_there() {
    let server = TestServer::start().await;
    // Even for somebody of the same name.
    let (mine, other) = (server.user("name=a rights=write").await, server.user("name=a rights=write").await);
    let (upload, _) = begin(&mine, &begin_args()).await.unwrap();
    write(&mine, upload, 0, part(0)).await.unwrap();
    assert_eq!(write(&other, upload, 1, part(1)).await, Err(Status::NoUpload));
    assert_eq!(status(prove(&other, upload, 0, part_digest(0)).await), Status::NoUpload);
    assert_eq!(status(commit(&other, upload).await), Status::NoUpload);
    let (others, held) = begin(&other, &begin_args()).await.unwrap();
    assert_eq!(held, []);
    assert_eq!(write(&mine, others, 1, part(1)).await, Err(Status::NoUpload));
    // Each goes on with its own; whoever commits first has the name.
    for index in 0..3 {
        write(&other, others, index, part(index)).await.unwrap();
    }
    for index in [1, 2] {
        write(&mine, upload, index, part(index)).await.unwrap();
    }
    commit(&other, others).await.unwrap();
    assert_eq!(status(commit(&mine, upload).await), Status::Exists);
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_missed_by_what_was_begun() {
    for (left, writes) in [("write", true), ("read,delete", false)] {
        let server = TestServer::start().await;
        fs::write(server.path("f"), b"old").unwrap();
        let identity = Identity::generate().unwrap();
        server.authorise(&identity, "name=a rights=write,delete");
        let session = server.session(&identity).await;
        let overwrite = begin::Args { overwrite: true, ..begin_args() };
        let (upload, _) = begin(&session, &overwrite).await.unwrap();
        for index in 0..3 {
            write(&session, upload, index, part(index)).await.unwrap();
        }
        let session = server.change(&identity, &format!("name=a rights={left}")).await;
        assert_eq!(status(commit(&session, upload).await), Status::Forbidden, "{left}");
        assert_eq!(status(begin(&session, &overwrite).await), Status::Forbidden, "{left}");
        assert_eq!(write(&session, upload, 0, part(0)).await.is_ok(), writes, "{left}");
        assert_eq!(prove(&session, upload, 0, part_digest(0)).await.is_ok(), writes, "{left}");
        assert_eq!(fs::read(server.path("f")).unwrap(), b"old");
        let session = server.change(&identity, "name=a rights=write,delete").await;
        commit(&session, upload).await.unwrap();
        assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
    }
}

/// Who is given another folder takes nothing of the old one along, and puts nothing into it.
#[tokio::test]
async fn an_upload_stays_with_the_root_in_which_it_was_begun() {
    let server = TestServer::start().await;
    fs::create_dir(server.path("a")).unwrap();
    fs::create_dir(server.path("b")).unwrap();
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, &format!("name=mover rights={ALL} root=/a"));
    let session = server.session(&identity).await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    for index in 0..extents().count() {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    let session = server.change(&identity, &format!("name=mover rights={ALL} root=/b")).await;
    assert_eq!(write(&session, upload, 0, part(0)).await, Err(Status::NoUpload));
    assert_eq!(status(commit(&session, upload).await), Status::NoUpload);
    assert!(!server.path("a/f").exists() && !server.path("b/f").exists());
}

#[tokio::test]
async fn an_extent_that_is_not_what_was_announced_is_refused_and_not_listed() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    let right = |index| Some(part_digest(index));
    let too_many = [part(2), &[0; 100_000]].concat();
    for (what, index, body, digest, expected) in [
        ("another digest", 2, part(2), right(1), Status::DigestMismatch),
        ("another extent's bytes", 0, part(1), right(1), Status::DigestMismatch),
        ("the digest of a file of its own", 2, part(2), Some(digest(part(2))), Status::DigestMismatch),
        ("too few bytes", 2, &part(2)[1..], right(2), Status::Truncated),
        ("nothing", 2, &[], None, Status::Truncated),
        ("half of it", 0, &part(0)[..4_000_000], None, Status::Truncated),
        ("no digest", 2, part(2), None, Status::Truncated),
        ("too many bytes", 2, &too_many, right(2), Status::Malformed),
    ] {
        let refused = write_as(&session, write_args(upload, index), body, digest).await;
        assert_eq!(refused, Err(expected), "{what}");
    }
    let mut reset = Raw::request(session.connection(), write::VERB, write_args(upload, 1)).await;
    reset.bytes(&part(1)[..1_000_000]).await;
    reset.send.reset(Status::Changed);
    assert_eq!(reset.refusal().await.status, Status::Cancelled);
    let (upload, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, []);
    // Nor is one any more that was there, and is now in part another.
    write(&session, upload, 0, part(0)).await.unwrap();
    write(&session, upload, 1, part(1)).await.unwrap();
    let refused = write_as(&session, write_args(upload, 0), &part(1)[..4_000_000], None).await;
    assert_eq!(refused, Err(Status::Truncated));
    assert!(!prove(&session, upload, 0, part_digest(0)).await.unwrap());
    let (_, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, [HeldExtent { index: 1, digest: right(1) }]);
}

#[tokio::test]
async fn extents_of_nothing_that_was_begun_are_refused() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    let unknown = UploadId::from([0x17; 32]);
    let holes = |offset, length| Holes::new(vec![Hole { offset, length }]).unwrap();
    let length = part(2).len() as u64;
    let good = || write_args(upload, 2);
    for (what, args, expected) in [
        ("no such upload", write_args(unknown, 2), Status::NoUpload),
        ("another path", write::Args { path: "g".parse().unwrap(), ..good() }, Status::NoUpload),
        ("no such extent", write_args(upload, 3), Status::TooLarge),
        ("no extent at all", write_args(upload, u32::MAX), Status::TooLarge),
        ("a hole beyond the end", write::Args { holes: holes(0, length + 1), ..good() }, Status::TooLarge),
        ("a hole behind the end", write::Args { holes: holes(length, 1), ..good() }, Status::TooLarge),
        ("a hole far away", write::Args { holes: holes(u64::MAX - 1, 1), ..good() }, Status::TooLarge),
    ] {
        assert_eq!(write_as(&session, args, part(2), Some(part_digest(2))).await, Err(expected), "{what}");
    }
    for (index, id, expected) in [(0, unknown, Status::NoUpload), (3, upload, Status::TooLarge)] {
        assert_eq!(status(prove(&session, id, index, part_digest(0)).await), expected);
    }
    let args = commit::Args { path: "g".parse().unwrap(), ..commit_args(upload) };
    assert_eq!(status(call::<upld::Committed>(&session, commit::VERB, &args).await), Status::NoUpload);
    assert_eq!(status(commit(&session, unknown).await), Status::NoUpload);
    let args = prove::Args { path: "g".parse().unwrap(), upload, index: 0, digest: part_digest(0) };
    assert_eq!(status(call::<prove::Proved>(&session, prove::VERB, &args).await), Status::NoUpload);
    let (_, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, []);
}

#[tokio::test]
async fn only_what_is_there_as_a_whole_becomes_a_file() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write,list").await;
    let files = Remote::over(session.clone());
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    for index in 0..3 {
        assert!(commit(&session, upload).await.is_err(), "without extent {index}");
        write(&session, upload, index, part(index)).await.unwrap();
    }
    let another = commit::Args { digest: digest(b"something else"), ..commit_args(upload) };
    let refused = call::<upld::Committed>(&session, commit::VERB, &another).await;
    assert_eq!(status(refused), Status::DigestMismatch);
    assert_eq!(names(&files, "/").await.unwrap(), [""; 0]);
    // Some extent is wrong, and nobody knows which.
    let (upload, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, []);
    for index in 0..3 {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    fs::write(server.path("f"), b"came first").unwrap();
    assert_eq!(status(commit(&session, upload).await), Status::Exists);
    assert_eq!(fs::read(server.path("f")).unwrap(), b"came first");
    fs::remove_file(server.path("f")).unwrap();
    commit(&session, upload).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
    assert_eq!(server.on_disk().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_there_is_in_the_way_unless_it_is_the_same_or_to_be_replaced() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write,delete").await;
    fs::write(server.path("f"), &*BYTES).unwrap();
    assert_eq!(status(begin(&session, &begin_args()).await), Status::Exists);
    let same = |same| begin::Args { same: Some(same), ..begin_args() };
    assert_eq!(begin_or_there(&session, &same(digest(&BYTES))).await.unwrap(), None);
    assert_eq!(status(begin(&session, &same(digest(b"other"))).await), Status::Exists);
    let (upload, _) = begin(&session, &begin::Args { overwrite: true, ..begin_args() }).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
    for index in 0..3 {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    commit(&session, upload).await.unwrap();
    fs::create_dir(server.path("folder")).unwrap();
    let folder = begin::Args { path: "folder".parse().unwrap(), overwrite: true, ..begin_args() };
    assert_eq!(status(begin(&session, &folder).await), Status::IsFolder);
    let missing = begin::Args { path: "missing/f".parse().unwrap(), ..begin_args() };
    assert_eq!(status(begin(&session, &missing).await), Status::NotFound);
    assert_eq!(server.on_disk().len(), 2);
}

#[tokio::test]
async fn who_begins_last_goes_on_and_the_other_is_told() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=write");
    let (one, other) = (server.session(&identity).await, server.session(&identity).await);
    let (first, _) = begin(&one, &begin_args()).await.unwrap();
    write(&one, first, 0, part(0)).await.unwrap();
    let mut late = Raw::request(one.connection(), write::VERB, write_args(first, 0)).await;
    late.bytes(&part(1)[..1_000_000]).await;

    let (second, _) = begin(&other, &begin_args()).await.unwrap();
    for index in 0..3 {
        write(&other, second, index, part(index)).await.unwrap();
    }
    let _ = late.send.block(Bytes::copy_from_slice(&part(1)[1_000_000..])).await;
    let _ = late.send.frame(&Trailer { digest: part_digest(1) }).await;
    assert_eq!(late.refusal().await.status, Status::Superseded);
    assert_eq!(write(&one, first, 1, part(0)).await, Err(Status::Superseded));
    assert_eq!(status(prove(&one, first, 0, part_digest(0)).await), Status::Superseded);
    assert_eq!(status(commit(&one, first).await), Status::Superseded);
    // One that stands apart is in nobody's way, and nobody in its.
    let apart = begin::Args { apart: Some([7; 32].into()), ..begin_args() };
    let (third, held) = begin(&one, &apart).await.unwrap();
    assert_eq!(held, []);
    write(&one, third, 0, part(0)).await.unwrap();
    commit(&other, second).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

#[tokio::test]
async fn what_is_begun_afresh_has_nothing_of_before() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    write(&session, upload, 0, part(0)).await.unwrap();
    let (_, held) = begin(&session, &begin::Args { fresh: true, ..begin_args() }).await.unwrap();
    assert_eq!(held, []);
    let (_, held) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(held, []);
    // Nor has another cut of a file of that name.
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    write(&session, upload, 0, part(0)).await.unwrap();
    let (_, held) = begin(&session, &begin::Args { size: BYTES.len() as u64 + 1, ..begin_args() }).await.unwrap();
    assert_eq!(held, []);
}

#[tokio::test]
async fn nobody_sees_or_reaches_what_is_staged() {
    let server = TestServer::start().await;
    let session = server.user(&format!("name=a rights={ALL}")).await;
    let files = Remote::over(session.clone());
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    write(&session, upload, 0, part(0)).await.unwrap();
    let staged: Vec<_> = server.on_disk().into_keys().collect();
    let [staged] = staged.as_slice() else { panic!("not one staged file: {staged:?}") };
    let staged = staged.to_str().unwrap();
    assert_eq!(names(&files, "/").await.unwrap(), [""; 0]);
    assert_eq!(status(get(&files, staged).await), Status::NameRefused);
    assert_eq!(status(files.open_up_to(&remote(staged), u64::MAX).await.map(drop)), Status::NameRefused);
    assert_eq!(status(files.stat(&remote(staged)).await), Status::NameRefused);
    assert_eq!(status(files.remove(&remote(staged), true).await), Status::NameRefused);
    assert_eq!(status(files.rename(&remote(staged), &remote("mine"), true).await), Status::NameRefused);
    let (extents, path) = (extents(), staged.parse().unwrap());
    let pinned = Pinned { path: remote(staged), version: digest(b"any").into(), extents };
    assert_eq!(status(files.open_extent(&pinned, 0).await.map(drop)), Status::NameRefused);
    assert_eq!(status(begin(&session, &begin::Args { path, ..begin_args() }).await), Status::NameRefused);
}

#[tokio::test]
async fn sizes_that_no_file_has_are_refused_at_once() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=read,write").await;
    fs::write(server.path("there"), b"x").unwrap();
    for (size, extent) in [
        (0, EXTENT_MIN),
        (1, EXTENT_MIN),
        (EXTENT_MIN, EXTENT_MIN),
        (u64::MAX, EXTENT_MIN),
        (u64::MAX, EXTENT_MAX),
        (u64::MAX, 1 << 63),
        (u64::MAX, u64::MAX),
        ((1 << 44) + 1, EXTENT_MAX),
        (20_000_000, 0),
        (20_000_000, 1),
        (20_000_000, EXTENT_MIN + 1),
        (20_000_000, EXTENT_MIN / 2),
        (20_000_000, EXTENT_MIN * 3 / 2),
        (1 << 33, EXTENT_MAX * 2),
        (1 << 62, 1 << 61),
    ] {
        let args = begin::Args { size, extent, sparse: true, ..begin_args() };
        assert_eq!(status(begin(&session, &args).await), Status::TooLarge, "{size} by {extent}");
        let path = "there".parse().unwrap();
        let version = digest(b"any").into();
        for digest_only in [false, true] {
            let args = read::Args { path: UserPath::clone(&path), version, size, extent, index: 0, digest_only };
            assert_eq!(status(call::<read::Sent>(&session, read::VERB, &args).await), Status::TooLarge);
        }
    }
    assert_eq!(server.on_disk().len(), 1);
    // As many as there may be, in the largest file of this kind that common file systems hold.
    let (size, extent) = (1 << 43, EXTENT_MAX / 2);
    let largest = begin::Args { size, extent, sparse: true, ..begin_args() };
    assert_eq!(begin(&session, &largest).await.unwrap().1, []);
}

#[tokio::test]
async fn one_version_is_read_and_no_other() {
    let server = TestServer::start().await;
    fs::write(server.path("f"), &*BYTES).unwrap();
    let session = server.user("name=a rights=read").await;
    let version = version_of(&session).await;
    for index in 0..3 {
        let args = read_args(version, index);
        let mut raw = Raw::request(session.connection(), read::VERB, &args).await;
        let Response::Head(head) = raw.response().await else { panic!("not a head") };
        assert_eq!(head.deserialized::<read::Part>().unwrap(), read::Part { holes: Holes::NONE });
        assert_eq!(raw.recv.block(part(index).len()).await.unwrap(), part(index));
        assert_eq!(raw.recv.frame::<Trailer>(PATIENCE).await.unwrap().digest, part_digest(index));
        assert_eq!(raw.reply::<read::Sent>().await.digest, part_digest(index));
        let digest_only = read::Args { digest_only: true, ..args };
        let sent: read::Sent = call(&session, read::VERB, &digest_only).await.unwrap();
        assert_eq!(sent.digest, part_digest(index));
    }
    let changed = async |args| {
        assert_eq!(status(call::<read::Sent>(&session, read::VERB, &args).await), Status::Changed);
        let digest_only = read::Args { digest_only: true, ..args };
        assert_eq!(status(call::<read::Sent>(&session, read::VERB, &digest_only).await), Status::Changed);
    };
    changed(read_args(digest(b"no version").into(), 0)).await;
    changed(read::Args { size: BYTES.len() as u64 - 1, ..read_args(version, 0) }).await;
    let beyond = read_args(version, 3);
    assert_eq!(status(call::<read::Sent>(&session, read::VERB, &beyond).await), Status::TooLarge);
    // Written to, and made to look as before.
    let file = fs::File::options().write(true).open(server.path("f")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"other", 0).unwrap();
    file.set_modified(modified).unwrap();
    changed(read_args(version, 0)).await;
    changed(read_args(version, 2)).await;
    let version = version_of(&session).await;
    // Replaced by one that is the same in all but its number.
    fs::write(server.path("g"), &*BYTES).unwrap();
    fs::File::options().write(true).open(server.path("g")).unwrap().set_modified(modified).unwrap();
    fs::rename(server.path("g"), server.path("f")).unwrap();
    changed(read_args(version, 1)).await;
}

#[tokio::test]
async fn a_hole_is_told_and_not_sent() {
    let server = TestServer::start().await;
    sparse_file(&server.path("f"));
    let session = server.user("name=a rights=read,write").await;
    let bytes = fs::read(server.path("f")).unwrap();
    let version = version_of(&session).await;
    for (index, data) in [(0, 0), (1, DATA.len()), (2, 0)] {
        let args = read::Args { size: SPARSE, ..read_args(version, index) };
        let mut raw = Raw::request(session.connection(), read::VERB, args).await;
        let Response::Head(head) = raw.response().await else { panic!("not a head") };
        let holes = head.deserialized::<read::Part>().unwrap().holes;
        assert_eq!(holes.data_in(EXTENT_MIN), Some(data as u64), "extent {index}");
        assert_eq!(raw.recv.block(data).await.unwrap(), &DATA[..data]);
        let extent = &bytes[index as usize * EXTENT_MIN as usize..][..EXTENT_MIN as usize];
        let expected = subtree(u64::from(index) * EXTENT_MIN, extent);
        assert_eq!(raw.recv.frame::<Trailer>(PATIENCE).await.unwrap().digest, expected);
        assert_eq!(raw.reply::<read::Sent>().await.digest, expected);
    }
    let sent = |seen: &Seen| match seen {
        Seen::Command { verb, bytes, .. } if verb == read::VERB => *bytes,
        _ => 0,
    };
    assert_eq!(server.seen().iter().map(sent).sum::<u64>(), DATA.len() as u64);

    // Up, too: what an earlier attempt has left in the place of a hole goes.
    let args = begin::Args { path: "g".parse().unwrap(), size: SPARSE, sparse: true, ..begin_args() };
    let (upload, _) = begin(&session, &args).await.unwrap();
    let write_args = |index| write::Args { path: "g".parse().unwrap(), ..write_args(upload, index) };
    write_as(&session, write_args(0), part(0), Some(part_digest(0))).await.unwrap();
    for index in 0..3 {
        let extent = &bytes[index as usize * EXTENT_MIN as usize..][..EXTENT_MIN as usize];
        let digest = subtree(u64::from(index) * EXTENT_MIN, extent);
        let (holes, data) = match index {
            1 => (vec![Hole { offset: 0, length: MIB }, DATA_TO_END], DATA.as_slice()),
            _ => (vec![Hole { offset: 0, length: EXTENT_MIN }], &[][..]),
        };
        let args = write::Args { holes: Holes::new(holes).unwrap(), ..write_args(index) };
        assert_eq!(write_as(&session, args, data, Some(digest)).await, Ok(digest));
    }
    let args = commit::Args { path: "g".parse().unwrap(), digest: digest(&bytes), ..commit_args(upload) };
    call::<upld::Committed>(&session, commit::VERB, &args).await.unwrap();
    assert_eq!(fs::read(server.path("g")).unwrap(), bytes);
    assert!(fs::metadata(server.path("g")).unwrap().blocks() * 512 < MIB);
}

#[tokio::test]
async fn a_download_of_so_many_bytes_at_most_only_tells_of_a_larger_file() {
    let server = TestServer::start().await;
    fs::write(server.path("f"), pattern(1000)).unwrap();
    let session = server.user("name=a rights=read").await;
    let path = || "f".parse().unwrap();
    for (up_to, whole) in [(1000, true), (u64::MAX, true), (999, false), (0, false)] {
        for sparse in [false, true] {
            let args = dwld::Args { path: path(), up_to: Some(up_to), sparse };
            let mut raw = Raw::request(session.connection(), dwld::VERB, args).await;
            let Response::Head(head) = raw.response().await else { panic!("not a head") };
            assert_eq!(head.deserialized::<dwld::File>().unwrap().size, 1000);
            if whole {
                assert_eq!(raw.recv.block(1000).await.unwrap(), pattern(1000));
                raw.recv.frame::<Trailer>(PATIENCE).await.unwrap();
                assert_eq!(raw.reply::<dwld::Sent>().await.length, 1000);
            } else {
                raw.reply::<dwld::Large>().await;
            }
        }
    }
}

#[tokio::test]
async fn a_file_of_unknown_size_comes_in_chunks() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let files = Remote::over(session.clone());
    for len in [0, 1, CHUNK_MAX, CHUNK_MAX + 1, 1_000_000] {
        let (name, bytes) = (format!("f{len}"), pattern(len));
        let mut upload = files.create(&remote(&name), NewFile::default()).await.unwrap();
        for block in bytes.chunks(CHUNK_MAX) {
            upload.write(Bytes::copy_from_slice(block)).await.unwrap();
        }
        assert_eq!(upload.commit(digest(&bytes)).await.unwrap(), digest(&bytes));
        assert_eq!(fs::read(server.path(&name)).unwrap(), bytes);
    }
    let mut raw = chunks_by_hand(&session).await;
    for chunk in [&b"he"[..], b"l", b"lo", b""] {
        raw.send.chunk(Bytes::from_static(chunk)).await.unwrap();
    }
    raw.send.frame(&Trailer { digest: digest(b"hello") }).await.unwrap();
    let committed: upld::Committed = raw.reply().await;
    assert_eq!(committed, upld::Committed { path: remote("f"), length: 5, digest: digest(b"hello") });
}

#[tokio::test]
async fn chunks_that_are_too_long_or_cut_leave_nothing() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let length = |len: usize| (len as u32).to_be_bytes().to_vec();
    let chunk = |bytes: &[u8]| [&length(bytes.len()), bytes].concat();
    let end = || chunk(b"");
    for (what, bytes, expected) in [
        ("a chunk over the limit", length(CHUNK_MAX + 1), Status::TooLarge),
        ("a chunk of 4 GiB", vec![0xff; 4], Status::TooLarge),
        ("one after a good one", [chunk(b"good"), vec![0xff; 4]].concat(), Status::TooLarge),
        ("nothing", vec![], Status::Truncated),
        ("no end", chunk(&pattern(CHUNK_MAX)), Status::Truncated),
        ("half a length", [chunk(b"good"), vec![0, 0]].concat(), Status::Truncated),
        ("half a chunk", [length(1000), pattern(500)].concat(), Status::Truncated),
        ("no digest", [chunk(b"good"), end()].concat(), Status::Truncated),
    ] {
        let mut raw = chunks_by_hand(&session).await;
        raw.bytes(bytes).await;
        raw.send.finish();
        assert_eq!(raw.refusal().await.status, expected, "{what}");
        assert!(server.on_disk().is_empty(), "{what}");
    }
    let mut raw = chunks_by_hand(&session).await;
    raw.bytes([chunk(b"good"), end()].concat()).await;
    raw.send.frame(&Trailer { digest: digest(b"bad") }).await.unwrap();
    assert_eq!(raw.refusal().await.status, Status::DigestMismatch);
    assert!(server.on_disk().is_empty());
    // Of what has no size, nothing may come unasked, and there are no holes.
    let holes = Value::serialized(&[(0, 5)]).unwrap();
    for option in [("eager", true.into()), ("holes", holes)] {
        let failed = Raw::request(session.connection(), upld::VERB, args([("path", "f".into()), option])).await;
        assert_eq!({ failed }.refusal().await.status, Status::TooLarge);
    }
}

/// One attempt, all at once.
const OPTIONS: copy::Options = copy::Options {
    follow_links: false,
    overwrite: false,
    preserve: false,
    keep_existing: false,
    parents: false,
    parallel: 8,
    extents: 4,
    resume: true,
    retry_for: std::time::Duration::ZERO,
};

/// A file of three extents, the last of which is short.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(17 * MIB as usize + 77));

const MIB: u64 = 1024 * 1024;

fn extents() -> Extents {
    Extents::new(BYTES.len() as u64, EXTENT_MIN).unwrap()
}

fn part(index: u32) -> &'static [u8] {
    let extent = extents().get(index).unwrap();
    &BYTES[extent.offset as usize..][..extent.length as usize]
}

fn part_digest(index: u32) -> Digest {
    subtree(u64::from(index) * EXTENT_MIN, part(index))
}

/// The value of these bytes in the tree of a file in which so many are before them.
fn subtree(offset: u64, bytes: &[u8]) -> Digest {
    blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root().into()
}

/// What is in [`sparse_file`], a MiB into its second extent.
static DATA: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(65_536));

/// From there to the end of the extent.
const DATA_TO_END: Hole = Hole { offset: MIB + 65_536, length: EXTENT_MIN - MIB - 65_536 };

const SPARSE: u64 = 3 * EXTENT_MIN;

fn sparse_file(path: &std::path::Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(SPARSE).unwrap();
    file.write_all_at(&DATA, EXTENT_MIN + MIB).unwrap();
}

fn large_file() -> LargeFile {
    LargeFile {
        extents: extents(),
        owner: [0; 32].into(),
        fresh: false,
        apart: None,
        sparse: false,
        overwrite: false,
        same: None,
        parents: false,
    }
}

fn begin_args() -> begin::Args {
    begin::Args {
        path: "f".parse().unwrap(),
        size: BYTES.len() as u64,
        extent: EXTENT_MIN,
        fresh: false,
        apart: None,
        sparse: false,
        overwrite: false,
        same: None,
        parents: false,
        first: false,
    }
}

fn write_args(upload: UploadId, index: u32) -> write::Args {
    write::Args { path: "f".parse().unwrap(), upload, index, holes: Holes::NONE }
}

fn commit_args(upload: UploadId) -> commit::Args {
    commit::Args { path: "f".parse().unwrap(), upload, digest: digest(&BYTES), mode: None, mtime: None }
}

fn read_args(version: Version, index: u32) -> read::Args {
    let (path, size) = ("f".parse().unwrap(), BYTES.len() as u64);
    read::Args { path, version, size, extent: EXTENT_MIN, index, digest_only: false }
}

async fn call<R: serde::de::DeserializeOwned>(
    session: &Session,
    verb: &str,
    args: &impl Serialize,
) -> Result<R, CallError> {
    session.call(verb, &RemotePath::root(), args).await
}

async fn begin(session: &Session, args: &begin::Args) -> Result<(UploadId, Vec<HeldExtent>), CallError> {
    Ok(begin_or_there(session, args).await?.expect("an upload"))
}

/// `None` if the file is there.
async fn begin_or_there(
    session: &Session,
    args: &begin::Args,
) -> Result<Option<(UploadId, Vec<HeldExtent>)>, CallError> {
    let mut held = Vec::new();
    let item = |item: Value| held.extend(item.deserialized::<begin::Held>().unwrap().extents);
    let reply = session.call_items(begin::VERB, &RemotePath::root(), args, item).await?;
    let begun: begin::Begun = reply.deserialized().unwrap();
    Ok(begun.upload.map(|upload| (upload, held)))
}

async fn write(session: &Session, upload: UploadId, index: u32, body: &[u8]) -> Result<Digest, Status> {
    let digest = extents().get(index).map_or(digest(body), |extent| subtree(extent.offset, body));
    write_as(session, write_args(upload, index), body, Some(digest)).await
}

/// Sends all of it, whatever the server says meanwhile.
async fn write_as(session: &Session, args: write::Args, body: &[u8], digest: Option<Digest>) -> Result<Digest, Status> {
    let mut raw = Raw::request(session.connection(), write::VERB, args).await;
    let _ = raw.send.block(Bytes::copy_from_slice(body)).await;
    if let Some(digest) = digest {
        let _ = raw.send.frame(&Trailer { digest }).await;
    }
    raw.send.finish();
    match raw.response().await {
        Response::Reply(Reply::Ok(value)) => Ok(value.deserialized::<write::Written>().unwrap().digest),
        Response::Reply(Reply::Error(failed)) => Err(failed.status),
        other => panic!("not a reply: {other:?}"),
    }
}

async fn prove(session: &Session, upload: UploadId, index: u32, digest: Digest) -> Result<bool, CallError> {
    let args = prove::Args { path: "f".parse().unwrap(), upload, index, digest };
    Ok(call::<prove::Proved>(session, prove::VERB, &args).await?.same)
}

async fn commit(session: &Session, upload: UploadId) -> Result<upld::Committed, CallError> {
    call(session, commit::VERB, &commit_args(upload)).await
}

/// Which version of `/f` there is.
async fn version_of(session: &Session) -> Version {
    let args = dwld::Args { path: "f".parse().unwrap(), up_to: Some(0), sparse: true };
    let mut raw = Raw::request(session.connection(), dwld::VERB, args).await;
    let Response::Head(head) = raw.response().await else { panic!("not a head") };
    raw.reply::<dwld::Large>().await;
    head.deserialized::<dwld::File>().unwrap().version
}

/// An upload of `/f` to the point where its first chunk is due.
async fn chunks_by_hand(session: &Session) -> Raw {
    let mut raw = Raw::request(session.connection(), upld::VERB, args([("path", "f".into())])).await;
    assert!(matches!(raw.response().await, Response::Head(_)));
    raw
}
