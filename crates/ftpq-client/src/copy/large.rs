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
};

use ftpq_proto::{Digest, Extent, Extents, Status, Version};
use ftpq_storage::{FileInfo, LargeFile, Pinned, Problem, Publish, Staging, StorageError, join};
use futures_util::{StreamExt, stream};

use super::{
    Copy, CopyError, Side,
    file::{Copied, FileCopy, Moved},
};

/// What outlives the attempts.
#[derive(Default)]
pub(super) struct Large {
    /// The version that is being copied.
    version: Option<Version>,
    /// Of it, the digest of each extent that the target had at some time.
    digests: Vec<Option<Digest>>,
    /// Bytes that an earlier run has sent.
    resumed: u64,
    /// Another run was going on with what is kept: this one has its own, under this word.
    apart: Option<Digest>,
    /// An earlier attempt has begun it.
    begun: bool,
    /// An attempt was cut while it was being committed: it may be there already.
    may_be_there: bool,
}

/// What one extent came to.
struct Done {
    extent: Extent,
    digest: Digest,
    resumed: bool,
}

impl Large {
    pub(super) async fn attempt(&mut self, file: &FileCopy<'_>, info: FileInfo) -> Result<Copied, CopyError> {
        let Copy { to, options, .. } = file.copy;
        let too_large = || Side::Source.of(StorageError::new(file.source, Problem::NoSpace));
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
        let staging = to.begin(file.target, large).await.map_err(|error| Side::Target.of(error))?;
        self.begun = true;
        if let Some(staging) = staging {
            self.send(file, &*staging, info.version).await?;
            self.commit(&*staging, file, info).await?;
        }
        Ok(Copied { bytes: info.size, resumed: self.resumed })
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
            let done = extents.iter().zip(&self.digests).filter(|(_, digest)| digest.is_some());
            moved.lose(done.map(|(extent, _)| extent.length).sum());
            *self = Self { apart: self.apart, begun: self.begun, ..Self::default() };
            self.version = Some(version);
            self.digests = vec![None; extents.count() as usize];
        }
    }

    /// Has every extent at the target, some of them at a time.
    async fn send(&mut self, file: &FileCopy<'_>, staging: &dyn Staging, version: Version) -> Result<(), CopyError> {
        let extents = staging.extents();
        let pinned = Pinned { path: file.source.clone(), version, extents };
        let held: HashMap<_, _> = staging.held().into_iter().map(|held| (held.index, held.digest)).collect();
        let work = extents.iter().zip(self.digests.clone()).map(|(extent, known)| {
            let sending = Sending { copy: file.copy, moved: &file.moved, staging, pinned: &pinned, extent, known };
            sending.run(held.get(&extent.index).copied())
        });
        let mut done = stream::iter(work).buffer_unordered(file.copy.extents_in_flight());
        // Where one fails the others are dropped: what is durable of the file stays at the target.
        while let Some(done) = done.next().await {
            let Done { extent, digest, resumed } = done?;
            if let Some(place) = self.digests.get_mut(extent.index as usize) {
                *place = Some(digest);
            }
            self.resumed += if resumed { extent.length } else { 0 };
        }
        Ok(())
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
        join(&self.digests.iter().copied().collect::<Option<Vec<_>>>()?)
    }
}

/// One extent on its way.
struct Sending<'a> {
    copy: &'a Copy,
    moved: &'a Moved<'a>,
    staging: &'a dyn Staging,
    pinned: &'a Pinned,
    extent: Extent,
    /// Its digest, if an earlier attempt of this run had it there.
    known: Option<Digest>,
}

impl Sending<'_> {
    /// `held`: the target keeps it, with this digest if it has seen it itself.
    async fn run(self, held: Option<Option<Digest>>) -> Result<Done, CopyError> {
        if let Some(seen) = held
            && let Some(digest) = self.prove(seen).await?
        {
            let resumed = self.known.is_none();
            if resumed {
                self.moved.resume(self.extent.length);
            }
            return Ok(Done { extent: self.extent, digest, resumed });
        }
        if self.known.is_some() {
            self.moved.lose(self.extent.length);
        }
        let digest = self.send().await?;
        Ok(Done { extent: self.extent, digest, resumed: false })
    }

    /// The extent's digest, if the target has the same.
    async fn prove(&self, seen: Option<Digest>) -> Result<Option<Digest>, CopyError> {
        let index = self.extent.index;
        let digest = match self.known {
            Some(digest) => digest,
            None => self.copy.from.extent_digest(self.pinned, index).await.map_err(|error| Side::Source.of(error))?,
        };
        let same = match seen {
            Some(seen) => seen == digest,
            None => self.staging.prove(index, digest).await.map_err(|error| Side::Target.of(error))?,
        };
        Ok(same.then_some(digest))
    }

    async fn send(&self) -> Result<Digest, CopyError> {
        let (source, target) = (|error| Side::Source.of(error), |error| Side::Target.of(error));
        let mut reader = self.copy.from.open_extent(self.pinned, self.extent.index).await.map_err(source)?;
        let holes = reader.holes().clone();
        let mut flight = Flight { moved: self.moved, bytes: 0 };
        let mut upload = self.staging.write(self.extent.index, holes).await.map_err(target)?;
        while let Some(block) = reader.next_block().await.map_err(source)? {
            let len = block.len() as u64;
            upload.write(block).await.map_err(target)?;
            flight.advance(len);
        }
        let digest = reader.finish().await.map_err(source)?;
        upload.commit(digest).await.map_err(target)?;
        flight.arrive(self.extent.length);
        Ok(digest)
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
