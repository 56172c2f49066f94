//! One connection to a server, and the commands on it.

use std::{sync::Arc, time::Duration};

use ciborium::Value;
use ftpq_proto::{
    Escaped, RemotePath, Status, VERSION,
    codec::{self, DecodeError, EncodeError},
    commands::con,
    message::{Failed, Reply, Request, Response},
};
use ftpq_transport::{Closed, ConnectError, Connection, RecvError, RecvHalf, SendError, SendHalf};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};

use crate::limits;

/// A connection on which CON was sent. Commands may be called at once: the server holds them until
/// it has answered CON, and refuses them if it refuses that. Clones share the connection.
#[derive(Clone)]
pub struct Session {
    connection: Connection,
    welcome: watch::Receiver<Option<Result<Arc<con::Welcome>, Arc<CallError>>>>,
    /// See [`limits::ANSWER`].
    patience: Duration,
}

impl Session {
    /// Sends CON, naming this client `agent`, and does not wait for the answer.
    pub async fn open(connection: Connection, agent: &str) -> Result<Self, CallError> {
        let args = con::Args { versions: vec![VERSION], agent: agent.into(), features: Vec::new(), ticket: None };
        let patience = limits::ANSWER;
        let mut call = Call::open(&connection, patience, con::VERB, &RemotePath::root(), &args).await?;
        call.send.finish();
        let (answer, welcome) = watch::channel(None);
        tokio::spawn(async move {
            let settled = call.reply().await.map(Arc::new).map_err(Arc::new);
            answer.send_replace(Some(settled));
        });
        Ok(Self { connection, welcome, patience })
    }

    /// The same, waiting so long for each answer, instead of [`limits::ANSWER`].
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What the server answered to CON.
    pub async fn welcome(&self) -> Result<Arc<con::Welcome>, Arc<CallError>> {
        let mut welcome = self.welcome.clone();
        let answered = welcome.wait_for(Option::is_some).await;
        let lost = || Err(Arc::new(CallError::Closed(Closed::Here)));
        answered.ok().and_then(|answer| answer.clone()).unwrap_or_else(lost)
    }

    /// Runs a verb that has neither items nor a body.
    pub async fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        verb: &str,
        cwd: &RemotePath,
        args: &A,
    ) -> Result<R, CallError> {
        let mut call = self.begin(verb, cwd, args).await?;
        call.send.finish();
        call.reply().await
    }

    /// Runs any verb that sends no body, handing each of its items to `item`.
    pub async fn call_items<A: Serialize>(
        &self,
        verb: &str,
        cwd: &RemotePath,
        args: &A,
        mut item: impl FnMut(Value),
    ) -> Result<Value, CallError> {
        let mut call = self.begin(verb, cwd, args).await?;
        call.send.finish();
        loop {
            match call.next().await? {
                Part::Item(value) => item(value),
                Part::Head(_) => return Err(CallError::Unexpected("a body")),
                Part::Reply(value) => return Ok(value),
            }
        }
    }

    /// Opens a stream and sends the request.
    pub(crate) async fn begin<A: Serialize>(&self, verb: &str, cwd: &RemotePath, args: &A) -> Result<Call, CallError> {
        Call::open(&self.connection, self.patience, verb, cwd, args).await
    }

    /// The connection underneath.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.connection.goodbye().await;
    }
}

/// One command on its stream.
pub(crate) struct Call {
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    /// How long the server may take for one answer, and for one block of a body.
    pub(crate) patience: Duration,
}

/// What a server says within a command.
pub(crate) enum Part {
    Item(Value),
    Head(Value),
    Reply(Value),
}

impl Call {
    async fn open<A: Serialize>(
        connection: &Connection,
        patience: Duration,
        verb: &str,
        cwd: &RemotePath,
        args: &A,
    ) -> Result<Self, CallError> {
        // A server may grant no more streams.
        let (mut send, recv) = timeout(patience, connection.open()).await.map_err(|_| CallError::Stalled)??;
        send.frame(&Request { verb: verb.into(), cwd: cwd.clone(), args }).await?;
        Ok(Self { send, recv, patience })
    }

    /// The next frame from the server; an error reply is an error. A live server may take its time
    /// (flushing a large file), and a dead one ends the connection.
    pub(crate) async fn next(&mut self) -> Result<Part, CallError> {
        let reply = match self.recv.frame(self.patience).await? {
            Response::Item(value) => return Ok(Part::Item(value)),
            Response::Head(value) => return Ok(Part::Head(value)),
            Response::Reply(reply) => reply,
        };
        self.recv.end().await;
        match reply {
            Reply::Ok(value) => Ok(Part::Reply(value)),
            Reply::Error(failed) => Err(CallError::Refused(failed)),
        }
    }

    /// The reply, which must be next.
    pub(crate) async fn reply<R: DeserializeOwned>(&mut self) -> Result<R, CallError> {
        match self.next().await? {
            Part::Reply(value) => decode(&value),
            Part::Item(_) => Err(CallError::Unexpected("an item")),
            Part::Head(_) => Err(CallError::Unexpected("a body")),
        }
    }

