//! Networks as they should not be.

use std::{fs, time::Duration};

use super::{KIB, MIB, Torture};
use crate::support::{Relay, Weather, World, until};

/// To the server, another address every two seconds; to the client, nothing at all.
#[test]
fn t22_a_nat_that_forgets_the_port_every_two_seconds() {
    let mut torture = Torture::of("t22");
    let world = World::in_memory(512 * MIB);
    let every = Duration::from_secs(2);
    let weather = Weather { rebind_every: Some(every), rate: Some(4 * MIB), ..Weather::default() };
    for _ in torture.rounds(1, 20) {
        // At this rate it takes four times as long, at the least.
        let (up, down) = (torture.random.bytes(34 * MIB), torture.random.bytes(34 * MIB));
        fs::write(world.work().join("up"), &up).unwrap();
        fs::write(world.served().join("down"), &down).unwrap();
        let connections = || world.server().log.so_far().iter().filter(|line| line.contains("  CON  ")).count();
        let before = connections();
        // Each has a line of its own.
        let transfers = [["put", "-f", "up"], ["get", "-f", "down"]].map(|args| {
            let relay = Relay::in_weather(world.server().address, weather, torture.random.next());
            let program = world.home_program().args(args).env("FTPQ_SERVER", relay.address.to_string());
            (program.spawn(), relay)
        });
        for (transfer, relay) in transfers {
            let run = transfer.wait().ok();
            assert!(!run.stderr.contains("connecting again"), "{}", run.stderr);
            assert!(relay.rebinds() >= 3, "{} rebinds", relay.rebinds());
        }
        assert_eq!(connections() - before, 2);
        assert!(fs::read(world.served().join("up")).unwrap() == up);
        assert!(fs::read(world.work().join("down")).unwrap() == down);
    }
}

/// Every datagram may get lost, late, doubled or wrong, and in the middle the path gets narrower.
#[test]
fn t23_a_network_from_hell() {
    let mut torture = Torture::of("t23");
    let world = World::serving();
    let hell = Weather {
        loss: 0.1,
        duplicate: 0.05,
        reorder: 0.1,
        corrupt: 0.02,
        delay: Duration::from_millis(300),
        mtu: payload(1500),
        ..Weather::default()
    };
    for _ in torture.rounds(1, 5) {
        let size = if torture.long { MIB } else { 64 * KIB };
        let (up, down) = (torture.random.bytes(size), torture.random.bytes(size));
        fs::write(world.work().join("up"), &up).unwrap();
        fs::write(world.served().join("down"), &down).unwrap();
        let transfers = [["put", "-f", "up"], ["get", "-f", "down"]].map(|args| {
            let relay = Relay::in_weather(world.server().address, hell, torture.random.next());
            // Of the two packets of a first flight both must arrive, and those of the answer: 8 s are a few attempts.
            let program =
                world.home_program().args(args).args(["--timeout", "60"]).env("FTPQ_SERVER", relay.address.to_string());
            (program.spawn(), relay)
        });
        for (_, relay) in &transfers {
            let moved = || relay.bytes() + relay.bytes_back();
            until("some of it went through", || moved() > size / 8);
            relay.change(|weather| weather.mtu = payload(1280));
        }
        for (transfer, _) in transfers {
            transfer.wait_up_to(HELL).ok();
        }
        assert!(fs::read(world.served().join("up")).unwrap() == up);
        assert!(fs::read(world.work().join("down")).unwrap() == down);
    }
}

/// Whoever connects to loopback may meet a relay to a network there.
#[test]
fn t23_a_relay_on_loopback_that_carries_what_an_ethernet_does() {
    let mut torture = Torture::of("t23");
    let world = World::serving();
    let (up, seed) = (torture.random.bytes(MIB), torture.random.next());
    fs::write(world.work().join("up"), &up).unwrap();
    for (mtu, largest) in [(payload(1500), 1200..=1472), (usize::MAX, 60_000..=65_507)] {
        let relay = Relay::in_weather(world.server().address, Weather { mtu, ..Weather::default() }, seed);
        let program = world.home_program().args(["put", "-f", "up"]).env("FTPQ_SERVER", relay.address.to_string());
        program.spawn().wait().ok();
        // Nothing vanishes but what asks how much the link carries.
        assert!(relay.too_long().iter().all(|&len| len > 60_000), "{:?}", relay.too_long());
        assert!(largest.contains(&relay.largest()), "{mtu}: {}", relay.largest());
        assert!(fs::read(world.served().join("up")).unwrap() == up);
    }
}

/// What fits into an IPv4 packet of `mtu` bytes, behind its header and UDP's.
fn payload(mtu: usize) -> usize {
    mtu - 28
}

/// Nothing may take longer, even there: what is left of the line carries some 3 kB/s.
const HELL: Duration = Duration::from_secs(900);
