//! Memory does not grow with what is moved: neither with the size of a file nor with the number of
//! names in a folder.

use std::{
    env, fs,
    io::{BufRead, BufReader},
};

use crate::support::{Process, World, solid, until};

/// For each side, whatever is moved.
const LIMIT_KIB: u64 = 64 * 1024;

#[test]
fn files_of_any_size_pass_through_little_memory() {
    let size = if env::var_os("FTPQ_LONG").is_some() { 4 << 30 } else { 1 << 30 };
    let world = World::in_memory(size);
    solid(&world.work().join("big"), size);
    for command in ["put", "get"] {
        // Where there are cores to spare there would be more of them, each with buffers of its own.
        let mut client = world.client().args([command, "-f", "--connections", "1", "big"]).spawn();
        let mut peak = 0;
        // Its last word on itself is at most one look old when it ends.
        until("the transfer ends", || {
            peak = client.process.peak_memory_kib().unwrap_or(0).max(peak);
            client.process.has_ended()
        });
        client.wait().ok();
        assert!(peak > 0);
        below_the_limit("the client", command, peak);
        below_the_limit("the server", command, peak_of(&world.server().process));
    }
    assert_eq!(fs::metadata(world.served().join("big")).unwrap().len(), size);
    assert_eq!(fs::metadata(world.work().join("big")).unwrap().len(), size);
}

/// Nobody holds the whole listing, so the first names come long before the last.
#[test]
fn folders_of_any_size_are_listed_page_by_page() {
    const NAMES: usize = 200_000;
    let world = World::in_memory(1 << 28);
    let folder = world.served().join("many");
    fs::create_dir(&folder).unwrap();
    for index in 0..NAMES {
        // Long enough that all of them do not fit into any window on the way.
        fs::File::create(folder.join(format!("{index:0100}"))).unwrap();
    }
    let listed = || world.server().log.so_far().iter().filter(|line| line.contains("LIST")).count();
    for (turn, args) in [&["ls", "--json", "many"][..], &["ls", "many"]].into_iter().enumerate() {
        let (mut client, stdout, stderr) = world.client().args(args).spawn_unread();
        let mut lines = BufReader::with_capacity(4096, stdout).lines();
        let first = lines.next().expect("a first name").unwrap();
        // Nobody reads on, so the client holds still, and the server cannot have sent it all.
        assert_eq!(listed(), turn, "{first}");
        let (mut count, mut peak) = (1, peak_of(&client));
        for line in lines {
            line.unwrap();
            count += 1;
            if count % 1000 == 0 {
                peak = client.peak_memory_kib().unwrap_or(0).max(peak);
            }
        }
        assert_eq!(client.wait().code(), Some(0), "{:?}", stderr.so_far());
        assert_eq!(count, NAMES);
        below_the_limit("the client", "ls", peak);
        below_the_limit("the server", "ls", peak_of(&world.server().process));
        until("the server has said so", || listed() == turn + 1);
    }
}

fn peak_of(process: &Process) -> u64 {
    process.peak_memory_kib().expect("it is running")
}

#[track_caller]
fn below_the_limit(who: &str, command: &str, peak: u64) {
    eprintln!("{command}: {who} needed {} MiB", peak / 1024);
    assert!(peak < LIMIT_KIB, "{command}: {who} needed {} MiB", peak / 1024);
}
