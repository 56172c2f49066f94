//! `ftpq clients`: whom a server lets in.

use std::fs;

use serde_json::json;

use crate::support::{HostileKey, RawClient, Run, World};

/// A world without a server, its list, and the keys in it.
fn list(world: &World) -> [String; 3] {
    let keys = ["a", "b", "c"].map(|name| HostileKey::at(&world.path(format!("keys/{name}.pem"))).fingerprint);
    let [a, b, c] = &keys;
    let text = format!(
        "# the family\n{b} name=bob rights=list,read root=/photos quota=10G files=1000 rate=1M \
         from=10.0.0.0/8,::1 expires=2100-01-01   # until then\n\n\
         {a} name=alice rights=list,read,write\nnonsense\n  # and friends\n{c} name=alice rights=write\n"
    );
    fs::write(world.authorized_clients(), text).unwrap();
    keys
}

fn clients(world: &World, args: &[&str]) -> Run {
    world.home_program().arg("clients").args(args).run()
}

#[test]
fn list_shows_a_line_each_by_name_and_what_counts_for_nothing() {
    let world = World::new();
    let [a, b, c] = list(&world);
    for args in [&[][..], &["list"]] {
        let run = clients(&world, args).ok();
        let lines: Vec<Vec<_>> = run.lines().iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.iter().map(|words| words[0]).collect::<Vec<_>>(), ["alice", "alice", "bob"]);
        let alices: Vec<_> = lines[..2].iter().map(|words| *words.last().unwrap()).collect();
        assert!(alices.contains(&a.as_str()) && alices.contains(&c.as_str()), "{}", run.stdout);
        assert_eq!(lines[2][1..3], ["list,read", "/photos"]);
        assert_eq!(*lines[2].last().unwrap(), b);
        for limit in ["quota 10G", "files 1000", "rate 1M/s", "from 10.0.0.0/8,::1/128", "expires 2100-01-01 00:00 UTC"]
        {
            assert!(run.lines()[2].contains(limit), "{limit}: {}", run.stdout);
        }
        assert!(run.stderr.starts_with("ftpq: line 5 counts for nothing: "), "{}", run.stderr);
    }
}

#[test]
fn list_json_is_one_object_a_client() {
    let world = World::new();
    let [_, b, _] = list(&world);
    let objects = clients(&world, &["list", "--json"]).ok().json();
    assert_eq!(objects.len(), 3);
    assert_eq!(
        objects[2],
        json!({
            "schema": 1, "name": "bob", "key": b, "invited_until": null, "rights": ["list", "read"],
            "root": "/photos", "quota": 10_u64 << 30, "files": 1000, "rate": 1 << 20,
            "from": ["10.0.0.0/8", "::1/128"], "expires": "2100-01-01T00:00:00Z",
        })
    );
    assert_eq!(objects[0]["quota"], json!(null));
}

#[test]
fn show_tells_all_of_a_name_or_a_key() {
    let world = World::new();
    let [a, b, c] = list(&world);
    let bob = clients(&world, &["show", "bob"]).ok();
    assert_eq!(bob.stdout, clients(&world, &["show", &b]).ok().stdout);
    assert_eq!(
        bob.lines(),
        [
            &format!("key      {b}"),
            "name     bob",
            "rights   list,read",
            "root     /photos",
            "quota    10G",
            "files    1000",
            "rate     1M/s",
            "from     10.0.0.0/8,::1/128",
            "expires  2100-01-01 00:00 UTC",
        ]
    );
    let both = clients(&world, &["show", "alice"]).ok().stdout;
    assert!(both.contains(&a) && both.contains(&c), "{both}");
    clients(&world, &["show", "eve"]).fails(3, "eve: no client has this name or key");
    clients(&world, &["show"]).ends(2);
}

/// What else stands in the file is somebody's, byte for byte.
#[test]
fn remove_takes_these_lines_and_no_others() {
    let world = World::new();
    let [a, ..] = list(&world);
    let before = fs::read_to_string(world.authorized_clients()).unwrap();
    clients(&world, &["remove", "eve"]).fails(3, "eve: no client has this name or key");
    clients(&world, &["remove", &a.replace("SHA256:", "")]).ends(3);
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), before);
    let run = clients(&world, &["remove", &a]).ok();
    assert!(run.stderr.starts_with("removed alice ") && run.stderr.contains(&a), "{}", run.stderr);
    let left: String = before.lines().filter(|line| !line.contains(&a)).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), left);
    // The first is gone, and the second is said to be unknown.
    let run = clients(&world, &["remove", "alice", "eve", "bob"]).ends(3);
    assert!(run.stderr.contains("ftpq: eve: no client has this name or key"), "{}", run.stderr);
    let names: Vec<_> =
        clients(&world, &["list", "--json"]).ok().json().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["bob"]);
    clients(&world, &["remove", "bob"]).ok();
    let nobody = clients(&world, &[]).ok();
    assert!(nobody.stdout.is_empty() && nobody.stderr.contains("Nobody is let in."), "{nobody:?}");
}

#[test]
fn a_client_that_is_removed_is_cut_off_and_others_are_not() {
    let world = World::serving();
    world.authorise(&world.stranger(), "name=guest rights=list");
    world.client_of(&world.stranger()).args(["ls", "--accept-new"]).run().ok();
    let tester = RawClient::connect(&world);
    tester.con();
    clients(&world, &["remove", "guest"]).ok();
    world.client_of(&world.stranger()).arg("ls").run().fails(4, "does not know your key");
    clients(&world, &["remove", "tester"]).ok();
    world.server().log.wait_for("tester@127.0.0.1");
    let line = world.server().log.wait_for("cut off");
    assert!(line.contains("  tester@") && line.ends_with("cut off: this key is not let in any more"), "{line}");
    world.ftpq(["ls"]).fails(4, "does not know your key");
}

#[test]
fn the_list_can_lie_anywhere_and_a_name_cannot_drive_a_terminal() {
    let world = World::new();
    let [a, ..] = list(&world);
    let file = world.path("elsewhere");
    fs::write(&file, format!("{a} name=\u{1b}[31mred rights=list\n")).unwrap();
    let run = clients(&world, &["--authorized-clients", file.to_str().unwrap()]).ok();
    assert!(run.stdout.starts_with("\\u{1b}[31mred "), "{}", run.stdout);
    let missing = world.path("missing");
    let run = clients(&world, &["list", "--authorized-clients", missing.to_str().unwrap()]).ok();
    assert!(run.stderr.contains("Nobody is let in."), "{}", run.stderr);
    let folder = world.work();
    clients(&world, &["list", "--authorized-clients", folder.to_str().unwrap()]).fails(1, folder.to_str().unwrap());
}
