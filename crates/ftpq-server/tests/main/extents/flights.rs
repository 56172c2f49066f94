//! What travels together: the first extent with BEGIN, COMMIT with the last extents.

use ftpq_server::Limits;

use super::*;

#[tokio::test]
async fn a_commit_waits_for_the_extents_that_are_on_their_way() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    for index in [0, 2] {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    let mut last = half_of(&session, upload, 1).await;
    let mut waiting = Raw::request(session.connection(), commit::VERB, commit_args(upload)).await;
    // By then the server has seen it.
    assert!(prove(&session, upload, 0, part_digest(0)).await.unwrap());
    last.bytes(&part(1)[HALF..]).await;
    last.send.frame(&Trailer { digest: part_digest(1) }).await.unwrap();
    assert_eq!(waiting.reply::<upld::Committed>().await.digest, digest(&BYTES));
    assert_eq!(last.reply::<write::Written>().await.digest, part_digest(1));
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

#[tokio::test]
async fn a_commit_does_not_wait_for_what_nobody_sends() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    assert_eq!(status(commit(&session, upload).await), Status::Incomplete);
    for index in [0, 2] {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    assert_eq!(status(commit(&session, upload).await), Status::Incomplete);
    // Nor any longer for what is given up.
    let mut last = half_of(&session, upload, 1).await;
    let mut waiting = Raw::request(session.connection(), commit::VERB, commit_args(upload)).await;
    assert!(prove(&session, upload, 0, part_digest(0)).await.unwrap());
    last.send.reset(Status::Cancelled);
    assert_eq!(waiting.refusal().await.status, Status::Incomplete);
    // All that it had is kept.
    write(&session, upload, 1, part(1)).await.unwrap();
    commit(&session, upload).await.unwrap();
}

/// What they wait for may need a turn itself: an extent with holes does.
#[tokio::test]
async fn commits_that_wait_hold_no_turn() {
    let limits = Limits { costly_per_key: 1, ..Limits::default() };
    let server = TestServer::start_with(|builder| builder.limits(limits)).await;
    let session = server.user("name=a rights=write").await;
    let args = begin::Args { sparse: true, ..begin_args() };
    let (upload, _) = begin(&session, &args).await.unwrap();
    write(&session, upload, 2, part(2)).await.unwrap();
    let mut first = half_of(&session, upload, 0).await;
    let mut waiting = Raw::request(session.connection(), commit::VERB, commit_args(upload)).await;
    assert!(prove(&session, upload, 2, part_digest(2)).await.unwrap());
    let holes = Holes::new(vec![Hole { offset: 0, length: EXTENT_MIN }]).unwrap();
    let hollow = vec![0; EXTENT_MIN as usize];
    let args = write::Args { holes, ..write_args(upload, 1) };
    write_as(&session, args, &[], Some(subtree(EXTENT_MIN, &hollow))).await.unwrap();
    first.bytes(&part(0)[HALF..]).await;
    first.send.frame(&Trailer { digest: part_digest(0) }).await.unwrap();
    // It did wait; that the file is another one than it says is all that is wrong.
    assert_eq!(waiting.refusal().await.status, Status::DigestMismatch);
}

#[tokio::test]
async fn the_first_extent_follows_begin_at_once() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let (upload, mut first) = begin_with_first(&session).await;
    first.bytes(&part(0)[HALF..]).await;
    first.send.frame(&Trailer { digest: part_digest(0) }).await.unwrap();
    let written = begin::Begun { upload: Some(upload), written: Some(part_digest(0)) };
    assert_eq!(first.reply::<begin::Begun>().await, written);
    for index in [1, 2] {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    commit(&session, upload).await.unwrap();
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

/// The upload is begun all the same, or is refused for what it is.
#[tokio::test]
async fn a_first_extent_that_is_not_wanted_is_not_taken() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write,delete").await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    write(&session, upload, 0, part(0)).await.unwrap();
    let mut kept = first_of(&session).await;
    let Response::Item(item) = kept.response().await else { panic!("nothing is kept") };
    let held = item.deserialized::<begin::Held>().unwrap().extents;
    assert_eq!(held, [HeldExtent { index: 0, digest: Some(part_digest(0)) }]);
    let begun: begin::Begun = kept.reply().await;
    assert_eq!(begun.written, None);
    fs::write(server.path("f"), "another").unwrap();
    assert_eq!(first_of(&session).await.refusal().await.status, Status::Exists);
    // What is wrong with the extent is wrong with it alone.
    fs::remove_file(server.path("f")).unwrap();
    let fresh = begin::Args { fresh: true, ..begin_args() };
    begin(&session, &fresh).await.unwrap();
    let (upload, mut first) = begin_with_first(&session).await;
    first.bytes(&part(0)[HALF..]).await;
    first.send.frame(&Trailer { digest: part_digest(1) }).await.unwrap();
    assert_eq!(first.refusal().await.status, Status::DigestMismatch);
    write(&session, upload, 0, part(0)).await.unwrap();
}

/// A client takes the shortest way: one trip for BEGIN with what it can send, none for COMMIT alone.
#[tokio::test]
async fn a_client_sends_the_first_extent_with_begin_and_the_last_with_commit() {
    let server = TestServer::start().await;
    let files = server.files("write").await;
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("f"), &*BYTES).unwrap();
    copy(&here, files).await;
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
    server.outcome_of(commit::VERB).await.unwrap();
    let commands = server.seen().into_iter().filter_map(|seen| match seen {
        Seen::Command { verb, bytes, outcome: Ok(()), .. } => Some((verb, bytes)),
        _ => None,
    });
    let mut commands: Vec<_> = commands.filter(|(verb, _)| verb != "CON").collect();
    commands.sort_unstable();
    let rest = BYTES.len() as u64 - 2 * EXTENT_MIN;
    let expected = [(begin::VERB, EXTENT_MIN), (commit::VERB, 0), (write::VERB, rest), (write::VERB, EXTENT_MIN)];
    assert_eq!(commands, expected.map(|(verb, bytes)| (verb.to_owned(), bytes)));
}

