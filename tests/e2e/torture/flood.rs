//! Floods of first packets with forged addresses: what they cost the server, those who use it, and those in
//! whose name they come.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{GIB, MIB, Torture};
use crate::support::{Flood, Host, Hosts, INITIAL_LEN, Initial, Program, Sources, Traffic, World, solid, until};

/// From everywhere at once, while two transfers run. Nobody is there to hear an answer.
#[test]
fn t19_a_flood_of_first_packets() {
    let mut torture = Torture::of("t19");
    let Some(hosts) = Hosts::new("t19_a_flood_of_first_packets", 2) else { return };
    let [honest, liar] = hosts.others.as_slice() else { unreachable!("there are two") };
    // So that they take a while.
    hosts.limit(honest, 100);
    for what in [Initial::Hello, Initial::Noise, Initial::Farewell] {
        let mut world = World::roomy(256 * MIB);
        world.start_on(&hosts.server);
        let (up, down) = (torture.random.bytes(20 * MIB), torture.random.bytes(20 * MIB));
        fs::write(world.work().join("up"), &up).unwrap();
        fs::write(world.served().join("down"), &down).unwrap();
        let before = hosts.traffic(honest);
        let transfers = [["put", "up"], ["get", "down"]].map(|args| client(&world, honest, &args).spawn());
        until("both are on their way", || {
            let traffic = hosts.traffic(honest).since(before);
            traffic.bytes_in.min(traffic.bytes_out) > MIB
        });
        let siege = Siege::begin(&hosts, liar, &world, what, torture.random.next());
        for transfer in transfers {
            let run = transfer.wait().ok();
            assert!(!run.stderr.contains("connecting again"), "{}", run.stderr);
        }
        assert!(fs::read(world.served().join("up")).unwrap() == up);
        assert!(fs::read(world.work().join("down")).unwrap() == down);
        gets_in(&world, honest);
        siege.end(world, if torture.long { 100_000 } else { 5000 });
    }
}

/// What comes in somebody's name is not held against them, however much it is.
#[test]
fn t19_nobody_is_kept_out_for_what_others_forged() {
    let mut torture = Torture::of("t19");
    let Some(hosts) = Hosts::new("t19_nobody_is_kept_out_for_what_others_forged", 2) else { return };
    let [honest, liar] = hosts.others.as_slice() else { unreachable!("there are two") };
    for what in [Initial::Hello, Initial::Noise, Initial::Farewell] {
        let mut world = World::new();
        world.start_on(&hosts.server);
        let (port, victim) = (world.server().address.port(), Sources::One(honest.address));
        let flood = Flood::start(liar, port, what, victim, RATE, torture.random.next());
        until("there were many", || flood.sent() >= 5000);
        gets_in(&world, honest);
        flood.stop();
        let log = world.server().log.clone();
        assert_eq!(world.stop_server(Signal::TERM), 0);
        assert!(!log.so_far().iter().any(|line| line.contains("kept out")), "{:#?}", log.so_far());
    }
}

/// Its network has to wait, whoever else is there; other networks have not.
#[test]
fn t19_who_is_refused_again_and_again_is_kept_out() {
    let torture = Torture::of("t19");
    let Some(hosts) = Hosts::new("t19_who_is_refused_again_and_again_is_kept_out", 2) else { return };
    let [bad, good] = hosts.others.as_slice() else { unreachable!("there are two") };
    let mut world = World::new();
    world.start_on(&hosts.server);
    let mut refusals = 0;
    until("the network is kept out", || {
        let run = world.client_on(bad, &world.stranger()).args(["ls", "--accept-new"]).run();
        refusals += u32::from(run.code == 4);
        run.code != 4 && run.fails(5, "takes no connections from here at the moment").contains("10.19.1.1")
    });
    // Twice is forgiven.
    assert!(refusals >= 3, "after {refusals}");
    let line = world.server().log.wait_for("  kept out for ");
    assert!(line.contains(&bad.address.to_string()), "{line}");
    client(&world, good, &["ls"]).run().ok();
    if torture.long {
        client(&world, bad, &["ls"]).run().fails(5, "takes no connections from here at the moment");
        until("that is over", || client(&world, bad, &["ls"]).run().code == 0);
    }
}

