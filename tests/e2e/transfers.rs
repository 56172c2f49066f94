//! `put` and `get`: where things go, what is replaced, what is kept, and that it is the same.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rustix::process::Signal;

use crate::support::{World, all_names, assert_same_tree, fifo, holds, odd_names, pattern, sparse, tree};

/// A server with `/there`, and a file `here` to upload.
fn furnished() -> World {
    let world = World::serving();
    fs::create_dir(world.served().join("folder")).unwrap();
    fs::write(world.served().join("there"), pattern(5000)).unwrap();
    fs::write(world.work().join("here"), pattern(4000)).unwrap();
    world
}

#[test]
fn put_and_get_bring_every_byte() {
    let world = World::serving();
    for len in [0, 1, 100_000, 256 * 1024, 256 * 1024 + 1, 20_000_000] {
        fs::write(world.work().join("up"), pattern(len)).unwrap();
        let run = world.ftpq(["put", "-f", "up"]).ok();
        assert!(run.stderr.starts_with("put 1 file, ") && run.stderr.ends_with("verified\n"), "{}", run.stderr);
        assert_eq!(run.stdout, "");
        holds(world.served().join("up"), len);
        let run = world.ftpq(["get", "-f", "up", "--to", "down"]).ok();
        assert!(run.stderr.starts_with("got 1 file, "), "{}", run.stderr);
        holds(world.work().join("down"), len);
    }
    assert_eq!(all_names(&world.served()), ["up"]);
    assert_eq!(all_names(&world.work()), ["down", "up"]);
}

/// There and back again: a tree with everything in it that file systems allow.
#[test]
fn trees_come_and_go_whole_whatever_their_names() {
    let world = World::serving();
    let original = world.work().join("original");
    fs::create_dir(&original).unwrap();
    tree(&original);
    world.ftpq(["put", "-r", "original"]).ok();
    assert_same_tree(&original, &world.served().join("original"));
    world.ftpq(["get", "-r", "original", "--to", "copy"]).ok();
    assert_same_tree(&original, &world.work().join("copy"));
}

/// The verbs' own names are commands too.
#[test]
fn upld_and_dwld_are_put_and_get() {
    let world = furnished();
    world.ftpq(["upld", "here"]).ok();
    holds(world.served().join("here"), 4000);
    world.ftpq(["dwld", "there"]).ok();
    holds(world.work().join("there"), 5000);
}

#[test]
fn odd_names_can_be_named_one_by_one() {
    let world = World::serving();
    for name in odd_names() {
        fs::write(world.work().join(&name), pattern(10)).unwrap();
        // As with scp, a colon after a slash is part of a name, and so is a dash.
        let mut typed = OsString::from("./");
        typed.push(&name);
        world.client().args(["put", "--to", "./"]).arg(&typed).run().ok();
        holds(world.served().join(&name), 10);
        fs::remove_file(world.work().join(&name)).unwrap();
        world.client().arg("get").arg(&typed).run().ok();
        holds(world.work().join(&name), 10);
        world.client().arg("rm").arg(&typed).run().ok();
    }
    assert!(all_names(&world.served()).is_empty());
    fs::write(world.work().join("-rf"), pattern(10)).unwrap();
    world.ftpq(["put", "-f", "--", "-rf"]).ok();
    holds(world.served().join("-rf"), 10);
}

#[test]
fn several_things_go_at_once_into_one_folder() {
    let world = furnished();
    for (name, len) in [("one", 1), ("two", 2)] {
        fs::write(world.work().join(name), pattern(len)).unwrap();
    }
    fs::create_dir(world.work().join("three")).unwrap();
    fs::write(world.work().join("three/four"), pattern(4)).unwrap();
    let run = world.ftpq(["put", "-r", "one", "two", "three", "--to", "folder"]).ok();
    assert!(run.stderr.starts_with("put 3 files"), "{}", run.stderr);
    holds(world.served().join("folder/three/four"), 4);
    world.ftpq(["get", "-r", "folder/one", "folder/two", "folder/three", "--to", "new/"]).ok();
    assert_same_tree(&world.served().join("folder"), &world.work().join("new"));
    world.ftpq(["put", "one", "two", "--to", "nowhere"]).fails(2, "several things");
    world.ftpq(["get", "folder/one", "folder/two", "--to", "nowhere"]).fails(2, "several things");
}

