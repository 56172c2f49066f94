//! A client that does what it is told, and keeps to nothing.

use std::time::Duration;

use ftpq_proto::{
    Status,
    codec::{self, PREFIX_LEN},
    commands::{begin, con, upld},
    limits::FRAME_MAX,
    message::Request,
};
use ftpq_storage::BodyHasher;
use ftpq_transport::{Bytes, Connection, Identity, RecvHalf, SendHalf};
use tokio::time::timeout;

use super::{
    answers::{Answer, Heard},
    requests::Told,
    world::{PATIENCE, World},
};

/// Whoever has one more stream open than the server grants need not wait for long: that is no mistake of
/// the server's, and the next step may be the one that it waits for.
const MOMENT: Duration = Duration::from_millis(10);

/// Streams that one client has open at a time.
const STREAMS_MAX: usize = 12;

/// Bytes that go through a stream before CON was answered: two of them must leave room for CON in the window
/// of a connection.
const UNSETTLED_MAX: usize = 16 * 1024;

/// Sizes of a file that no upload may announce: some file systems would give all the room that they have
/// before they find that it is not enough. Larger ones are beyond all of them.
const TOO_LARGE: std::ops::Range<u64> = 24 * 1024 * 1024..1 << 62;

/// One client within one input.
pub(crate) struct Client<'w> {
    world: &'w World,
    identity: &'w Identity,
    /// Is in the list.
    known: bool,
    /// The first reply to CON on this connection: whether it said welcome.
    welcome: Option<bool>,
    connection: Option<Connection>,
    streams: Vec<Stream>,
    pub(crate) told: Told,
}

/// A stream from the client's side.
pub(crate) struct Stream {
    send: SendHalf,
    /// What was sent, as far as the request may be in it.
    said: Vec<u8>,
    /// Bytes that it may still send.
    left: usize,
    /// The end was sent, and nobody has cut the stream.
    finished: bool,
    /// Nothing more can be sent.
    closed: bool,
    answer: Answer,
    /// The digest of the body that was sent.
    pub(crate) body: BodyHasher,
}

impl<'w> Client<'w> {
    pub(crate) fn new(world: &'w World, identity: &'w Identity, known: bool) -> Self {
        let told = Told::default();
        Self { world, identity, known, welcome: None, connection: None, streams: Vec::new(), told }
    }

    /// The connection; a new one where there is none.
    pub(crate) async fn connection(&mut self) -> Connection {
        if let Some(connection) = &self.connection
            && connection.close_reason().is_none()
        {
            return connection.clone();
        }
        let connection = self.world.connect(self.identity).await;
        self.streams.clear();
        self.welcome = None;
        self.connection.insert(connection).clone()
    }

    /// A new stream, if the server grants one.
    pub(crate) async fn open(&mut self) -> Option<&mut Stream> {
        let connection = self.connection().await;
        self.streams.retain(|stream| !stream.answer.is_over());
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let (send, recv) = timeout(MOMENT, connection.open()).await.ok()?.ok()?;
        self.streams.push(Stream::new(send, recv, self.welcome == Some(true)));
        self.streams.last_mut()
    }

    /// An open stream, or a new one where there is none.
    pub(crate) async fn stream(&mut self, choice: u8) -> Option<&mut Stream> {
        if self.streams.is_empty() {
            return self.open().await;
        }
        let index = usize::from(choice) % self.streams.len();
        self.streams.get_mut(index)
    }

    /// Sends a request on a new stream and its end, and hears what comes.
    pub(crate) async fn call(&mut self, request: &Request) -> Option<Heard> {
        let stream = self.open().await?;
        stream.request(request).await;
        stream.finish();
        self.hear_last().await
    }

    /// Hears all that the server says on the newest stream.
    pub(crate) async fn hear_last(&mut self) -> Option<Heard> {
        let mut stream = self.streams.pop()?;
        Some(self.end_of(&mut stream).await)
    }

    /// Hears the next, or the last, that the server says on a stream.
    pub(crate) async fn hear(&mut self, choice: u8, to_the_end: bool) {
        if self.streams.is_empty() {
            return;
        }
        let mut stream = self.streams.swap_remove(usize::from(choice) % self.streams.len());
        if to_the_end {
            self.end_of(&mut stream).await;
        } else {
            self.next_of(&mut stream).await;
        }
        self.streams.push(stream);
    }

    /// Ends the connection.
    pub(crate) fn close(&mut self, status: Option<Status>) {
        self.streams.clear();
        if let Some(connection) = self.connection.take() {
            connection.close(status, "\u{1b}[31mbye\n");
        }
    }

