//! One large file by extents: what was acknowledged is not sent again, neither by the next attempt nor by
//! the next run.
//!
//! Each attempt begins the file at its target and learns what is kept there. Of that, each extent is
//! proved: the source digests its own and the target compares it with what it has seen or reads. The
//! rest is sent, some extents at a time, all of one version of the source. The digest of the file is
//! joined from those of its extents.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ftpq_proto::{Digest, Extent, Extents, RemotePath, Status, Version};
use ftpq_storage::{FileInfo, LargeFile, Pinned, Problem, Publish, Staging, Storage, StorageError, join};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Semaphore;

use super::{
    Copy, CopyError, Pause, Side,
    file::{Copied, FileCopy, Moved},
};

/// What outlives the attempts.
#[derive(Default)]
pub(super) struct Large {
    /// The version that is being copied.
    version: Option<Version>,
    /// Of it, each extent.
    extents: Mutex<Vec<Known>>,
    /// Another run was going on with what is kept: this one has its own, under this word.
    apart: Option<Digest>,
    /// An earlier attempt has begun it.
    begun: bool,
    /// An attempt was cut while it was being committed: it may be there already.
    may_be_there: bool,
}

/// What is known of one extent.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Its digest, if the target had it at some time and has not lost it since.
    digest: Option<Digest>,
    /// It was an earlier run that has sent it.
    resumed: bool,
    /// This run has begun to send it, of whatever version.
    sent: bool,
}

impl Large {
    pub(super) async fn attempt(&mut self, file: &FileCopy<'_>, info: FileInfo) -> Result<Copied, CopyError> {
        let Copy { to, options, .. } = file.copy;
        let too_large = || Side::Source.of(StorageError::new(file.source, Problem::Refused("larger than 16 TiB")));
        let extents = Extents::of(info.size).ok_or_else(too_large)?;
        self.pin(info.version, extents, &file.moved);
        let large = LargeFile {
            extents,
            owner: Digest::from([0; 32]),
            fresh: !options.resume && !self.begun,
            apart: self.apart,
            sparse: info.sparse,
            overwrite: options.overwrite,
            same: self.digest().filter(|_| self.may_be_there),
            parents: file.parents(),
        };
        let staging = self.begin(&**to, file.target, large).await.map_err(|error| Side::Target.of(error))?;
        self.begun = true;
        if let Some(staging) = staging {
            self.send(file, &*staging, info.version).await?;
            self.commit(&*staging, file, info).await?;
        }
        Ok(Copied { bytes: info.size, resumed: self.resumed(extents) })
    }

    /// Whoever had it before, a process that is just ending, say, may need a moment to let go of it.
    async fn begin(
        &self,
        to: &dyn Storage,
        target: &RemotePath,
        file: LargeFile,
    ) -> Result<Option<Arc<dyn Staging>>, StorageError> {
        let mut pause = Pause::new();
        for _ in 0..LETTING_GO {
            match to.begin(target, file.clone()).await {
                Err(error) if error.status() == Status::Superseded && self.apart.is_none() => pause.wait().await,
                begun => return begun,
            }
        }
        to.begin(target, file).await
    }

    /// Whether it is worth trying again, apart from another run that goes on with the same.
    pub(super) fn stand_apart(&mut self, error: &CopyError) -> bool {
        let superseded = error.side == Side::Target && error.status() == Status::Superseded;
        if !superseded || self.apart.is_some() {
            return false;
        }
        // Nobody must be kept from guessing it, only from meeting it by accident.
        let mut word = [0; 32];
        word.chunks_mut(8).for_each(|part| part.copy_from_slice(&RandomState::new().hash_one(()).to_le_bytes()));
        self.apart = Some(word.into());
        true
    }

    /// From now on, `version` is copied. What was done of another counts no more.
    fn pin(&mut self, version: Version, extents: Extents, moved: &Moved<'_>) {
        if self.version != Some(version) {
            moved.lose_all();
            let mut known: Vec<_> =
                self.lock().iter().map(|known| Known { sent: known.sent, ..Known::default() }).collect();
            known.resize(extents.count() as usize, Known::default());
            *self = Self { apart: self.apart, begun: self.begun, ..Self::default() };
            self.version = Some(version);
            *self.lock() = known;
        }
    }

    /// Has every extent at the target, some of them at a time.
    async fn send(&self, file: &FileCopy<'_>, staging: &dyn Staging, version: Version) -> Result<(), CopyError> {
        let extents = staging.extents();
        let pinned = Pinned { path: file.source.clone(), version, extents };
        let held: HashMap<_, _> = staging.held().into_iter().map(|held| (held.index, held.digest)).collect();
        let start = Semaphore::new(1);
        let mut work = extents.iter().map(|extent| {
            let (moved, most) = (&file.moved, file.copy.extents_in_flight());
            let (copy, large, pinned, baton) = (file.copy, self, &pinned, Baton::of(&start, extent.length, most));
            Sending { copy, moved, staging, pinned, extent, large, baton }.run(held.get(&extent.index).copied())
        });
        let mut running = FuturesUnordered::new();
        // Where one fails the others are dropped: what is durable of the file stays at the target.
        loop {
            let room = file.copy.extents_in_flight().saturating_sub(running.len());
            running.extend(work.by_ref().take(room));
            match running.next().await {
                Some(done) => done?,
                None => return Ok(()),
            }
        }
    }

