//! A disk that is full, and then is not.

use std::{collections::BTreeSet, fs, thread};

use super::{KIB, MIB, Torture, oracle::Oracle};
use crate::support::{FullDisk, World, all_names};

/// Five clients at a time. Whoever finds no room is told so in one line; nobody else notices.
#[test]
fn t09_a_full_disk_then_a_freed_one() {
    let mut torture = Torture::of("t09");
    let mut world = World::new();
    let Some(_disk) = FullDisk::mount("t09_a_full_disk_then_a_freed_one", &world.served(), 8 * MIB) else { return };
    world.start();
    for _ in torture.rounds(1, 50) {
        let mut oracle = Oracle::default();
        let names: Vec<_> = (0..100).map(|number| format!("file-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            // Those of more than a block are staged otherwise.
            let bytes = torture.random.bytes(if number % 4 == 0 { 300 * KIB } else { 200 * KIB });
            fs::write(world.work().join(name), &bytes).unwrap();
            oracle.sending(name, &bytes);
        }
        let arrived: BTreeSet<_> = thread::scope(|scope| {
            let (world, names) = (&world, &names);
            let clients =
                names.chunks(20).map(|names| scope.spawn(move || names.iter().filter(|name| fits(world, name))));
            let clients: Vec<_> = clients.collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        assert!((10..100).contains(&arrived.len()), "{} files of 100 fit", arrived.len());
        for name in &names {
            match arrived.contains(name) {
                true => oracle.acknowledged(name),
                false => oracle.removed(name),
            }
        }
        oracle.check(&world.served());
        oracle.check_listing(&world);
        // Nothing that is not visible takes room either.
        assert_eq!(all_names(&world.served()).len(), arrived.len());

        let name = arrived.first().expect("some fit");
        world.ftpq(["get", name, "--to", "back"]).ok();
        assert_eq!(fs::read(world.work().join("back")).unwrap(), fs::read(world.work().join(name)).unwrap());
        fs::remove_file(world.work().join("back")).unwrap();

        let all: Vec<_> = arrived.iter().map(|name| name.as_str()).collect();
        world.client().arg("rm").args(&all).run().ok();
        assert!(all_names(&world.served()).is_empty());
        for name in names.iter().filter(|name| !arrived.contains(name)).take(10) {
            assert!(fits(&world, name), "{name} finds no room on an empty disk");
            world.ftpq(["get", name, "--to", "back"]).ok();
            assert_eq!(fs::read(world.work().join("back")).unwrap(), fs::read(world.work().join(name)).unwrap());
            fs::remove_file(world.work().join("back")).unwrap();
            world.ftpq(["rm", name]).ok();
        }
    }
}

/// Uploads `name`, if there is room.
fn fits(world: &World, name: &str) -> bool {
    let run = world.ftpq(["put", name]);
    if run.code == 0 {
        return true;
    }
    run.fails(1, "no space left");
    false
}
