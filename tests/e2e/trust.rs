//! Who trusts whom: servers' keys, clients' keys, and what each client may do.

use std::{fs, os::unix::fs::PermissionsExt};

use ftpq_transport::Identity;

use crate::support::{World, all_names, holds, pattern};

/// Nothing but a person at a terminal, or `--accept-new`, makes a server known.
#[test]
fn an_unknown_server_is_refused_where_nobody_can_be_asked() {
    let world = World::serving();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let line = world.client_of(&world.stranger()).arg("ls").run().fails(4, "not known");
    assert!(line.contains(&world.server().key), "{line}");
    assert!(line.contains(&format!("ftpq con {} --accept-new", world.server().name())), "{line}");
    assert!(!world.stranger().join("known_servers").exists());
    assert!(!world.server().log.so_far().iter().any(|line| line.contains("LIST")));
}

#[test]
fn accept_new_pins_the_server() {
    let world = World::serving();
    world.authorise(&world.stranger(), "name=guest rights=list");
    world.client_of(&world.stranger()).args(["ls", "--accept-new"]).run().ok();
    world.client_of(&world.stranger()).arg("ls").run().ok();
    let known = fs::read_to_string(world.stranger().join("known_servers")).unwrap();
    assert!(known.contains(&format!("{} {}\n", world.server().name(), world.server().key)), "{known}");
}

/// The one error that must never be waved through.
#[test]
fn a_changed_key_is_an_error_that_shows_both() {
    let mut world = World::serving();
    world.authorise(&world.stranger(), "name=guest rights=list");
    world.client_of(&world.stranger()).args(["ls", "--accept-new"]).run().ok();
    let old = world.server().key.clone();
    let (other, served, clients) = (world.path("other.pem"), world.served(), world.authorized_clients());
    world.replace_server(|program, address| {
        Identity::load_or_create(&other).unwrap();
        let program = program.arg("serve").arg(served).arg("--identity").arg(other);
        program.arg("--authorized-clients").arg(clients).args(["--listen", &address]).serve()
    });
    assert_ne!(world.server().key, old);
    for args in [&["ls"][..], &["ls", "--accept-new"], &["con", "--accept-new"]] {
        let line = world.client_of(&world.stranger()).args(args).run().fails(4, "CHANGED");
        assert!(line.contains(&old) && line.contains(&world.server().key), "{line}");
        assert!(line.contains(&format!("ftpq servers remove {}", world.server().name())), "{line}");
    }
    let known = fs::read_to_string(world.stranger().join("known_servers")).unwrap();
    assert!(known.contains(&old) && !known.contains(&world.server().key), "{known}");
}

#[test]
fn a_list_of_known_servers_that_cannot_be_read_is_an_error() {
    let world = World::serving();
    fs::write(world.home().join("known_servers"), "nonsense\n").unwrap();
    world.ftpq(["ls"]).fails(1, "known_servers:1: not a server and its key");
}

#[test]
fn a_client_that_is_not_in_the_list_is_told_what_to_ask_for() {
    let world = World::serving();
    fs::write(world.work().join("file"), pattern(10)).unwrap();
    fs::write(world.served().join("old"), "old").unwrap();
    let key = world.key_of(&world.stranger());
    for args in [&["ls"][..], &["con"], &["put", "file"], &["put", "-f", "file", "--to", "old"], &["rm", "old"]] {
        let line = world.client_of(&world.stranger()).arg("--accept-new").args(args).run().fails(4, &key);
        assert!(line.contains("authorized_clients") && line.contains("name=YOUR-NAME"), "{line}");
    }
    assert_eq!(all_names(&world.served()), ["old"]);
    assert_eq!(fs::read(world.served().join("old")).unwrap(), b"old");
    world.server().log.wait_for(&format!("{key}@127.0.0.1"));
    // Nothing ran: the log has refusals and no command.
    let log = world.server().log.so_far();
    let harmless = |line: &String| line.contains("refused: not-authorised") || line.contains("handshake failed");
    assert!(log.iter().all(harmless), "{log:#?}");
}

/// What the error says is enough: its owner adds that line, and it works, without a restart.
#[test]
fn the_line_that_a_refused_client_is_told_lets_it_in() {
    let world = World::serving();
    let client = || world.client_of(&world.stranger()).arg("--accept-new");
    let told = client().arg("ls").run().fails(4, "add the line");
    let line = told.split('"').nth(1).expect("a line in quotes").replace("YOUR-NAME", "guest");
    let list = fs::read_to_string(world.authorized_clients()).unwrap();
    world.set_clients(&format!("{list}{line}\n"));
    let con = client().arg("con").run().ok();
    assert!(
        con.stdout.contains("you      guest") && con.stdout.contains("rights   list,read,write\n"),
        "{}",
        con.stdout
    );
    // And out again.
    world.set_clients(&list);
    client().arg("ls").run().fails(4, "does not know your key");
}

#[test]
fn rights_bound_what_a_client_may_do() {
    let world = World::serving();
    world.authorise(&world.stranger(), "name=guest rights=list,read");
    fs::write(world.served().join("file"), pattern(10)).unwrap();
    fs::write(world.work().join("mine"), pattern(10)).unwrap();
    let client = |args: &[&str]| world.client_of(&world.stranger()).arg("--accept-new").args(args).run();
    client(&["ls"]).ok();
    client(&["stat", "file"]).ok();
    client(&["get", "file"]).ok();
    for (args, right) in [
        (&["put", "mine"][..], "write"),
        (&["put", "-r", "."], "write"),
        (&["mkdir", "new"], "write"),
        (&["rm", "file"], "delete"),
        (&["mv", "file", "other"], "write"),
    ] {
        let run = client(args);
        // A tree goes on after a failure, and says so.
        if args.contains(&"-r") {
            assert!(run.ends(23).stderr.contains("guest may not write here"));
        } else {
            run.fails(4, &format!("guest may not {right} here"));
        }
    }
    assert_eq!(all_names(&world.served()), ["file"]);
    world.server().log.wait_for("guest@127.0.0.1");
}

