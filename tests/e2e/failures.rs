//! Whatever goes wrong: one clear line, the right exit code, and nothing lost.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{FullDisk, Program, World, all_names, fifo, holds, pattern, solid, until, visible_names};

#[test]
fn an_unknown_verb_is_named() {
    World::serving().ftpq(["call", "NOPE"]).fails(1, "this server has no verb NOPE");
}

#[test]
fn an_unknown_remote_path_is_not_found() {
    let world = World::serving();
    for args in [
        ["get", "nothing"],
        ["ls", "nothing"],
        ["cd", "nothing"],
        ["stat", "nothing"],
        ["rm", "nothing"],
        ["get", "a/nothing"],
    ] {
        world.ftpq(args).fails(3, "nothing: no such file or folder");
    }
    world.ftpq(["get", "-r", "nothing"]).fails(3, "/nothing: no such file or folder");
    assert!(all_names(&world.work()).is_empty());
}

#[test]
fn an_unknown_local_file_is_not_found() {
    let world = World::serving();
    world.ftpq(["put", "nothing"]).fails(3, "nothing: no such file or folder");
    assert!(all_names(&world.served()).is_empty());
}

#[test]
fn one_of_several_that_is_not_there_stops_no_others() {
    let world = World::serving();
    for name in ["a", "b"] {
        fs::write(world.work().join(name), name).unwrap();
    }
    let some = |args: &[&str], missing: &str| {
        let run = world.ftpq(args).ends(23);
        assert!(run.stderr.contains(&format!("{missing}: no such file or folder")), "{}", run.stderr);
    };
    some(&["put", "a", "nothing", "b"], "nothing");
    assert_eq!(all_names(&world.served()), ["a", "b"]);
    for options in ["-f", "-rf", "-Lf"] {
        fs::remove_dir_all(world.work()).unwrap();
        fs::create_dir(world.work()).unwrap();
        some(&["get", options, "a", "nothing", "b"], "/nothing");
        assert_eq!(all_names(&world.work()), ["a", "b"], "{options}");
    }
    some(&["rm", "a", "nothing", "b"], "/nothing");
    some(&["mkdir", "c", "no/thing", "d"], "/no/thing");
    assert_eq!(all_names(&world.served()), ["c", "d"]);
    world.ftpq(["rm", "nothing", "neither"]).ends(23);
    world.home_program().args(["put", "nothing", "neither", "--to", "nowhere.invalid:"]).run().ends(23);
}

#[test]
fn a_folder_where_a_file_is_meant_needs_r() {
    let world = World::serving();
    fs::create_dir(world.work().join("local")).unwrap();
    fs::create_dir(world.served().join("remote")).unwrap();
    world.ftpq(["put", "local"]).fails(1, "local: is a folder (-r takes folders)");
    world.ftpq(["get", "remote"]).fails(1, "/remote: is a folder (-r takes folders)");
    world.ftpq(["get", "/"]).fails(1, "/: is a folder (-r takes folders)");
    world.ftpq(["get", "remote", "--to", "-"]).fails(1, "/remote: is a folder");
    assert!(!world.work().join("remote").exists() && !world.served().join("local").exists());
}

/// A folder is never replaced by a file, whatever was asked for.
#[test]
fn a_file_never_takes_the_place_of_a_folder() {
    let world = World::serving();
    for root in [world.work(), world.served()] {
        fs::write(root.join("file"), "x").unwrap();
        fs::create_dir_all(root.join("folder/file/inner")).unwrap();
    }
    world.ftpq(["put", "-f", "file", "--to", "folder/"]).fails(1, "/folder/file: is a folder");
    world.ftpq(["get", "-f", "file", "--to", "folder/"]).fails(1, "file: is a folder");
    assert!(world.work().join("folder/file/inner").is_dir() && world.served().join("folder/file/inner").is_dir());
}

#[test]
fn a_name_that_is_too_long_is_said_to_be() {
    let world = World::serving();
    fs::write(world.work().join("file"), "x").unwrap();
    let (fits, too_long) = ("n".repeat(255), "n".repeat(256));
    world.ftpq(["put", "file", "--to", &fits]).ok();
    for args in
        [&["put", "file", "--to", &too_long][..], &["get", &too_long], &["mkdir", &too_long], &["ls", &too_long]]
    {
        world.ftpq(args).fails(2, "a name is longer than 255 bytes");
    }
    let deep = "d/".repeat(300);
    world.ftpq(["mkdir", "-p", &deep]).fails(2, "deeper than 256 folders");
    assert_eq!(all_names(&world.served()), [fits]);
}

