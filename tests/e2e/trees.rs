//! Trees that come out equal: names, kinds, bytes, modes, times and links, both ways.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{AtFlags, CWD, Timespec, Timestamps, utimensat},
    process::geteuid,
};

use crate::support::{World, all_names, fifo, holds, pattern, solid, until};

/// Every name that a file system holds is a name here, and nothing that a terminal obeys comes out.
#[test]
fn t13_odd_and_evil_names_in_both_directions() {
    let world = World::serving();
    let original = world.work().join("original");
    fs::create_dir(&original).unwrap();
    for (index, name) in evil_names().iter().enumerate() {
        fs::write(original.join(name), pattern(index)).unwrap();
        let folder = original.join("folders").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), pattern(1000 + index)).unwrap();
        symlink(name, original.join("folders").join(name).join("link")).unwrap();
    }
    // As deep as a path may be on the server, where the tree lies one folder deeper; and as long.
    let deep = original.join("d/".repeat(254));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), pattern(7)).unwrap();
    let long = original.join(format!("{}/", "m".repeat(255)).repeat(14));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("leaf"), pattern(8)).unwrap();

    world.ftpq(["put", "-rp", "original"]).ok();
    assert_equal(&original, &world.served().join("original"));
    world.ftpq(["get", "-rp", "original", "--to", "copy"]).ok();
    assert_equal(&original, &world.work().join("copy"));
    world.ftpq(["ls", "-lR", "original"]).ok();
    world.ftpq(["rm", "-r", "original"]).ok();

    // One folder too deep, and everything else arrives.
    fs::remove_file(deep.join("leaf")).unwrap();
    fs::create_dir(deep.join("d")).unwrap();
    fs::create_dir(deep.join("d/too deep")).unwrap();
    let run = world.ftpq(["put", "-r", "original"]).ends(23);
    assert!(run.stderr.contains("the path is deeper than 256 folders"), "{}", run.stderr);
    assert!(run.stderr.contains(", 1 failed"), "{}", run.stderr);
    holds(world.served().join("original").join(long.strip_prefix(&original).unwrap()).join("leaf"), 8);
}

/// The names that ftpq keeps for itself are refused by name on both sides, and never shown.
#[test]
fn reserved_names_are_refused_and_their_neighbours_are_not() {
    let world = World::serving();
    let reserved = format!(".ftpq-{}", "0123456789abcdef".repeat(2));
    for root in [world.work(), world.served()] {
        fs::write(root.join(&reserved), "mine").unwrap();
    }
    world.ftpq(["put", &reserved, "--to", "other"]).fails(1, "reserved");
    world.ftpq(["get", &reserved, "--to", "other"]).fails(1, "reserved");
    fs::write(world.work().join("ordinary"), "x").unwrap();
    world.ftpq(["put", "-f", "ordinary", "--to", &reserved]).fails(1, "reserved");
    world.ftpq(["put", "ordinary", "--to", &format!("{reserved}/x")]).fails(1, "reserved");
    for root in [world.work(), world.served()] {
        assert_eq!(fs::read(root.join(&reserved)).unwrap(), b"mine");
    }
    assert_eq!(world.ftpq(["ls", "-a"]).ok().stdout, "");
}

#[test]
fn a_tree_with_everything_odd_comes_out_equal_both_ways() {
    let world = World::serving();
    let original = world.work().join("original");
    odd_tree(&original);
    world.ftpq(["put", "-rp", "original"]).ok();
    assert_equal(&original, &world.served().join("original"));
    let run = world.ftpq(["get", "-rp", "original", "--to", "copy"]).ok();
    assert_equal(&original, &world.work().join("copy"));
    assert!(run.stderr.contains("verified, 8 links\n"), "{}", run.stderr);
    // Hard links arrive as files of their own.
    assert_eq!(fs::metadata(original.join("hard/one")).unwrap().nlink(), 2);
    for copy in [world.served().join("original"), world.work().join("copy")] {
        assert_eq!(fs::metadata(copy.join("hard/one")).unwrap().nlink(), 1);
        holds(copy.join("hard/two"), 77);
    }
    // Again over itself, with -f: links too are replaced, and folders keep what they were given.
    world.ftpq(["put", "-rpf", "original"]).ok();
    assert_equal(&original, &world.served().join("original"));
    // The folder itself, into one that is there.
    fs::create_dir(world.work().join("into")).unwrap();
    world.client().folder(world.work().join("into")).args(["get", "-rp", "original", "--to", "."]).run().ok();
    assert_equal(&original, &world.work().join("into/original"));
}

