//! Peers that are slow on purpose: each costs the server something, for as long as it lets them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ciborium::cbor;
use ftpq_proto::{
    Status,
    message::{Failed, Reply, Response},
};
use quinn::{ClientConfig, Connection, ConnectionError, RecvStream, SendStream};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{KIB, MIB, Torture};
use crate::support::{Hostile, HostileKey, Place, RawClient, World, hostile, pattern, request, response, solid, until};

/// A hundred of each kind at once, twice, or two hundred in the long form, which also waits for the minute that a
/// body may stand still. Meanwhile an honest client gets everything, and afterwards the server is as it was.
#[test]
fn t17_slow_peers_get_nowhere_and_hold_up_nobody() {
    let torture = Torture::of("t17");
    let mut world = World::new();
    // What is freed is given back at once. glibc's threshold grows by itself to what was ever freed, and then what is
    // resident says little of what is in use.
    world.start_program(world.server_program().env("MALLOC_MMAP_THRESHOLD_", "65536"));
    solid(&world.served().join("large"), 8 * MIB);
    fs::write(world.work().join("file"), pattern(300_000)).unwrap();
    let siege = Siege::of(&world, if torture.long { 200 } else { 100 });
    works(&world);
    let calm = RawClient::connect(&world);
    calm.con();
    let idle = torture.long.then(|| p99_of_list(&calm));
    let process = &world.server().process;
    let (files, before) = (process.open_files().len(), process.memory_kib());
    let mut most = before + KEPT;
    for round in torture.rounds(2, 5) {
        let mut peers = siege.begin();
        works(&world);
        if let Some(idle) = idle {
            let besieged = p99_of_list(&calm);
            let ratio = besieged.as_secs_f64() / idle.as_secs_f64();
            eprintln!(
                "round {round}: LIST takes {besieged:?} in 99 of 100 beside {} slow peers, {idle:?} beside none: \
                 {ratio:.1} times",
                5 * siege.each
            );
        }
        // The server sends them away; nobody here gives up.
        siege.hostile.run(all_done(&mut peers.sent_away));
        works(&world);
        if torture.long {
            siege.hostile.run(all_done(&mut peers.cut));
        }
        siege.hostile.run(async { peers.connections.iter().for_each(|peer| peer.close(0_u32.into(), b"")) });
        drop(peers);
        works(&world);
        until("the server has closed what it opened for them", || process.open_files().len() <= files);
        until("the server has freed what it held for them", || process.memory_kib() <= most);
        let (now, peak) = (process.memory_kib(), process.peak_memory_kib().unwrap_or_default());
        eprintln!("round {round}: {before} KiB before, {peak} KiB at the most, {now} KiB after");
        // What was needed once is used again.
        most = most.min(now + KEPT / 2);
    }
}

/// What may stay of the worst in the corners of the memory, in KiB. It was half of a GiB.
const KEPT: u64 = 64 * KIB;

/// Who does it, with which keys, and to whom.
struct Siege {
    hostile: Hostile,
    keys: Vec<Arc<HostileKey>>,
    server: SocketAddr,
    /// How many of each kind.
    each: usize,
}

/// What goes on.
struct Peers {
    /// Those that the server sends away after ten seconds.
    sent_away: JoinSet<()>,
    /// Those whose bodies it cuts after a minute.
    cut: JoinSet<()>,
    connections: Vec<Connection>,
}

impl Siege {
    fn of(world: &World, each: usize) -> Self {
        let keys: Vec<_> = (0..each.div_ceil(10))
            .map(|number| {
                let key = HostileKey::at(&world.path(format!("hostile/{number}.pem")));
                world.authorise_key(&key.fingerprint, &format!("name=slow-{number} rights=list,read,write"));
                Arc::new(key)
            })
            .collect();
        Self { hostile: Hostile::new(), keys, server: world.server().address, each }
    }

    /// All are there when this returns.
    fn begin(&self) -> Peers {
        self.hostile.run(async {
            let mut peers = Peers { sent_away: JoinSet::new(), cut: JoinSet::new(), connections: Vec::new() };
            // Those who are cut late come first.
            for (number, connection) in self.welcome().await.into_iter().enumerate() {
                match number % 3 {
                    0 => drop(peers.sent_away.spawn(half_requests(connection.clone()))),
                    1 => drop(peers.cut.spawn(unread_downloads(connection.clone()))),
                    _ => drop(peers.cut.spawn(trickled_upload(connection.clone(), number))),
                }
                peers.connections.push(connection);
            }
            self.shake_hands(&mut peers).await;
            peers
        })
    }

    /// Three of each kind that says who it is.
    async fn welcome(&self) -> Vec<Connection> {
        let mut all = Vec::new();
        let (places, clients) = (self.places(8), self.clients());
        for first in (0..3 * self.each).step_by(places.len()) {
            let mut batch = JoinSet::new();
            for (number, place) in places.iter().enumerate().take(3 * self.each - first) {
                let (place, client) = (place.clone(), clients[(first + number) % clients.len()].clone());
                let server = self.server;
                batch.spawn(async move { place.welcome(server, &client).await });
            }
            all.extend(batch.join_all().await);
        }
        all
    }

