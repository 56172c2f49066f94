//! `ftpq serve --audit`: a line for everything, which nobody forges, loses unsaid, or reads in passing.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{FullDisk, Program, World, holds, pattern, until};

/// The lines of an audit log, each of which is JSON.
fn lines(audit: &Path) -> Vec<Value> {
    let text = fs::read_to_string(audit).unwrap_or_default();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    text.lines().map(parse).collect()
}

/// Waits until the audit log has so many lines.
fn wait_for_lines(audit: &Path, count: usize) -> Vec<Value> {
    until("the lines are there", || fs::read(audit).is_ok_and(|text| bytecount(&text) >= count));
    lines(audit)
}

fn bytecount(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// A folder for the audit log, and its file there.
fn audit_in(world: &World) -> PathBuf {
    let folder = world.path("logs");
    fs::create_dir(&folder).unwrap();
    folder.join("audit.jsonl")
}

#[test]
fn the_audit_log_has_a_line_for_each_command_and_for_whoever_is_turned_away() {
    let world = World::new();
    let audit = audit_in(&world);
    let server = world.server_program().arg("--audit").arg(&audit).serve();
    assert!(server.screen.contains(&format!("audit log    {}", audit.display())), "{}", server.screen);
    let client = |args: &[&str]| world.client().args(args).env("FTPQ_SERVER", server.name()).run();
    fs::write(world.work().join("file"), pattern(300_000)).unwrap();
    client(&["put", "file"]).ok();
    client(&["get", "file", "--to", "back"]).ok();
    client(&["rm", "nothing"]).fails(3, "/nothing");
    let stranger = world.client_of(&world.stranger()).args(["ls", "--accept-new"]).env("FTPQ_SERVER", server.name());
    stranger.run().fails(4, "does not know your key");
    let [own, other] = [world.home(), world.stranger()].map(|home| world.key_of(&home));
    assert_eq!(server.stop(Signal::TERM), 0);

    let mut lines = lines(&audit);
    for line in &mut lines {
        let time = line["time"].as_str().unwrap().to_owned();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        line.as_object_mut().unwrap().retain(|name, _| !["time", "address", "elapsed_ms"].contains(&name.as_str()));
    }
    let command = |verb: &str, path: Option<&str>, bytes: u64, outcome: &str, code: Option<u32>| {
        let mut line = json!({"schema": 1, "event": "command", "key": own, "name": "tester", "verb": verb,
            "bytes": bytes, "outcome": outcome});
        path.inspect(|path| line["path"] = json!(path));
        code.inspect(|code| line["code"] = json!(code));
        line
    };
    let con = || command("CON", None, 0, "ok", None);
    // Before a client trusts a new server, it breaks off and asks.
    let broken_off: Vec<_> = lines.extract_if(.., |line| line["event"] == "handshake-failed").collect();
    assert!(broken_off.iter().all(|line| line["why"].is_string() && line["schema"] == 1), "{broken_off:?}");
    assert_eq!(broken_off.len(), 1);
    assert_eq!(
        lines,
        [
            con(),
            command("UPLD", Some("/file"), 300_000, "ok", None),
            con(),
            command("DWLD", Some("/file"), 300_000, "ok", None),
            con(),
            command("RM", Some("/nothing"), 0, "not-found", Some(300)),
            json!({"schema": 1, "event": "refused", "key": other, "outcome": "not-authorised", "code": 200}),
        ]
    );
    assert_eq!(fs::metadata(&audit).unwrap().mode() & 0o777, 0o600);
}

/// Whoever reads the audit log must be able to believe it, line by line.
#[test]
fn a_hostile_name_cannot_forge_a_line_of_the_audit_log() {
    let world = World::new();
    let audit = audit_in(&world);
    let server = world.server_program().arg("--audit").arg(&audit).serve();
    let forged =
        "x\"}\n{\"schema\":1,\"event\":\"command\",\"name\":\"root\",\"verb\":\"RM\"}\r\u{1b}[2J\u{202e}\u{2028}\u{85}";
    // A verb has 64 bytes at the most.
    let verb = "NOx\"}\n{\"event\":\"command\",\"verb\":\"RM\"}\r\u{1b}[2J\u{202e}\u{2028}\u{85}";
    let run = |program: Program| program.env("FTPQ_SERVER", server.name()).run();
    fs::write(world.work().join(forged), "x").unwrap();
    run(world.client().arg("put").arg(format!("./{forged}"))).ok();
    run(world.client().args(["get", "-f"]).arg(format!("./{forged}"))).ok();
    run(world.client().arg("call").arg(verb)).fails(1, "no verb NO");
    let bytes = std::ffi::OsStr::from_bytes(b"caf\xe9\n");
    run(world.client().arg("rm").arg(bytes)).fails(3, "caf");
    assert_eq!(server.stop(Signal::TERM), 0);

    let raw = fs::read_to_string(&audit).unwrap();
    assert!(!raw.contains(['\u{1b}', '\r', '\u{202e}', '\u{2028}', '\u{85}']), "{raw:?}");
    let lines = lines(&audit);
    let verbs: Vec<_> = lines.iter().map(|line| line["verb"].as_str().unwrap().to_owned()).collect();
    assert_eq!(verbs, ["CON", "UPLD", "CON", "DWLD", "CON", verb, "CON", "RM"]);
    assert!(lines.iter().all(|line| line["name"] == "tester"), "{raw}");
    let path = json!(format!("/{forged}"));
    assert_eq!((&lines[1]["path"], &lines[3]["path"], &lines[1]["path_hex"]), (&path, &path, &Value::Null));
    assert_eq!((&lines[7]["path"], &lines[7]["path_hex"]), (&json!("/caf\\xe9\\n"), &json!("2f636166e90a")));
}

#[test]
fn sighup_opens_the_audit_log_anew() {
    let world = World::new();
    let audit = audit_in(&world);
    let server = world.server_program().arg("--audit").arg(&audit).serve();
    let ls = || world.client().arg("ls").env("FTPQ_SERVER", server.name()).run().ok();
    ls();
    let old = audit.with_extension("1");
    fs::rename(&audit, &old).unwrap();
    ls();
    server.process.signal(Signal::HUP);
    until("a new file is there", || audit.exists());
    ls();
    assert_eq!((wait_for_lines(&old, 4).len(), wait_for_lines(&audit, 2).len()), (4, 2));
    assert_eq!(fs::metadata(&audit).unwrap().mode() & 0o777, 0o600);
}

/// Lines are lost, and counted; files are not.
#[test]
fn an_audit_log_on_a_full_disk_stops_nothing() {
    let world = World::new();
    let Some(disk) = FullDisk::mount("an_audit_log_on_a_full_disk_stops_nothing", &world.path("logs"), 256 << 10)
    else {
        return;
    };
    let audit = world.path("logs/audit.jsonl");
    let server = world.server_program().arg("--audit").arg(&audit).serve();
    let run = |args: &[&str]| world.client().args(args).env("FTPQ_SERVER", server.name()).run().ok();
    run(&["ls"]);
    let filler = world.path("logs/filler");
    fs::write(&filler, vec![0; usize::try_from(disk.free()).unwrap()]).unwrap();
    // What is begun of a page is still free.
    let long = "x".repeat(200);
    while !server.log.so_far().iter().any(|line| line.contains("the audit log loses lines")) {
        world.client().args(["stat", &long]).env("FTPQ_SERVER", server.name()).run().fails(3, "no such file");
    }
    fs::write(world.work().join("file"), pattern(3000)).unwrap();
    run(&["put", "file"]);
    holds(world.served().join("file"), 3000);
    fs::remove_file(&filler).unwrap();
    run(&["ls"]);
    assert_eq!(server.stop(Signal::TERM), 0);
    let text = fs::read_to_string(&audit).unwrap();
    let lost = text.lines().find(|line| line.contains("\"event\":\"lost\"")).expect("a count of what was lost");
    let lost: Value = serde_json::from_str(lost).unwrap();
    assert!(lost["lines"].as_u64().unwrap() >= 3, "{lost}");
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["verb"], "LIST");
}

#[test]
fn an_audit_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let world = World::new();
    symlink(world.path("elsewhere"), world.path("link")).unwrap();
    for file in ["no/such/folder", "served", "link"] {
        let run = world.server_program().arg("--audit").arg(world.path(file)).run();
        run.fails(1, &format!("cannot open the audit log {}", world.path(file).display()));
    }
    assert!(!world.path("elsewhere").exists());
}
