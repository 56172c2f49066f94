//! The extents of a large file on their way, in one attempt.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use ftpq_proto::{Digest, Extent};
use ftpq_storage::{Beginning, Pinned, Reader, Staging, StorageError, Upload};
use futures_util::future::{Either, select};
use tokio::sync::Semaphore;

use super::{
    CopyError, Side,
    file::{FileCopy, Moved},
    large::{Begun, Large},
    waits::Waits,
};

/// What is known of one extent.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// Its digest at the source.
    pub(super) digest: Option<Digest>,
    /// The target had it at some time and has not lost it since.
    pub(super) there: bool,
    /// It was an earlier run that has sent it.
    pub(super) resumed: bool,
    /// This run has begun to send it, of whatever version.
    pub(super) sent: bool,
}

/// One extent being proved or sent.
pub(super) type Sending<'a> = Pin<Box<dyn Future<Output = Result<Arriving<'a>, CopyError>> + Send + 'a>>;

/// The same, all of which was sent: ends when the target says that it has it.
pub(super) type Arriving<'a> = Pin<Box<dyn Future<Output = Result<(), CopyError>> + Send + 'a>>;

/// What the extents of one attempt share.
pub(super) struct Attempt<'a> {
    pub(super) file: &'a FileCopy<'a>,
    pub(super) pinned: Pinned,
    large: &'a Large,
    /// Held by the one that begins.
    start: Semaphore,
    /// How many were begun to be sent.
    begun: AtomicUsize,
    /// A permit for each extent whose digest is known, and which the target has or is being sent.
    digested: Semaphore,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(file: &'a FileCopy<'a>, large: &'a Large, pinned: Pinned) -> Self {
        Self { file, pinned, large, start: Semaphore::new(1), begun: AtomicUsize::new(0), digested: Semaphore::new(0) }
    }

    /// Sends the first extent until it is known what became of the file's beginning, and whether to go on with it.
    pub(super) async fn begin(&self, beginning: Beginning) -> Result<Option<Begun<'_>>, CopyError> {
        let Beginning { first, begun } = beginning;
        let before = self.large.known(0);
        let (begun, first): (_, Sending<'_>) = match select(begun, Box::pin(self.first(first))).await {
            Either::Left((begun, first)) => (begun, first),
            Either::Right((sent, begun)) => (begun.await, Box::pin(ready(sent))),
        };
        if let Ok(Some(ftpq_storage::Begun { staging, takes_first: true })) = begun {
            return Ok(Some(Begun { staging, first: Some(first) }));
        }
        // It is as if it had never been sent.
        drop(first);
        self.large.know(0, before);
        self.digested.forget_permits(1);
        self.begun.store(0, Ordering::Relaxed);
        Ok(begun.map_err(target)?.map(|begun| Begun { staging: begun.staging, first: None }))
    }

    /// Proves or sends one. `held`: the target keeps it, with this digest if it has seen it itself.
    pub(super) async fn extent<'s>(
        &'s self,
        staging: &dyn Staging,
        extent: Extent,
        held: Option<Option<Digest>>,
    ) -> Result<Arriving<'s>, CopyError> {
        let (index, known) = (extent.index, self.large.known(extent.index));
        if let Some(seen) = held
            && let Some(digest) = self.prove(staging, index, known.digest, seen).await?
        {
            if !known.there {
                self.moved().resume(extent.length);
                self.large.know(index, Known { digest: Some(digest), there: true, resumed: !known.sent, ..known });
            }
            self.digested.add_permits(1);
            return Ok(Box::pin(ready(Ok(()))));
        }
        // What is kept of an earlier version counts as there until its WRITE has arrived: no commit may come before.
        let commits_early = held.is_none();
        let baton = self.baton(extent).await;
        let reader = self.open(extent).await?;
        let upload = self.waits().target(staging.write(index, reader.holes().clone())).await.map_err(target)?;
        self.send(extent, reader, upload, baton, commits_early).await
    }

    /// Waits until all digests are known, and all extents are at the target or on their way.
    pub(super) async fn all_digested(&self) {
        // It is never closed.
        let _ = self.digested.acquire_many(self.pinned.extents.count()).await;
    }

    /// The target has the file: so it has those, too, of which it has not said so.
    pub(super) fn all_there(&self) {
        for extent in self.pinned.extents.iter() {
            let known = self.large.known(extent.index);
            if !known.there {
                self.moved().advance(extent.length);
                self.large.know(extent.index, Known { there: true, ..known });
            }
        }
    }

    async fn first(&self, upload: Box<dyn Upload>) -> Result<Arriving<'_>, CopyError> {
        let no_extent = || Side::Source.of(StorageError::new(self.file.source, ftpq_storage::Problem::Changed));
        let extent = self.pinned.extents.get(0).ok_or_else(no_extent)?;
        let baton = self.baton(extent).await;
        let reader = self.open(extent).await?;
        self.send(extent, reader, upload, baton, true).await
    }

    async fn open(&self, extent: Extent) -> Result<Box<dyn Reader>, CopyError> {
        let opened = self.file.copy.from.open_extent(&self.pinned, extent.index);
        self.waits().source(opened).await.map_err(source)
    }

    /// The extent's digest, if the target has the same.
    async fn prove(
        &self,
        staging: &dyn Staging,
        index: u32,
        known: Option<Digest>,
        seen: Option<Digest>,
    ) -> Result<Option<Digest>, CopyError> {
        let digest = match known {
            Some(digest) => digest,
            None => self.file.copy.from.extent_digest(&self.pinned, index).await.map_err(source)?,
        };
        let same = match seen {
            Some(seen) => seen == digest,
            None => staging.prove(index, digest).await.map_err(target)?,
        };
        Ok(same.then_some(digest))
    }

    async fn send<'s>(
        &'s self,
        Extent { index, length, .. }: Extent,
        mut reader: Box<dyn Reader>,
        mut upload: Box<dyn Upload>,
        mut baton: Baton<'_>,
        commits_early: bool,
    ) -> Result<Arriving<'s>, CopyError> {
        let known = self.large.known(index);
        if known.there {
            self.moved().lose(length);
        }
        self.large.know(index, Known { sent: true, ..Known::default() });
        let mut flight = Flight { moved: self.moved(), bytes: 0 };
        let waits = self.waits();
        while let Some(block) = waits.source(reader.next_block()).await.map_err(source)? {
            let len = block.len() as u64;
            waits.target(upload.write(block)).await.map_err(target)?;
            flight.advance(len);
            baton.advance(len);
        }
        let digest = waits.source(reader.finish()).await.map_err(source)?;
        let sent = Known { digest: Some(digest), there: false, resumed: false, sent: true };
        self.large.know(index, sent);
        if commits_early {
            self.digested.add_permits(1);
        }
        Ok(Box::pin(async move {
            waits.target(upload.commit(digest)).await.map_err(target)?;
            waits.piece();
            flight.arrive(length);
            self.large.know(index, Known { there: true, ..sent });
            if !commits_early {
                self.digested.add_permits(1);
            }
            Ok(())
        }))
    }

    /// Waits for the turn of an extent to begin. Later ones begin as those before end, which is order enough.
    async fn baton(&self, extent: Extent) -> Baton<'_> {
        let most = self.file.copy.extents_in_flight();
        let mut baton = Baton { start: &self.start, has_it: None, left: extent.length / most as u64 };
        if self.begun.fetch_add(1, Ordering::Relaxed) < most {
            baton.take().await;
        }
        baton
    }

    fn waits(&self) -> &Waits {
        &self.file.copy.waits
    }

    fn moved(&self) -> &Moved<'a> {
        &self.file.moved
    }
}