#[test]
fn a_full_disk_of_the_server_loses_nothing() {
    let mut world = World::new();
    let Some(disk) = FullDisk::mount("a_full_disk_of_the_server_loses_nothing", &world.served(), 4 << 20) else {
        return;
    };
    world.start();
    fs::write(world.served().join("old"), "old").unwrap();
    let free = disk.free();
    for len in [8_000_000, 5_000_000] {
        fs::write(world.work().join("big"), pattern(len)).unwrap();
        for args in [&["put", "big"][..], &["put", "-f", "big", "--to", "old"]] {
            world.ftpq(args).fails(1, "no space left");
            assert_eq!(disk.free(), free);
        }
    }
    // A tree ends at the first file that finds no room: the next one would not either.
    fs::create_dir(world.work().join("tree")).unwrap();
    for index in 0..40 {
        fs::write(world.work().join(format!("tree/{index}")), pattern(200_000)).unwrap();
    }
    let run = world.ftpq(["put", "-r", "tree"]);
    assert!(run.code != 0 && run.stderr.contains("no space left"), "{run:?}");
    for name in all_names(&world.served().join("tree")) {
        holds(world.served().join("tree").join(&name), 200_000);
    }
    assert_eq!(fs::read(world.served().join("old")).unwrap(), b"old");
    world.ftpq(["rm", "-r", "tree"]).ok();
    assert_eq!(disk.free(), free);
    world.ftpq(["mkdir", "still-works"]).ok();
}

#[test]
fn a_full_disk_of_the_client_loses_nothing() {
    let world = World::serving();
    let small = world.path("small");
    let Some(disk) = FullDisk::mount("a_full_disk_of_the_client_loses_nothing", &small, 4 << 20) else { return };
    fs::write(small.join("old"), "old").unwrap();
    fs::write(world.served().join("big"), pattern(8_000_000)).unwrap();
    let free = disk.free();
    for to in ["big", "old"] {
        let run = world.client().args(["get", "-f", "big", "--to"]).arg(small.join(to)).run();
        run.fails(1, &format!("/{to}: no space left"));
        assert_eq!(disk.free(), free);
    }
    assert_eq!(all_names(&small), ["old"]);
    assert_eq!(fs::read(small.join("old")).unwrap(), b"old");
}

/// Between the listing and the download somebody removed it.
#[test]
fn a_source_that_vanished_is_not_found() {
    let world = World::serving();
    fs::write(world.served().join("file"), "new").unwrap();
    fs::write(world.work().join("file"), "old").unwrap();
    world.ftpq(["ls"]).ok();
    fs::remove_file(world.served().join("file")).unwrap();
    world.ftpq(["get", "-f", "file"]).fails(3, "/file: no such file or folder");
    assert_eq!(fs::read(world.work().join("file")).unwrap(), b"old");
}

/// Two versions in one file are worse than none.
#[test]
fn a_source_that_changes_while_it_is_read_is_an_error() {
    let world = World::serving();
    let size = 400 << 20;
    solid(&world.served().join("remote"), size);
    solid(&world.work().join("local"), size);
    fs::write(world.work().join("old"), "old").unwrap();
    fs::write(world.served().join("old"), "old").unwrap();
    let touch = |file: &Path| {
        fs::OpenOptions::new().append(true).open(file).and_then(|mut file| {
            use std::io::Write;
            file.write_all(b"more")
        })
    };

    let before = world.server().process.bytes_read();
    let get = world.client().args(["get", "-f", "remote", "--to", "old"]).spawn();
    until("the download is under way", || world.server().process.bytes_read() > before + (8 << 20));
    touch(&world.served().join("remote")).unwrap();
    get.wait().fails(1, "changed");

    let put = world.client().args(["put", "-f", "local", "--to", "old"]).spawn();
    until("the upload is under way", || put.process.bytes_read() > 8 << 20);
    touch(&world.work().join("local")).unwrap();
    put.wait().fails(1, "local: changed while it was being read");

    for folder in [world.work(), world.served()] {
        assert_eq!(fs::read(folder.join("old")).unwrap(), b"old");
        assert_eq!(visible_names(&folder).len(), 2, "{:?}", all_names(&folder));
    }
}

