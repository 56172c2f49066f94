//! One file, over as many attempts as it takes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ftpq_proto::{Kind, RemotePath, limits::WHOLE_MAX};
use ftpq_storage::{NewFile, Opened, Problem, Reader, StorageError};
use tokio::sync::OwnedSemaphorePermit;

use super::{Copy, CopyError, Pause, Side, large::Large};
use crate::progress::FileId;

/// A file that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    /// Those that an earlier run has sent.
    pub(super) resumed: u64,
}

pub(super) struct FileCopy<'a> {
    pub(super) copy: &'a Copy,
    pub(super) source: &'a RemotePath,
    pub(super) target: &'a RemotePath,
    /// Among others: what it holds is limited.
    room: Option<Room>,
    /// Its folder may not be made yet, and it was planned with its folder.
    in_tree: bool,
    /// Whether the first attempt came as far as to know the size.
    started: bool,
    /// An attempt was cut while it was being committed: it may be there already.
    may_be_there: bool,
    /// What outlives the attempts of a large file.
    large: Option<Large>,
    pub(super) moved: Moved<'a>,
}

impl<'a> FileCopy<'a> {
    pub(super) fn new(
        copy: &'a Copy,
        id: FileId,
        source: &'a RemotePath,
        target: &'a RemotePath,
        room: Option<Room>,
    ) -> Self {
        let moved = Moved { copy, id, bytes: Mutex::default() };
        Self { copy, source, target, room, in_tree: false, started: false, may_be_there: false, large: None, moved }
    }

    /// The same for a file of a tree.
    pub(super) fn in_tree(self) -> Self {
        Self { in_tree: true, ..self }
    }