#[test]
fn put_goes_where_it_was_told_to() {
    let world = furnished();
    let served = world.served();
    let (server, port) = (world.server().name(), world.server().address.port().to_string());
    for (args, where_to) in [
        (vec!["put", "here", "--to", "folder"], "folder/here"),
        (vec!["put", "here", "--to", "name"], "name"),
        (vec!["put", "here", "--to", "fresh/deep/"], "fresh/deep/here"),
        (vec!["put", "here", ":colon"], "colon"),
        (vec!["put", "here", ":/folder/"], "folder/here"),
        (vec!["put", "-P", &port, "here", "127.0.0.1:x"], "x"),
        (vec!["put", "here", &format!("ftpq://{server}/folder/url")], "folder/url"),
        (vec!["put", "here", &format!("ftpq://me@{server}/a%20b")], "a b"),
    ] {
        // An address says by itself which server: none need be known.
        let says_so = args.iter().any(|arg| arg.contains("127."));
        let program = if says_so { world.home_program() } else { world.client() };
        program.args(&args).run().ok();
        assert!(served.join(where_to).is_file(), "{args:?}: {:?}", all_names(&served));
        holds(served.join(where_to), 4000);
        fs::remove_file(served.join(where_to)).unwrap();
    }
    world.ftpq(["put", "here", "--to", "missing/name"]).fails(3, "missing/name");
    world.ftpq(["put", ":x"]).fails(2, "put what?");
}

#[test]
fn get_goes_where_it_was_told_to() {
    let world = furnished();
    let work = world.work();
    fs::create_dir(work.join("folder")).unwrap();
    let server = world.server().name();
    for (from, to, where_to) in [
        ("there", "folder", "folder/there"),
        ("there", "name", "name"),
        ("there", "fresh/deep/", "fresh/deep/there"),
        (":there", ".", "there"),
        (":/folder/../there", ".", "there"),
        (&*format!("ftpq://{server}/there"), ".", "there"),
    ] {
        world.ftpq(["get", from, "--to", to]).ok();
        holds(work.join(where_to), 5000);
        fs::remove_file(work.join(where_to)).unwrap();
    }
    let port = world.server().address.port().to_string();
    world.home_program().args(["get", "-P", &port, "127.0.0.1:there"]).run().ok();
    holds(work.join("there"), 5000);
    world.ftpq(["get", "there", "--to", "missing/name"]).fails(3, "missing");
}

#[test]
fn put_and_get_start_from_the_remembered_folder() {
    let world = furnished();
    world.ftpq(["cd", "folder"]).ok();
    world.ftpq(["put", "here"]).ok();
    holds(world.served().join("folder/here"), 4000);
    world.ftpq(["get", "here", "--to", "back"]).ok();
    world.ftpq(["get", "../there"]).ok();
    holds(world.work().join("there"), 5000);
}

#[test]
fn what_exists_stays_unless_replacing_was_asked_for() {
    let world = furnished();
    fs::write(world.served().join("here"), "old").unwrap();
    fs::write(world.work().join("there"), "old").unwrap();
    for (args, old) in [(["put", "here"], world.served().join("here")), (["get", "there"], world.work().join("there"))]
    {
        world.ftpq(args).fails(1, "exists already (-f replaces it)");
        assert_eq!(fs::read(&old).unwrap(), b"old");
        let run = world.client().args(args).arg("--no-clobber").run().ok();
        assert!(run.stderr.contains("1 left alone"), "{}", run.stderr);
        assert_eq!(fs::read(&old).unwrap(), b"old");
        world.client().args(args).arg("-f").run().ok();
    }
    holds(world.served().join("here"), 4000);
    holds(world.work().join("there"), 5000);
}

/// One file that is in the way must not stop the others, and must not go unsaid.
#[test]
fn one_failure_in_a_tree_is_told_and_the_rest_arrives() {
    let world = World::serving();
    let local = world.work().join("t");
    fs::create_dir(&local).unwrap();
    for index in 0..20 {
        fs::write(local.join(index.to_string()), pattern(index)).unwrap();
    }
    fs::create_dir(world.served().join("t")).unwrap();
    fs::write(world.served().join("t/7"), "old").unwrap();
    let run = world.ftpq(["put", "-r", "t"]).ends(23);
    assert!(run.stderr.contains("ftpq: /t/7: exists already"), "{}", run.stderr);
    assert!(run.stderr.contains("put 19 files") && run.stderr.contains("1 failed"), "{}", run.stderr);
    assert_eq!(fs::read(world.served().join("t/7")).unwrap(), b"old");
    holds(world.served().join("t/19"), 19);
    world.ftpq(["put", "-r", "--no-clobber", "t"]).ok();
    world.ftpq(["put", "-r", "-f", "t"]).ok();
    assert_same_tree(&local, &world.served().join("t"));
}

