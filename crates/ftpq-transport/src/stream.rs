//! The two halves of one stream: frames, and raw blocks between them.
//!
//! One task owns a half. Sending and receiving are not safe to cancel: a half whose operation was
//! dropped or timed out is of no further use, and dropping it tells the peer.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use ftpq_proto::{
    Status,
    codec::{self, DecodeError, EncodeError, PREFIX_LEN},
    limits::CHUNK_MAX,
};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{
    connection::Closed,
    fit::Fit,
    tuning::{FAREWELL, PRODUCER, STALL, STALL_BYTES},
};

/// The half that this side sends on. Dropped before [`finish`](Self::finish), it resets the stream:
/// what was cut must not look complete.
#[derive(Debug)]
pub struct SendHalf {
    inner: quinn::SendStream,
    finished: bool,
    fit: Arc<Fit>,
}

impl SendHalf {
    pub(crate) fn new(inner: quinn::SendStream, fit: Arc<Fit>) -> Self {
        Self { inner, finished: false, fit }
    }

    /// Which streams go first where the path is full: higher before lower, 0 at the start.
    pub fn set_priority(&mut self, priority: i32) {
        // Fails only on a stream that has ended, where it no longer matters.
        let _ = self.inner.set_priority(priority);
    }

    /// Sends one value as a frame.
    pub async fn frame<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SendError> {
        let frame = codec::encode(value)?;
        self.block(frame.into()).await
    }

    /// Sends raw bytes without copying them. Returns when all are in quinn's send buffer, which is
    /// bounded, and fails when the peer takes them too slowly.
    pub async fn block(&mut self, mut bytes: Bytes) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(STALL_BYTES));
            timeout(STALL, self.inner.write_chunk(part)).await.map_err(|_| SendError::Stalled)??;
            self.fit.look();
        }
        Ok(())
    }

    /// Sends a chunk of a body of unknown length: its length, then `bytes`, at most
    /// [`CHUNK_MAX`]. An empty one ends the body.
    pub async fn chunk(&mut self, bytes: Bytes) -> Result<(), SendError> {
        self.block(Bytes::copy_from_slice(&(bytes.len() as u32).to_be_bytes())).await?;
        if bytes.is_empty() { Ok(()) } else { self.block(bytes).await }
    }

    /// Marks the end. All that was sent still goes out.
    pub fn finish(&mut self) {
        self.finished = true;
        // Fails only where the peer has stopped the stream or the connection is gone.
        let _ = self.inner.finish();
    }

    /// After [`finish`](Self::finish): waits until the peer's QUIC has everything or does not want it,
    /// for [`FAREWELL`] at most. Says nothing about whether the peer's program has it.
    pub async fn delivered(&mut self) {
        let _ = timeout(FAREWELL, self.inner.stopped()).await;
    }

    /// Ends the stream as failed.
    pub fn reset(&mut self, status: Status) {
        self.finished = true;
        let _ = self.inner.reset(VarInt::from_u32(status.code()));
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        // quinn's own drop would finish the stream.
        if !self.finished {
            self.reset(Status::Cancelled);
        }
    }
}

/// The half that this side receives on. Dropped before its end, it tells the peer to stop.
#[derive(Debug)]
pub struct RecvHalf {
    inner: quinn::RecvStream,
    fit: Arc<Fit>,
}

impl RecvHalf {
    pub(crate) fn new(inner: quinn::RecvStream, fit: Arc<Fit>) -> Self {
        Self { inner, fit }
    }

    /// Receives one frame, all of it within `patience`.
    pub async fn frame<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, RecvError> {
        let receive = async {
            let mut prefix = [0; PREFIX_LEN];
            self.fill(&mut prefix).await?;
            let len = codec::body_len(prefix)?;
            // No more than what has come is held for it, whatever it claims.
            let mut body = Vec::new();
            while body.len() < len {
                let (from, step) = (body.len(), body.len().max(FRAME_STEP));
                body.resize(len.min(from + step), 0);
                self.fill(body.get_mut(from..).unwrap_or_default()).await?;
            }
            Ok(codec::decode(&body)?)
        };
        timeout(patience, receive).await.unwrap_or(Err(RecvError::Stalled))
    }