    async fn commit(&mut self, staging: &dyn Staging, file: &FileCopy<'_>, info: FileInfo) -> Result<(), CopyError> {
        let incomplete = || Side::Target.of(StorageError::new(file.target, Problem::NoUpload));
        let preserve = file.copy.options.preserve;
        let publish = Publish {
            digest: self.digest().ok_or_else(incomplete)?,
            mode: preserve.then_some(info.mode),
            mtime: preserve.then_some(info.mtime),
        };
        let committed = staging.commit(publish).await.map_err(|error| Side::Target.of(error));
        self.may_be_there |= committed.as_ref().is_err_and(CopyError::is_interruption);
        committed.map(drop)
    }

    /// Of the whole file, once all extents were there.
    fn digest(&self) -> Option<Digest> {
        join(&self.lock().iter().map(|known| known.digest).collect::<Option<Vec<_>>>()?)
    }

    /// Bytes that an earlier run has sent.
    fn resumed(&self, extents: Extents) -> u64 {
        let known = self.lock();
        extents.iter().zip(&*known).filter(|(_, known)| known.resumed).map(|(extent, _)| extent.length).sum()
    }

    fn known(&self, index: u32) -> Known {
        self.lock().get(index as usize).copied().unwrap_or_default()
    }

    fn know(&self, index: u32, known: Known) {
        if let Some(place) = self.lock().get_mut(index as usize) {
            *place = known;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One extent on its way.
struct Sending<'a> {
    copy: &'a Copy,
    moved: &'a Moved<'a>,
    staging: &'a dyn Staging,
    pinned: &'a Pinned,
    extent: Extent,
    large: &'a Large,
    baton: Baton<'a>,
}

impl Sending<'_> {
    /// `held`: the target keeps it, with this digest if it has seen it itself.
    async fn run(mut self, held: Option<Option<Digest>>) -> Result<(), CopyError> {
        self.baton.take().await;
        let Extent { index, length, .. } = self.extent;
        let known = self.large.known(index);
        if let Some(seen) = held
            && let Some(digest) = self.prove(known.digest, seen).await?
        {
            if known.digest.is_none() {
                self.moved.resume(length);
                self.large.know(index, Known { digest: Some(digest), resumed: !known.sent, ..known });
            }
            return Ok(());
        }
        if known.digest.is_some() {
            self.moved.lose(length);
        }
        self.large.know(index, Known { sent: true, ..Known::default() });
        let digest = self.send().await?;
        self.large.know(index, Known { digest: Some(digest), resumed: false, sent: true });
        Ok(())
    }

    /// The extent's digest, if the target has the same.
    async fn prove(&self, known: Option<Digest>, seen: Option<Digest>) -> Result<Option<Digest>, CopyError> {
        let index = self.extent.index;
        let digest = match known {
            Some(digest) => digest,
            None => self.copy.from.extent_digest(self.pinned, index).await.map_err(|error| Side::Source.of(error))?,
        };
        let same = match seen {
            Some(seen) => seen == digest,
            None => self.staging.prove(index, digest).await.map_err(|error| Side::Target.of(error))?,
        };
        Ok(same.then_some(digest))
    }

    async fn send(&mut self) -> Result<Digest, CopyError> {
        let (source, target) = (|error| Side::Source.of(error), |error| Side::Target.of(error));
        let mut reader = self.copy.from.open_extent(self.pinned, self.extent.index).await.map_err(source)?;
        let holes = reader.holes().clone();
        let mut flight = Flight { moved: self.moved, bytes: 0 };
        let mut upload = self.staging.write(self.extent.index, holes).await.map_err(target)?;
        while let Some(block) = reader.next_block().await.map_err(source)? {
            let len = block.len() as u64;
            upload.write(block).await.map_err(target)?;
            flight.advance(len);
            self.baton.advance(len);
        }
        let digest = reader.finish().await.map_err(source)?;
        upload.commit(digest).await.map_err(target)?;
        flight.arrive(self.extent.length);
        Ok(digest)
    }
}

/// Lets the extents of a file begin one after the other. Streams share a path evenly: those that begin together
/// end together, and then the path idles for a round trip. So each begins when the one before has come some way,
/// or has waited a round trip for its first block.
struct Baton<'a> {
    start: &'a Semaphore,
    /// Since when it has it.
    has_it: Option<Instant>,
    /// Bytes after which it is passed on.
    left: u64,
}

impl<'a> Baton<'a> {
    /// For an extent of `length` bytes that moves together with others, `most` of them in all.
    fn of(start: &'a Semaphore, length: u64, most: usize) -> Self {
        Self { start, has_it: None, left: length / most.max(1) as u64 }
    }

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

/// How often to ask for what another process has, before going apart from it.
const LETTING_GO: u32 = 3;
