//! Servers that stop, or die, under a hundred transfers, and come back.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;

use super::{GIB, MIB, Torture, oracle::Oracle};
use crate::support::{Random, Running, World, as_soon_as, until};

/// Ten clients with ten files each, three deaths: nobody has to do anything.
#[test]
fn t04_a_server_restart_under_100_transfers() {
    let mut torture = Torture::of("t04");
    let mut world = World::in_memory(GIB);
    let mut oracle = Oracle::default();
    for _ in torture.rounds(1, 100) {
        let mut puts = Vec::new();
        for tree in 0..10 {
            let tree = format!("up-{tree}");
            write_tree(&world.work(), &tree, 10, &mut torture.random, &mut oracle);
            puts.push(world.client().args(["put", "-f", "-r", &tree]).spawn());
        }
        for _ in 0..3 {
            let moment = torture.random.within(0..50 * MIB);
            as_soon_as("the server has written so much", || {
                world.server().process.bytes_written() >= moment || puts.iter_mut().all(|put| put.process.has_ended())
            });
            let address = world.server().address;
            world.kill_server();
            oracle.check(&world.served());
            world.start_at(address);
        }
        for put in puts {
            put.wait().ok();
        }
        oracle.all_acknowledged();
        oracle.check(&world.served());
        oracle.check_listing(&world);
    }
}

/// What runs is finished, what would begin is sent away and comes again.
#[test]
fn t05_a_graceful_drain_under_load() {
    let mut torture = Torture::of("t05");
    let mut world = World::in_memory(GIB);
    let (mut served, mut fetched) = (Oracle::default(), Oracle::default());
    let into = world.work().join("into");
    fs::create_dir(&into).unwrap();
    for _ in torture.rounds(1, 100) {
        let connections =
            |world: &World| world.server().log.so_far().iter().filter(|line| line.contains("  CON  ")).count();
        let before = connections(&world);
        let mut transfers: Vec<Running> = Vec::new();
        // Ten clients, each with three transfers that run and others that wait.
        for number in 0..5 {
            let (up, down) = (format!("up-{number}"), format!("down-{number}"));
            write_tree(&world.work(), &up, 20, &mut torture.random, &mut served);
            // What is fetched stands on the server, too.
            let mut same = torture.random.clone();
            write_tree(&world.served(), &down, 20, &mut torture.random, &mut served);
            write_tree(&world.served(), &down, 20, &mut same, &mut fetched);
            transfers.push(world.client().args(["put", "-f", "-r", "-j", "3", &up]).spawn());
            transfers.push(world.client().args(["get", "-f", "-r", "-j", "3", &down, "--to", "into/"]).spawn());
        }
        // A server that stops takes nobody new.
        until("all are connected", || connections(&world) == before + transfers.len());
        let moment = world.server().process.bytes_written() + torture.random.within(0..20 * MIB);
        as_soon_as("the server has written so much", || {
            world.server().process.bytes_written() >= moment || transfers.iter_mut().all(|one| one.process.has_ended())
        });
        let address = world.server().address;
        let log = world.server().log.clone();
        world.signal_server(Signal::TERM);
        assert_eq!(world.server_ends_within(BOUND), 0);
        served.check(&world.served());
        fetched.check(&into);
        // Those that had begun were finished.
        for line in log.so_far().iter().filter(|line| line.contains("  UPLD /") || line.contains("  DWLD /")) {
            assert!(line.ends_with("  ok") || line.contains("  unavailable: the server is stopping"), "{line}");
        }
        world.start_at(address);
        for transfer in transfers {
            transfer.wait().ok();
        }
        served.all_acknowledged();
        fetched.all_acknowledged();
        served.check(&world.served());
        fetched.check(&into);
        served.check_listing(&world);
    }
}

/// So many files of all sizes up to a few megabytes, about to be sent.
fn write_tree(root: &Path, tree: &str, files: u64, random: &mut Random, oracle: &mut Oracle) {
    fs::create_dir_all(root.join(tree)).unwrap();
    for file in 0..files {
        let len = match file {
            // One goes by extents.
            1 => random.within(17 * MIB..20 * MIB),
            _ if file % 3 == 0 => random.within(0..300_000),
            _ => random.within(MIB..6 * MIB),
        };
        let (path, bytes) = (format!("{tree}/{file}"), random.bytes(len));
        fs::write(root.join(&path), &bytes).unwrap();
        oracle.sending(&path, &bytes);
    }
}

/// A server that is told to stop has this long for what runs, whatever that is.
const BOUND: Duration = Duration::from_secs(30);