    /// Two of each kind that does not. Each begins at once: its time runs.
    async fn shake_hands(&self, peers: &mut Peers) {
        let (clients, (came, mut coming)) = (self.clients(), mpsc::unbounded_channel());
        // Fewer of each network than a server takes.
        for (turn, place) in self.places(self.each.div_ceil(20)).into_iter().enumerate() {
            let batch = 40.min(2 * self.each - 40 * turn);
            for (number, client) in clients.iter().cycle().take(batch).enumerate() {
                let (place, client, server, came) = (place.clone(), client.clone(), self.server, came.clone());
                peers.sent_away.spawn(async move {
                    let connection = place.connect(server, &client).await.unwrap();
                    came.send(connection.clone()).unwrap();
                    if number % 2 == 0 { nothing(connection).await } else { trickled_con(connection).await }
                });
            }
            for _ in 0..batch {
                peers.connections.push(coming.recv().await.expect("a connection"));
            }
        }
    }

    fn places(&self, count: usize) -> Vec<Place> {
        (0..count).map(|number| Place::on(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + number as u8)))).collect()
    }

    fn clients(&self) -> Vec<ClientConfig> {
        self.keys.iter().map(|key| key.client(ftpq_proto::ALPN, hostile::transport(16 * 1024))).collect()
    }
}

/// The handshake, and then nothing.
async fn nothing(connection: Connection) {
    assert_timed_out(&connection.closed().await);
}

/// CON, byte by byte.
async fn trickled_con(connection: Connection) {
    let con = request("CON", cbor!({ "versions" => [1], "agent" => "slow", "features" => [] }).unwrap());
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    for byte in con {
        if send.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(300)).await;
    }
    assert_timed_out(&connection.closed().await);
}

/// Requests that stop in the middle, on all streams that there are.
async fn half_requests(connection: Connection) {
    let list = request("LIST", cbor!({ "path" => "/" }).unwrap());
    let streams = all_streams(&connection, &list[..list.len() / 2]).await;
    // Four are served where memory is short, and CON's may not be free yet; the others are sent away.
    let mut timed_out = 0;
    for (_send, mut recv) in streams {
        match response(&mut recv).await {
            Some(Response::Reply(Reply::Error(Failed { status: Status::TimedOut, .. }))) => timed_out += 1,
            answer => assert!(answer.is_none(), "{answer:?}"),
        }
    }
    assert!(timed_out >= 3, "{timed_out}");
}

/// Downloads of which nothing is read, on all streams that there are.
async fn unread_downloads(connection: Connection) {
    let streams = all_streams(&connection, &request("DWLD", cbor!({ "path" => "/large" }).unwrap())).await;
    for (_send, mut recv) in streams {
        // Where this side gives up first, there is nothing to see.
        let Ok(cut) = recv.received_reset().await else { return };
        assert_eq!(cut.map(|code| code.into_inner()), Some(u64::from(Status::TimedOut.code())));
    }
}

/// An upload of which a byte comes now and then.
async fn trickled_upload(connection: Connection, number: usize) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let path = format!("/slow-{number}");
    send.write_all(&request("UPLD", cbor!({ "path" => path, "size" => 1_000_000 }).unwrap())).await.unwrap();
    let go = response(&mut recv).await;
    assert!(matches!(go, Some(Response::Head(_))), "{go:?}");
    let trickle = async {
        while send.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    };
    let (answer, ()) = tokio::join!(response(&mut recv), trickle);
    // Where this side gives up first, there is none.
    assert!(
        matches!(answer, None | Some(Response::Reply(Reply::Error(Failed { status: Status::TimedOut, .. })))),
        "{answer:?}"
    );
}

/// Sends `bytes` on as many streams as the server lets be opened.
async fn all_streams(connection: &Connection, bytes: &[u8]) -> Vec<(SendStream, RecvStream)> {
    let mut streams = Vec::new();
    while let Ok(opened) = timeout(Duration::from_millis(200), connection.open_bi()).await {
        let (mut send, recv) = opened.unwrap();
        send.write_all(bytes).await.unwrap();
        streams.push((send, recv));
    }
    streams
}

async fn all_done(peers: &mut JoinSet<()>) {
    while let Some(peer) = peers.join_next().await {
        peer.expect("the server does what it should");
    }
}

#[track_caller]
fn assert_timed_out(end: &ConnectionError) {
    match end {
        ConnectionError::ApplicationClosed(close)
            if close.error_code.into_inner() == u64::from(Status::TimedOut.code()) => {}
        other => panic!("{other:?}"),
    }
}

/// All that an honest client wants.
fn works(world: &World) {
    world.ftpq(["put", "-f", "file", "--to", "/honest"]).ok();
    world.ftpq(["get", "-f", "/honest", "--to", "fetched"]).ok();
    assert!(fs::read(world.work().join("fetched")).unwrap() == pattern(300_000));
    assert_eq!(world.ftpq(["ls", "/"]).ok().lines(), ["honest", "large"]);
    world.ftpq(["rm", "/honest"]).ok();
}

fn p99_of_list(client: &RawClient) -> Duration {
    let mut times: Vec<_> = (0..500)
        .map(|_| {
            let began = Instant::now();
            let (mut send, mut recv) = client.open();
            client.request(&mut send, "LIST", cbor!({ "path" => "/" }).unwrap());
            send.finish();
            while !matches!(client.answer(&mut recv).unwrap(), Response::Reply(_)) {}
            began.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() * 99 / 100]
}
