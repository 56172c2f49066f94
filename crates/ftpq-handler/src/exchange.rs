//! A command's stream as its handler sees it: items, one head, one body. The reply is the
//! dispatcher's.

use std::sync::Arc;

use bytes::Bytes;
use ciborium::Value;
use ftpq_proto::{
    Digest, codec,
    message::{Response, Trailer},
};
use ftpq_storage::{BLOCK, Reader, Upload};
use ftpq_transport::{RecvHalf, SendError, SendHalf, tuning};
use serde::Serialize;

use crate::{
    failure::Failure,
    pace::{PIECE, Pace, Way},
    room::{Held, Room},
};

/// The stream of one command.
pub struct Exchange {
    send: SendHalf,
    recv: RecvHalf,
    phase: Phase,
    bytes: u64,
    room: Option<Room>,
    /// For a body that came: its last blocks may be here until the command ends.
    held: Option<Held>,
    pace: Option<Arc<Pace>>,
}

/// How far the grammar of [`ftpq_proto::message`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Items, the head, or the reply may follow.
    Open,
    /// An item, a head or a body is on its way to the client: anything but its end is a cut.
    Sending,
    /// Only the reply may follow.
    Done,
}

impl Exchange {
    /// For dispatchers: the request was read, nothing was answered.
    pub fn new(send: SendHalf, recv: RecvHalf) -> Self {
        Self { send, recv, phase: Phase::Open, bytes: 0, room: None, held: None, pace: None }
    }

    /// Sends one part of a result that comes in parts.
    pub async fn item<T: Serialize>(&mut self, item: T) -> Result<(), Failure> {
        self.in_phase(Phase::Open)?;
        // Where the peer is slow, its bytes alone are kept, and not what they were made of.
        let frame = codec::encode(&Response::Item(value(&item)?)).map_err(SendError::from)?;
        drop(item);
        // Where part of it is on its way, no reply can follow.
        self.phase = Phase::Sending;
        self.send.block(frame.into()).await?;
        self.phase = Phase::Open;
        Ok(())
    }

    /// Sends `head`, then the file, then its digest, which is returned.
    pub async fn send_file<H: Serialize>(
        &mut self,
        head: &H,
        mut file: Box<dyn Reader + '_>,
    ) -> Result<Digest, Failure> {
        self.send_head(head).await?;
        let size = file.info().size.min(BLOCK as u64) as usize;
        loop {
            let most = self.room_for(size);
            file.limit_blocks(if most < size { most } else { BLOCK });
            let Some(block) = file.next_block().await? else { break };
            self.send_block(block).await?;
        }
        let digest = file.finish().await?;
        self.send.frame(&Trailer { digest }).await?;
        self.phase = Phase::Done;
        Ok(digest)
    }

    /// Sends a head after which no body follows.
    pub async fn head<H: Serialize>(&mut self, head: &H) -> Result<(), Failure> {
        self.send_head(head).await?;
        self.phase = Phase::Done;
        Ok(())
    }

    /// Sends `go`, where the client waits for it, and receives a body of `size` bytes, or of chunks
    /// where nobody knows its size, into `file`. Returns the digest of what the client sent: committing
    /// `file` checks it against what arrived.
    pub async fn receive_file<H: Serialize>(
        &mut self,
        go: Option<&H>,
        size: Option<u64>,
        file: &mut dyn Upload,
    ) -> Result<Digest, Failure> {
        self.in_phase(Phase::Open)?;
        if let Some(go) = go {
            self.send_head(go).await?;
        }
        self.phase = Phase::Done;
        let mut body = Body { left: size.unwrap_or(0), in_chunks: size.is_none() };
        while let Some(block) = self.next_block(&mut body).await? {
            self.bytes += block.len() as u64;
            file.write(block).await?;
        }
        let trailer: Trailer = self.recv.frame(tuning::STALL).await?;
        Ok(trailer.digest)
    }

    /// For dispatchers: which streams go first where the path is full.
    pub fn set_priority(&mut self, priority: i32) {
        self.send.set_priority(priority);
    }

    /// For dispatchers: what is held of bodies takes from this.
    pub fn set_room(&mut self, room: Room) {
        self.room = Some(room);
    }

    /// For dispatchers: no faster than this.
    pub fn set_pace(&mut self, pace: Arc<Pace>) {
        self.pace = Some(pace);
    }

    /// Bytes of body that went either way.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For dispatchers: whether something was cut on its way out, after which no reply can follow.
    pub fn is_cut(&self) -> bool {
        self.phase == Phase::Sending
    }

    /// For dispatchers: the halves.
    pub fn into_parts(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    /// Sends a head, behind which a body is [`Sending`](Phase::Sending).
    async fn send_head<H: Serialize>(&mut self, head: &H) -> Result<(), Failure> {
        self.in_phase(Phase::Open)?;
        let frame = codec::encode(&Response::Head(value(head)?)).map_err(SendError::from)?;
        self.phase = Phase::Sending;
        Ok(self.send.block(frame.into()).await?)
    }

    async fn send_block(&mut self, mut block: Bytes) -> Result<(), Failure> {
        while !block.is_empty() {
            let part = match &self.pace {
                None => std::mem::take(&mut block),
                Some(pace) => {
                    let part = block.split_to(block.len().min(PIECE));
                    pace.wait(Way::Down, part.len()).await;
                    part
                }
            };
            let len = part.len() as u64;
            self.send.block(part).await?;
            self.bytes += len;
        }
        Ok(())
    }

    /// The next bytes of a body. Until it is their turn at the user's pace, they stay where they are: that nothing
    /// moves meanwhile is nobody's stall.
    async fn next_block(&mut self, body: &mut Body) -> Result<Option<Bytes>, Failure> {
        if body.left == 0 && body.in_chunks {
            body.left = self.recv.chunk().await? as u64;
        }
        if body.left == 0 {
            return Ok(None);
        }
        let most = if self.pace.is_some() { PIECE } else { BLOCK };
        let size = body.left.min(most as u64) as usize;
        // Other chunks may be larger than this one.
        let room = self.room_for(if body.in_chunks { most } else { size });
        let size = size.min(room);
        if let Some(pace) = &self.pace {
            pace.wait(Way::Up, size).await;
        }
        let block = self.recv.block(size).await?;
        body.left -= block.len() as u64;
        Ok(Some(block))
    }

    /// How large the next of a body's blocks may be, of which the largest has `size` bytes. Where there is no room,
    /// they are small: to wait for it could be for ever, since whoever has it may be as slow as it likes.
    fn room_for(&mut self, size: usize) -> usize {
        let Some(room) = self.room.as_ref().filter(|_| size > SMALL_BLOCK) else { return size };
        if self.held.is_none() {
            self.held = room.try_hold(size);
        }
        if self.held.is_some() { size } else { SMALL_BLOCK }
    }

    fn in_phase(&self, phase: Phase) -> Result<(), Failure> {
        if self.phase == phase { Ok(()) } else { Err(Failure::internal("a handler used its exchange out of order")) }
    }
}

/// A body on its way in.
struct Body {
    /// Bytes that are still to come of it, or of the chunk that is being read.
    left: u64,
    in_chunks: bool,
}

/// Bytes of a block that need no room of their own: every stream may have one.
const SMALL_BLOCK: usize = 16 * 1024;

fn value<T: Serialize>(value: &T) -> Result<Value, Failure> {
    Value::serialized(value).map_err(|error| Failure::internal(error.to_string()))
}