#[test]
fn p_keeps_mode_and_modification_time() {
    let world = furnished();
    let when = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let set = |file: &Path| {
        fs::set_permissions(file, fs::Permissions::from_mode(0o751)).unwrap();
        fs::File::open(file).unwrap().set_modified(when).unwrap();
    };
    let kept = |file: &Path| {
        let meta = fs::metadata(file).unwrap();
        (meta.permissions().mode() & 0o777, meta.modified().unwrap()) == (0o751, when)
    };
    set(&world.work().join("here"));
    world.ftpq(["put", "-p", "here", "--to", "with"]).ok();
    world.ftpq(["put", "here", "--to", "without"]).ok();
    assert!(kept(&world.served().join("with")) && !kept(&world.served().join("without")));
    world.ftpq(["get", "-p", "with"]).ok();
    world.ftpq(["get", "with", "--to", "plain"]).ok();
    assert!(kept(&world.work().join("with")) && !kept(&world.work().join("plain")));
}

#[test]
fn get_to_a_dash_writes_to_standard_output() {
    let world = furnished();
    fs::write(world.served().join("binary"), pattern(3_000_000)).unwrap();
    let run = world.ftpq(["get", "binary", "there", "--to", "-"]).ok();
    assert!(run.bytes == [pattern(3_000_000), pattern(5000)].concat(), "{} bytes", run.bytes.len());
    assert_eq!(run.stderr.lines().filter(|line| line.contains("verified")).count(), 2, "{}", run.stderr);
    assert_eq!(world.ftpq(["get", "-q", "binary", "--to", "-"]).ok().stderr, "");
    assert_eq!(all_names(&world.work()), ["here"]);
    world.ftpq(["get", "nothing", "--to", "-"]).fails(3, "/nothing");
}

/// What was read is not the file: unlike a listing's, its reader cannot have had enough.
#[test]
fn get_to_a_pipe_that_closes_fails() {
    let world = furnished();
    fs::write(world.served().join("binary"), pattern(3_000_000)).unwrap();
    let get = || world.client().args(["get", "binary", "--to", "-"]);
    get().spawn_unheard().wait().fails(1, "standard output was closed before the end");
    let (mut process, mut stdout, stderr) = get().spawn_unread();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    assert_eq!(process.wait().code(), Some(1));
    stderr.wait_for("standard output was closed before the end");
}

/// While a slow reader blocks the write, the program still does everything else.
#[test]
fn get_to_a_pipe_that_nobody_empties_can_be_interrupted() {
    let world = furnished();
    fs::write(world.served().join("binary"), pattern(3_000_000)).unwrap();
    let (mut process, mut stdout, stderr) = world.client().args(["get", "binary", "--to", "-"]).spawn_unread();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    process.signal(Signal::INT);
    stderr.wait_for("ftpq: interrupted");
    assert_eq!(process.wait().code(), Some(130));
}

#[test]
fn quiet_says_nothing() {
    let world = furnished();
    for args in [["-q", "put", "here"], ["get", "-q", "there"]] {
        let run = world.ftpq(args).ok();
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""), "{args:?}");
    }
    // But for what went wrong.
    world.ftpq(["put", "-q", "here"]).fails(1, "exists already");
}

/// A log file is no place for bars.
#[test]
fn off_a_terminal_there_is_one_summary_line_and_no_bar() {
    let world = World::serving();
    fs::write(world.work().join("big"), pattern(30_000_000)).unwrap();
    let run = world.ftpq(["put", "big"]).ok();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.starts_with("put 1 file, 28.61 MiB in "), "{}", run.stderr);
    assert!(run.stderr.is_ascii(), "{}", run.stderr);
}

