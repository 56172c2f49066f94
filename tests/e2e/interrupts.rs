//! Ctrl-C in the middle.

use std::fs;

use rustix::process::Signal;

use crate::support::{World, all_names, pattern, sparse, until};

const BIG: u64 = 2 << 30;

#[test]
fn ctrl_c_during_an_upload_leaves_nothing_on_the_server() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::serving();
        sparse(&world.work().join("big"), BIG);
        fs::write(world.served().join("old"), "old").unwrap();
        let put = world.client().args(["put", "-f", "big", "--to", "old"]).spawn();
        until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
        put.signal(signal);
        let run = put.wait().ends(code);
        assert_eq!(run.stderr.contains("ftpq: interrupted"), code == 130, "{}", run.stderr);
        // The server has noticed, and not by a timeout.
        let line = world.server().log.wait_for("UPLD /old");
        assert!(line.contains("cancelled"), "{line}");
        assert_eq!(all_names(&world.served()), ["old"]);
        assert_eq!(fs::read(world.served().join("old")).unwrap(), b"old");
        world.ftpq(["ls"]).ok();
    }
}

#[test]
fn ctrl_c_during_a_download_leaves_nothing_here() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::serving();
        sparse(&world.served().join("big"), BIG);
        let get = world.client().args(["get", "big"]).spawn();
        until("the download is under way", || get.process.bytes_written() > 16 << 20);
        get.signal(signal);
        get.wait().ends(code);
        assert!(all_names(&world.work()).is_empty(), "{:?}", all_names(&world.work()));
        let line = world.server().log.wait_for("DWLD /big");
        assert!(line.contains("cancelled"), "{line}");
    }
}

/// What arrived before stays, whole, and running it again goes on from there.
#[test]
fn ctrl_c_during_a_tree_leaves_only_whole_files() {
    let world = World::serving();
    let local = world.work().join("t");
    fs::create_dir(&local).unwrap();
    for index in 0..20_000 {
        fs::write(local.join(index.to_string()), pattern(100 + index % 100)).unwrap();
    }
    let put = world.client().args(["put", "-r", "t"]).spawn();
    let served = world.served().join("t");
    until("some files arrived", || served.is_dir() && all_names(&served).len() > 50);
    put.signal(Signal::INT);
    put.wait().ends(130);
    let (arrived, names) = (world.served().join("t"), all_names(&served));
    assert!(names.len() < 20_000, "it was over before it was interrupted");
    for name in &names {
        let index: usize = name.parse().expect("nothing but the files");
        assert!(fs::read(arrived.join(name)).unwrap() == pattern(100 + index % 100), "{name} is not whole");
    }
}

/// A client that was killed leaves nothing either.
#[test]
fn a_client_that_is_killed_leaves_nothing_half() {
    let world = World::serving();
    sparse(&world.work().join("up"), BIG);
    sparse(&world.served().join("down"), BIG);
    let get = world.client().args(["get", "down"]).spawn();
    until("the download is under way", || get.process.bytes_written() > 16 << 20);
    get.signal(Signal::KILL);
    assert_eq!(get.wait().code, -9);
    assert_eq!(all_names(&world.work()), ["up"]);
    let put = world.client().args(["put", "up"]).spawn();
    until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
    put.signal(Signal::KILL);
    assert_eq!(put.wait().code, -9);
    assert_eq!(all_names(&world.served()), ["down"]);
    world.server().log.wait_for("UPLD /up");
    assert_eq!(all_names(&world.served()), ["down"]);
}
