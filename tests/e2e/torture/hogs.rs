//! Peers that make a server hold as much as they can: every window full, every stream in the middle of something.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ciborium::{Value, cbor};
use ftpq_proto::limits::FRAME_MAX;
use quinn::{ClientConfig, Connection, RecvStream, SendStream};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{KIB, MIB, Torture};
use crate::support::{Hostile, HostileKey, Place, Relay, Server, World, hostile, request, solid, until};

/// What a server takes besides its budget, in KiB: what it has when nobody is there, and what each connection
/// costs in QUIC and TLS, whatever it may send.
const EACH: u64 = 96;

/// Frames that stop just before their end, on every stream.
#[test]
fn t18_half_frames_on_every_stream() {
    let hogs = Hogs::of("t18");
    hogs.fill(|connection| async move {
        let frame = [&(FRAME_MAX as u32).to_be_bytes()[..], &vec![0; FRAME_MAX - 1]].concat();
        every_stream(&connection, &frame).await
    });
    hogs.within_budget();
}

/// Lists of which nothing is read, on every stream, and behind each request as much as the windows take.
#[test]
fn t18_unread_lists_and_windows_full_of_what_nobody_reads() {
    let hogs = Hogs::of("t18");
    fs::create_dir(hogs.world.served().join("long")).unwrap();
    for number in 0..1000 {
        fs::write(hogs.world.served().join(format!("long/{number:0250}")), "").unwrap();
    }
    let list = request("LIST", cbor!({ "path" => "/long" }).unwrap());
    hogs.fill(|connection| {
        let list = list.clone();
        async move { stuffed(every_stream(&connection, &list).await).await }
    });
    hogs.within_budget();
}

/// The same where every third datagram is lost: what comes must wait for what is missing.
#[test]
fn t18_windows_full_of_gaps() {
    let hogs = Hogs::of("t18");
    let relay = Relay::to(hogs.server.address);
    let list = request("LIST", cbor!({ "path" => "/" }).unwrap());
    let hog = |connection: Connection| {
        let list = list.clone();
        async move { stuffed(every_stream(&connection, &list).await).await }
    };
    hogs.fill_by(relay.address, hog, || relay.change(|weather| weather.loss = 0.3));
    hogs.within_budget();
}

/// Bytes that nobody reads, one by one, each in the middle of many that are read: what holds them in memory
/// must not be what they came in.
#[test]
fn t18_single_bytes_that_keep_whole_batches() {
    let hogs = Hogs::of("t18");
    solid(&hogs.world.served().join("large"), 8 * MIB);
    hogs.fill(pinned);
    hogs.within_budget();
}

/// Uploads that announce much and send nothing.
#[test]
fn t18_uploads_of_which_nothing_comes() {
    let hogs = Hogs::of("t18");
    hogs.fill(|connection| uploads(connection, 0));
    hogs.within_budget();
}

/// Uploads at full speed.
#[test]
fn t18_uploads_on_every_stream() {
    let hogs = Hogs::of("t18");
    hogs.fill(|connection| uploads(connection, 16 * MIB));
    hogs.within_budget();
}

/// Downloads of which nothing is read.
#[test]
fn t18_downloads_that_nobody_reads() {
    let hogs = Hogs::of("t18");
    solid(&hogs.world.served().join("large"), 8 * MIB);
    let download = request("DWLD", cbor!({ "path" => "/large" }).unwrap());
    hogs.fill(|connection| {
        let download = download.clone();
        async move { stuffed(every_stream(&connection, &download).await).await }
    });
    hogs.within_budget();
}

/// Requests of people whom nobody knows yet, whose arguments take a hundred times as much once they are read.
#[test]
fn t18_requests_that_grow_before_anybody_is_known() {
    let hogs = Hogs::of("t18");
    let args = Value::Array(vec![Value::Array(vec![0.into()]); FRAME_MAX / 2 - 100]);
    let growing = request("LIST", args);
    let connections = hogs.hostile.run(hogs.strangers());
    hogs.hold(connections, |connection| {
        let growing = growing.clone();
        async move { every_stream(&connection, &growing).await }
    });
    hogs.within_budget();
}

/// A server with a small budget, and those who want all of it.
struct Hogs {
    _torture: Torture,
    world: World,
    server: Server,
    hostile: Hostile,
    keys: Vec<HostileKey>,
    memory: u64,
    /// KiB that the server had when nobody was there.
    before: u64,
}

/// What is held open.
type Streams = Vec<(SendStream, RecvStream)>;

impl Hogs {
    fn of(name: &'static str) -> Self {
        let torture = Torture::of(name);
        let memory = if torture.long { 512 * MIB } else { 64 * MIB };
        let world = World::new();
        let keys: Vec<_> = (0..16).map(|number| HostileKey::at(&world.path(format!("hostile/{number}.pem")))).collect();
        for key in &keys {
            world.authorise_key(&key.fingerprint, "name=hog rights=list,read,write");
        }
        let server = little_server(&world, memory);
        let before = server.process.memory_kib();
        Self { _torture: torture, world, server, hostile: Hostile::new(), keys, memory, before }
    }

