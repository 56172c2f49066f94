//! One large file by extents: what was acknowledged is not sent again, neither by the next attempt nor by
//! the next run.
//!
//! Each attempt begins the file at its target and learns what is kept there. The first extent may be on its
//! way meanwhile. Of what is kept, each extent is proved: the source digests its own and the target compares
//! it with what it has seen or reads. The rest is sent, some extents at a time, all of one version of the
//! source (`extent.rs`). The digest of the file is joined from those of its extents. It is known before the
//! last of them has arrived, and so the commit travels with them.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    iter::successors,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ftpq_proto::{Digest, Extents, Status, Version};
use ftpq_storage::{FileInfo, HeldExtent, LargeFile, Pinned, Problem, Publish, Staging, StorageError, join};
use futures_util::{
    StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};

use super::{
    CopyError, Pause, Side,
    extent::{Attempt, Known, Sending},
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
    begun: AtomicBool,
    /// An attempt was cut while it was being committed: it may be there already.
    may_be_there: bool,
}

impl Large {
    pub(super) async fn attempt(&mut self, file: &FileCopy<'_>, info: FileInfo) -> Result<Copied, CopyError> {
        let too_large = || Side::Source.of(StorageError::new(file.source, Problem::Refused("larger than 16 TiB")));
        let extents = Extents::of(info.size).ok_or_else(too_large)?;
        self.pin(info.version, extents, &file.moved);
        let done = self.copy(file, info, extents).await;
        // With all digests at hand, a commit may have been on its way.
        self.may_be_there |= done.as_ref().is_err_and(CopyError::is_interruption) && self.digest().is_some();
        done?;
        Ok(Copied { bytes: info.size, resumed: self.resumed(extents) })
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
            let begun = std::mem::take(&mut self.begun);
            *self = Self { apart: self.apart, begun, version: Some(version), ..Self::default() };
            *self.lock() = known;
        }
    }

    async fn copy(&self, file: &FileCopy<'_>, info: FileInfo, extents: Extents) -> Result<(), CopyError> {
        let pinned = Pinned { path: file.source.clone(), version: info.version, extents };
        let attempt = Attempt::new(file, self, pinned);
        if let Some(begun) = self.begin(&attempt, info.sparse).await? {
            self.send_and_commit(&attempt, begun, info).await?;
        }
        attempt.all_there();
        Ok(())
    }

    /// Has the target begin. `None` if the file is there.
    async fn begin<'a>(&self, attempt: &'a Attempt<'_>, sparse: bool) -> Result<Option<Begun<'a>>, CopyError> {
        let (file, options) = (attempt.file, attempt.file.copy.options);
        let (to, was_begun) = (&file.copy.to, self.begun.load(Ordering::Relaxed));
        let large = LargeFile {
            extents: attempt.pinned.extents,
            owner: Digest::from([0; 32]),
            fresh: !options.resume && !was_begun,
            apart: self.apart,
            sparse,
            overwrite: options.overwrite,
            same: self.digest().filter(|_| self.may_be_there),
            parents: file.parents(),
        };
        let begin = async || {
            let staging = to.begin(file.target, large.clone()).await.map_err(|error| Side::Target.of(error))?;
            Ok(staging.map(|staging| Begun { staging, first: None }))
        };
        // Nothing says yet that the file is there, or that some of it is kept.
        let ahead = if sparse || options.keep_existing || was_begun {
            None
        } else {
            let ahead = to.begin_with_first(file.target, large.clone()).await;
            ahead.map_err(|error| Side::Target.of(error))?
        };
        let mut begun = match ahead {
            Some(beginning) => attempt.begin(beginning).await,
            None => begin().await,
        };
        // Whoever had it before, a process that is just ending, say, may need a moment to let go of it.
        let mut pause = Pause::new();
        for _ in 0..LETTING_GO {
            match begun {
                Err(error) if error.status() == Status::Superseded && self.apart.is_none() => {
                    pause.wait().await;
                    begun = begin().await;
                }
                _ => break,
            }
        }
        self.begun.fetch_or(begun.is_ok(), Ordering::Relaxed);
        begun
    }

    /// Has every extent at the target, some of them at a time, and commits.
    async fn send_and_commit<'a>(
        &self,
        attempt: &'a Attempt<'_>,
        Begun { staging, mut first }: Begun<'a>,
        info: FileInfo,
    ) -> Result<(), CopyError> {
        let next = |page: &Vec<HeldExtent>| page.last()?.index.checked_add(1).map(|from| staging.held(from));
        let held = successors(Some(staging.held(0)), next).flatten();
        let held: HashMap<_, _> = held.map(|held| (held.index, held.digest)).collect();
        let staging = &*staging;
        let mut work = staging.extents().iter().map(|extent| match first.take_if(|_| extent.index == 0) {
            Some(first) => first,
            None => Box::pin(attempt.extent(staging, extent, held.get(&extent.index).copied())),
        });
        let (mut leaving, mut arriving) = (FuturesUnordered::new(), FuturesUnordered::new());
        // Where one fails the others are dropped: what is durable of the file stays at the target.
        let sending = pin!(async {
            loop {
                // Those that only wait for their answers, for a round trip or more where something was lost, hold up
                // no others: a long path would be idle. But there is an end to it, and one at a time is one.
                let most = attempt.file.copy.extents_in_flight();
                let room = most.min((2 * most - 1).saturating_sub(arriving.len())).saturating_sub(leaving.len());
                leaving.extend(work.by_ref().take(room));
                tokio::select! {
                    Some(sent) = leaving.next() => arriving.push(sent?),
                    Some(arrived) = arriving.next() => arrived?,
                    else => return Ok(()),
                }
            }
        });
        let committing = pin!(async {
            attempt.all_digested().await;
            staging.settle().await;
            self.commit(staging, attempt.file, info).await
        });
        let committed = match select(sending, committing).await {
            Either::Left((sent, committing)) => {
                sent?;
                committing.await
            }
            // What was committed has arrived, whether or not that was said.
            Either::Right((Ok(()), _)) => return Ok(()),
            Either::Right((committed, sending)) => {
                sending.await?;
                committed
            }
        };
        match committed {
            // It had overtaken an extent.
            Err(error) if error.status() == Status::Incomplete => self.commit(staging, attempt.file, info).await,
            committed => committed,
        }
    }

    async fn commit(&self, staging: &dyn Staging, file: &FileCopy<'_>, info: FileInfo) -> Result<(), CopyError> {
        let incomplete = || Side::Target.of(StorageError::new(file.target, Problem::Incomplete));
        let preserve = file.copy.options.preserve;
        let publish = Publish {
            digest: self.digest().ok_or_else(incomplete)?,
            mode: preserve.then_some(info.mode),
            mtime: preserve.then_some(info.mtime),
        };
        staging.commit(publish).await.map(drop).map_err(|error| Side::Target.of(error))
    }

    /// Of the whole file, once those of all extents are known.
    fn digest(&self) -> Option<Digest> {
        join(&self.lock().iter().map(|known| known.digest).collect::<Option<Vec<_>>>()?)
    }

    /// Bytes that an earlier run has sent.
    fn resumed(&self, extents: Extents) -> u64 {
        let known = self.lock();
        extents.iter().zip(&*known).filter(|(_, known)| known.resumed).map(|(extent, _)| extent.length).sum()
    }

    pub(super) fn known(&self, index: u32) -> Known {
        self.lock().get(index as usize).copied().unwrap_or_default()
    }

    pub(super) fn know(&self, index: u32, known: Known) {
        if let Some(place) = self.lock().get_mut(index as usize) {
            *place = known;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that its target has begun.
pub(super) struct Begun<'a> {
    pub(super) staging: Arc<dyn Staging>,
    /// The first extent, if it is on its way.
    pub(super) first: Option<Sending<'a>>,
}

/// How often to ask for what another process has, before going apart from it.
const LETTING_GO: u32 = 3;
