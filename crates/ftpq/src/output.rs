//! What commands print on standard output.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use ciborium::Value;
use ftpq_proto::{Entry, Kind, Timestamp};
use indicatif::HumanBytes;
use serde_json::{Map, json};

/// Version of the `--json` output: raised when a field changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// A line for a person, on standard error. One that cannot be written is no reason to stop.
pub(crate) fn say(line: impl fmt::Display) {
    // In one write: two lines at once do not mix, and a server has one for each command.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// One JSON object on a line of its own. Whoever reads it is mostly a program, but may be a terminal: what
/// does not print is escaped.
pub(crate) fn json_line(value: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", printable(&value.to_string()))
}

/// The same JSON without control and format characters. serde escapes those of ASCII; all others can stand
/// in strings alone.
fn printable(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' => printable.push(c),
            _ if c.escape_debug().len() == 1 => printable.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| printable += &format!("\\u{unit:04x}")),
        }
    }
    printable
}

/// An entry for programs.
pub(crate) fn entry_json(path: &str, entry: &Entry) -> serde_json::Value {
    let mut object = Map::new();
    object.insert("schema".into(), json!(SCHEMA));
    object.insert("path".into(), json!(path));
    if let Some(name) = &entry.name {
        object.insert("name".into(), json!(name));
        if std::str::from_utf8(name.as_bytes()).is_err() {
            object.insert("name_hex".into(), json!(hex(name.as_bytes())));
        }
    }
    object.insert("kind".into(), json!(entry.kind));
    object.insert("size".into(), json!(entry.size));
    object.insert("mtime".into(), json!(timestamp(entry.mtime).map(|time| time.to_string())));
    object.insert("mode".into(), json!(format!("{:04o}", entry.mode)));
    if let Some(target) = &entry.target {
        object.insert("target".into(), json!(target));
        if std::str::from_utf8(target.as_bytes()).is_err() {
            object.insert("target_hex".into(), json!(hex(target.as_bytes())));
        }
    }
    object.into()
}

/// The line of `ls -l`.
pub(crate) fn long_line(entry: &Entry, name: &str) -> String {
    let size = if entry.kind == Kind::File { HumanBytes(entry.size).to_string() } else { "-".into() };
    let name = match &entry.target {
        Some(target) => format!("{name} -> {target}"),
        None => format!("{name}{}", suffix(entry.kind)),
    };
    format!("{} {size:>11}  {}  {name}", permissions(entry), local_time(entry.mtime))
}

/// What tells kinds apart behind a name, as `ls -F` does.
pub(crate) fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "",
        Kind::Folder => "/",
        Kind::Link => "@",
        Kind::Other => "=",
    }
}

/// A time in this machine's zone, to the minute.
pub(crate) fn local_time(time: Timestamp) -> String {
    let zoned = timestamp(time).map(|time| time.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(|| "?".repeat(16), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// The same of a moment, with its zone.
pub(crate) fn local_moment(time: jiff::Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// Seconds since 1970 as a time in this machine's zone, to the minute.
pub(crate) fn local_seconds(seconds: i64) -> String {
    Timestamp::new(seconds, 0).map_or_else(|| "?".repeat(16), local_time)
}

/// Seconds since 1970 for programs; `None` where no calendar goes so far.
pub(crate) fn utc_seconds(seconds: i64) -> Option<String> {
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

/// Names side by side on a terminal, one a line elsewhere.
pub(crate) fn columns(names: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = if out.is_terminal() { usize::from(terminal_width()) } else { 0 };
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    let per_line = (width / widest.max(1)).max(1);
    let lines = names.len().div_ceil(per_line);
    for line in 0..lines {
        // Down, then across.
        let row: Vec<_> = names.iter().skip(line).step_by(lines).collect();
        let (last, before) = row.split_last().map_or((None, [].as_slice()), |(last, before)| (Some(last), before));
        before.iter().try_for_each(|name| write!(out, "{name:widest$}"))?;
        last.map_or(Ok(()), |name| writeln!(out, "{name}"))?;
    }
    Ok(())
}

/// A CBOR value for programs: bytes become hexadecimal text.
pub(crate) fn cbor_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bytes(bytes) => json!(hex(bytes)),
        Value::Array(items) => items.iter().map(cbor_to_json).collect(),
        Value::Map(pairs) => {
            let text = |key: &Value| key.as_text().map_or_else(|| cbor_to_json(key).to_string(), str::to_owned);
            pairs.iter().map(|(key, value)| (text(key), cbor_to_json(value))).collect::<Map<_, _>>().into()
        }
        Value::Tag(_, value) => cbor_to_json(value),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

fn permissions(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::File => '-',
        Kind::Folder => 'd',
        Kind::Link => 'l',
        Kind::Other => '?',
    };
    let bit = |index: u32, letter| if entry.mode & (0o400 >> index) != 0 { letter } else { '-' };
    let bits = "rwxrwxrwx".chars().zip(0..).map(|(letter, index)| bit(index, letter));
    std::iter::once(kind).chain(bits).collect()
}

fn timestamp(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.secs(), time.nanos().try_into().ok()?).ok()
}

/// Bytes as hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn terminal_width() -> u16 {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| if size.ws_col == 0 { 80 } else { size.ws_col })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_and_drives_no_terminal() {
        let value = json!({ "\u{9b}31m": "\u{1b}[2J\u{202e}\u{7f}\u{e0001}\n", "name": "Olá 世界 🦀 \"x\" \\u{9b}" });
        let line = printable(&value.to_string());
        assert!(line.chars().all(|c| c.escape_debug().len() == 1 || c == '"' || c == '\\'), "{line}");
        assert!(line.contains("Olá 世界 🦀") && line.contains("\\udb40\\udc01"), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }
}