/// The first extent is on its way before that is known.
#[tokio::test]
async fn what_is_kept_is_counted_as_kept_and_not_sent_again() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=write");
    let session = server.session(&identity).await;
    let (upload, _) = begin(&session, &begin_args()).await.unwrap();
    for index in [0, 2] {
        write(&session, upload, index, part(index)).await.unwrap();
    }
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("f"), &*BYTES).unwrap();
    let summary = copy(&here, Remote::over(session)).await;
    assert_eq!((summary.bytes, summary.resumed), (BYTES.len() as u64, BYTES.len() as u64 - EXTENT_MIN));
    assert_eq!(fs::read(server.path("f")).unwrap(), *BYTES);
}

/// Uploads `f`, in one attempt.
async fn copy(from: &tempfile::TempDir, to: Remote) -> copy::Summary {
    let from = shared(LocalFs::open(from.path()).unwrap());
    let copy = copy::Copy::new(from, shared(to), OPTIONS, std::sync::Arc::new(()));
    copy.file(&remote("f"), &remote("f")).await.unwrap()
}

const HALF: usize = 500_000;

/// An extent of which half is sent.
async fn half_of(session: &Session, upload: UploadId, index: u32) -> Raw {
    let mut raw = Raw::request(session.connection(), write::VERB, write_args(upload, index)).await;
    raw.bytes(&part(index)[..HALF]).await;
    raw
}

/// BEGIN with half of the first extent, not waiting for an answer.
async fn first_of(session: &Session) -> Raw {
    let args = begin::Args { first: true, ..begin_args() };
    let mut raw = Raw::request(session.connection(), begin::VERB, args).await;
    raw.bytes(&part(0)[..HALF]).await;
    raw
}

/// The same, taken.
async fn begin_with_first(session: &Session) -> (UploadId, Raw) {
    let mut raw = first_of(session).await;
    let Response::Head(head) = raw.response().await else { panic!("it is not taken") };
    let begun: begin::Begun = head.deserialized().unwrap();
    assert_eq!(begun.written, None);
    (begun.upload.unwrap(), raw)
}
