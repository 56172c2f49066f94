//! Bodies with holes. A hole costs the client nothing and the server a digest of its zeros, so what is done of such a
//! body waits for turns among its user's costly commands. It holds none while bytes travel: a client takes as long for
//! them as it likes.

use async_trait::async_trait;
use ftpq_handler::Context;
use ftpq_proto::{Digest, Holes};
use ftpq_storage::{Bytes, FileInfo, Reader, StorageError, Upload};
use tokio::sync::OwnedSemaphorePermit;

/// Whatever has holes, in turns.
struct Hollow<'a, B: ?Sized> {
    cx: &'a Context,
    body: Box<B>,
}

/// `reader`, in turns if it has holes.
pub(crate) fn reading<'a>(cx: &'a Context, reader: Box<dyn Reader>) -> Box<dyn Reader + 'a> {
    if reader.holes().is_empty() { reader } else { Box::new(Hollow { cx, body: reader }) }
}

/// `upload`, in turns if it has `holes`.
pub(crate) fn writing<'a>(cx: &'a Context, holes: &Holes, upload: Box<dyn Upload>) -> Box<dyn Upload + 'a> {
    if holes.is_empty() { upload } else { Box::new(Hollow { cx, body: upload }) }
}

#[async_trait]
impl Reader for Hollow<'_, dyn Reader> {
    fn info(&self) -> FileInfo {
        self.body.info()
    }

    fn holes(&self) -> &Holes {
        self.body.holes()
    }

    fn limit_blocks(&mut self, most: usize) {
        self.body.limit_blocks(most);
    }

    async fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        let _turn = turn(self.cx).await;
        self.body.next_block().await
    }

    async fn finish(self: Box<Self>) -> Result<Digest, StorageError> {
        let _turn = turn(self.cx).await;
        self.body.finish().await
    }
}

#[async_trait]
impl Upload for Hollow<'_, dyn Upload> {
    async fn write(&mut self, block: Bytes) -> Result<(), StorageError> {
        let _turn = turn(self.cx).await;
        self.body.write(block).await
    }

    async fn commit(self: Box<Self>, expected: Digest) -> Result<Digest, StorageError> {
        let _turn = turn(self.cx).await;
        self.body.commit(expected).await
    }
}

async fn turn(cx: &Context) -> Option<OwnedSemaphorePermit> {
    // There is no end of turns.
    cx.costly_turn().await.ok()
}
