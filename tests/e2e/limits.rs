//! What the real server takes from whom.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use crate::support::{Hostile, HostileKey, Place, World, hostile, until};

/// Whoever tries key after key waits, and is told so in words and in the exit code.
#[test]
fn a_network_of_refused_keys_is_kept_out_for_a_while() {
    let Some(mut world) = not_on_loopback("a_network_of_refused_keys_is_kept_out_for_a_while") else { return };
    let server = world.server().address.to_string();
    world.home_program().args(["ls", "-s", &server]).run().ok();
    let mut strangers = 0;
    while !world.server().log.so_far().iter().any(|line| line.contains("kept out for ")) {
        strangers += 1;
        assert!(strangers < 20, "nobody is kept out");
        let stranger = world.client_of(&world.path(format!("strangers/{strangers}")));
        let run = stranger.args(["ls", "--accept-new", "--timeout", "5", "-s", &server]).run();
        assert!([4, 5].contains(&run.code), "{run:?}");
    }
    assert!(strangers >= 3, "kept out after {strangers}");
    let run = world.home_program().args(["ls", "-s", &server]).run();
    run.fails(5, &format!("{server}: the other side takes no connections from here at the moment"));
    // A server that was started anew knows nothing of it.
    world.restart();
    world.home_program().args(["ls", "-s", &server]).run().ok();
}

/// Tunnels and proxies on this machine stand for many.
#[test]
fn this_machine_itself_is_never_kept_out() {
    let world = World::serving();
    for number in 0..8 {
        let stranger = world.client_of(&world.path(format!("strangers/{number}")));
        stranger.args(["ls", "--accept-new"]).run().fails(4, "does not know your key");
    }
    world.ftpq(["ls"]).ok();
}

/// The first packets of a connection say nothing of where they come from: whoever sends such that fail must not
/// be able to keep somebody else out.
#[test]
fn forged_first_packets_keep_nobody_out() {
    let Some(world) = not_on_loopback("forged_first_packets_keep_nobody_out") else { return };
    let server = world.server().address;
    let forged = first_packets(&world, 30);
    // As a forger, this hears nothing of what comes back.
    let forger = UdpSocket::bind((server.ip(), 0)).unwrap();
    for packets in &forged {
        for packet in packets {
            forger.send_to(packet, server).unwrap();
        }
    }
    let log = &world.server().log;
    let failed = || log.so_far().iter().filter(|line| line.contains("handshake failed: no common protocol")).count();
    until("the server has seen all of them", || failed() == forged.len());
    world.home_program().args(["ls", "-s", &server.to_string()]).run().ok();
    assert!(!log.so_far().iter().any(|line| line.contains("kept out")), "{:#?}", log.so_far());
}

/// What clients of another protocol send first, each to a server that never answers.
fn first_packets(world: &World, count: usize) -> Vec<Vec<Vec<u8>>> {
    let hostile = Hostile::new();
    let client = HostileKey::at(&world.path("forger.pem")).client(b"ftpq/0", hostile::transport(1024));
    let mut all = Vec::new();
    for _ in 0..count {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        sink.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let address: SocketAddr = sink.local_addr().unwrap();
        let place = hostile.run(async { Place::on(address.ip()) });
        let connecting = place.clone();
        let config = client.clone();
        hostile.run(async { drop(tokio::spawn(async move { connecting.connect(address, &config).await.map(drop) })) });
        let mut packets = Vec::new();
        let mut buffer = vec![0; 2048];
        while packets.is_empty() || sink.set_read_timeout(Some(Duration::from_millis(50))).is_ok() {
            let Ok(len) = sink.recv(&mut buffer) else { break };
            packets.push(buffer[..len].to_vec());
        }
        all.push(packets);
    }
    all
}

/// A world whose server is reached as by others: on this machine's own address. Nobody is penalised on loopback.
fn not_on_loopback(test: &str) -> Option<World> {
    let address: IpAddr = UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| {
            // Nothing is sent: it only chooses the way.
            socket.connect("192.0.2.1:9")?;
            Ok(socket.local_addr()?.ip())
        })
        .unwrap_or([127, 0, 0, 1].into());
    if address.is_loopback() || address.is_unspecified() {
        eprintln!("SKIPPED {test}: this machine has no address but loopback");
        return None;
    }
    let mut world = World::new();
    world.start_at((address, 0).into());
    Some(world)
}
