//! `ftpq servers`: the list of servers that are trusted.

use std::fs;

use crate::support::World;

#[test]
fn servers_are_listed_and_removed_by_their_exact_names() {
    let mut world = World::new();
    assert_eq!(world.ftpq(["servers"]).ok().stdout, "");
    world.start();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let client = |args: &[&str]| world.client_of(&world.stranger()).args(args).run();
    let (name, key) = (world.server().name(), world.server().key.clone());
    client(&["ls", "--accept-new"]).ok();
    let file = world.stranger().join("known_servers");
    let list = fs::read_to_string(&file).unwrap();
    let next = world.key_of(&world.home());
    fs::write(&file, format!("{list}[::1]:99 {key} next={next} # mine\nelse.where:4433 {next}\n")).unwrap();
    let lines = client(&["servers"]).ok();
    let width = name.len();
    assert_eq!(
        lines.lines(),
        [
            format!("{name:width$}  {key}"),
            format!("{:width$}  {key}  next {next}", "[::1]:99"),
            format!("{:width$}  {next}", "else.where:4433"),
        ]
    );
    let json = client(&["servers", "list", "--json"]).ok().json();
    let line = |server: &str, key: &str, next: Option<&str>| serde_json::json!({ "schema": 1, "server": server, "key": key, "next": next });
    assert_eq!(
        json,
        [line(&name, &key, None), line("[::1]:99", &key, Some(&next)), line("else.where:4433", &next, None)]
    );
    assert_eq!(client(&["servers", "--json"]).ok().json(), json);

    client(&["servers", "remove", "127.0.0.1"]).fails(3, "127.0.0.1:4433: not among the known servers");
    client(&["servers", "remove", "where"]).fails(3, "where:4433");
    let removed = client(&["servers", "remove", "nobody:1", "Else.Where", "[::1]:99"]).ends(3);
    assert_eq!(removed.lines(), [format!("removed else.where:4433 {next}"), format!("removed [::1]:99 {key}")]);
    assert!(removed.stderr.contains("nobody:1: not among the known servers"), "{}", removed.stderr);
    client(&["ls"]).ok();
    assert_eq!(client(&["servers", "remove", &name]).ok().lines(), [format!("removed {name} {key}")]);
    client(&["ls"]).fails(4, "not known");
    client(&["servers", "remove"]).ends(2);
    fs::write(&file, "nonsense\n").unwrap();
    client(&["servers"]).fails(1, "known_servers:1: not a server and its key");
    client(&["servers", "remove", &name]).fails(1, "known_servers:1");
}

/// None undoes what another remembers.
#[test]
fn many_processes_remember_servers_at_once() {
    let world = World::new();
    let program = world.home_program().arg("serve").arg(world.served());
    let server = program.args(["--listen", "0.0.0.0:0"]).serve();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let port = server.address.port();
    let names: Vec<_> = (1..=12).map(|host| format!("127.0.0.{host}:{port}")).collect();
    let start = |name: &String| world.client_of(&world.stranger()).args(["ls", "--accept-new", "-s", name]).spawn();
    let running: Vec<_> = names.iter().map(start).collect();
    running.into_iter().for_each(|run| drop(run.wait().ok()));
    let listed = world.client_of(&world.stranger()).arg("servers").run().ok();
    let mut known: Vec<_> = listed.lines().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    known.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(known, expected);
}