/// A link could lead out of the tree, and a device never ends.
#[test]
fn links_outwards_and_special_files_in_a_tree_are_left_out_and_told() {
    let world = World::serving();
    let local = world.work().join("t");
    fs::create_dir(&local).unwrap();
    fs::write(local.join("file"), pattern(9)).unwrap();
    symlink("/etc/passwd", local.join("link")).unwrap();
    symlink("../nowhere", local.join("dangling")).unwrap();
    fifo(&local.join("fifo"));
    let run = world.ftpq(["put", "-r", "t"]).ends(23);
    assert_eq!(run.stderr.matches(", left out").count(), 3, "{}", run.stderr);
    assert!(run.stderr.contains("3 skipped"), "{}", run.stderr);
    assert_eq!(all_names(&world.served().join("t")), ["file"]);
    symlink("/etc/passwd", world.served().join("t/link")).unwrap();
    let run = world.ftpq(["get", "-r", "t", "--to", "back"]).ends(23);
    assert!(run.stderr.contains("1 skipped"), "{}", run.stderr);
    assert_eq!(all_names(&world.work().join("back")), ["file"]);
}

/// What is named on the command line may be a link, as with cp and scp.
#[test]
fn a_link_that_is_named_is_followed_and_keeps_its_name() {
    let world = furnished();
    symlink("here", world.work().join("link")).unwrap();
    world.ftpq(["put", "link"]).ok();
    holds(world.served().join("link"), 4000);
}

#[test]
fn a_folder_that_exists_is_merged_into() {
    let world = World::serving();
    for (root, name) in [(world.work(), "new"), (world.served(), "old")] {
        fs::create_dir_all(root.join("t/sub")).unwrap();
        fs::write(root.join("t/sub").join(name), pattern(3)).unwrap();
    }
    world.ftpq(["put", "-r", "t"]).ok();
    assert_eq!(all_names(&world.served().join("t/sub")), ["new", "old"]);
    world.ftpq(["get", "-r", "-f", "t"]).ok();
    assert_same_tree(&world.work().join("t"), &world.served().join("t"));
}

/// The whole server, and the folder that one stands in.
#[test]
fn roots_have_no_name_and_go_right_where_they_are_put() {
    let world = World::serving();
    tree(&world.served());
    world.ftpq(["get", "-r", "/", "--to", "all/"]).ok();
    assert_same_tree(&world.served(), &world.work().join("all"));
    fs::create_dir(world.served().join("copy")).unwrap();
    world.client().folder(world.work().join("all/a")).args(["put", "-r", ".", "--to", "copy"]).run().ok();
    assert_same_tree(&world.work().join("all/a"), &world.served().join("copy"));
}

/// What takes no room is not sent, and takes none at the other end: in one go, and by extents.
#[test]
fn holes_stay_holes_both_ways() {
    let world = World::serving();
    for (len, at) in [(10 << 20, 5_000_000), (200 << 20, 150_000_000), (20 << 20, 0)] {
        let source = world.work().join("holes");
        sparse(&source, len);
        File::options().write(true).open(&source).unwrap().write_all_at(b"in the middle", at).unwrap();
        let bytes = fs::read(&source).unwrap();
        world.ftpq(["put", "-f", "holes"]).ok();
        world.ftpq(["get", "-f", "holes", "--to", "back"]).ok();
        for copy in [world.served().join("holes"), world.work().join("back")] {
            assert!(fs::read(&copy).unwrap() == bytes, "{} differs", copy.display());
            let room = fs::metadata(&copy).unwrap().blocks() * 512;
            assert!(room < 1 << 20, "{} takes {room} bytes", copy.display());
        }
        assert!(world.ftpq(["get", "holes", "--to", "-"]).ok().bytes == bytes);
    }
}

/// Nobody knows how long it will be, and nothing of it may be missing.
#[test]
fn standard_input_becomes_a_file_of_any_length() {
    let world = World::serving();
    for len in [0, 1, 256 * 1024, 20_000_000] {
        world.client().args(["put", "-f", "-", "--to", "piped"]).input(pattern(len)).run().ok();
        holds(world.served().join("piped"), len);
    }
    world.client().args(["put", "-", "--to", "piped"]).input(pattern(5)).run().fails(1, "/piped: exists already");
    holds(world.served().join("piped"), 20_000_000);
    world.client().args(["put", "-"]).input(pattern(5)).run().fails(2, "standard input has no name");
    world.client().args(["put", "-", "x", "--to", "y"]).input(pattern(5)).run().fails(2, "put alone");
}
