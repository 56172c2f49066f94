//! The log of `ftpq serve`: one line for each command, on standard error.

use std::time::Duration;

use ftpq_proto::{
    Escaped,
    commands::{prove, read, write},
};
use ftpq_server::{Event, Observer};
use indicatif::HumanBytes;

use crate::output::say;

/// One line for each command, on standard error.
pub(super) struct Log {
    pub(super) quiet: bool,
    /// Tell of each part of a large file, too.
    pub(super) parts: bool,
}

impl Log {
    /// What would fill the log with lines that all say the same.
    fn leaves_out(&self, event: &Event<'_>) -> bool {
        let part = |verb: &str| [write::VERB, prove::VERB, read::VERB].contains(&verb);
        matches!(event, Event::Command { verb, outcome: Ok(()), .. } if part(verb)) && !self.parts
    }
}

impl Observer for Log {
    fn event(&self, event: Event<'_>) {
        let left_out = self.leaves_out(&event);
        let line = match event {
            Event::Command { user, key: _, remote, verb, path, bytes, elapsed, outcome } => {
                let path = path.map(|path| format!(" {path}")).unwrap_or_default();
                let (user, verb) = (Escaped::new(user), Escaped::new(verb));
                let outcome = match outcome {
                    Ok(()) => "ok".into(),
                    Err(failure) => {
                        let cause = failure.cause().map(|cause| format!(" ({cause})")).unwrap_or_default();
                        format!("{}: {}{}", failure.status(), Escaped::new(&failure.to_string()), Escaped::new(&cause))
                    }
                };
                format!("{user}@{remote}  {verb}{path}  {}  {}  {outcome}", HumanBytes(bytes), took(elapsed))
            }
            Event::NotAuthorised { remote, key, why } => format!("{key}@{remote}  refused: {}", why.status()),
            Event::TicketSpent { user, key, remote } => {
                format!("{}@{remote}  let in for a ticket, with the key {key}", Escaped::new(user))
            }
            Event::Revoked { user, remote, why, .. } => format!("{}@{remote}  cut off: {why}", Escaped::new(user)),
            Event::KeptOut { network, time } => format!("{network}  kept out for {} s", time.as_secs()),
            Event::HandshakeFailed { remote, why } => format!("{remote}  handshake failed: {why}"),
            Event::AccessLineRejected(line) => {
                // Whoever runs the server must see this, however quiet.
                let (number, why) = (line.number, &line.why);
                return say(format_args!("ftpq: authorized_clients line {number} counts for nothing: {why}"));
            }
            _ => return,
        };
        if !self.quiet && !left_out {
            let now = jiff::Zoned::now();
            say(format_args!("{}  {line}", now.strftime("%Y-%m-%d %H:%M:%S")));
        }
    }
}

fn took(elapsed: Duration) -> String {
    match elapsed.as_millis() {
        millis if millis < 10_000 => format!("{millis} ms"),
        millis => format!("{} s", millis / 1000),
    }
}