/// Root can read everything: the client runs as somebody else then.
#[test]
fn a_local_file_that_cannot_be_read_is_an_error() {
    const NOBODY: u32 = 65534;
    let world = World::serving();
    fs::write(world.work().join("file"), "x").unwrap();
    fs::set_permissions(world.work().join("file"), fs::Permissions::from_mode(0o000)).unwrap();
    let run = if rustix::process::geteuid().is_root() {
        let home = world.stranger();
        world.authorise(&home, "name=nobody rights=list,read,write");
        for path in [home.clone(), home.join("identity"), home.join("identity/client.pem")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let program = world.path("ftpq");
        fs::copy(Program::path(), &program).unwrap();
        world.client_of(&home).args(["put", "--accept-new", "file"]).user(&program, NOBODY).run()
    } else {
        world.ftpq(["put", "file"])
    };
    run.fails(1, "file: permission denied by the file system");
    assert!(all_names(&world.served()).is_empty());
}

/// The machine lost power, say. The client must notice by itself, and neither side may keep half.
#[test]
fn a_server_that_is_gone_in_the_middle_leaves_nothing_half() {
    let mut world = World::serving();
    let size = 600 << 20;
    solid(&world.work().join("up"), size);
    solid(&world.served().join("down"), size);
    fs::create_dir(world.path("new")).unwrap();
    fs::write(world.path("old"), "old").unwrap();
    let puts = [world.client().args(["put", "--retry-for", "0", "up"]).spawn()];
    let gets = ["new/down", "old"]
        .map(|to| world.client().args(["get", "--retry-for", "0", "-f", "down", "--to"]).arg(world.path(to)).spawn());
    until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
    for get in &gets {
        until("the downloads are under way", || get.process.bytes_written() > 16 << 20);
    }
    world.kill_server();
    let killed = Instant::now();
    for run in puts.into_iter().chain(gets) {
        run.wait().fails(5, "try again");
    }
    // The idle timeout runs from the first keep-alive that nobody answered: 40 s, and a busy machine's share.
    assert!(killed.elapsed() < Duration::from_secs(50), "noticed only after {:?}", killed.elapsed());
    assert!(visible_names(&world.path("new")).is_empty(), "{:?}", all_names(&world.path("new")));
    assert_eq!(fs::read(world.path("old")).unwrap(), b"old");
    world.start();
    assert_eq!(world.ftpq(["ls", "-a"]).ok().lines(), ["down"]);
    assert_eq!(visible_names(&world.served()), ["down"]);
}

#[test]
fn a_port_where_nobody_listens_is_given_up_soon() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    nobody_answers(&closed.to_string());
}

#[test]
fn a_port_that_stays_silent_is_given_up_soon() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    nobody_answers(&silent.local_addr().unwrap().to_string());
}

/// Within 10 s; a busy machine gets a little more.
fn nobody_answers(address: &str) {
    let world = World::new();
    let began = Instant::now();
    let line = world.home_program().args(["ls", "-s", address]).run().fails(5, &format!("no answer from {address}"));
    assert!(line.contains("is ftpq serving there"), "{line}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let began = Instant::now();
    world.home_program().args(["ls", "-s", address, "--timeout", "1"]).run().fails(5, "within 1 s");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

/// The name is of the kind that never exists (RFC 6761): no network is asked.
#[test]
fn a_host_that_does_not_exist_is_said_not_to() {
    let world = World::new();
    let run = world.home_program().args(["ls", "-s", "nowhere.invalid"]).run();
    if run.stderr.contains("cannot look up its address") {
        eprintln!("there is nobody here who knows names: {}", run.stderr);
        run.ends(5);
    } else {
        run.fails(1, "nowhere.invalid: no such host");
    }
    world.home_program().args(["ls", "-s", "not a host"]).run().fails(2, "not a server");
    world.home_program().args(["ls", "-6", "-s", "127.0.0.1"]).run().fails(1, "has no IPv6 address");
}

#[test]
fn a_root_that_cannot_be_served_is_said_to_be() {
    let world = World::new();
    fs::write(world.work().join("file"), "x").unwrap();
    let serve = |root: &str| world.home_program().args(["serve", root, "--listen", "127.0.0.1:0"]).run();
    serve("file").fails(2, "cannot serve file: not a folder");
    serve("missing").fails(3, "cannot serve missing: no such file or folder");
    assert!(!world.work().join("missing").exists());
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let world = World::serving();
    let name = world.server().name();
    let serve = world.home_program().arg("serve").arg(world.served()).args(["--listen", &name]).run();
    serve.fails(1, &format!("UDP {name} is in use"));
    world.ftpq(["ls"]).ok();
}

/// A FIFO never ends, and a link may lead anywhere.
#[test]
fn only_regular_files_are_served() {
    let world = World::serving();
    fs::write(world.path("outside"), "secret").unwrap();
    symlink(world.path("outside"), world.served().join("link")).unwrap();
    symlink(world.path(""), world.served().join("up")).unwrap();
    fifo(&world.served().join("fifo"));
    for name in ["link", "fifo", "up/outside"] {
        world.ftpq(["get", name]).fails(1, "not ");
        world.ftpq(["get", name, "--to", "-"]).fails(1, "not ");
    }
    fs::write(world.work().join("file"), "x").unwrap();
    world.ftpq(["put", "-f", "file", "--to", "up/outside"]).fails(1, "not ");
    // A link in the way is replaced, never written through.
    world.ftpq(["put", "file", "--to", "link"]).fails(1, "exists already");
    world.ftpq(["put", "-f", "file", "--to", "link"]).ok();
    assert!(world.served().join("link").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(world.path("outside")).unwrap(), b"secret");
    assert_eq!(all_names(&world.work()), ["file"]);
}
