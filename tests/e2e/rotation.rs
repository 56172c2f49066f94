//! The server gets another key: who was told goes on, who was not is asked to look.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::support::{World, holds, pattern};

/// A server, a client that is known to it and knows it, and another one.
fn met() -> (World, PathBuf, PathBuf) {
    let world = World::serving();
    let homes = [world.stranger(), world.path("late")];
    for (home, name) in homes.iter().zip(["friend", "late"]) {
        world.authorise(home, &format!("name={name} rights=list,read,write"));
        world.client_of(home).args(["ls", "--accept-new"]).run().ok();
    }
    fs::write(world.served().join("file"), pattern(10)).unwrap();
    let [friend, late] = homes;
    (world, friend, late)
}

/// What the client with this home knows of the server: the line of its list.
fn known(world: &World, home: &Path) -> String {
    let name = format!("{} ", world.server().name());
    let list = fs::read_to_string(home.join("known_servers")).unwrap();
    let line = list.lines().find_map(|line| line.strip_prefix(&name)).expect("a line of the server");
    line.to_owned()
}

/// `ftpq key rotate …` where the server runs.
fn rotate(world: &World, options: &[&str]) -> String {
    world.home_program().args(["key", "rotate"]).args(options).run().ok().stdout
}

/// The word after `label` in what `key rotate` prints.
fn told(text: &str, label: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("no {label} in {text}"));
    line.split_whitespace().next().unwrap().trim_end_matches(',').to_owned()
}

#[test]
fn who_was_there_in_the_overlap_goes_on_and_who_was_not_sees_both_keys() {
    let (world, friend, late) = met();
    let old = world.server().key.clone();
    let begun = rotate(&world, &["--overlap", "3"]);
    let next = told(&begun, "next ");
    assert_eq!(told(&begun, "key "), old);
    assert_eq!(known(&world, &friend), old);
    // The server says it from its next connection on; this user's own client needs nobody's word.
    world.client_of(&friend).arg("ls").run().ok();
    world.ftpq(["ls"]).ok();
    assert_eq!(known(&world, &friend), format!("{old} next={next}"));
    let con = world.client_of(&friend).arg("con").run().ok().stdout;
    assert_eq!((told(&con, "key "), told(&con, "next key ")), (old.clone(), next.clone()));

    let ended = rotate(&world, &["--now"]);
    assert_eq!((told(&ended, "key "), told(&ended, "former ")), (next.clone(), old.clone()));
    world.ftpq(["ls"]).ok();
    world.server().log.wait_for(&format!("the server's key is now {next}; it was {old}"));
    world.client_of(&friend).arg("ls").run().ok();
    assert_eq!(known(&world, &friend), next);
    world.client_of(&friend).args(["get", "file"]).run().ok();
    holds(world.work().join("file"), 10);

    let name = world.server().name();
    for options in [&["ls"][..], &["ls", "--accept-new"]] {
        let line = world.client_of(&late).args(options).run().fails(4, "has CHANGED");
        assert!(line.contains(&old) && line.contains(&next), "{line}");
        assert!(line.contains(&format!("ftpq servers remove {name}")), "{line}");
    }
    assert_eq!(known(&world, &late), old);
    world.client_of(&late).args(["servers", "remove", &name]).run().ok();
    world.client_of(&late).args(["ls", "--accept-new"]).run().ok();
    assert_eq!(known(&world, &late), next);
}

