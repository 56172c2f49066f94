//! A drop box: whoever may only write brings things of every kind, and sees and replaces nothing.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::process::Signal;

use crate::support::{Program, World, all_names, assert_same_tree, holds, pattern, solid, tree, until, visible_names};

const MIB: usize = 1024 * 1024;

/// A server with a drop box.
struct DropBox(World);

impl DropBox {
    fn new() -> Self {
        let world = World::serving();
        world.authorise(&world.stranger(), "name=guest rights=write");
        Self(world)
    }

    fn client(&self, args: &[&str]) -> Program {
        self.0.client_of(&self.0.stranger()).arg("--accept-new").args(args)
    }
}

#[test]
fn files_of_every_size_and_pipes_arrive() {
    let this = DropBox::new();
    let (work, served) = (this.0.work(), this.0.served());
    for (name, len) in [("none", 0), ("small", 1000), ("whole", 3_000_000), ("large", 20 * MIB + 77)] {
        fs::write(work.join(name), pattern(len)).unwrap();
        this.client(&["put", name]).run().ok();
        this.client(&["put", "-p", name, "--to", "in/"]).run().ok();
        this.client(&["put", name, "--to", &format!("renamed-{name}")]).run().ok();
        for file in [name, &format!("in/{name}"), &format!("renamed-{name}")] {
            holds(served.join(file), len);
        }
        this.client(&["put", "-", "--to", &format!("piped-{name}")]).input(pattern(len)).run().ok();
        holds(served.join(format!("piped-{name}")), len);
    }
    this.client(&["put", "small", "whole", "large", "--to", "several/"]).run().ok();
    assert_eq!(all_names(&served.join("several")), ["large", "small", "whole"]);
    assert_eq!(visible_names(&served), all_names(&served));
}

#[test]
fn a_tree_arrives_with_its_modes_and_links_into_folders_that_are_there() {
    let this = DropBox::new();
    let (from, to) = (this.0.work().join("tree"), this.0.served().join("tree"));
    tree(&from);
    fs::write(from.join("a/large"), pattern(17 * MIB)).unwrap();
    std::os::unix::fs::symlink("large", from.join("a/link")).unwrap();
    fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::create_dir_all(to.join("a/b")).unwrap();
    let run = this.client(&["put", "-rp", "tree"]).run().ok();
    assert!(run.stderr.contains(", 1 link"), "{}", run.stderr);
    assert_same_tree(&from, &to);
    assert_eq!(fs::metadata(to.join("a/b")).unwrap().permissions().mode() & 0o777, 0o750);
    assert_eq!(fs::read_link(to.join("a/link")).unwrap().to_str(), Some("large"));
    // Nothing of it twice; what is new comes in.
    fs::write(from.join("a/new"), pattern(5)).unwrap();
    this.client(&["put", "-r", "--no-clobber", "tree"]).run().ok();
    assert_same_tree(&from, &to);
}

/// What is kept of an upload is its client's own: to go on with it needs no right to see anything.
#[test]
fn an_upload_that_was_cut_goes_on() {
    let this = DropBox::new();
    let size = 400 << 20;
    solid(&this.0.work().join("large"), size);
    let put = this.client(&["put", "large"]).spawn();
    until("the upload is under way", || this.0.server().process.bytes_written() > 80 << 20);
    put.signal(Signal::KILL);
    assert_eq!(put.wait().code, -9);
    let run = this.client(&["put", "large"]).run().ok();
    assert!(run.stderr.contains("kept from before"), "{}", run.stderr);
    assert_eq!(fs::metadata(this.0.served().join("large")).unwrap().len(), size);
    assert_eq!(all_names(&this.0.served()), ["large"]);
}

#[test]
fn nothing_is_seen_replaced_moved_or_removed() {
    let this = DropBox::new();
    let (work, served) = (this.0.work(), this.0.served());
    fs::create_dir(served.join("folder")).unwrap();
    for file in ["file", "folder/file"] {
        fs::write(served.join(file), "old").unwrap();
    }
    fs::write(served.join("large"), pattern(17 * MIB)).unwrap();
    fs::write(work.join("file"), pattern(1000)).unwrap();
    fs::write(work.join("large"), pattern(18 * MIB)).unwrap();
    for (args, right) in [
        (&["ls"][..], "list"),
        (&["ls", "-lR", "folder"], "list"),
        (&["stat", "file"], "list"),
        (&["cd", "folder"], "list"),
        (&["get", "file", "--to", "got"], "read"),
        (&["get", "file", "--to", "-"], "read"),
        (&["get", "large", "--to", "got"], "read"),
        (&["get", "-r", "folder", "--to", "got"], "list"),
        (&["put", "-f", "file"], "delete"),
        (&["put", "-f", "large"], "delete"),
        (&["put", "-f", "file", "--to", "new"], "delete"),
        (&["put", "-f", "-", "--to", "file"], "delete"),
        (&["mv", "file", "new"], "delete"),
        (&["rm", "file"], "delete"),
        (&["rm", "-r", "folder"], "delete"),
    ] {
        let line = this.client(args).input("piped").run().fails(4, &format!("guest may not {right} here"));
        assert!(!line.contains("old"), "{args:?}: {line}");
    }
    for args in [&["put", "file"][..], &["put", "large"], &["put", "-", "--to", "file"]] {
        this.client(args).input("piped").run().fails(1, "exists already");
    }
    assert_eq!(fs::read(served.join("file")).unwrap(), b"old");
    assert_eq!(fs::read(served.join("folder/file")).unwrap(), b"old");
    holds(served.join("large"), 17 * MIB);
    assert_eq!(all_names(&served), ["file", "folder", "large"]);
    assert_eq!(all_names(&work), ["file", "large"]);
}

/// The client cannot know that it is a folder, and says what to do about it.
#[test]
fn a_folder_must_be_named_as_one() {
    let this = DropBox::new();
    fs::create_dir(this.0.served().join("in")).unwrap();
    for name in ["one", "two"] {
        fs::write(this.0.work().join(name), pattern(10)).unwrap();
    }
    this.client(&["put", "one", "--to", "in"]).run().fails(1, "/in: is a folder (end it with / to put things there)");
    this.client(&["put", "-", "--to", "in"]).input("piped").run().fails(1, "/in: is a folder");
    this.client(&["put", "one", "two", "--to", "in"])
        .run()
        .fails(2, "/in: several things need a folder: end it with /");
    this.client(&["put", "one", "two", "--to", "in/"]).run().ok();
    assert_eq!(all_names(&this.0.served().join("in")), ["one", "two"]);
}
