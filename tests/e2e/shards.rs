//! Several threads, each at a port of its own: what `ftpq serve --shards` shows, gives up and says, and clients that
//! use all of them.

use std::{collections::BTreeSet, fs, net::UdpSocket};

use rustix::process::Signal;

use crate::support::{World, holds, pattern, until};

#[test]
fn a_client_with_two_connections_uses_both_ports() {
    let mut world = World::new();
    world.start_program(world.server_program().args(["--shards", "2", "-v"]));
    let screen = &world.server().screen;
    let line = screen.lines().find_map(|line| line.trim().strip_prefix("more ports")).expect("another port");
    let port: u16 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert_ne!(port, world.server().address.port());
    const LEN: usize = 40 << 20;
    fs::write(world.work().join("file"), pattern(LEN)).unwrap();
    for (command, part) in [("put", "  WRITE "), ("get", "  READ ")] {
        let args = [command, "file", "-f", "--connections", "2", "-vv"];
        let run = world.client().args(args).env("NO_COLOR", "1").run().ok();
        assert!(!run.stderr.contains("no connection to another port"), "{}", run.stderr);
        // Both of its connections have parts of the file.
        until("both have parts", || {
            let log = world.server().log.so_far();
            let sources: BTreeSet<_> = log.iter().filter(|line| line.contains(part)).map(|line| source(line)).collect();
            sources.len() == 2
        });
    }
    holds(world.served().join("file"), LEN);
    holds(world.work().join("file"), LEN);
    assert_eq!(world.stop_server(Signal::TERM), 0);
}

/// From where a line of the log says that a command came.
fn source(line: &str) -> &str {
    line.split_whitespace().find(|word| word.starts_with("tester@")).expect("who it was")
}

/// A thread that was there before would keep what the others gave up.
#[test]
fn every_thread_is_confined() {
    let world = World::new();
    let server = world.server_program().args(["--shards", "3"]).serve();
    assert!(!server.screen.contains("more than one thread"), "{}", server.screen);
    if server.screen.contains("sandbox      none") {
        eprintln!("SKIPPED every_thread_is_confined: {}", server.screen);
        return;
    }
    let mut threads = Vec::new();
    // A thread takes its name when it first runs, and the screen may be there before.
    until("both threads have their name", || {
        threads = server.process.threads();
        threads.iter().filter(|status| status.contains("Name:\tftpq shard\n")).count() == 2
    });
    assert!(threads.iter().all(|status| status.contains("NoNewPrivs:\t1\n")), "{threads:?}");
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
    // Whoever has this port has it to the end.
    let world = World::new();
    let (first, _taken) = (0..100)
        .find_map(|_| {
            let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
            let first = taken.local_addr().unwrap().port().checked_sub(1)?;
            UdpSocket::bind(("127.0.0.1", first)).ok().map(|_| (first, taken))
        })
        .unwrap();
    let address = format!("127.0.0.1:{first}");
    let serve = world.home_program().arg("serve").arg(world.served()).args(["--listen", &address, "--shards", "2"]);
    serve.run().fails(1, "is in use");
}