#[test]
fn the_rotation_survives_restarts_and_ends_by_itself() {
    let (mut world, friend, _) = met();
    let old = world.server().key.clone();
    let next = told(&rotate(&world, &[]), "next ");
    world.restart();
    assert_eq!(world.server().key, old);
    assert!(world.server().screen.contains(&format!("  next key     {next} from ")), "{}", world.server().screen);
    world.client_of(&friend).arg("ls").run().ok();
    assert_eq!(known(&world, &friend), format!("{old} next={next}"));
    due(&world);
    // Whoever comes first makes the server look.
    world.client_of(&friend).arg("ls").run().ok();
    world.client_of(&friend).arg("ls").run().ok();
    assert_eq!(known(&world, &friend), next);
    world.server().log.wait_for(&format!("the server's key is now {next}"));
    // And at a start.
    let third = told(&rotate(&world, &[]), "next ");
    world.client_of(&friend).arg("ls").run().ok();
    due(&world);
    world.restart();
    assert_eq!(world.server().key, third);
    world.client_of(&friend).arg("ls").run().ok();
    assert_eq!(known(&world, &friend), third);
    world.ftpq(["ls"]).ok();
    // The former ones are kept, for their owner alone.
    let folder = world.home().join("identity");
    let kept: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept = kept.iter().filter(|file| file.to_string_lossy().contains("server-old-"));
    assert_eq!(
        kept.map(|file| fs::metadata(file).unwrap().permissions().mode() & 0o777).collect::<Vec<_>>(),
        [0o600; 2]
    );
}

/// The time of the next key has come.
fn due(world: &World) {
    let file = world.home().join("identity/server-next.pem");
    let pem = fs::read_to_string(&file).unwrap();
    let (note, key) = pem.split_once('\n').unwrap();
    assert!(note.starts_with("takes over at 2"), "{note}");
    fs::write(&file, format!("takes over at 2020-01-01T00:00:00Z\n{key}")).unwrap();
}

#[test]
fn a_rotation_that_is_withdrawn_is_forgotten() {
    let (world, friend, _) = met();
    let old = world.server().key.clone();
    let show = |options: &[&str]| world.home_program().arg("key").args(options).run().ok().stdout;
    assert_eq!(show(&["show", "server"]), format!("{old}\n"));
    let next = told(&rotate(&world, &[]), "next ");
    assert!(show(&["show", "server"]).starts_with(&format!("{old}\nnext {next} from ")));
    world.home_program().args(["key", "rotate"]).run().fails(1, "takes over at");
    world.client_of(&friend).arg("ls").run().ok();
    assert_eq!(known(&world, &friend), format!("{old} next={next}"));
    rotate(&world, &["--cancel"]);
    world.client_of(&friend).arg("ls").run().ok();
    assert_eq!(known(&world, &friend), old);
    for option in ["--cancel", "--now"] {
        world.home_program().args(["key", "rotate", option]).run().fails(3, "no rotation is under way");
    }
    world.home_program().args(["key", "rotate", "--now", "--cancel"]).run().ends(2);
    world.home_program().args(["key", "rotate", "--overlap", "0"]).run().ends(2);
    assert!(!world.home().join("identity/server-next.pem").exists());
    assert_eq!(show(&["show", "server"]), format!("{old}\n"));
}

/// One that has no key yet has none to rotate.
#[test]
fn there_is_nothing_to_rotate_before_the_first_start() {
    let world = World::new();
    world.home_program().args(["key", "rotate"]).run().fails(3, "no key there: ftpq serve makes one");
    world.home_program().args(["key", "show", "server"]).run().fails(3, "no key there");
    assert!(!world.home().join("identity").exists());
}

/// Neither the exchange of the key nor a restart after it cuts a transfer of a client that was told.
#[test]
fn a_transfer_goes_on_while_the_key_changes() {
    let (mut world, friend, _) = met();
    fs::write(world.served().join("big"), pattern(64 << 20)).unwrap();
    let old = world.server().key.clone();
    let next = told(&rotate(&world, &[]), "next ");
    let (mut client, mut stdout, log) = world.client_of(&friend).args(["get", "big", "--to", "-"]).spawn_unread();
    let mut got = vec![0; 1 << 20];
    stdout.read_exact(&mut got).unwrap();
    // It waits now for whoever reads: the rest is still to come.
    rotate(&world, &["--now"]);
    world.ftpq(["ls"]).ok();
    world.server().log.wait_for(&format!("the server's key is now {next}; it was {old}"));
    world.restart();
    assert_eq!(world.server().key, next);
    stdout.read_to_end(&mut got).unwrap();
    assert!(client.wait().success(), "{:?}", log.so_far());
    assert!(got == fs::read(world.served().join("big")).unwrap());
    assert_eq!(known(&world, &friend), next);
}
