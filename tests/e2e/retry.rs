//! The server goes away in the middle and comes back: the user need do nothing.

use std::fs;

use crate::support::{Relay, World, assert_same_tree, holds, pattern, solid, until, visible_names};

/// Enough small files that a restart meets many of them half-way.
fn many_files(root: &std::path::Path) {
    for folder in 0..20 {
        let folder = root.join(format!("d{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..150 {
            fs::write(folder.join(format!("f{file}")), pattern(file * 37)).unwrap();
        }
    }
}

#[test]
fn an_upload_goes_on_by_itself_when_the_server_comes_back() {
    let mut world = World::serving();
    many_files(&world.work().join("tree"));
    fs::write(world.work().join("tree/large"), pattern(40_000_000)).unwrap();
    let put = world.client().args(["put", "-r", "tree"]).spawn();
    for _ in 0..2 {
        world.server().log.wait_for("UPLD /tree/");
        world.crash_and_restart();
    }
    let run = put.wait().ok();
    assert!(run.stderr.contains("put 3001 files"), "{}", run.stderr);
    assert_same_tree(&world.work().join("tree"), &world.served().join("tree"));
}

#[test]
fn a_download_goes_on_by_itself_when_the_server_comes_back() {
    let mut world = World::serving();
    many_files(&world.served().join("tree"));
    fs::write(world.served().join("tree/large"), pattern(40_000_000)).unwrap();
    let get = world.client().args(["get", "-r", "tree"]).spawn();
    for _ in 0..2 {
        world.server().log.wait_for("DWLD /tree/");
        world.crash_and_restart();
    }
    get.wait().ok();
    assert_same_tree(&world.served().join("tree"), &world.work().join("tree"));
}

/// The reset that a restarted server sends is what makes this quick: without it the client would
/// wait for its idle timeout, and the whole test for its guard.
#[test]
fn one_large_file_goes_on_when_the_server_comes_back() {
    let mut world = World::serving();
    solid(&world.work().join("large"), 400 << 20);
    let put = world.client().args(["put", "large"]).spawn();
    until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
    world.crash_and_restart();
    let run = put.wait().ok();
    assert!(run.stderr.contains("the other side was restarted: connecting again"), "{}", run.stderr);
    assert_eq!(fs::metadata(world.served().join("large")).unwrap().len(), 400 << 20);
}

#[test]
fn a_clean_restart_under_a_transfer_is_no_error_either() {
    let mut world = World::serving();
    many_files(&world.work().join("tree"));
    let put = world.client().args(["put", "-r", "tree"]).spawn();
    world.server().log.wait_for("UPLD /tree/");
    world.restart();
    put.wait().ok();
    assert_same_tree(&world.work().join("tree"), &world.served().join("tree"));
}

/// Nobody resets anything here: the client must notice the silence, and take its connection along.
#[test]
fn a_path_that_goes_dead_is_left_for_another() {
    let world = World::serving();
    let relay = Relay::to(world.server().address);
    let size = 300 << 20;
    solid(&world.work().join("large"), size);
    let address = relay.address.to_string();
    let put = world.home_program().args(["put", "-s", &address, "large"]).spawn();
    until("the upload is under way", || relay.bytes() > 16 << 20);
    relay.cut();
    let run = put.wait().ok();
    // The same connection, that is, from another port: nothing was sent twice.
    assert!(!run.stderr.contains("connecting again"), "{}", run.stderr);
    assert!(relay.bytes() < size * 3 / 2, "{}", relay.bytes());
    assert_eq!(fs::metadata(world.served().join("large")).unwrap().len(), size);
}

#[test]
fn what_was_given_up_leaves_nothing_half() {
    let mut world = World::serving();
    solid(&world.work().join("large"), 400 << 20);
    fs::write(world.served().join("other"), pattern(1000)).unwrap();
    let put = world.client().args(["put", "--retry-for", "1", "large"]).spawn();
    until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
    world.kill_server();
    let run = put.wait().ends(5);
    assert!(run.stderr.contains("try again"), "{}", run.stderr);
    holds(world.served().join("other"), 1000);
    assert_eq!(visible_names(&world.served()), ["other"]);
}
