//! Lines of the audit log, whatever is in them and whatever becomes of the file.

use ftpq_handler::Failure;
use ftpq_proto::Status;
use ftpq_server::Network;
use ftpq_transport::{Closed, Identity};
use serde_json::{Value, json};

use super::*;

fn command<'a>(name: &'a str, verb: &'a str, path: Option<&'a RemotePath>) -> Record<'a> {
    Record::Command {
        key: "SHA256:x".into(),
        name,
        address: "[::1]:1".into(),
        verb,
        path,
        path_hex: path.and_then(hex_of),
        bytes: 7,
        elapsed_ms: 1,
        outcome: "ok",
        code: None,
    }
}

fn written(record: Record<'_>) -> String {
    let mut bytes = Vec::new();
    line(record, jiff::Timestamp::from_millisecond(1_795_340_000_007).unwrap(), &mut bytes);
    String::from_utf8(bytes).unwrap()
}

/// The lines of `text`, each of which is JSON.
fn parsed(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    text.lines().map(parse).collect()
}

fn path(bytes: &[u8]) -> RemotePath {
    UserPath::new(bytes).unwrap().resolve(&RemotePath::root()).unwrap()
}

#[test]
fn a_line_has_these_fields_in_this_order() {
    let plain = path(b"/a b");
    assert_eq!(
        written(command("alice", "UPLD", Some(&plain))),
        "{\"schema\":1,\"time\":\"2026-11-22T09:33:20.007Z\",\"event\":\"command\",\"key\":\"SHA256:x\",\
         \"name\":\"alice\",\"address\":\"[::1]:1\",\"verb\":\"UPLD\",\"path\":\"/a b\",\"bytes\":7,\
         \"elapsed_ms\":1,\"outcome\":\"ok\"}\n"
    );
}

/// What a client calls itself, its verb and its file decides nothing about the shape of the log.
#[test]
fn a_hostile_name_is_one_line_and_comes_back_as_it_was() {
    let forged = "x\"}\n{\"schema\":1,\"event\":\"command\",\"name\":\"root\"}\r\n";
    for hostile in [
        forged,
        "\\\" \\n \\u000a ' / \u{7f}",
        "\u{1b}[2J\u{1b}]0;title\u{7}\u{8}\u{0b}",
        "\u{85}\u{9b}31m\u{2028}\u{2029}",
        "\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}\u{ad}\u{e0041}",
        "\u{e000}\u{10ffff}\u{fffe}",
        "e\u{301} 世界 🦀 ول Olá",
    ] {
        let (name, file) = (hostile, path(format!("/{}", hostile.replace('/', "")).as_bytes()));
        let text = written(command(name, hostile, Some(&file)));
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let bad = |c: char| c != '\n' && c != '\'' && c != '"' && c != '\\' && c.escape_debug().len() != 1;
        assert!(!text.contains(bad), "{text:?}");
        let value = &parsed(&text)[0];
        assert_eq!((&value["name"], &value["verb"]), (&json!(hostile), &json!(hostile)));
        assert_eq!(value["path"], json!(format!("/{}", hostile.replace('/', ""))));
        assert_eq!(value["path_hex"], Value::Null);
        assert_eq!(value["event"], "command");
    }
    assert!(written(command("世界 🦀 Olá", "", None)).contains("世界 🦀 Olá"));
}

#[test]
fn a_path_that_is_not_utf8_has_its_bytes_beside_it() {
    let odd = path(b"/caf\xe9\n\\xe9");
    let value = &parsed(&written(command("a", "RM", Some(&odd))))[0];
    assert_eq!(value["path"], "/caf\\xe9\\n\\\\xe9");
    assert_eq!(value["path_hex"], "2f636166e90a5c786539");
}

