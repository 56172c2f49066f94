//! Processes that die in the middle, without a word.

use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::FileExt,
    path::PathBuf,
    thread,
    time::Duration,
};

use super::{GIB, KIB, MIB, Torture, oracle::Oracle};
use crate::support::{Process, Random, Relay, Running, World, as_soon_as};

/// What may have to be sent again after a cut: the extents in flight.
const IN_FLIGHT: u64 = 4 * 8 * MIB;

/// The put goes on by itself; what was acknowledged before is there at every moment.
#[test]
fn t01_kill_9_of_the_server_while_uploading() {
    let mut torture = Torture::of("t01");
    let mut world = World::in_memory(GIB);
    let address = world.server().address;
    let relay = Relay::to(address);
    let tree = world.work().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut oracle = Oracle::default();
    for round in torture.rounds(30, 1000) {
        let random = &mut torture.random;
        let send = |oracle: &mut Oracle, path: &str, bytes: Vec<u8>| {
            fs::write(world.work().join(path), &bytes).unwrap();
            oracle.sending(path, &bytes);
            bytes.len() as u64
        };
        let len = random.within(0..100 * KIB);
        send(&mut oracle, "before", random.bytes(len));
        world.ftpq(["put", "-f", "before"]).ok();
        oracle.acknowledged("before");
        // A file of more than may be in flight, cut late, shows that it is not sent from its start.
        let shows_resuming = round % 6 == 5;
        let large = if shows_resuming { 3 * IN_FLIGHT } else { random.within(12 * MIB..24 * MIB) };
        let mut size = send(&mut oracle, "tree/large", random.bytes(large));
        for small in 0..5 {
            let len = random.within(0..400 * KIB);
            size += send(&mut oracle, &format!("tree/small-{small}"), random.bytes(len));
        }

        let (sent, written) = (relay.bytes(), world.server().process.bytes_written());
        let put = world.home_program().args(["put", "-f", "-r", "-s", &relay.address.to_string(), "tree"]);
        let mut moment = Moment::of(size, random);
        if shows_resuming {
            moment.bytes = random.within(size * 4 / 5..size);
        }
        let mut put = put.spawn();
        moment.wait_for(&mut put, |_| world.server().process.bytes_written() - written);
        world.kill_server();
        oracle.check(&world.served());
        world.start_at(address);
        put.wait().ok();
        oracle.all_acknowledged();
        oracle.check(&world.served());
        oracle.check_listing(&world);
        let sent = relay.bytes() - sent;
        assert!(sent <= size + IN_FLIGHT + size / 10, "round {round}: {sent} bytes for {size}, cut at {moment:?}");
    }
}

/// Uploads in even rounds, downloads in odd ones.
#[test]
fn t02_kill_9_of_the_client_then_run_it_again() {
    let mut torture = Torture::of("t02");
    let world = World::in_memory(GIB);
    let mut sides = [Side::up(&world), Side::down(&world)];
    for round in torture.rounds(30, 1000) {
        let side = &mut sides[round as usize % 2];
        let (mut client, moment) = side.begin(&world, &mut torture.random);
        moment.wait_for(&mut client, side.moved);
        client.process.kill();
        side.oracle.check(&side.target);
        side.finish(&world);
    }
}

/// The same, with the server. Then, in half of the rounds, the source is another of the same size
/// and time: what was moved before must not become a part of it.
#[test]
fn t03_kill_9_of_both_and_a_changed_source() {
    let mut torture = Torture::of("t03");
    let mut world = World::in_memory(GIB);
    let address = world.server().address;
    let mut sides = [Side::up(&world), Side::down(&world)];
    for round in torture.rounds(30, 1000) {
        let side = &mut sides[round as usize % 2];
        let (mut client, moment) = side.begin(&world, &mut torture.random);
        moment.wait_for(&mut client, side.moved);
        if torture.random.happens(0.5) {
            world.kill_server();
            client.process.kill();
        } else {
            client.process.kill();
            world.kill_server();
        }
        side.oracle.check(&side.target);
        if torture.random.happens(0.5) {
            let file = File::options().write(true).open(&side.source).unwrap();
            let before = file.metadata().unwrap();
            let bytes = torture.random.bytes(before.len());
            file.write_all_at(&bytes, 0).unwrap();
            file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
            side.oracle.sending("file", &bytes);
        }
        world.start_at(address);
        side.finish(&world);
    }
}

/// When something shall happen to a transfer.
#[derive(Debug)]
struct Moment {
    /// After so many bytes,
    bytes: u64,
    /// and then so much later.
    later: Duration,
}

impl Moment {
    /// Anywhere in `size` bytes, or while all of them are flushed and published, or after that.
    fn of(size: u64, random: &mut Random) -> Self {
        if random.happens(0.5) {
            return Self { bytes: random.within(0..size), later: Duration::ZERO };
        }
        Self { bytes: size, later: Duration::from_micros(random.within(0..15_000)) }
    }

    /// Waits for it, or for the end of `client`.
    fn wait_for(&self, client: &mut Running, moved: impl Fn(&Process) -> u64) {
        as_soon_as("so much was moved", || moved(&client.process) >= self.bytes || client.process.has_ended());
        // Nothing is waited for here: it is the moment that is chosen.
        thread::sleep(self.later);
    }
}

/// One direction: a source, and the folder where it goes, with nothing else in it.
struct Side {
    args: [&'static str; 6],
    source: PathBuf,
    target: PathBuf,
    oracle: Oracle,
    /// What a client has moved.
    moved: fn(&Process) -> u64,
}

impl Side {
    fn up(world: &World) -> Self {
        let args = ["put", "-f", "-p", "up/file", "--to", "/up/file"];
        Self::new(args, world.work(), world.served(), "up", Process::bytes_read)
    }

    fn down(world: &World) -> Self {
        let args = ["get", "-f", "-p", "/down/file", "--to", "down/file"];
        Self::new(args, world.served(), world.work(), "down", Process::bytes_written)
    }

    fn new(args: [&'static str; 6], from: PathBuf, to: PathBuf, name: &str, moved: fn(&Process) -> u64) -> Self {
        let (source, target) = (from.join(name), to.join(name));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        Self { args, source: source.join("file"), target, oracle: Oracle::default(), moved }
    }

    /// Starts to send a new version, over the old one or where nothing is. Returns when
    /// something shall happen.
    fn begin(&mut self, world: &World, random: &mut Random) -> (Running, Moment) {
        let len = random.within(12 * MIB..32 * MIB);
        let bytes = random.bytes(len);
        fs::write(&self.source, &bytes).unwrap();
        if random.happens(0.5) {
            let _ = fs::remove_file(self.target.join("file"));
            self.oracle.removed("file");
        }
        self.oracle.sending("file", &bytes);
        let client = world.client().args(self.args).spawn();
        (client, Moment::of(len, random))
    }

    /// Runs it again, to the end.
    fn finish(&mut self, world: &World) {
        world.client().args(self.args).run().ok();
        self.oracle.acknowledged("file");
        self.oracle.check(&self.target);
    }
}