fn source(error: StorageError) -> CopyError {
    Side::Source.of(error)
}

fn target(error: StorageError) -> CopyError {
    Side::Target.of(error)
}

/// Lets the first extents of a file begin one after the other. Streams share a path evenly: those that begin together
/// end together, and then the path idles for a round trip. So each begins when the one before has come some way,
/// or has waited a round trip for its first block.
struct Baton<'a> {
    start: &'a Semaphore,
    /// Since when it has it.
    has_it: Option<Instant>,
    /// Bytes after which it is passed on.
    left: u64,
}

impl Baton<'_> {
    async fn take(&mut self) {
        // It is never closed.
        if let Ok(permit) = self.start.acquire().await {
            permit.forget();
            self.has_it = Some(Instant::now());
        }
    }

    fn advance(&mut self, len: u64) {
        self.left = self.left.saturating_sub(len);
        if self.left == 0 || self.has_it.is_some_and(|since| since.elapsed() >= ROUND_TRIP) {
            self.pass();
        }
    }

    fn pass(&mut self) {
        if self.has_it.take().is_some() {
            self.start.add_permits(1);
        }
    }
}

impl Drop for Baton<'_> {
    fn drop(&mut self) {
        self.pass();
    }
}

/// Bytes of an extent that count only once it has arrived.
struct Flight<'a> {
    moved: &'a Moved<'a>,
    bytes: u64,
}

impl Flight<'_> {
    fn advance(&mut self, len: u64) {
        self.bytes += len;
        self.moved.advance(len);
    }

    /// All `length` bytes are there, those in holes too.
    fn arrive(mut self, length: u64) {
        self.advance(length - self.bytes);
        self.bytes = 0;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.moved.lose(self.bytes);
        }
    }
}

/// Shorter ones are not worth an order.
const ROUND_TRIP: Duration = Duration::from_millis(2);