/// Without `-p` names, kinds, bytes and targets are still equal, empty folders included.
#[test]
fn without_p_a_tree_has_modes_and_times_of_its_own() {
    let world = World::serving();
    let original = world.work().join("original");
    odd_tree(&original);
    world.ftpq(["put", "-r", "original"]).ok();
    let plain = |root: &Path| -> BTreeMap<PathBuf, Kind> {
        described(root).into_iter().map(|(path, node)| (path, node.kind)).collect()
    };
    assert!(plain(&original) == plain(&world.served().join("original")));
    assert!(described(&original) != described(&world.served().join("original")));
}

#[test]
fn the_documentation_of_the_toolchain_comes_out_equal() {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    // 53,000 files take some minutes.
    let part = if env::var_os("FTPQ_LONG").is_some() { "share/doc" } else { "share/doc/rust/html/std" };
    there_and_back("the_documentation_of_the_toolchain_comes_out_equal", &[Path::new(&sysroot).join(part)]);
}

#[test]
fn the_sources_of_crates_come_out_equal() {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).unwrap_or_default();
    let registry = fs::read_dir(cargo.join("registry/src")).ok().and_then(|mut items| items.next()?.ok());
    let mut crates: Vec<_> = registry.map_or_else(Vec::new, |registry| {
        fs::read_dir(registry.path()).unwrap().map(|item| item.unwrap().path()).filter(|path| path.is_dir()).collect()
    });
    crates.sort();
    crates.truncate(30);
    there_and_back("the_sources_of_crates_come_out_equal", &crates);
}

/// What is in the way of a link, and what a link may not be.
#[test]
fn links_stay_links_inside_the_tree_and_others_are_left_out() {
    let world = World::serving();
    let local = world.work().join("t");
    fs::create_dir_all(local.join("sub")).unwrap();
    fs::write(local.join("file"), pattern(9)).unwrap();
    for (name, target) in [("sub/in", "../file"), ("sub/out", "../../x"), ("abs", "/etc/passwd"), ("odd", "sub/../x")] {
        symlink(target, local.join(name)).unwrap();
    }
    let run = world.ftpq(["put", "-r", "t"]).ends(23);
    assert_eq!(run.stderr.matches(": a link that leads out of the tree, left out").count(), 3, "{}", run.stderr);
    assert!(run.stderr.contains("verified, 1 link, 3 skipped"), "{}", run.stderr);
    assert_eq!(fs::read_link(world.served().join("t/sub/in")).unwrap(), Path::new("../file"));
    let run = world.ftpq(["put", "-r", "t"]).ends(23);
    assert!(run.stderr.contains("/t/sub/in: exists already"), "{}", run.stderr);
    // Not even through a link that somebody put in the way.
    fs::remove_dir_all(world.served().join("t/sub")).unwrap();
    fs::create_dir(world.path("beside")).unwrap();
    symlink(world.path("beside"), world.served().join("t/sub")).unwrap();
    world.ftpq(["put", "-rf", "t"]).ends(23);
    assert!(all_names(&world.path("beside")).is_empty());
}

