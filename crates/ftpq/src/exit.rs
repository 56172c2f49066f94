//! How the program ends: exit codes, and the one line that says why.

use std::{fmt, io, process::ExitCode};

use ftpq_client::{CallError, copy::CopyError};
use ftpq_proto::{Status, status::Class};
use ftpq_storage::{Problem, StorageError};
use ftpq_transport::{ConnectError, Ticket};

use crate::output;

/// Done.
pub(crate) const OK: u8 = 0;
/// Failed, for a reason without a code of its own.
pub(crate) const FAILED: u8 = 1;
/// Something that was typed makes no sense.
pub(crate) const USAGE: u8 = 2;
/// No such file or folder.
pub(crate) const NOT_FOUND: u8 = 3;
/// The server refuses this user, or this client does not trust the server.
pub(crate) const REFUSED: u8 = 4;
/// Trying again later may help.
pub(crate) const TEMPORARY: u8 = 5;
/// What arrived is not what was sent.
pub(crate) const INTEGRITY: u8 = 6;
/// Some files failed or were left out; the others are there.
pub(crate) const PARTIAL: u8 = 23;
/// Ended by SIGINT.
pub(crate) const SIGINT: u8 = 130;
/// Ended by SIGTERM.
pub(crate) const SIGTERM: u8 = 143;

/// An error of this program's own, with its exit code.
#[derive(Debug)]
pub(crate) struct Ended {
    code: u8,
    message: String,
}

impl Ended {
    /// Ends with `code`, saying `message`.
    pub(crate) fn with(code: u8, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self { code, message: message.into() })
    }

    /// Its exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What was typed makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::with(USAGE, message)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}

/// What to do with a ticket that stands where a server or a file should.
pub(crate) const MISPLACED_TICKET: &str =
    "a ticket counts once, to connect: ftpq con TICKET (or ftpq con -, which reads it); after that, name the server";

/// Says what went wrong, in one line, and gives its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = code_of(error);
    if code != OK {
        output::say(format_args!("ftpq: {}", line(error)));
    }
    ExitCode::from(code)
}

/// The whole error in one line, with what to do about it.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let hint = status_of(error).and_then(hint).unwrap_or_default();
    without_tickets(&format!("{error:#}{hint}"))
}

/// Ends with clap's own message about what was typed, unless a ticket was typed: that is not shown.
pub(crate) fn report_typed(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && Ticket::resembles(&error.to_string()) {
        return report(&Ended::usage(MISPLACED_TICKET));
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
}

/// A ticket lets whoever reads it in: what was typed in the wrong place is not repeated.
fn without_tickets(text: &str) -> String {
    if !Ticket::resembles(text) {
        return text.into();
    }
    let words = text.split(' ').map(|word| if Ticket::resembles(word) { "(a ticket)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// The exit code of an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(ended) = cause.downcast_ref::<Ended>() {
            return ended.code;
        }
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return match error {
                ConnectError::NoAnswer | ConnectError::Failed(_) => TEMPORARY,
                ConnectError::Untrusted { .. } => REFUSED,
                _ => FAILED,
            };
        }
        // `ftpq ls | head`: whoever reads has had enough.
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return OK;
        }
    }
    status_of(error).map_or(FAILED, code_of_status)
}

/// The exit code of a status.
pub(crate) fn code_of_status(status: Status) -> u8 {
    match status {
        Status::NotFound => NOT_FOUND,
        status if status.is_temporary() => TEMPORARY,
        status => match status.class() {
            Class::Refused => REFUSED,
            Class::Integrity => INTEGRITY,
            _ => FAILED,
        },
    }
}

/// The exit code of a copy.
pub(crate) fn code_of_copy(error: &CopyError) -> u8 {
    // Whatever its status, the server or the network may be back later.
    if error.is_interruption() { TEMPORARY } else { code_of_status(error.status()) }
}

fn status_of(error: &anyhow::Error) -> Option<Status> {
    error.chain().find_map(|cause| {
        let call = cause.downcast_ref().map(CallError::status);
        let shared = cause.downcast_ref::<std::sync::Arc<CallError>>().map(|error| error.status());
        let storage = cause.downcast_ref().map(StorageError::status);
        let copy = cause.downcast_ref().map(CopyError::status);
        let local = cause.downcast_ref().map(Problem::status);
        call.or(shared).or(storage).or(copy).or(local)
    })
}

fn hint(status: Status) -> Option<&'static str> {
    match status {
        Status::NotEmpty => Some(" (rm -r takes all it holds)"),
        Status::Unavailable => Some(" (try again)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever its status: trying again later may help.
    #[test]
    fn an_interruption_that_was_given_up_is_temporary() {
        for status in [Status::Cancelled, Status::TimedOut] {
            let error = CallError::BrokenOff(status);
            let problem = Problem::Remote { status, names_path: false, error: Box::new(error) };
            let error = StorageError::new(&ftpq_proto::RemotePath::root(), problem);
            let error = CopyError { side: ftpq_client::copy::Side::Target, error };
            assert_eq!(code_of_copy(&error), TEMPORARY, "{status}");
        }
    }

    #[test]
    fn no_error_shows_a_ticket() {
        let secret = "AAAAAAAAAAAAAAAAAAAAAA";
        let ticket = format!("ftpq://h:1/#AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8.{secret}");
        for text in [ticket.clone(), format!("ftpq://h/x: no: '{ticket}' found"), format!("{ticket}: no such file")] {
            let shown = line(&Ended::usage(&text));
            assert!(!shown.contains(secret) && shown.contains("(a ticket)"), "{shown}");
        }
        assert_eq!(line(&Ended::usage("ftpq://h/a#b: no such file")), "ftpq://h/a#b: no such file");
    }
}
