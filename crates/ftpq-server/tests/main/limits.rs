//! What a server takes from whom: connections, proofs of an address, offences, costly commands.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use ftpq_client::Remote;
use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{RemotePath, Status, TicketSecret, commands::con, message::Failed};
use ftpq_server::{
    Limits,
    access::{AccessFile, Invitation, Line, parse_line},
};
use ftpq_transport::{Closed, ConnectError, Connection, Fingerprint, Identity, RecvError, tuning::Windows};
use tokio::{sync::Semaphore, task::yield_now, time::sleep};

use crate::{
    detour::{Detour, ELSEWHERE},
    support::{PATIENCE, Raw, Seen, TestServer, assert_welcome, con_with, identity, limited, names, status},
};

#[tokio::test]
async fn networks_of_refused_keys_wait_for_a_while_and_nobody_else_does() {
    let server = limited(strict()).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list");
    let before = Remote::over(server.session(&friend).await);
    names(&before, "/").await.unwrap();

    let mut refused = 0;
    while !server.seen().contains(&Seen::KeptOut) {
        refused += 1;
        assert!(refused < 10, "nobody is kept out");
        let stranger = server.session(&identity()).await;
        // A command in the same flight is no second offence.
        assert_eq!(status(names(&Remote::over(stranger), "/").await), Status::NotAuthorised);
    }
    // At the least: the penalties of the first run out meanwhile.
    assert!(refused >= 3, "kept out after {refused}");

    let error = server.connect_to(server.address(), &friend).await.unwrap_err();
    assert!(matches!(error, ConnectError::Failed(Closed::Refused)), "{error:?}");
    assert!(error.to_string().contains("takes no connections from here at the moment"), "{error}");
    names(&before, "/").await.unwrap();
    let detour = Detour::over(ELSEWHERE, &server).await;
    assert_welcome(&server.connect_to(detour.address, &friend).await.unwrap()).await;
    // And it ends.
    while let Err(error) = server.connect_to(server.address(), &friend).await {
        assert!(matches!(error, ConnectError::Failed(Closed::Refused)), "{error:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn one_wrong_secret_and_one_wrong_message_are_enough() {
    let server = limited(strict()).await;
    let guess = server.connect(&identity()).await;
    assert_eq!(refusal(&guess, con_with_ticket(TicketSecret::from([1; 16]))).await.status, Status::BadTicket);
    assert_eq!(server.seen().iter().filter(|seen| **seen == Seen::KeptOut).count(), 1);
    assert!(server.connect_to(server.address(), &identity()).await.is_err());

    let elsewhere = Detour::over(ELSEWHERE, &server).await;
    let babbler = server.connect_to(elsewhere.address, &identity()).await.unwrap();
    let mut raw = Raw::open(&babbler).await;
    raw.bytes(*b"GET / HTTP/1.1\r\n\r\n").await;
    raw.refusal().await;
    assert_eq!(server.seen().iter().filter(|seen| **seen == Seen::KeptOut).count(), 2);
}

/// Whoever goes through a handshake and moves on can send packets in anybody's name.
#[tokio::test]
async fn the_network_of_the_handshake_is_blamed_and_no_other() {
    let server = limited(strict()).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list");
    let detour = Detour::over(ELSEWHERE, &server).await;
    let connection = server.connect_to(detour.address, &identity()).await.unwrap();
    detour.move_to(Ipv4Addr::LOCALHOST.into()).await;
    assert_eq!(refusal(&connection, con_with_ticket(TicketSecret::from([1; 16]))).await.status, Status::BadTicket);
    server.until_seen(|seen| *seen == Seen::KeptOut).await;
    assert_welcome(&server.connect(&friend).await).await;
}

/// The same: who is let in from some networks must have been there.
#[tokio::test]
async fn a_client_comes_from_its_networks_from_the_handshake_on() {
    let server = TestServer::start().await;
    let [inside, outside] = [ELSEWHERE, Ipv4Addr::LOCALHOST.into()];
    let friend = identity();
    server.authorise(&friend, &format!("name=friend rights=list from={inside}"));

    let outsider = Detour::over(outside, &server).await;
    let connection = server.connect_to(outsider.address, &friend).await.unwrap();
    outsider.move_to(inside).await;
    assert_eq!(refusal(&connection, con_with(&[1])).await.status, Status::NotAuthorised);

    // Nor may it leave.
    let insider = Detour::over(inside, &server).await;
    let connection = server.connect_to(insider.address, &friend).await.unwrap();
    assert_welcome(&connection).await;
    insider.move_to(outside).await;
    // The server learns of it with the next packet.
    let _ = connection.open().await.unwrap().0.frame(&"anything").await;
    assert!(matches!(connection.closed().await, Closed::ByPeer { status: Status::NotAuthorised, .. }));
    assert!(server.seen().contains(&Seen::Revoked));
}

#[tokio::test]
async fn a_key_has_so_many_connections() {
    let server = limited(Limits { connections_per_key: 2, ..Limits::default() }).await;
    let (one, other) = (identity(), identity());
    server.authorise(&one, "name=one rights=list");
    server.authorise(&other, "name=other rights=list");
    let first = server.connect(&one).await;
    assert_welcome(&first).await;
    let second = server.connect(&one).await;
    assert_welcome(&second).await;

    let failed = refusal(&server.connect(&one).await, con_with(&[1])).await;
    assert_eq!(failed.status, Status::Unavailable);
    assert!(failed.message.contains("too many connections"), "{}", failed.message);
    assert_welcome(&server.connect(&other).await).await;
    // One that ends makes room.
    first.goodbye().await;
    until_welcome(&server, &one).await;
}

#[tokio::test]
async fn a_network_has_so_many_places_for_those_whom_nobody_knows() {
    let server = limited(Limits { unknown_per_network: 2, ..Limits::default() }).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list");
    // Twice as many who have proved their address.
    let silent = [server.connect(&friend).await, server.connect(&identity()).await];
    let _proved = [server.connect(&identity()).await, server.connect(&identity()).await];
    let error = server.connect_to(server.address(), &friend).await.unwrap_err();
    assert!(matches!(error, ConnectError::Failed(Closed::Refused)), "{error:?}");
    let elsewhere = Detour::over(ELSEWHERE, &server).await;
    assert_welcome(&server.connect_to(elsewhere.address, &friend).await.unwrap()).await;
    // Who is known takes no such place.
    assert_welcome(&silent[0]).await;
    assert_welcome(&server.connect(&friend).await).await;
}

#[tokio::test]
async fn under_load_an_address_must_be_proved_first_and_a_client_does_it_by_itself() {
    let server = limited(Limits { retry_from: 1, ..Limits::default() }).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list");
    let calm = Detour::over(ELSEWHERE, &server).await;
    let silent = server.connect_to(calm.address, &identity()).await.unwrap();
    assert_eq!(calm.retries(), 0);
    let busy = Detour::over(ELSEWHERE, &server).await;
    assert_welcome(&server.connect_to(busy.address, &friend).await.unwrap()).await;
    assert_eq!(busy.retries(), 1);
    // The load is over.
    silent.goodbye().await;
    loop {
        let calm = Detour::over(ELSEWHERE, &server).await;
        assert_welcome(&server.connect_to(calm.address, &friend).await.unwrap()).await;
        if calm.retries() == 0 {
            break;
        }
    }
}

#[tokio::test]
async fn where_too_many_are_unknown_more_wait_until_there_is_room() {
    for limits in [
        Limits { unknown: 1, ..Limits::default() },
        // No memory for two: a connection takes 384 KiB of one half of it.
        Limits { memory: 1 << 20, ..Limits::default() },
    ] {
        let server = limited(limits).await;
        let friend = identity();
        server.authorise(&friend, "name=friend rights=list");
        let silent = server.connect(&identity()).await;
        let detour = Detour::over(ELSEWHERE, &server).await;
        let waiting = server.connect_to(detour.address, &friend);
        let knocks = async {
            while detour.counts().0 < 5 {
                sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(detour.counts().1, 0, "no answer");
            silent.goodbye().await;
        };
        let (connection, ()) = tokio::join!(waiting, knocks);
        assert_welcome(&connection.unwrap()).await;
    }
}

#[tokio::test]
async fn there_is_an_end_to_all_connections() {
    let server = limited(Limits { connections: 2, ..Limits::default() }).await;
    let friend = identity();
    server.authorise(&friend, "name=friend rights=list");
    let first = server.connect(&friend).await;
    assert_welcome(&first).await;
    let _second = server.connect(&identity()).await;
    let elsewhere = Detour::over(ELSEWHERE, &server).await;
    let error = server.connect_to(elsewhere.address, &friend).await.unwrap_err();
    assert!(matches!(error, ConnectError::Failed(Closed::Refused)), "{error:?}");
    first.goodbye().await;
    until_welcome(&server, &friend).await;
}

/// CON may bring what lets its key in: what comes in the same flight waits for it.
#[tokio::test]
async fn commands_may_ride_with_a_ticket() {
    let server = limited(strict()).await;
    let secret = TicketSecret::from([7; 16]);
    invite(&server, &secret, "name=bob rights=list");
    let connection = server.connect(&identity()).await;
    // In this order on the wire, and the server is not done with the ticket when it sees the second.
    let mut con = Raw::request(&connection, con::VERB, con_with_ticket(secret)).await;
    let mut list = Raw::request(&connection, "CD", crate::support::args([("path", "/".into())])).await;
    let welcome: con::Welcome = con.reply().await;
    assert_eq!(welcome.user, "bob");
    let _: ciborium::Value = list.reply().await;
    assert!(!server.seen().iter().any(|seen| matches!(seen, Seen::NotAuthorised(_) | Seen::KeptOut)));
    // Nor is it cut off a moment later.
    let again = Raw::request(&connection, "CD", crate::support::args([("path", "/".into())])).await.reply().await;
    let _: ciborium::Value = again;
}

/// What it asks for after that would cost it nothing.
#[tokio::test]
async fn whoever_was_refused_is_not_listened_to_any_more() {
    let server = TestServer::start().await;
    let connection = server.connect(&identity()).await;
    // They may have come with the first.
    for _ in 0..Windows::UNSETTLED.streams {
        assert_eq!(refusal(&connection, con_with(&[1])).await.status, Status::NotAuthorised);
    }
    for _ in 0..3 {
        let mut late = Raw::open(&connection).await;
        // It may be stopped before it has sent anything.
        let _ = late.send.frame(&"anything").await;
        let reset = late.recv.frame::<ftpq_proto::message::Response>(PATIENCE).await.unwrap_err();
        assert!(matches!(reset, RecvError::Reset(Status::NotAuthorised)), "{reset:?}");
    }
}

/// What was begun on it may wait for something, and have its effect much later.
#[tokio::test]
async fn a_removed_key_ends_what_goes_on_after_its_connection() {
    let running = Arc::new(Semaphore::new(0));
    let handler = Costly { gate: Arc::new(Semaphore::new(0)), running: running.clone() };
    let server = TestServer::start_with(|builder| builder.with(handler)).await;
    let key = identity();
    server.authorise(&key, "name=a rights=list");
    let session = server.session(&key).await;
    let costly = tokio::spawn({
        let session = session.clone();
        async move { session.call::<_, ()>("acme.costly", &RemotePath::root(), &true).await }
    });
    running.acquire().await.unwrap().forget();
    session.close().await;
    costly.await.unwrap().unwrap_err();
    server.authorise_nobody();
    assert_eq!(server.outcome_of("acme.costly").await, Err(Status::NotAuthorised));
    assert!(!server.seen().contains(&Seen::Revoked), "nobody was cut off");
}

#[tokio::test]
async fn costly_commands_of_a_key_wait_for_each_other_and_for_nobody_else() {
    let (gate, limits) = (Arc::new(Semaphore::new(0)), Limits { costly_per_key: 1, ..Limits::default() });
    let running = Arc::new(Semaphore::new(0));
    let handler = Costly { gate: gate.clone(), running: running.clone() };
    let server = TestServer::start_with(|builder| builder.limits(limits).with(handler)).await;
    let key = identity();
    server.authorise(&key, "name=a rights=list");
    // On two connections: it is the key that counts.
    let (one, two) = (server.session(&key).await, server.session(&key).await);
    let root = RemotePath::root();
    let first = one.call::<_, ()>("acme.costly", &root, &true);
    let second = two.call::<_, ()>("acme.costly", &root, &true);
    let others = async {
        running.acquire().await.unwrap().forget();
        // What costs nothing, and what others want, goes on.
        one.call::<_, ()>("acme.costly", &root, &false).await.unwrap();
        names(&Remote::over(two.clone()), "/").await.unwrap();
        let other = server.user("name=b rights=list").await;
        let third = other.call::<_, ()>("acme.costly", &root, &true);
        let seen = async {
            running.acquire().await.unwrap().forget();
            yield_now().await;
            assert_eq!(running.available_permits(), 0, "two of one key run");
            gate.add_permits(3);
        };
        tokio::join!(third, seen).0.unwrap();
    };
    let (first, second, ()) = tokio::join!(first, second, others);
    first.unwrap();
    second.unwrap();
}

/// Waits at a gate if it is costly.
pub(crate) struct Costly {
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) running: Arc<Semaphore>,
}

impl Handler for Costly {
    type Args = bool;
    type Reply = ();

    fn spec(&self) -> Spec {
        Spec::new("acme.costly", Right::List, "wait")
    }

    fn is_costly(&self, costly: &bool) -> bool {
        *costly
    }

    async fn handle(&self, _: &Context, costly: bool, _: &mut Exchange) -> Result<(), Failure> {
        if costly {
            self.running.add_permits(1);
            self.gate.acquire().await.map_err(Failure::internal)?.forget();
        }
        Ok(())
    }
}

/// Limits that do not spare this machine.
fn strict() -> Limits {
    Limits { penalise_loopback: true, ..Limits::default() }
}

fn con_with_ticket(secret: TicketSecret) -> con::Args {
    con::Args { ticket: Some(secret), ..con_with(&[1]) }
}

/// CON's answer, which must be no.
async fn refusal(connection: &Connection, args: con::Args) -> Failed {
    Raw::request(connection, con::VERB, args).await.refusal().await
}

/// Tries until the server has noticed that somebody left.
async fn until_welcome(server: &TestServer, identity: &Identity) {
    loop {
        let Ok(connection) = server.connect_to(server.address(), identity).await else { continue };
        let mut raw = Raw::request(&connection, con::VERB, con_with(&[1])).await;
        match raw.response().await {
            ftpq_proto::message::Response::Reply(ftpq_proto::message::Reply::Ok(_)) => return,
            _ => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn invite(server: &TestServer, secret: &TicketSecret, options: &str) {
    let Ok(Line::Client(grant)) = parse_line(&format!("{} {options}", Fingerprint::from([1; 32]))) else {
        panic!("{options}")
    };
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10);
    let file = AccessFile::new(&server.outside("authorized_clients"));
    file.add_invitation(&Invitation::new(secret, until, grant.into()), jiff::Timestamp::UNIX_EPOCH).unwrap();
}