#[test]
fn l_takes_what_links_lead_to_and_nothing_outside() {
    let world = World::serving();
    fs::write(world.path("secret"), "secret").unwrap();
    for root in [world.work(), world.served()] {
        let tree = root.join("t");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/file"), pattern(9)).unwrap();
        for (name, target) in [
            ("link", "sub/file"),
            ("folder", "sub"),
            ("sub/circle", "../sub"),
            ("secret", "../../secret"),
            ("dangling", "no"),
        ] {
            symlink(target, tree.join(name)).unwrap();
        }
    }
    let check = |run: crate::support::Run, copy: &Path| {
        let run = run.ends(23);
        assert_eq!(run.stderr.matches(": a loop of links, left out").count(), 2, "{}", run.stderr);
        assert_eq!(run.stderr.matches("/secret: a link that leads out of the tree").count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains("no such file or folder"), "{}", run.stderr);
        assert!(run.stderr.contains("3 files") && run.stderr.contains("3 skipped, 1 failed"), "{}", run.stderr);
        let there = described(copy);
        let names: Vec<_> = there.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["", "folder", "folder/file", "link", "sub", "sub/file"]);
        assert!(there.values().all(|node| !matches!(node.kind, Kind::Link(_))));
        holds(copy.join("folder/file"), 9);
    };
    check(world.ftpq(["put", "-rL", "t", "--to", "up"]), &world.served().join("up"));
    check(world.ftpq(["get", "-rL", "t", "--to", "down"]), &world.work().join("down"));
    // A link that is named.
    world.ftpq(["get", "t/link", "--to", "named"]).fails(1, "not a regular file");
    world.ftpq(["get", "--copy-links", "t/link", "--to", "fresh/"]).ok();
    holds(world.work().join("fresh/link"), 9);
    world.ftpq(["get", "-rL", "t/secret", "--to", "named"]).fails(1, "/t/secret: a link that leads out of the tree");
    world.ftpq(["get", "-rL", "t/dangling", "--to", "named"]).fails(3, "no such file or folder");
}

#[test]
fn what_vanishes_while_the_tree_is_walked_is_told_and_the_rest_arrives() {
    let world = World::serving();
    let tree = world.work().join("t");
    fs::create_dir_all(tree.join("folder")).unwrap();
    for name in ["a", "b"] {
        fs::write(tree.join(name), "x").unwrap();
    }
    // The one that is listed first keeps the other waiting; the folder is listed after both.
    let mut names = fs::read_dir(&tree).unwrap().map(|item| item.unwrap().path()).filter(|path| path.is_file());
    let (first, second) = (names.next().unwrap(), names.next().unwrap());
    solid(&first, 300 << 20);
    let put = world.client().args(["put", "-r", "-j1", "t"]).spawn();
    until("the first file is under way", || world.server().process.bytes_written() > 8 << 20);
    fs::remove_file(&second).unwrap();
    fs::remove_dir(tree.join("folder")).unwrap();
    let run = put.wait().ends(23);
    assert!(run.stderr.contains("put 1 file, 300.00 MiB") && run.stderr.contains(", 2 failed"), "{}", run.stderr);
    let second = second.file_name().unwrap().to_str().unwrap();
    assert!(run.stderr.contains(&format!("/t/{second}: no such file or folder")), "{}", run.stderr);
    assert!(run.stderr.contains("/t/folder: no such file or folder"), "{}", run.stderr);
    world.ftpq(["put", "t/folder"]).fails(3, "no such file or folder");
    world.ftpq(["get", "-r", "nothing"]).fails(3, "no such file or folder");
}