/// Over a line of a gigabit a second: the best of three runs without a flood beside the best of three with it.
#[test]
fn t19_a_flood_costs_a_transfer_little_speed() {
    let mut torture = Torture::of("t19");
    if !torture.long {
        return;
    }
    let Some(hosts) = Hosts::new("t19_a_flood_costs_a_transfer_little_speed", 2) else { return };
    let [honest, liar] = hosts.others.as_slice() else { unreachable!("there are two") };
    hosts.limit(honest, 1000);
    let mut world = World::roomy(2 * GIB);
    world.start_on(&hosts.server);
    solid(&world.work().join("up"), GIB);
    solid(&world.served().join("down"), GIB);
    for args in [["put", "-f", "up"], ["get", "-f", "down"]] {
        let speed = || {
            let begin = Instant::now();
            client(&world, honest, &args).run().ok();
            (GIB / 1_000_000) as f64 / begin.elapsed().as_secs_f64()
        };
        let (mut quiet, mut flooded, mut sent) = (0.0_f64, 0.0_f64, 0);
        for _ in 0..3 {
            let without = speed();
            let (port, seed) = (world.server().address.port(), torture.random.next());
            let flood = Flood::start(liar, port, Initial::Hello, Sources::Many, RATE, seed);
            let with = speed();
            sent += flood.stop();
            eprintln!("{}: {without:.0} MB/s, in a flood of {RATE} packets a second {with:.0} MB/s", args[0]);
            (quiet, flooded) = (quiet.max(without), flooded.max(with));
        }
        assert!(sent >= 100_000, "only {sent} packets");
        assert!(flooded >= 0.8 * quiet, "{}: {flooded:.0} MB/s are too few of {quiet:.0}", args[0]);
    }
    assert_eq!(world.stop_server(Signal::TERM), 0);
}

/// Packets a second: 12 MB/s, two and a half times what a server answers.
const RATE: u32 = 10_000;

/// So many may come in at a time before the others have to prove their address, for so long.
const LET_IN: u64 = 64;
const PERIOD: Duration = Duration::from_secs(10);

/// Bytes of the packet that asks for that proof, at the most.
const RETRY_LEN: u64 = 128;

/// For the server.
const MEMORY_MIB: u64 = 64;

/// A flood from everywhere, and what was counted before it.
struct Siege<'a> {
    hosts: &'a Hosts,
    liar: &'a Host,
    what: Initial,
    flood: Flood,
    before: Traffic,
    begin: Instant,
}

impl<'a> Siege<'a> {
    fn begin(hosts: &'a Hosts, liar: &'a Host, world: &World, what: Initial, seed: u64) -> Self {
        let before = hosts.traffic(liar);
        let flood = Flood::start(liar, world.server().address.port(), what, Sources::Many, RATE, seed);
        Self { hosts, liar, what, flood, before, begin: Instant::now() }
    }

    /// Ends it after so many packets, and the server.
    fn end(self, mut world: World, least: u64) {
        until("there were as many as wanted", || self.flood.sent() >= least);
        let sent = self.flood.stop();
        let memory = world.server().process.peak_memory_kib().expect("it is running") / 1024;
        let log = world.server().log.clone();
        assert_eq!(world.stop_server(Signal::TERM), 0);
        // Those that nothing was heard of any more are among them: the server has stopped.
        let let_in = log.so_far().iter().filter(|line| line.contains("  handshake failed: ")).count() as u64;
        let Traffic { bytes_in, bytes_out, .. } = self.hosts.traffic(self.liar).since(self.before);
        eprintln!(
            "{:?}: {sent} packets, {bytes_in} bytes in, {bytes_out} bytes out, {let_in} let in, {memory} MiB",
            self.what
        );
        let periods = 1 + self.begin.elapsed().as_secs() / PERIOD.as_secs();
        assert!((LET_IN..=LET_IN * periods).contains(&let_in), "{let_in} were let in");
        // Some may have been too fast for the link.
        assert!(bytes_in >= sent * INITIAL_LEN as u64 / 10 * 9);
        let owed = let_in * 3 * INITIAL_LEN as u64 + sent * RETRY_LEN;
        assert!(bytes_out <= owed.min(3 * bytes_in), "{bytes_out} bytes were sent to those who are not there");
        assert!(memory < MEMORY_MIB, "the server needed {memory} MiB");
    }
}

/// The client of the world's user, on `host`.
fn client(world: &World, host: &Host, args: &[&str]) -> Program {
    world.client_on(host, &world.home()).args(args)
}

/// Sooner or later: in a flood, packets of newcomers get lost.
#[track_caller]
fn gets_in(world: &World, host: &Host) {
    until("a newcomer gets in", || client(world, host, &["ls"]).run().code == 0);
}