/// To replace is to delete: whoever may only write may only add.
#[test]
fn replacing_needs_the_right_to_delete() {
    let world = World::serving();
    world.authorise(&world.stranger(), "name=guest rights=list,read,write");
    fs::write(world.served().join("file"), "old").unwrap();
    fs::write(world.work().join("file"), pattern(10)).unwrap();
    let client = |args: &[&str]| world.client_of(&world.stranger()).arg("--accept-new").args(args).run();
    client(&["put", "file"]).fails(1, "exists already");
    client(&["put", "-f", "file"]).fails(4, "may not delete");
    client(&["mv", "file", "other"]).fails(4, "may not delete");
    client(&["rm", "file"]).fails(4, "may not delete");
    assert_eq!(fs::read(world.served().join("file")).unwrap(), b"old");
    client(&["put", "file", "--to", "new"]).ok();
}

#[test]
fn a_root_of_ones_own_is_all_that_one_sees() {
    let world = World::serving();
    fs::create_dir_all(world.served().join("home/guest/inner")).unwrap();
    fs::write(world.served().join("secret"), "x").unwrap();
    std::os::unix::fs::symlink("../../secret", world.served().join("home/guest/link")).unwrap();
    world.authorise(&world.stranger(), "name=guest rights=list,read,write,delete root=/home/guest");
    fs::write(world.work().join("file"), pattern(10)).unwrap();
    let client = |args: &[&str]| world.client_of(&world.stranger()).arg("--accept-new").args(args).run();
    assert_eq!(client(&["ls", "/"]).ok().lines(), ["inner/", "link@"]);
    assert_eq!(client(&["ls", "../../.."]).ok().lines(), ["inner/", "link@"]);
    client(&["get", "/secret"]).fails(3, "/secret");
    client(&["get", "../../secret"]).fails(3, "/secret");
    client(&["get", "link"]).fails(1, "not a regular file");
    client(&["ls", "link/secret"]).fails(1, "not ");
    client(&["put", "file", "--to", "/../../secret"]).ok();
    assert_eq!(fs::read(world.served().join("secret")).unwrap(), b"x");
    holds(world.served().join("home/guest/secret"), 10);
}

/// An option that this release does not know may be a restriction.
#[test]
fn a_line_that_is_not_understood_counts_for_nothing_and_is_reported() {
    let mut world = World::new();
    let key = world.key_of(&world.home());
    fs::write(world.authorized_clients(), format!("# friends\n{key} name=me rights=list colour=red\nnonsense\n"))
        .unwrap();
    world.start();
    let log = &world.server().log;
    assert_eq!(log.wait_for("line 2"), "ftpq: authorized_clients line 2 counts for nothing: unknown option colour=red");
    log.wait_for("line 3 counts for nothing: a key fingerprint looks like");
    assert!(world.server().screen.contains("  clients      0 in "), "{}", world.server().screen);
    world.ftpq(["ls"]).fails(4, "does not know your key");
    // After a change of the file: within a second, once.
    fs::write(world.authorized_clients(), format!("\n\n\n{key} name=me rights=list root=../up\n")).unwrap();
    world.ftpq(["ls"]).fails(4, "does not know your key");
    world.ftpq(["ls"]).fails(4, "does not know your key");
    log.wait_for("line 4 counts for nothing: root=../up is not written as /FOLDER/FOLDER");
    let reports = log.so_far().iter().filter(|line| line.contains("counts for nothing")).count();
    assert_eq!(reports, 3, "{:#?}", log.so_far());
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let world = World::serving();
    for name in ["client.pem", "server.pem"] {
        let file = world.home().join("identity").join(name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let run = if name == "client.pem" { world.ftpq(["ls"]) } else { world.server_program().run() };
        let line = run.fails(1, "readable by others (mode 644)");
        assert!(line.contains(&format!("chmod 600 {}", file.display())), "{line}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_key_that_is_none_is_refused() {
    let world = World::new();
    fs::create_dir(world.home().join("identity")).unwrap();
    let file = world.home().join("identity/client.pem");
    fs::write(&file, "not a key").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    world.ftpq(["key"]).fails(1, "client.pem is not a PEM private key");
    world.ftpq(["key", "-i", "nowhere.pem"]).fails(1, "nowhere.pem");
    assert_eq!(fs::read(&file).unwrap(), b"not a key");
}

/// As with keys that were made elsewhere: nothing of the home folder is needed but a place for pins.
#[test]
fn keys_and_lists_can_lie_anywhere() {
    let world = World::new();
    let keys = world.path("keys");
    let [client, server] = ["client.pem", "server.pem"].map(|name| keys.join(name));
    let key = Identity::load_or_create(&client).unwrap().fingerprint();
    let server_key = Identity::load_or_create(&server).unwrap().fingerprint();
    fs::write(keys.join("clients"), format!("{key} name=dev rights=list,read\n")).unwrap();
    let program = world.server_program().arg("--identity").arg(&server);
    let running = program.arg("--authorized-clients").arg(keys.join("clients")).serve();
    assert_eq!(running.key, server_key.to_string());
    let run =
        world.client_of(&world.stranger()).args(["con", &running.name(), "--accept-new"]).arg("-i").arg(&client).run();
    assert!(run.ok().stdout.contains(&format!("you      dev ({key})")));
    assert!(!world.home().join("identity").exists() && !world.stranger().join("identity").exists());
    assert!(!world.authorized_clients().exists());
}
