//! Ctrl-C in the middle.

use std::fs;

use rustix::process::Signal;

use crate::support::{World, all_names, pattern, solid, until, visible_names};

const BIG: u64 = 600 << 20;

/// With so much on the way, some extents are through.
const ENOUGH: u64 = 80 << 20;

#[test]
fn ctrl_c_during_an_upload_leaves_nothing_to_be_seen_and_the_next_run_goes_on() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::serving();
        solid(&world.work().join("big"), BIG);
        fs::write(world.served().join("old"), "old").unwrap();
        let put = world.client().args(["put", "-f", "big", "--to", "old"]).spawn();
        until("the upload is under way", || world.server().process.bytes_written() > ENOUGH);
        put.signal(signal);
        let run = put.wait().ends(code);
        assert_eq!(run.stderr.contains("ftpq: interrupted"), code == 130, "{}", run.stderr);
        assert_eq!(world.ftpq(["ls", "-a"]).ok().lines(), ["old"]);
        assert_eq!(fs::read(world.served().join("old")).unwrap(), b"old");
        let run = world.ftpq(["put", "-f", "big", "--to", "old"]).ok();
        assert!(run.stderr.contains("kept from before"), "{}", run.stderr);
        assert_eq!(all_names(&world.served()), ["old"]);
        assert!(fs::read(world.served().join("old")).unwrap() == fs::read(world.work().join("big")).unwrap());
    }
}

/// As by itself: it ends cleanly, and the next run goes on.
#[test]
fn ctrl_c_during_a_batch_is_as_without_one() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::serving();
        solid(&world.work().join("big"), BIG);
        fs::write(world.work().join("batch"), "pwd\nput big\n").unwrap();
        let put = world.client().args(["shell", "-b", "batch"]).spawn();
        until("the upload is under way", || world.server().process.bytes_written() > ENOUGH);
        put.signal(signal);
        let run = put.wait().ends(code);
        assert_eq!(run.stderr.contains("ftpq: interrupted in line 2: "), code == 130, "{}", run.stderr);
        let run = world.ftpq(["shell", "-b", "batch"]).ok();
        assert!(run.stderr.contains("kept from before"), "{}", run.stderr);
    }
}

/// What is said of it is true.
#[test]
fn ctrl_c_says_that_it_goes_on_only_where_it_does() {
    let world = World::serving();
    let put = world.client().args(["put", "-", "--to", "big"]).input(vec![7; 256 << 20]).spawn();
    until("the upload is under way", || world.server().process.bytes_written() > 1 << 20);
    put.signal(Signal::INT);
    let run = put.wait();
    assert!(run.stderr.contains("ftpq: interrupted: ") && !run.stderr.contains("goes on"), "{}", run.stderr);
}

#[test]
fn ctrl_c_during_a_download_leaves_nothing_to_be_seen_and_the_next_run_goes_on() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::serving();
        solid(&world.served().join("big"), BIG);
        let get = world.client().args(["get", "big"]).spawn();
        until("the download is under way", || get.process.bytes_written() > ENOUGH);
        get.signal(signal);
        get.wait().ends(code);
        assert!(visible_names(&world.work()).is_empty(), "{:?}", all_names(&world.work()));
        let run = world.ftpq(["get", "big"]).ok();
        assert!(run.stderr.contains("kept from before"), "{}", run.stderr);
        assert_eq!(all_names(&world.work()), ["big"]);
        fs::remove_file(world.work().join("big")).unwrap();
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

/// A client that was killed leaves nothing to be seen either; `--no-resume` wants nothing of it.
#[test]
fn a_client_that_is_killed_leaves_nothing_half() {
    let world = World::serving();
    solid(&world.work().join("up"), BIG);
    solid(&world.served().join("down"), BIG);
    let get = world.client().args(["get", "down"]).spawn();
    until("the download is under way", || get.process.bytes_written() > ENOUGH);
    get.signal(Signal::KILL);
    assert_eq!(get.wait().code, -9);
    assert_eq!(visible_names(&world.work()), ["up"]);
    let run = world.ftpq(["get", "--no-resume", "down"]).ok();
    assert!(!run.stderr.contains("kept from before"), "{}", run.stderr);
    assert_eq!(all_names(&world.work()), ["down", "up"]);
    let put = world.client().args(["put", "up"]).spawn();
    until("the upload is under way", || world.server().process.bytes_written() > ENOUGH);
    put.signal(Signal::KILL);
    assert_eq!(put.wait().code, -9);
    assert_eq!(visible_names(&world.served()), ["down"]);
    let run = world.ftpq(["put", "--no-resume", "up"]).ok();
    assert!(!run.stderr.contains("kept from before"), "{}", run.stderr);
    assert_eq!(all_names(&world.served()), ["down", "up"]);
}
