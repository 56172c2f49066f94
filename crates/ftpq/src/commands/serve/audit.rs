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
mod tests;
