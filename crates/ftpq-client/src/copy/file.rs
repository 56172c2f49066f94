//! One file, over as many attempts as it takes.

use ftpq_proto::RemotePath;
use ftpq_storage::NewFile;

use super::{Copy, CopyError, Pause, Side};
use crate::progress::FileId;

pub(super) struct FileCopy<'a> {
    copy: &'a Copy,
    id: FileId,
    source: &'a RemotePath,
    target: &'a RemotePath,
    /// Its folder may not be made yet, and it was planned with its folder.
    in_tree: bool,
    /// Whether the first attempt came as far as to know the size.
    started: bool,
    /// Bytes that this attempt has moved, and the most that any has.
    moved: u64,
    furthest: u64,
    /// An attempt was cut while it was being committed: it may be there already.
    may_be_there: bool,
}

impl<'a> FileCopy<'a> {
    pub(super) fn new(
        copy: &'a Copy,
        id: FileId,
        source: &'a RemotePath,
        target: &'a RemotePath,
        in_tree: bool,
    ) -> Self {
        Self { copy, id, source, target, in_tree, started: false, moved: 0, furthest: 0, may_be_there: false }
    }

    /// Copies the file, again where it is interrupted. Returns its bytes.
    pub(super) async fn run(mut self) -> Result<u64, CopyError> {
        let mut pause = Pause::new();
        loop {
            match self.attempt().await {
                Ok(size) => {
                    self.copy.note_progress();
                    return Ok(size);
                }
                Err(error) if self.copy.tries_again(&error) => {
                    self.copy.progress.interrupted(self.id, std::mem::take(&mut self.moved), &error);
                    pause.wait().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&mut self) -> Result<u64, CopyError> {
        let Copy { from, to, options, progress, .. } = self.copy;
        let mut reader = from.open(self.source).await.map_err(|error| Side::Source.of(error))?;
        let info = reader.info();
        if !std::mem::replace(&mut self.started, true) {
            if !self.in_tree {
                progress.planned(1, info.size);
            }
            progress.started(self.id, self.source, info.size);
        }
        let file = NewFile {
            size: info.size,
            overwrite: options.overwrite,
            accept_same: self.may_be_there,
            // Within a tree, a file may overtake the making of its folder.
            parents: options.parents || self.in_tree,
            mode: options.preserve.then_some(info.mode),
            mtime: options.preserve.then_some(info.mtime),
        };
        let mut upload = to.create(self.target, file).await.map_err(|error| Side::Target.of(error))?;
        while let Some(block) = reader.next_block().await.map_err(|error| Side::Source.of(error))? {
            let len = block.len() as u64;
            upload.write(block).await.map_err(|error| Side::Target.of(error))?;
            self.advance(len);
        }
        let digest = reader.finish().await.map_err(|error| Side::Source.of(error))?;
        let committed = upload.commit(digest).await.map_err(|error| Side::Target.of(error));
        self.may_be_there |= committed.as_ref().is_err_and(CopyError::is_interruption);
        committed.map(|_| info.size)
    }

    fn advance(&mut self, len: u64) {
        self.copy.progress.advanced(self.id, len);
        self.moved += len;
        // What is sent a second time is no progress: a file that is always cut must be given up.
        if self.moved > self.furthest {
            self.furthest = self.moved;
            self.copy.note_progress();
        }
    }
}
