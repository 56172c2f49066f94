//! The audit log: a line of JSON for each command and for whoever is turned away, for programs and
//! for later.
//!
//! ```text
//! {"schema":1,"time":"2026-11-22T09:30:00.125Z","event":"command","key":"SHA256:…","name":"alice",
//!  "address":"192.0.2.7:50312","verb":"UPLD","path":"/a.txt","bytes":12,"elapsed_ms":3,"outcome":"ok"}
//! ```
//!
//! (There it is one line.) The file is only ever appended to, each line with one write. No name can
//! end a line or hide in one: outside of what prints, everything is `\u` and digits.
//!
//! A line that cannot be written, on a disk that is full, say, stops nothing. It is counted, and the
//! count is written as soon as something can be.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ftpq_proto::{RemotePath, UserPath};
use ftpq_server::{Event, Observer};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::{
    commands::shown,
    output::{hex, say},
};

/// The audit log of a server. Clones write to the same file.
#[derive(Clone)]
pub(super) struct Audit {
    file: PathBuf,
    sink: Arc<Mutex<Sink<File>>>,
}

impl Audit {
    /// Appends to `file`, which is made, readable by its owner alone, where it is missing.
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        let file = std::path::absolute(file)?;
        let sink = Sink { torn: is_torn(&file), ..Sink::new(open(&file)?) };
        Ok(Self { file, sink: Arc::new(Mutex::new(sink)) })
    }

    /// Where it is.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Goes on in the file that has the name now: the one before was renamed.
    pub(super) fn reopen(&self) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        match open(&self.file).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((len, file)) => {
                sink.torn &= len > 0;
                sink.out = file;
            }
            Err(error) => say(format_args!(
                "ftpq: cannot open {} again: {error}: the audit log goes on in the file that it was",
                shown(&self.file)
            )),
        }
    }

    fn write(&self, record: Record<'_>) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = sink.write(record, jiff::Timestamp::now(), Instant::now()) {
            say(format_args!("ftpq: cannot write to {}: {error}: the audit log loses lines", shown(&self.file)));
        }
    }
}

impl Observer for Audit {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Command { user, key, remote, verb, path, bytes, elapsed, outcome } => {
                let failed = outcome.err().map(|failure| failure.status());
                self.write(Record::Command {
                    key: key.to_string(),
                    name: user,
                    address: remote.to_string(),
                    verb,
                    path,
                    path_hex: path.and_then(hex_of),
                    bytes,
                    elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    outcome: failed.map_or("ok", |status| status.name()),
                    code: failed.map(|status| status.code()),
                });
            }
            Event::NotAuthorised { remote, key, why } => self.write(Record::Refused {
                key: key.to_string(),
                address: remote.to_string(),
                outcome: why.status().name(),
                code: why.status().code(),
            }),
            Event::TicketSpent { user, key, remote } => {
                self.write(Record::TicketSpent { key: key.to_string(), name: user, address: remote.to_string() });
            }
            Event::Revoked { user, key, remote, why } => {
                self.write(Record::CutOff { key: key.to_string(), name: user, address: remote.to_string(), why });
            }
            Event::KeptOut { network, time } => {
                self.write(Record::KeptOut { network: network.to_string(), seconds: time.as_secs() });
            }
            Event::HandshakeFailed { remote, why } => {
                self.write(Record::HandshakeFailed { address: remote.to_string(), why: why.to_string() });
            }
            _ => {}
        }
    }
}

/// Without waiting for whoever reads a FIFO, and through no link: root may open a file here for a
/// server that is not root.
fn open(file: &Path) -> io::Result<File> {
    let how = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(file, how, Mode::RUSR | Mode::WUSR)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Whether `file` ends within a line. One that cannot be read does not.
fn is_torn(file: &Path) -> bool {
    let last = || {
        let mut file = fs::File::open(file)?;
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last).map(|()| last)
    };
    fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file()) && last().is_ok_and(|last: [u8; 1]| last != *b"\n")
}

