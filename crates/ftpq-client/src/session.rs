//! One connection to a server, and the commands on it.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ciborium::Value;
use ftpq_proto::{
    Escaped, RemotePath, Status, TicketSecret, VERSION,
    codec::{self, DecodeError, EncodeError},
    commands::con,
    message::{Failed, Reply, Request, Response},
};
use ftpq_transport::{Closed, ConnectError, Connection, Fingerprint, RecvError, RecvHalf, SendError, SendHalf};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};

use crate::{limits, verdict::Wire};

/// A connection on which CON was sent. Commands may be called at once: the server holds them until
/// it has answered CON, and refuses them if it refuses that. Clones share the connection.
#[derive(Clone)]
pub struct Session {
    connection: Connection,
    welcome: watch::Receiver<Option<Result<Arc<con::Welcome>, Arc<CallError>>>>,
    /// The key that the server will have next, or that it named none; not set before that was heard.
    next: Arc<OnceLock<Option<Fingerprint>>>,
    /// See [`limits::ANSWER`].
    patience: Duration,
}

/// What a client brings when it connects, besides its key.
#[derive(Clone, Default)]
pub struct Hello {
    /// What it calls itself.
    pub agent: String,
    /// Lets its key in where the server does not know it yet.
    pub ticket: Option<TicketSecret>,
    /// Told which key the server proved to have, and which it will have next by its own word, once it has
    /// welcomed the client and before [`Session::welcome`] returns.
    pub learn: Option<Learn>,
}

/// Takes what is learnt of a server's keys: the one that it has, and the one that it will have next.
pub type Learn = Arc<dyn Fn(Fingerprint, Option<Fingerprint>) + Send + Sync>;

impl Session {
    /// Sends CON, naming this client `agent`, and does not wait for the answer.
    pub async fn open(connection: Connection, agent: &str) -> Result<Self, CallError> {
        Self::open_with(connection, Hello { agent: agent.into(), ..Hello::default() }).await
    }

    /// The same, bringing all that there is in `hello`.
    pub async fn open_with(connection: Connection, hello: Hello) -> Result<Self, CallError> {
        let Hello { agent, ticket, learn } = hello;
        let args = con::Args { versions: vec![VERSION], agent, features: Vec::new(), ticket };
        let patience = limits::ANSWER;
        let mut call = Call::open(&connection, patience, con::VERB, &RemotePath::root(), &args).await?;
        call.send.finish();
        let (answer, welcome) = watch::channel(None);
        let session = Self { connection, welcome, next: Arc::default(), patience };
        let (connection, next) = (session.connection.clone(), session.next.clone());
        tokio::spawn(async move {
            let settled = call.answers.reply().await.map(Arc::new).map_err(Arc::new);
            let heard = settled.as_ref().ok().and_then(|welcome| heard_next(&connection, welcome));
            if let Some(heard) = heard {
                let _ = next.set(heard);
                learn.iter().for_each(|learn| learn(connection.peer(), heard));
            }
            answer.send_replace(Some(settled));
        });
        Ok(session)
    }

    /// The key that the server will have next, by its own word; `before` where nothing was heard yet.
    pub fn next_key(&self, before: Option<Fingerprint>) -> Option<Fingerprint> {
        self.next.get().copied().unwrap_or(before)
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
        call.answers.reply().await
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
            match call.answers.next().await? {
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

    /// What its connection has counted so far, and what it may.
    pub fn wire(&self) -> Wire {
        let welcome = self.welcome.borrow();
        let rate = welcome.as_ref().and_then(|answer| answer.as_ref().ok()?.limits.rate);
        Wire { counters: self.connection.counters(), rate }
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
    pub(crate) answers: Answers,
}

/// What a server says to one command.
pub(crate) struct Answers {
    pub(crate) recv: RecvHalf,
    /// How long the server may take for one of them, and for one block of a body.
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
        Ok(Self { send, answers: Answers { recv, patience } })
    }

    /// Why the server stopped taking what is sent: its reply says so, if it still comes.
    pub(crate) async fn why(&mut self, error: SendError) -> CallError {
        match error {
            SendError::Stopped(status) => self.answers.why(status).await,
            other => other.into(),
        }
    }
}

impl Answers {
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

    /// Why the server stopped taking what is sent.
    pub(crate) async fn why(&mut self, status: Status) -> CallError {
        match self.next().await {
            Err(error) if matches!(error, CallError::Refused(_)) || error.is_interruption() => error,
            _ => CallError::Refused(Failed { status, message: "the server gave up".into() }),
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
}

/// Which key the server says it will have next, or that it names none. `None` where it says something
/// that proves nothing: then all stays as it was.
fn heard_next(connection: &Connection, welcome: &con::Welcome) -> Option<Option<Fingerprint>> {
    let Some(said) = &welcome.successor else { return Some(None) };
    // A clock before 1970 is wrong, and nothing is too old for it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let verified = connection.verify_successor(said, now.try_into().unwrap_or(i64::MAX));
    verified.inspect_err(|why| tracing::warn!("what the server says of its next key counts for nothing: {why}")).ok()
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
        for status in [
            Status::Exists,
            Status::Forbidden,
            Status::Changed,
            Status::DigestMismatch,
            Status::NoSpace,
            Status::OverQuota,
        ] {
            assert!(!refused(status).is_interruption(), "{status}");
            assert!(!CallError::BrokenOff(status).is_interruption(), "{status}");
        }
    }
}