    /// Hears all that the server still has to say, and says goodbye.
    ///
    /// Whatever the client did: to each request whose stream it has finished comes an answer.
    pub(crate) async fn leave(mut self) {
        for stream in self.streams.iter_mut().filter(|stream| !stream.finished) {
            // The server may wait for its body, and others for the server.
            stream.cut(Status::Cancelled);
        }
        for mut stream in std::mem::take(&mut self.streams) {
            if self.is_due(&stream) {
                self.end_of(&mut stream).await;
            }
        }
        if let Some(connection) = self.connection.take() {
            let ended = connection.close_reason();
            assert!(ended.is_none() || self.welcome != Some(true), "the server has closed: {ended:?}");
            connection.goodbye().await;
        }
    }

    /// Whether the server must have an answer on this stream soon. Before CON is answered, other commands
    /// wait for it.
    fn is_due(&self, stream: &Stream) -> bool {
        let is_con = || stream.asked().is_some_and(|request| request.verb == con::VERB);
        stream.finished && !stream.answer.is_over() && (self.welcome.is_some() || is_con())
    }

    async fn end_of(&mut self, stream: &mut Stream) -> Heard {
        loop {
            let heard = self.next_of(stream).await;
            if !matches!(heard, Heard::More) {
                return heard;
            }
        }
    }

    async fn next_of(&mut self, stream: &mut Stream) -> Heard {
        if stream.answer.is_over() {
            return Heard::Silence;
        }
        let (asked, due) = (stream.asked(), self.is_due(stream));
        let patience = if due { PATIENCE } else { MOMENT };
        let heard = stream.answer.hear(asked.as_ref(), &mut self.told, patience).await;
        assert!(!due || !matches!(heard, Heard::Silence), "no answer to {asked:?}");
        let refused = matches!(heard, Heard::Refused | Heard::Cut | Heard::Gone | Heard::Silence);
        assert!(self.known || refused, "whom nobody knows was answered: {heard:?}");
        let asked_for_con = asked.is_some_and(|request| request.verb == con::VERB);
        match &heard {
            Heard::Done if asked_for_con => drop(self.welcome.get_or_insert(true)),
            Heard::Refused if asked_for_con => drop(self.welcome.get_or_insert(false)),
            _ => {}
        }
        heard
    }
}

impl Stream {
    fn new(send: SendHalf, recv: RecvHalf, settled: bool) -> Self {
        let (answer, body) = (Answer::new(recv), BodyHasher::new(None));
        let left = if settled { usize::MAX } else { UNSETTLED_MAX };
        Self { send, said: Vec::new(), left, finished: false, closed: false, answer, body }
    }

    /// Sends bytes as they are.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        let room = (PREFIX_LEN + FRAME_MAX).saturating_sub(self.said.len());
        self.said.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if self.closed || bytes.len() > self.left || self.announces_too_much() {
            return;
        }
        self.left -= bytes.len();
        let sent = timeout(MOMENT, self.send.block(Bytes::copy_from_slice(bytes))).await;
        // A half that was interrupted is of no further use.
        self.closed |= !matches!(sent, Ok(Ok(())));
    }

    /// Sends bytes of a body.
    pub(crate) async fn body(&mut self, bytes: &[u8]) {
        self.body.update(bytes);
        self.bytes(bytes).await;
    }

    pub(crate) async fn request(&mut self, request: &Request) {
        if let Ok(frame) = codec::encode(request) {
            self.bytes(&frame).await;
        }
    }

    pub(crate) fn finish(&mut self) {
        if !self.closed {
            self.send.finish();
            (self.finished, self.closed) = (true, true);
        }
    }

    /// Ends it as failed.
    pub(crate) fn cut(&mut self, status: Status) {
        self.send.reset(status);
        (self.finished, self.closed) = (false, true);
    }

    /// Wants no answer.
    pub(crate) fn stop(&mut self, status: Status) {
        self.answer.stop(status);
    }

    /// The request, if that is what was sent.
    fn asked(&self) -> Option<Request> {
        let (prefix, rest) = self.said.split_first_chunk::<PREFIX_LEN>()?;
        let body = rest.get(..codec::body_len(*prefix).ok()?)?;
        codec::decode(body).ok()
    }

    /// Sending it would cost the machine too much.
    fn announces_too_much(&self) -> bool {
        let asked = self.asked().filter(|request| [upld::VERB, begin::VERB].contains(&request.verb.as_str()));
        let Some(ciborium::Value::Map(args)) = asked.map(|request| request.args) else { return false };
        args.iter().any(|(name, value)| {
            let size = value.as_integer().and_then(|size| u64::try_from(size).ok());
            name.as_text() == Some("size") && size.is_some_and(|size| TOO_LARGE.contains(&size))
        })
    }
}
