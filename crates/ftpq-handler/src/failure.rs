//! Why a command was not done: one text for the client, another for the server's log.

use std::error::Error;

use ftpq_proto::{PathError, Right, Status, codec::clipped, message::Failed};
use ftpq_storage::StorageError;
use ftpq_transport::{RecvError, SendError};

use crate::context::User;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    status: Status,
    message: String,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// `message` goes to the client: what failed, on what, why, and nothing of the server's insides.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), cause: None }
    }

    /// The same, with what the log alone may know.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// The user lacks a right.
    pub fn forbidden(user: &User, right: Right) -> Self {
        let message = format!("{} may not {right} here: ask the server's owner for the right to {right}", user.name);
        Self::new(Status::Forbidden, message)
    }

    /// A bug in a handler or in the server.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Status::Internal, "the server made a mistake; its log says more").because(cause)
    }

    /// For programs.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What only the log may know.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// As it goes over the wire: the text is cut to what a message may hold.
    pub fn to_wire(&self) -> Failed {
        Failed { status: self.status, message: clipped(&self.message).into() }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::new(Status::BadPath, error.to_string())
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let status = match &error {
            SendError::Stopped(_) | SendError::Closed(_) => Status::Cancelled,
            SendError::Stalled => Status::TimedOut,
            SendError::Encode(_) => Status::Internal,
        };
        Self::new(status, error.to_string())
    }
}