    /// The head, which must be next.
    pub(crate) async fn head<H: DeserializeOwned>(&mut self) -> Result<H, CallError> {
        match self.next().await? {
            Part::Head(value) => decode(&value),
            Part::Item(_) => Err(CallError::Unexpected("an item")),
            Part::Reply(_) => Err(CallError::Unexpected("a reply without a body")),
        }
    }

    /// Why the server stopped taking what is sent: its reply says so, if it still comes.
    pub(crate) async fn why(&mut self, error: SendError) -> CallError {
        match error {
            SendError::Stopped(status) => match self.next().await {
                Err(error) if matches!(error, CallError::Refused(_)) || error.is_interruption() => error,
                _ => CallError::Refused(Failed { status, message: "the server gave up".into() }),
            },
            other => other.into(),
        }
    }
}

/// Decodes a part of an answer.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, CallError> {
    codec::from_value(value).map_err(CallError::Malformed)
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server says no. The text is the server's.
    #[error("{}", Escaped::new(&_0.message))]
    Refused(Failed),
    /// The server sent what is no message of ftpq's.
    #[error("the server does not follow the protocol: {0}")]
    Malformed(DecodeError),
    /// The server sent something out of order.
    #[error("the server does not follow the protocol: {0} came out of turn")]
    Unexpected(&'static str),
    /// The server ended the stream without a reply.
    #[error("the server broke off: {0}")]
    BrokenOff(Status),
    /// Nothing came, though the connection is alive.
    #[error("the server made no progress in time")]
    Stalled,
    /// The connection is gone.
    #[error("{}", closed(_0))]
    Closed(Closed),
    /// The connection is gone, and there is no new one.
    #[error("cannot connect again: {0}")]
    Connect(Arc<ConnectError>),
    /// The server lists more names than were to be taken from it.
    #[error("the server lists more than {0} names (--max-names allows more)")]
    TooMany(u64),
    /// The request does not fit the wire.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl CallError {
    /// The same for programs.
    pub fn status(&self) -> Status {
        match self {
            CallError::Refused(failed) => failed.status,
            CallError::Malformed(_) | CallError::Unexpected(_) => Status::Malformed,
            CallError::BrokenOff(status) => *status,
            CallError::Stalled => Status::TimedOut,
            CallError::Closed(Closed::ByPeer { status, .. }) => *status,
            CallError::Closed(Closed::Version) => Status::Version,
            CallError::Closed(_) => Status::Unavailable,
            CallError::Connect(error) => match **error {
                ConnectError::Untrusted { .. } => Status::NotAuthorised,
                ConnectError::Version => Status::Version,
                _ => Status::Unavailable,
            },
            CallError::Encode(_) | CallError::TooMany(_) => Status::TooLarge,
        }
    }

    /// Whether the connection or the server went away, so that the same may succeed on a new one.
    pub fn is_interruption(&self) -> bool {
        match self {
            CallError::Closed(Closed::ByPeer { status, .. }) => status.is_temporary(),
            CallError::Closed(Closed::Version) => false,
            CallError::Closed(_) | CallError::Stalled | CallError::BrokenOff(Status::Cancelled) => true,
            CallError::BrokenOff(status) => status.is_temporary(),
            CallError::Connect(error) => {
                matches!(**error, ConnectError::NoAnswer | ConnectError::Failed(_) | ConnectError::Socket(_))
            }
            // A server that was restarted knows of no upload: it is begun again.
            CallError::Refused(failed) => failed.status.is_temporary() || failed.status == Status::NoUpload,
            _ => false,
        }
    }

    /// Whether there is no connection, and not for want of trying.
    pub fn is_connecting(&self) -> bool {
        matches!(self, CallError::Connect(_))
    }
}

impl From<Closed> for CallError {
    fn from(closed: Closed) -> Self {
        CallError::Closed(closed)
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Stopped(status) => CallError::BrokenOff(status),
            SendError::Stalled => CallError::Stalled,
            SendError::Closed(closed) => CallError::Closed(closed),
            SendError::Encode(error) => CallError::Encode(error),
        }
    }
}

impl From<RecvError> for CallError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Reset(status) => CallError::BrokenOff(status),
            RecvError::Ended => CallError::BrokenOff(Status::Truncated),
            RecvError::Stalled => CallError::Stalled,
            RecvError::Malformed(error) => CallError::Malformed(error),
            RecvError::Closed(closed) => CallError::Closed(closed),
        }
    }
}

/// A client gives a connection up where the server answers no more.
fn closed(closed: &Closed) -> String {
    match closed {
        Closed::Here => "the server did not answer and was given up".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_gave_up_waiting_is_an_interruption_and_one_that_says_no_is_not() {
        let refused = |status| CallError::Refused(Failed { status, message: String::new() });
        for status in [Status::TimedOut, Status::Unavailable, Status::NoUpload] {
            assert!(refused(status).is_interruption(), "{status}");
        }
        for status in [Status::TimedOut, Status::Unavailable, Status::Cancelled] {
            assert!(CallError::BrokenOff(status).is_interruption(), "{status}");
        }
        for status in [Status::Exists, Status::Forbidden, Status::Changed, Status::DigestMismatch, Status::NoSpace] {
            assert!(!refused(status).is_interruption(), "{status}");
            assert!(!CallError::BrokenOff(status).is_interruption(), "{status}");
        }
    }
}