/// Where one name in two spellings is one file, the second must not go into the first.
#[test]
fn names_that_differ_only_in_case_do_not_become_one() {
    let Some(caseless) = env::var_os("FTPQ_CASELESS") else {
        eprintln!("SKIPPED names_that_differ_only_in_case_do_not_become_one: FTPQ_CASELESS names no folder for it");
        return;
    };
    let served = tempfile::tempdir_in(caseless).unwrap();
    fs::write(served.path().join("readme"), "old").unwrap();
    assert!(served.path().join("README").exists(), "FTPQ_CASELESS names a folder that tells case apart");
    let mut world = World::new();
    world.start_serving(served.path());
    let local = world.work().join("t");
    for (index, name) in ["FILE", "file", "DIR/x", "dir/x"].into_iter().enumerate() {
        fs::create_dir_all(local.join(name).parent().unwrap()).unwrap();
        fs::write(local.join(name), pattern(100 + index)).unwrap();
    }
    symlink("file", local.join("link")).unwrap();
    // All at once, and again over what is there.
    for _ in 0..3 {
        let run = world.ftpq(["put", "-rpf", "t"]).ends(23);
        assert_eq!(run.stderr.matches("another name that differs only in case").count(), 3, "{}", run.stderr);
        assert!(run.stderr.contains("put 2 files"), "{}", run.stderr);
        assert_eq!(all_names(&served.path().join("t")).len(), 2);
        for name in all_names(&served.path().join("t")) {
            let name = if name.eq_ignore_ascii_case("dir") { format!("{name}/x") } else { name };
            let there = fs::read(served.path().join("t").join(&name)).unwrap();
            assert!(there == fs::read(local.join(&name)).unwrap(), "{name} holds what another is");
        }
    }
    for command in [["put", "-f", "t/file", "--to", "README"].as_slice(), &["mkdir", "README"]] {
        world.ftpq(command).fails(1, "/README: another name that differs only in case");
    }
    assert_eq!(fs::read(served.path().join("readme")).unwrap(), b"old");
    world.ftpq(["mv", "-f", "readme", "README"]).ok();
    assert_eq!(all_names(served.path()), ["README", "t"]);
}

#[test]
fn listings_say_where_links_point() {
    let world = World::serving();
    symlink("no\x1b[31m such", world.served().join("link")).unwrap();
    symlink(OsStr::from_bytes(b"caf\xe9"), world.served().join("latin")).unwrap();
    let run = world.ftpq(["ls", "-l"]).ok();
    assert!(run.lines()[0].ends_with("  latin -> caf\\xe9"), "{}", run.stdout);
    assert!(run.lines()[1].ends_with("  link -> no\\u{1b}[31m such"), "{}", run.stdout);
    assert_eq!(world.ftpq(["ls"]).ok().lines(), ["latin@", "link@"]);
    for args in [["ls", "--json", "link"], ["stat", "--json", "link"]] {
        assert_eq!(world.ftpq(args).ok().json()[0]["target"], "no\u{1b}[31m such");
    }
    let latin = &world.ftpq(["stat", "--json", "latin"]).ok().json()[0];
    assert_eq!((&latin["target"], &latin["target_hex"]), (&"caf\\xe9".into(), &"636166e9".into()));
    let run = world.ftpq(["stat", "link"]).ok();
    assert!(run.stdout.ends_with("target no\\u{1b}[31m such\n"), "{}", run.stdout);
    fifo(&world.served().join("fifo"));
    assert!(world.ftpq(["stat", "--json", "fifo"]).ok().json()[0].get("target").is_none());
}

