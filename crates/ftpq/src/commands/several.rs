//! Several things named in one command: one that fails does not stop the others.

use ftpq_proto::Status;
use ftpq_storage::StorageError;

use crate::{
    exit::{self, Ended},
    output::say,
};

/// How many were named, and how many failed.
pub(crate) struct Several {
    named: usize,
    failed: u64,
}

impl Several {
    /// So many things.
    pub(crate) fn new(named: usize) -> Self {
        Self { named, failed: 0 }
    }

    /// What came of one; `None` if it has failed alone, which is said. One that was named alone fails with its error.
    pub(crate) fn one<T>(&mut self, came: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match came {
            Err(error) if self.named > 1 && fails_alone(&error) => {
                say(format_args!("ftpq: {}", exit::line(&error)));
                self.failed += 1;
                Ok(None)
            }
            came => came.map(Some),
        }
    }

    /// Whether nothing else was named.
    pub(crate) fn is_one(&self) -> bool {
        self.named == 1
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// The exit code of a command that did nothing else.
    pub(crate) fn code(&self) -> u8 {
        if self.failed > 0 { exit::PARTIAL } else { exit::OK }
    }
}

/// Whether `error` is of one thing, and not of the command, the connection or what the user may do.
fn fails_alone(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<StorageError>() {
        Some(error) => matches!(
            error.status(),
            Status::NotFound
                | Status::Exists
                | Status::IsFolder
                | Status::NotFolder
                | Status::NotEmpty
                | Status::BadPath
        ),
        None => error.downcast_ref::<Ended>().is_some_and(|ended| ended.code() != exit::USAGE),
    }
}