    /// Copies the file, again where it is interrupted.
    pub(super) async fn run(mut self) -> Result<Copied, CopyError> {
        let mut pause = Pause::new();
        loop {
            match self.attempt().await {
                Ok(copied) => {
                    self.copy.persistence.note_progress();
                    return Ok(copied);
                }
                Err(error) if self.copy.persistence.tries_again(&error) => {
                    self.copy.progress.interrupted(self.moved.id, &error);
                    pause.wait().await;
                }
                Err(error) if self.large.as_mut().is_some_and(|large| large.stand_apart(&error)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&mut self) -> Result<Copied, CopyError> {
        self.leave_alone().await?;
        match self.open().await? {
            Opened::Whole(reader) => {
                self.start(reader.info().size);
                if self.large.take().is_some() {
                    self.moved.lose_all(); // it was larger before
                }
                let copied = self.whole(reader).await;
                if copied.is_err() {
                    self.moved.lose_all();
                }
                copied
            }
            Opened::Large(info) => {
                self.start(info.size);
                let mut large = self.large.take().unwrap_or_default();
                let copied = large.attempt(self, info).await;
                self.large = Some(large);
                copied
            }
        }
    }

    /// Fails where something here is in the way that is to be left alone, before anything is asked for: later it may be
    /// this file itself. A server says so in time.
    async fn leave_alone(&self) -> Result<(), CopyError> {
        if !self.copy.options.keep_existing || self.started || self.copy.to.is_far() {
            return Ok(());
        }
        match self.copy.to.stat(self.target).await {
            Ok(entry) if entry.kind != Kind::Folder => {
                Err(Side::Target.of(StorageError::new(self.target, Problem::Exists)))
            }
            // What else is wrong shows when the file is to appear.
            _ => Ok(()),
        }
    }

    /// Opens the file. Among others, one that is larger than was thought needs more room. If that is not there it waits,
    /// and not while it holds a stream: what comes on that would fill the window of those that have theirs.
    async fn open(&mut self) -> Result<Opened, CopyError> {
        loop {
            let opened = self.copy.waits.source(self.copy.from.open_up_to(self.source, WHOLE_MAX)).await;
            let opened = opened.map_err(|error| Side::Source.of(error))?;
            let size = match &opened {
                Opened::Whole(reader) => reader.info().size,
                Opened::Large(info) => info.size,
            };
            let Some(room) = &mut self.room else { return Ok(opened) };
            if room.widen(self.copy, size) {
                return Ok(opened);
            }
            drop(opened);
            room.wait(self.copy, size).await;
        }
    }

    fn start(&mut self, size: u64) {
        if !std::mem::replace(&mut self.started, true) {
            if !self.in_tree {
                self.copy.progress.planned(1, size);
            }
            self.copy.progress.started(self.moved.id, self.source, size);
        }
    }

    async fn whole(&mut self, mut reader: Box<dyn Reader>) -> Result<Copied, CopyError> {
        let (info, options, waits) = (reader.info(), self.copy.options, &self.copy.waits);
        let file = NewFile {
            size: Some(info.size),
            holes: reader.holes().clone(),
            overwrite: options.overwrite,
            accept_same: self.may_be_there,
            parents: self.parents(),
            mode: options.preserve.then_some(info.mode),
            mtime: options.preserve.then_some(info.mtime),
        };
        let mut in_holes = info.size;
        let upload = waits.target(self.copy.to.create(self.target, file)).await;
        let mut upload = upload.map_err(|error| Side::Target.of(error))?;
        while let Some(block) = waits.source(reader.next_block()).await.map_err(|error| Side::Source.of(error))? {
            let len = block.len() as u64;
            waits.target(upload.write(block)).await.map_err(|error| Side::Target.of(error))?;
            self.moved.advance(len);
            in_holes = in_holes.saturating_sub(len);
        }
        let digest = waits.source(reader.finish()).await.map_err(|error| Side::Source.of(error))?;
        let committed = waits.target(upload.commit(digest)).await.map_err(|error| Side::Target.of(error));
        self.may_be_there |= committed.as_ref().is_err_and(CopyError::is_interruption);
        committed?;
        waits.piece();
        self.moved.advance(in_holes);
        Ok(Copied { bytes: info.size, resumed: 0 })
    }

    /// Within a tree, a file may overtake the making of its folder.
    pub(super) fn parents(&self) -> bool {
        self.copy.options.parents || self.in_tree
    }
}

/// A file's part of the memory that those of a tree share.
pub(super) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    pub(super) fn new(memory: OwnedSemaphorePermit) -> Self {
        Self(Some(memory))
    }

    /// What a file of `size` bytes holds in buffers, in KiB.
    pub(super) fn weight_of(size: u64) -> u32 {
        match size {
            0..=WHOLE_MAX => (size / 1024).clamp(SMALLEST_KIB.into(), WHOLE_KIB.into()) as u32,
            _ => LARGEST_KIB,
        }
    }

    /// Takes what a file of `size` bytes needs besides. Returns whether it is there.
    fn widen(&mut self, copy: &Copy, size: u64) -> bool {
        let Some(memory) = &mut self.0 else { return true };
        let more = Self::weight_of(size).saturating_sub(memory.num_permits() as u32);
        copy.memory.clone().try_acquire_many_owned(more).map(|more| memory.merge(more)).is_ok()
    }

    /// Waits for it. Gives back what there is first, so that nobody waits for anybody who waits.
    async fn wait(&mut self, copy: &Copy, size: u64) {
        self.0 = None;
        // The semaphore is never closed.
        self.0 = copy.memory.clone().acquire_many_owned(Self::weight_of(size)).await.ok();
    }
}

/// What a small file holds, whatever its size: its task, its stream, its messages.
const SMALLEST_KIB: u32 = 16;

/// What a file in one go holds at the most: the block that is sent, the one that is read, and its part of the
/// connection's windows.
const WHOLE_KIB: u32 = 1024;

/// What a large file holds, whatever its size: some extents, each two blocks here and a window's worth in
/// the connection.
const LARGEST_KIB: u32 = 4 * 1024;

/// How far a file has come.
pub(super) struct Moved<'a> {
    copy: &'a Copy,
    id: FileId,
    bytes: Mutex<Bytes>,
}

#[derive(Default)]
struct Bytes {
    now: u64,
    /// The most that there ever were.
    furthest: u64,
}

impl Moved<'_> {
    pub(super) fn advance(&self, len: u64) {
        self.copy.progress.advanced(self.id, len);
        self.reach(len);
    }

    /// Bytes that were there already.
    pub(super) fn resume(&self, len: u64) {
        self.copy.progress.resumed(self.id, len);
        self.reach(len);
    }

    /// Bytes that will be sent again.
    pub(super) fn lose(&self, len: u64) {
        self.copy.progress.lost(self.id, len);
        let mut bytes = self.lock();
        bytes.now = bytes.now.saturating_sub(len);
    }

    /// All of them will be sent again.
    pub(super) fn lose_all(&self) {
        let now = self.lock().now;
        if now > 0 {
            self.lose(now);
        }
    }

    /// What is sent a second time is no progress: a file that is always cut must be given up.
    fn reach(&self, len: u64) {
        let mut bytes = self.lock();
        bytes.now += len;
        if bytes.now > bytes.furthest {
            bytes.furthest = bytes.now;
            self.copy.persistence.note_progress();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