#[test]
fn every_event_that_counts_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&folder.path().join("audit.jsonl")).unwrap();
    let key = Identity::generate().unwrap().fingerprint();
    let remote = "192.0.2.7:4000".parse().unwrap();
    let failure = Failure::new(Status::NotFound, "/x: no such file\n");
    let elapsed = Duration::from_micros(2500);
    let event = Event::Command {
        user: "al",
        key,
        remote,
        verb: "RM",
        path: Some(&path(b"/x")),
        bytes: 0,
        elapsed,
        outcome: Err(&failure),
    };
    let why = Closed::Transport("\u{1b}[2J\nforged".into());
    audit.event(event);
    audit.event(Event::NotAuthorised { remote, key, why: &Failure::new(Status::BadTicket, "spent") });
    audit.event(Event::TicketSpent { user: "al", key, remote });
    audit.event(Event::Revoked { user: "al", key, remote, why: "gone" });
    audit.event(Event::KeptOut { network: Network::of(remote.ip()), time: Duration::from_secs(15) });
    audit.event(Event::HandshakeFailed { remote, why: &why });
    let text = fs::read_to_string(audit.file()).unwrap();
    let mut lines = parsed(&text);
    for line in &mut lines {
        let time: jiff::Timestamp = line["time"].take().as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(time) < jiff::SignedDuration::from_hours(1));
    }
    let (key, address) = (key.to_string(), "192.0.2.7:4000");
    assert_eq!(
        lines,
        [
            json!({"schema": 1, "time": null, "event": "command", "key": key, "name": "al", "address": address,
                "verb": "RM", "path": "/x", "bytes": 0, "elapsed_ms": 2, "outcome": "not-found",
                "code": Status::NotFound.code()}),
            json!({"schema": 1, "time": null, "event": "refused", "key": key, "address": address,
                "outcome": "bad-ticket", "code": 202}),
            json!({"schema": 1, "time": null, "event": "ticket-spent", "key": key, "name": "al", "address": address}),
            json!({"schema": 1, "time": null, "event": "cut-off", "key": key, "name": "al", "address": address,
                "why": "gone"}),
            json!({"schema": 1, "time": null, "event": "kept-out", "network": "192.0.2.7", "seconds": 15}),
            json!({"schema": 1, "time": null, "event": "handshake-failed", "address": address,
                "why": why.to_string()}),
        ]
    );
}

/// A disk: what is on it, and how many more bytes fit.
#[derive(Default)]
struct Disk {
    text: Vec<u8>,
    room: usize,
    writes: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if self.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let fits = bytes.len().min(self.room);
        self.text.extend(&bytes[..fits]);
        self.room -= fits;
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_are_lost_are_counted_and_told_of() {
    let start = Instant::now();
    let mut sink = Sink::new(Disk { room: usize::MAX, ..Disk::default() });
    let mut write = |room: usize, name: &str, after: u64| {
        sink.out.room = room;
        let told = sink.write(command(name, "", None), jiff::Timestamp::now(), start + Duration::from_secs(after));
        (told.is_some(), String::from_utf8(sink.out.text.clone()).unwrap(), sink.out.writes)
    };
    assert_eq!((write(usize::MAX, "a", 0).0, write(0, "b", 1).0, write(20, "c", 2).0), (false, true, false));
    assert_eq!((write(0, "d", 60).0, write(0, "e", 61).0, write(0, "f", 62).0), (false, true, false));
    let (told, text, writes) = write(usize::MAX, "g", 63);
    assert_eq!((told, writes), (false, 7), "one write each");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[1].len()), (4, 20), "{text}");
    let [first, lost, last] = [0, 2, 3].map(|at| parsed(lines[at]).remove(0));
    assert_eq!((&first["name"], &last["name"]), (&json!("a"), &json!("g")));
    assert_eq!((&lost["event"], &lost["lines"]), (&json!("lost"), &json!(5)));
    let (_, text, _) = write(usize::MAX, "h", 64);
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn it_is_private_and_goes_on_where_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    for name in ["a", "b"] {
        Audit::open(&file).unwrap().write(command(name, "", None));
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Cut within a line: by a power cut, or by a full disk and an end.
    let len = fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(len - 5).unwrap();
    Audit::open(&file).unwrap().write(command("c", "", None));
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!((parsed(lines[0])[0]["name"].as_str(), parsed(lines[2])[0]["name"].as_str()), (Some("a"), Some("c")));
}

#[test]
fn a_log_that_was_renamed_goes_on_in_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let [file, old] = ["audit.jsonl", "audit.jsonl.1"].map(|name| folder.path().join(name));
    let audit = Audit::open(&file).unwrap();
    audit.write(command("a", "", None));
    fs::rename(&file, &old).unwrap();
    audit.write(command("b", "", None));
    audit.reopen();
    audit.write(command("c", "", None));
    // Where none can be made, what is there goes on.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    audit.reopen();
    audit.write(command("d", "", None));
    assert_eq!(fs::read_to_string(&old).unwrap().lines().count(), 2);
    fs::remove_dir(&file).unwrap();
    audit.reopen();
    audit.write(command("e", "", None));
    assert_eq!(parsed(&fs::read_to_string(&file).unwrap())[0]["name"], "e");
}

#[test]
fn only_a_regular_file_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let [link, fifo] = ["link", "fifo"].map(|name| folder.path().join(name));
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    for file in [link.as_path(), fifo.as_path(), folder.path(), Path::new("/dev/null")] {
        assert!(Audit::open(file).is_err(), "{}", file.display());
    }
    assert!(!folder.path().join("elsewhere").exists());
}