/// Names that somebody might take for something else.
fn evil_names() -> Vec<OsString> {
    let longest = "n".repeat(255);
    let longest_bytes = [0xff; 255];
    let names: [&[u8]; 36] = [
        b" ",
        b"  leading",
        b"trailing  ",
        b"trailing.",
        b"...",
        b"....",
        b"..x",
        b". .",
        b".hidden",
        b"-",
        b"--",
        b"-rf",
        b"--to",
        b"new\nline",
        b"carriage\rreturn",
        b"tab\tbell\x07\x08\x7f",
        b"\x1b[2J\x1b]0;title\x07",
        "\u{9b}31m".as_bytes(),
        "\u{202e}gpj.exe".as_bytes(),
        "\u{2066}\u{200b}\u{feff}".as_bytes(),
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        b"caf\xe9",
        b"\xff\xfe\x80",
        b"\xc0\xaf..\xc0\xaf",
        b"back\\slash\\..\\",
        b"C:",
        b"CON",
        b"nul",
        b"aux.txt",
        b"a:b|c<d>e\"f?g*h",
        b"$(id)`id`;&",
        b"%2e%2e%2f",
        b".ftpq-0123456789ABCDEF0123456789ABCDEF",
        longest.as_bytes(),
        &longest_bytes,
    ];
    names.into_iter().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

/// A tree with every kind of thing that can be copied, each with a mode and a time of its own.
fn odd_tree(root: &Path) {
    for folder in ["empty/emptier", "modes", "hard", "links/below/it", "read-only/below", "private"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    // What its owner may not read, and a folder that may not be written to again, are for root.
    let root_only = |mode: u32| if geteuid().is_root() { mode } else { mode | 0o700 };
    let modes = [0o400, 0o444, 0o600, 0o640, 0o644, 0o755, 0o700, 0o777, root_only(0o200), root_only(0)];
    for (index, mode) in modes.into_iter().enumerate() {
        let file = root.join("modes").join(format!("{index}-{mode:03o}"));
        fs::write(&file, pattern(index * 100_000)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(root.join("read-only/below/file"), pattern(5)).unwrap();
    fs::write(root.join("hard/one"), pattern(77)).unwrap();
    fs::hard_link(root.join("hard/one"), root.join("hard/two")).unwrap();
    let longest = "t".repeat(4095);
    for (name, target) in [
        ("file", &b"../hard/one"[..]),
        ("folder", b"below"),
        ("dangling", b"no/such thing"),
        ("itself", b"itself"),
        ("here", b"."),
        ("below/it/root", b"../../.."),
        ("odd", b"new\nline caf\xe9"),
        ("long", longest.as_bytes()),
    ] {
        symlink(OsStr::from_bytes(target), root.join("links").join(name)).unwrap();
    }
    let modes = [
        ("empty", 0o750),
        ("read-only/below", root_only(0o555)),
        ("read-only", root_only(0o500)),
        ("private", 0o700),
        ("hard", 0o711),
    ];
    for (folder, mode) in modes {
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(mode)).unwrap();
    }
    // The deepest first: what is in a folder changes its time no more.
    let mut paths: Vec<_> = described(root).into_keys().collect();
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    let times =
        [(1_234_567_890, 123_456_789), (1, 1), (-86_400, 999_999_999), (4_000_000_000, 0), (1_000_000_000, 500)];
    for (path, (tv_sec, tv_nsec)) in paths.iter().zip(times.into_iter().cycle()) {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Puts and gets what is on this machine, each thing by its name.
fn there_and_back(test: &str, originals: &[PathBuf]) {
    let originals: Vec<_> = originals.iter().filter(|path| path.is_dir()).collect();
    if originals.is_empty() {
        eprintln!("SKIPPED {test}: not on this machine");
        return;
    }
    let world = World::serving();
    world.client().args(["put", "-rp", "--to", "copy/"]).args(&originals).run().ok();
    world.ftpq(["get", "-rp", "copy", "--to", "back"]).ok();
    for original in originals {
        let name = original.file_name().unwrap();
        assert_equal(original, &world.served().join("copy").join(name));
        assert_equal(original, &world.work().join("back").join(name));
    }
}

/// What can be said of a name.
#[derive(Debug, PartialEq)]
struct Node {
    kind: Kind,
    mode: u32,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
}

#[derive(Debug, PartialEq)]
enum Kind {
    /// The digest of its contents.
    File(blake3::Hash),
    Folder,
    Link(PathBuf),
}

/// Asserts that nothing tells two trees apart: not names, kinds, contents, modes, times or targets, of the
/// folders themselves either. Once more in the words of `diff -r`.
#[track_caller]
fn assert_equal(one: &Path, other: &Path) {
    let (ours, theirs) = (described(one), described(other));
    for (path, node) in &ours {
        assert_eq!(Some(node), theirs.get(path), "{}", path.display());
    }
    let more: Vec<_> = theirs.keys().filter(|path| !ours.contains_key(*path)).collect();
    assert!(more.is_empty(), "not in the original: {more:?}");
    match Command::new("diff").args(["-r", "--no-dereference"]).args([one, other]).output() {
        Ok(diff) => assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
}

/// A folder and all that is in it, by the path from there.
fn described(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let kind = if meta.is_symlink() {
            Kind::Link(fs::read_link(&path).unwrap())
        } else if meta.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
            Kind::Folder
        } else {
            Kind::File(blake3::hash(&fs::read(&path).unwrap()))
        };
        let node = Node { kind, mode: meta.mode() & 0o7777, mtime: (meta.mtime(), meta.mtime_nsec()) };
        found.insert(path.strip_prefix(root).unwrap().to_owned(), node);
    }
    found
}