    /// Receives exactly `len` raw bytes.
    pub async fn block(&mut self, len: usize) -> Result<Bytes, RecvError> {
        let mut block = BytesMut::with_capacity(len);
        while block.len() < len {
            let until = len.min(block.len() + STALL_BYTES);
            timeout(STALL, self.gather(&mut block, until)).await.unwrap_or(Err(RecvError::Stalled))?;
            self.fit.look();
        }
        Ok(block.freeze())
    }

    /// The bytes of the next chunk of a body of unknown length, which follow; 0 at its end. What makes it may take
    /// [`PRODUCER`] for the next.
    pub async fn chunk(&mut self) -> Result<usize, RecvError> {
        let mut prefix = [0; PREFIX_LEN];
        timeout(PRODUCER, self.fill(&mut prefix)).await.unwrap_or(Err(RecvError::Stalled))?;
        match u32::from_be_bytes(prefix) as usize {
            len if len > CHUNK_MAX => Err(RecvError::Malformed(DecodeError::TooLarge { len })),
            len => Ok(len),
        }
    }

    /// After the last frame: takes note of the end, so that the peer need not be told to stop.
    pub async fn end(&mut self) {
        let _ = timeout(FAREWELL, self.inner.read(&mut [0])).await;
    }

    /// Tells the peer that nothing more is wanted, and why.
    pub fn stop(&mut self, status: Status) {
        let _ = self.inner.stop(VarInt::from_u32(status.code()));
    }

    /// Appends what comes until `block` is so long. Into fresh memory, which is not filled with zeros first.
    async fn gather(&mut self, block: &mut BytesMut, until: usize) -> Result<(), RecvError> {
        while block.len() < until {
            let chunk = self.inner.read_chunk(until - block.len(), true).await?;
            block.extend_from_slice(&chunk.ok_or(RecvError::Ended)?.bytes);
        }
        Ok(())
    }

    async fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), RecvError> {
        while !buffer.is_empty() {
            let len = self.inner.read(buffer).await?.ok_or(RecvError::Ended)?;
            buffer = buffer.get_mut(len..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.stop(Status::Cancelled);
    }
}

/// Why something could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The receiver gave up and says why.
    #[error("the receiver stopped: {0}")]
    Stopped(Status),
    /// The receiver takes nothing any more.
    #[error("the other side made no progress for {} s", STALL.as_secs())]
    Stalled,
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A message that does not fit the wire: a bug on this side.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl From<WriteError> for SendError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => SendError::Stopped(status_of(code)),
            WriteError::ConnectionLost(error) => SendError::Closed(error.into()),
            WriteError::ClosedStream => SendError::Stopped(Status::Cancelled),
            WriteError::ZeroRttRejected => SendError::Closed(Closed::Transport("0-RTT rejected".into())),
        }
    }
}

/// Why something could not be received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The sender gave up and says why.
    #[error("the sender gave up: {0}")]
    Reset(Status),
    /// The stream ended where more was due.
    #[error("the stream ended too early")]
    Ended,
    /// Nothing, or too little, came in time.
    #[error("the other side made no progress in time")]
    Stalled,
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl From<ReadError> for RecvError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => RecvError::Reset(status_of(code)),
            ReadError::ConnectionLost(error) => RecvError::Closed(error.into()),
            ReadError::ClosedStream => RecvError::Ended,
            ReadError::IllegalOrderedRead => RecvError::Closed(Closed::from(ConnectionError::LocallyClosed)),
            ReadError::ZeroRttRejected => RecvError::Closed(Closed::Transport("0-RTT rejected".into())),
        }
    }
}

impl RecvError {
    /// What to tell the sender of it.
    pub fn status(&self) -> Status {
        match self {
            RecvError::Reset(_) | RecvError::Closed(_) => Status::Cancelled,
            RecvError::Ended => Status::Truncated,
            RecvError::Stalled => Status::TimedOut,
            RecvError::Malformed(DecodeError::TooLarge { .. }) => Status::TooLarge,
            RecvError::Malformed(_) => Status::Malformed,
        }
    }
}

/// Bytes of a frame that are made room for at first. Most frames are shorter.
const FRAME_STEP: usize = 1024;

fn status_of(code: VarInt) -> Status {
    u32::try_from(code.into_inner()).map_or(Status::Internal, Status::from)
}