/// The bytes of a path that is not UTF-8, and is only shown in the text.
fn hex_of(path: &RemotePath) -> Option<String> {
    let path = UserPath::from(path);
    std::str::from_utf8(path.as_bytes()).is_err().then(|| hex(path.as_bytes()))
}

/// A line, as its reader finds it.
#[derive(Serialize)]
struct Line<'a> {
    /// Raised when a field changes its meaning or goes.
    schema: u32,
    /// UTC, to the millisecond (RFC 3339).
    time: String,
    #[serde(flatten)]
    record: Record<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Record<'a> {
    /// A command ended.
    Command {
        key: String,
        name: &'a str,
        address: String,
        verb: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'a RemotePath>,
        #[serde(skip_serializing_if = "Option::is_none")]
        path_hex: Option<String>,
        bytes: u64,
        elapsed_ms: u64,
        /// `ok`, or the name of the status.
        outcome: &'a str,
        /// The number of the status.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u32>,
    },
    /// A key that was not let in.
    Refused { key: String, address: String, outcome: &'a str, code: u32 },
    /// A ticket was spent: the key is in the list of authorised clients now.
    TicketSpent { key: String, name: &'a str, address: String },
    /// A key that may no longer do what it might.
    CutOff { key: String, name: &'a str, address: String, why: &'static str },
    /// A network that is not let in for a while.
    KeptOut { network: String, seconds: u64 },
    /// A connection that ended before its key was known.
    HandshakeFailed { address: String, why: String },
    /// Lines that could not be written, before this one.
    Lost { lines: u64 },
}

/// What lines are written to.
struct Sink<W> {
    out: W,
    /// The last line was written in part.
    torn: bool,
    /// Lines that were not written.
    lost: u64,
    /// When somebody was last told.
    told: Option<Instant>,
}

impl<W: Write> Sink<W> {
    fn new(out: W) -> Self {
        Self { out, torn: false, lost: 0, told: None }
    }

    /// Writes a line, and before it what is to be said of those that were lost. Returns what is to
    /// be told of a failure, now and then.
    fn write(&mut self, record: Record<'_>, time: jiff::Timestamp, now: Instant) -> Option<io::Error> {
        let mut bytes = Vec::new();
        if self.torn {
            bytes.push(b'\n');
        }
        if self.lost > 0 {
            line(Record::Lost { lines: self.lost }, time, &mut bytes);
        }
        line(record, time, &mut bytes);
        let error = match self.out.write(&bytes) {
            Ok(written) if written == bytes.len() => {
                (self.torn, self.lost) = (false, 0);
                return None;
            }
            Ok(written) => {
                let last = written.checked_sub(1).and_then(|last| bytes.get(last));
                self.torn = last.map_or(self.torn, |last| *last != b'\n');
                io::ErrorKind::StorageFull.into()
            }
            Err(error) => error,
        };
        self.lost += 1;
        let silent = self.told.is_some_and(|told| now.duration_since(told) < SILENCE);
        if silent {
            return None;
        }
        self.told = Some(now);
        Some(error)
    }
}

fn line(record: Record<'_>, time: jiff::Timestamp, to: &mut Vec<u8>) {
    let line = Line { schema: SCHEMA, time: time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(), record };
    // Strings and numbers go into memory: nothing here can fail.
    let _ = line.serialize(&mut Serializer::with_formatter(&mut *to, Printable));
    to.push(b'\n');
}

/// JSON of what prints alone.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            // std knows which characters print (Unicode's categories); it also escapes apostrophes.
            if c == '\'' || c.escape_debug().len() == 1 {
                writer.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            } else {
                c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }
}

const SCHEMA: u32 = 1;

/// Between two words about lines that are lost.
const SILENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
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
        assert_eq!(
            (parsed(lines[0])[0]["name"].as_str(), parsed(lines[2])[0]["name"].as_str()),
            (Some("a"), Some("c"))
        );
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
}