    fn fill<F: Future<Output = Streams> + Send + 'static>(&self, hog: impl Fn(Connection) -> F) {
        self.fill_by(self.server.address, hog, || {});
    }

    /// Connects until the server takes nobody any more, and lets each do its worst.
    fn fill_by<F: Future<Output = Streams> + Send + 'static>(
        &self,
        address: SocketAddr,
        hog: impl Fn(Connection) -> F,
        connected: impl FnOnce(),
    ) {
        let connections = self.hostile.run(self.connections(address));
        connected();
        self.hold(connections, hog);
    }

    /// Looks until the server's memory has stopped growing.
    fn hold<F: Future<Output = Streams> + Send + 'static>(
        &self,
        connections: Vec<Connection>,
        hog: impl Fn(Connection) -> F,
    ) {
        let streams = self.hostile.run(async {
            let mut hogs = JoinSet::new();
            for connection in &connections {
                hogs.spawn(hog(connection.clone()));
            }
            hogs.join_all().await
        });
        let mut last = 0;
        until("the server holds all that it will", || {
            let now = self.server.process.memory_kib();
            std::thread::sleep(Duration::from_millis(300));
            std::mem::replace(&mut last, now) >= now
        });
        let peak = self.server.process.peak_memory_kib().unwrap();
        let count: usize = streams.iter().map(Vec::len).sum();
        eprintln!(
            "{} connections, {count} streams: {last} KiB, {peak} KiB at the most, {} KiB before, budget {} KiB",
            connections.len(),
            self.before,
            self.memory / KIB
        );
        let most = self.before + EACH * connections.len() as u64 + self.memory / KIB;
        assert!(peak <= most, "{peak} KiB, {most} KiB at the most");
        self.hostile.run(async { connections.iter().for_each(|one| one.close(0_u32.into(), b"")) });
        drop(streams);
    }

    /// What was said of it is checked where it was filled; here that somebody else still gets in.
    fn within_budget(&self) {
        let program = self.world.home_program().args(["ls", "--accept-new", "-s", &self.server.name()]);
        self.world.authorise(&self.world.home(), "name=friend rights=list");
        program.run().ok();
    }

    /// Connections on which nobody has said CON.
    async fn strangers(&self) -> Vec<Connection> {
        let client = HostileKey::at(&self.world.path("hostile/stranger.pem"));
        let client = client.client(ftpq_proto::ALPN, hostile::transport(1024));
        let place = Place::on(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(place.connect(self.server.address, &client).await.unwrap());
        }
        all
    }

    async fn connections(&self, address: SocketAddr) -> Vec<Connection> {
        let clients: Vec<ClientConfig> =
            self.keys.iter().map(|key| key.client(ftpq_proto::ALPN, hostile::transport(1024))).collect();
        let places: Vec<_> = (1..=16).map(|number| Place::on(IpAddr::V4(Ipv4Addr::new(127, 0, 2, number)))).collect();
        let mut all = Vec::new();
        for turn in 0..2048 {
            let (place, client) = (&places[turn % places.len()], &clients[turn % clients.len()]);
            let welcome = timeout(Duration::from_secs(1), place.welcome_if_let_in(address, client));
            // It takes nobody any more, and says nothing, or so to those who have proved their address.
            let Ok(Ok(connection)) = welcome.await else { break };
            all.push(connection);
        }
        all
    }
}

/// `ftpq serve` with `memory` bytes for buffers, as soon as it can be told.
fn little_server(world: &World, memory: u64) -> Server {
    world.server_program().args(["--limit-memory", &memory.to_string()]).serve()
}

/// Sends `bytes` on as many streams as the server lets be opened.
async fn every_stream(connection: &Connection, bytes: &[u8]) -> Streams {
    let mut streams = Vec::new();
    while let Ok(Ok((mut send, recv))) = timeout(Duration::from_millis(500), connection.open_bi()).await {
        // Where the window is full, the next streams would get nothing either.
        if !matches!(timeout(Duration::from_secs(1), send.write_all(bytes)).await, Ok(Ok(()))) {
            break;
        }
        streams.push((send, recv));
    }
    streams
}

/// Sends on each stream until the windows are full.
async fn stuffed(mut streams: Streams) -> Streams {
    let garbage = vec![0; 64 * 1024];
    for (send, _) in &mut streams {
        while matches!(timeout(Duration::from_millis(300), send.write_all(&garbage)).await, Ok(Ok(()))) {}
    }
    streams
}

async fn uploads(connection: Connection, bytes: u64) -> Streams {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let mut streams = Vec::new();
    while let Ok(Ok((mut send, recv))) = timeout(Duration::from_millis(500), connection.open_bi()).await {
        let path = format!("/{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        send.write_all(&request("UPLD", cbor!({ "path" => path, "size" => 16 * MIB }).unwrap())).await.unwrap();
        streams.push((send, recv));
    }
    let part = Arc::new(vec![0; 64 * 1024]);
    let mut sending = JoinSet::new();
    for (mut send, recv) in streams.drain(..) {
        let part = part.clone();
        sending.spawn(async move {
            let mut left = bytes.saturating_sub(1);
            while left > 0 && send.write_all(&part[..left.min(part.len() as u64) as usize]).await.is_ok() {
                left = left.saturating_sub(part.len() as u64);
            }
            (send, recv)
        });
    }
    sending.join_all().await
}

/// On all streams but one downloads that nobody reads, and bytes behind their requests, each in the middle of an
/// upload that goes on.
async fn pinned(connection: Connection) -> Streams {
    let Ok(Ok((mut upload, recv))) = timeout(Duration::from_secs(5), connection.open_bi()).await else {
        return Vec::new();
    };
    let path = format!("/{}", connection.stable_id());
    upload.write_all(&request("UPLD", cbor!({ "path" => path, "size" => 1_u64 << 32 }).unwrap())).await.unwrap();
    let mut streams = every_stream(&connection, &request("DWLD", cbor!({ "path" => "/large" }).unwrap())).await;
    let part = vec![0; 12 * 1024];
    for _ in 0..24 {
        for (send, _) in &mut streams {
            let _ = send.write_all(b"x").await;
            let _ = upload.write_all(&part).await;
        }
    }
    sleep(Duration::from_millis(100)).await;
    streams.push((upload, recv));
    streams
}
