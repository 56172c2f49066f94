//! Files that change while others read and write them: whoever gets one gets one version of it.

use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use super::{KIB, MIB, Torture, oracle::Oracle};
use crate::support::{Random, Relay, Weather, World, as_soon_as};

/// In place, by all means, with the time put back, in the middle of both directions.
#[test]
fn t10_a_source_that_changes_under_the_transfer() {
    let mut torture = Torture::of("t10");
    let world = World::in_memory(256 * MIB);
    let slow = Weather { rate: Some(8 * MIB), ..Weather::default() };
    let relay = Relay::in_weather(world.server().address, slow, torture.seed);
    let address = relay.address.to_string();
    fs::create_dir(world.work().join("down")).unwrap();
    fs::create_dir(world.served().join("up")).unwrap();
    let mut changed = 0;
    for round in torture.rounds(12, 600) {
        let random = &mut torture.random;
        let up = round % 2 == 0;
        let (source, target) = match up {
            true => (world.work().join("source"), world.served().join("up")),
            false => (world.served().join("source"), world.work().join("down")),
        };
        let args = match up {
            true => ["put", "-s", &address, "source", "--to", "/up/file"],
            false => ["get", "-s", &address, "/source", "--to", "down/file"],
        };
        let mut oracle = Oracle::default();
        let first = random.bytes(16 * MIB);
        fs::write(&source, &first).unwrap();
        oracle.sending("file", &first);

        // The line is too slow for the end to come before the change.
        relay.change(|weather| *weather = slow);
        let before = world.server().process.bytes_read();
        let moment = random.within(KIB..4 * MIB);
        let transfer = world.home_program().args(args).spawn();
        as_soon_as("the source is being read", || match up {
            true => transfer.process.bytes_read() >= moment,
            false => world.server().process.bytes_read() - before >= moment,
        });
        oracle.sending("file", &change(&source, round / 2, &first, random));
        relay.change(|weather| weather.rate = None);
        let run = transfer.wait();
        if run.code == 0 {
            oracle.acknowledged_by_one("file");
        } else {
            run.fails(1, "changed");
            changed += 1;
            oracle.removed("file");
        }
        oracle.check(&target);
        let _ = fs::remove_file(target.join("file"));
    }
    assert!(changed > 0, "no change was noticed");
}

/// Changes `file`, which holds `old`, and returns what it holds then. Its time stays.
fn change(file: &Path, how: u64, old: &[u8], random: &mut Random) -> Vec<u8> {
    let file = File::options().write(true).open(file).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let new = match how % 3 {
        0 => old[..random.within(0..old.len() as u64) as usize].to_vec(),
        1 => [old, &random.bytes(MIB)].concat(),
        _ => random.bytes(old.len() as u64),
    };
    match how % 3 {
        0 => file.set_len(new.len() as u64).unwrap(),
        1 => file.write_all_at(&new[old.len()..], old.len() as u64).unwrap(),
        _ => file.write_all_at(&new, 0).unwrap(),
    }
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    new
}

/// Each writer is a process. The last to be published wins, and nobody who reads sees two at once.
#[test]
fn t11_64_writers_of_one_path() {
    let mut torture = Torture::of("t11");
    let world = World::in_memory(512 * MIB);
    fs::create_dir(world.work().join("down")).unwrap();
    // All of them connect at once.
    let patient = || world.client().env("FTPQ_TIMEOUT", "60");
    let (mut served, mut fetched) = (Oracle::default(), Oracle::default());
    for round in torture.rounds(1, 50) {
        let mut names = Vec::new();
        for number in 0..64 {
            let (name, random) = (format!("version-{number}"), &mut torture.random);
            let len = if number % 8 == 0 { 20 * MIB } else { random.within(0..600 * KIB) };
            let bytes = random.bytes(len);
            fs::write(world.work().join(&name), &bytes).unwrap();
            served.sending("file", &bytes);
            fetched.sending("file", &bytes);
            names.push(name);
        }
        world.ftpq(["put", "-f", "version-0", "--to", "/file"]).ok();
        let mut puts: Vec<_> =
            names.iter().map(|name| patient().args(["put", "-f", name, "--to", "/file"]).spawn()).collect();
        let mut seen = 0;
        while !puts.iter_mut().all(|put| put.process.has_ended()) {
            let run = patient().args(["get", "-f", "/file", "--to", "down/file"]).run();
            if run.code != 0 {
                run.fails(1, "changed");
                continue;
            }
            seen += 1;
            fetched.check(&world.work().join("down"));
        }
        eprintln!("round {round}: {seen} whole versions were seen meanwhile");
        for put in puts {
            put.wait().ok();
        }
        served.check(&world.served());
        assert_eq!(world.ftpq(["ls", "-a"]).ok().lines(), ["file"]);
        world.ftpq(["rm", "file"]).ok();
    }
}

/// Where nothing may be replaced, one writer wins, and its version stands.
#[test]
fn t11_64_writers_of_one_new_path() {
    let mut torture = Torture::of("t11");
    let world = World::in_memory(256 * MIB);
    // The server has looked for the file, and then waits for its bytes: all that while others begin.
    let far = Weather { delay: Duration::from_millis(250), ..Weather::default() };
    let relay = Relay::in_weather(world.server().address, far, torture.seed);
    for _ in torture.rounds(1, 50) {
        let mut puts = Vec::new();
        for number in 0..64 {
            let (name, len) = (format!("version-{number}"), torture.random.within(257 * KIB..600 * KIB));
            fs::write(world.work().join(&name), torture.random.bytes(len)).unwrap();
            let put = world.client().env("FTPQ_TIMEOUT", "60").args(["put", &name, "--to", "/file"]);
            puts.push((put.env("FTPQ_SERVER", relay.address.to_string()).spawn(), name));
        }
        let mut winners = Vec::new();
        for (put, name) in puts {
            let run = put.wait();
            if run.code == 0 {
                winners.push(name);
            } else {
                run.fails(1, "exists already");
            }
        }
        let [winner] = winners.as_slice() else { panic!("{winners:?} won") };
        assert!(fs::read(world.served().join("file")).unwrap() == fs::read(world.work().join(winner)).unwrap());
        world.ftpq(["rm", "file"]).ok();
    }
}
