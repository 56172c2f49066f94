//! Every system call may fail, at every place.

use std::{
    collections::BTreeSet,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, statat},
    io::Errno,
};

use super::{staging::BODY, sys::Call, *};
use crate::Publish;

#[tokio::test]
async fn t08_every_system_call_may_fail() {
    let mut runs = 0;
    for scenario in Scenario::ALL {
        for which in Which::ALL {
            for (turn, fault) in Fault::ALL.into_iter().enumerate() {
                if matches!(fault, Fault::OneByte | Fault::Half) && which != Which::Pwrite {
                    continue;
                }
                for nth in 0.. {
                    if !one_fault(scenario, which, nth, fault, turn % 2 == 1).await {
                        break;
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs with one fault each");
    assert!(runs > 400, "{runs}");
}

/// Fails the `nth` call, looks at what is there, and tries again without faults, maybe in a new process.
/// Returns whether there was an `nth` call.
async fn one_fault(scenario: Scenario, which: Which, nth: usize, fault: Fault, restart: bool) -> bool {
    let what = format!("{scenario:?}, {which:?} {nth}, {fault:?}");
    // A file system in memory, where there is one: much is flushed here.
    let memory = Path::new("/dev/shm");
    let mut folder = if memory.is_dir() { Folder::on(memory) } else { Folder::new() };
    let old = scenario.prepare(&folder);
    let hook = Arc::new(Fail::new(which, nth, fault));
    folder.hook(hook.clone());
    let mut before = Seen::default();
    let result = scenario.attempt(&folder.storage, &mut before).await;
    let Some(&named) = hook.failed.get() else {
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
        return false;
    };
    let path = folder.path(scenario.path());
    let there = || fs::read(&path).ok();
    match result {
        Ok(()) => {
            assert!(there().as_deref() == Some(scenario.body()), "{what}: success with other bytes");
            let again = matches!(fault, Fault::OneByte | Fault::Half) || fault == Fault::Errno(Errno::INTR);
            assert!((again && which.is_tried_again()) || which == Which::Unlinkat, "{what}: nobody has noticed");
        }
        Err(error) => {
            let expected = match fault {
                Fault::Errno(Errno::NOSPC | Errno::DQUOT) => Status::NoSpace,
                Fault::Errno(Errno::INTR) if which.is_tried_again() => panic!("{what}: {error}"),
                Fault::Errno(_) => Status::Io,
                Fault::OneByte | Fault::Half => panic!("{what}: {error}"),
            };
            assert_eq!(error.status(), expected, "{what}: {error}");
            if named {
                assert!(there().as_deref() == Some(scenario.body()), "{what}: neither old nor new");
            } else {
                assert!(there() == old, "{what}: not as it was");
            }
        }
    }

    if restart {
        folder.restart();
    }
    let mut after = Seen::default();
    let again = scenario.attempt(&folder.storage, &mut after).await;
    again.unwrap_or_else(|error| panic!("{what}, then {error}"));
    assert!(there().as_deref() == Some(scenario.body()), "{what}, then other bytes");
    assert!(after.held.is_subset(&before.ended), "{what}: {:?} of {:?}", after.held, before.ended);
    true
}

/// What is done while calls fail.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// In one go; in several blocks; into a folder that is missing; in the place of another; without
    /// `O_TMPFILE`, both ways.
    Small,
    Blocks,
    Parents,
    Replace,
    Named {
        overwrite: bool,
    },
    Extents {
        overwrite: bool,
    },
    Read,
}

impl Scenario {
    const ALL: [Self; 9] = [
        Self::Small,
        Self::Blocks,
        Self::Parents,
        Self::Replace,
        Self::Named { overwrite: false },
        Self::Named { overwrite: true },
        Self::Extents { overwrite: false },
        Self::Extents { overwrite: true },
        Self::Read,
    ];

    fn path(self) -> &'static str {
        if let Self::Parents = self { "a/b/f" } else { "f" }
    }

    fn body(self) -> &'static [u8] {
        match self {
            Self::Blocks | Self::Read => &BODY[..2 * BLOCK + 10],
            Self::Extents { .. } => &BODY,
            _ => &BODY[..1000],
        }
    }

    /// Returns what stands at the path before.
    fn prepare(self, folder: &Folder) -> Option<Vec<u8>> {
        let old = match self {
            Self::Replace | Self::Named { overwrite: true } | Self::Extents { overwrite: true } => b"old".to_vec(),
            Self::Read => self.body().to_vec(),
            _ => return None,
        };
        fs::write(folder.path(self.path()), &old).unwrap();
        Some(old)
    }

    /// As a client does it that may have tried before.
    async fn attempt(self, storage: &LocalFs, seen: &mut Seen) -> Result<(), StorageError> {
        let path = remote(self.path());
        let file = NewFile {
            size: Some(self.body().len() as u64),
            overwrite: matches!(self, Self::Replace | Self::Named { overwrite: true }),
            accept_same: true,
            parents: true,
            ..NewFile::default()
        };
        match self {
            Self::Read => self.read(storage, &path).await,
            Self::Extents { overwrite } => self.extents(storage, &path, overwrite, seen).await,
            Self::Named { .. } => {
                let root = storage.root.clone();
                let named = move |wanted: &Wanted| {
                    let target = publish::Target::find(&root, &path, false)?;
                    let mut staged = write::Staged::begin_named(root.sys(), target, file)?;
                    staged.write(self.body())?;
                    staged.commit(digest(self.body()), wanted)
                };
                let done = blocking(named).await;
                done.map(drop).map_err(|problem| StorageError::new(&remote(self.path()), problem))
            }
            _ => {
                let mut upload = storage.create(&path, file).await?;
                for block in self.body().chunks(BLOCK) {
                    upload.write(Bytes::from_static(block)).await?;
                }
                upload.commit(digest(self.body())).await.map(drop)
            }
        }
    }

    async fn extents(
        self,
        storage: &LocalFs,
        path: &RemotePath,
        overwrite: bool,
        seen: &mut Seen,
    ) -> Result<(), StorageError> {
        static DIGESTS: std::sync::LazyLock<(Digest, Vec<Digest>)> =
            std::sync::LazyLock::new(|| (digest(&BODY), (0..3).map(staging::extent_digest).collect()));
        let (whole, digests) = &*DIGESTS;
        let file = LargeFile { overwrite, same: Some(*whole), parents: true, ..staging::large() };
        let Some(staging) = storage.begin(path, file).await? else { return Ok(()) };
        let held = staging.held(0);
        seen.held.extend(held.iter().map(|held| held.index));
        for (index, digest) in (0..).zip(digests) {
            let kept = held.iter().find(|held| held.index == index);
            let proved = match kept {
                Some(kept) => kept.digest == Some(*digest) || staging.prove(index, *digest).await?,
                None => false,
            };
            if !proved {
                let mut upload = staging.write(index, ftpq_proto::Holes::NONE).await?;
                upload.write(Bytes::from_static(staging::part(index))).await?;
                upload.commit(*digest).await?;
                seen.ended.insert(index);
            }
        }
        staging.commit(Publish { digest: *whole, mode: None, mtime: None }).await.map(drop)
    }

    async fn read(self, storage: &LocalFs, path: &RemotePath) -> Result<(), StorageError> {
        let mut reader = storage.open(path).await?;
        let mut all = Vec::new();
        while let Some(block) = reader.next_block().await? {
            all.extend_from_slice(&block);
        }
        assert_eq!(reader.finish().await?, digest(&all));
        assert!(all == self.body(), "success with other bytes");
        Ok(())
    }
}

/// What the attempts at a file by extents have seen.
#[derive(Default)]
struct Seen {
    /// The extents that were listed as kept.
    held: BTreeSet<u32>,
    /// Those that were acknowledged.
    ended: BTreeSet<u32>,
}

/// Fails one call.
pub(super) struct Fail {
    which: Which,
    nth: usize,
    fault: Fault,
    count: AtomicUsize,
    /// Whether the file has got its name.
    named: AtomicBool,
    /// The same when the call was failed.
    failed: OnceLock<bool>,
}

impl Fail {
    pub(super) fn nth(which: Which, nth: usize, errno: Errno) -> Arc<Self> {
        Arc::new(Self::new(which, nth, Fault::Errno(errno)))
    }

    fn new(which: Which, nth: usize, fault: Fault) -> Self {
        Self { which, nth, fault, count: AtomicUsize::new(0), named: AtomicBool::new(false), failed: OnceLock::new() }
    }
}

impl sys::Hook for Fail {
    fn call(&self, call: Call<'_>) -> Result<usize, Errno> {
        let mut most = usize::MAX;
        if Which::of(&call) == self.which && self.count.fetch_add(1, Ordering::SeqCst) == self.nth {
            let _ = self.failed.set(self.named.load(Ordering::SeqCst));
            match (self.fault, call) {
                (Fault::Errno(errno), _) => return Err(errno),
                (Fault::OneByte, _) => most = 1,
                (Fault::Half, Call::Pwrite { bytes, .. }) => most = bytes.len().div_ceil(2),
                (Fault::Half, _) => {}
            }
        }
        let names = match call {
            // Where something stands, this call fails by itself.
            Call::Linkat { folder, name: b"f", .. } => statat(folder, "f", AtFlags::SYMLINK_NOFOLLOW).is_err(),
            Call::Renameat { to: b"f", .. } => true,
            _ => false,
        };
        self.named.fetch_or(names, Ordering::SeqCst);
        Ok(most)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Errno(Errno),
    /// Fewer are written than asked for.
    OneByte,
    Half,
}

impl Fault {
    const ALL: [Self; 6] = [
        Self::Errno(Errno::IO),
        Self::Errno(Errno::NOSPC),
        Self::OneByte,
        Self::Half,
        Self::Errno(Errno::DQUOT),
        Self::Errno(Errno::INTR),
    ];
}

/// Which call is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Openat2,
    Openat,
    Pread,
    Flock,
    Pwrite,
    Fallocate,
    Ftruncate,
    Fsync,
    Linkat,
    Renameat,
    Unlinkat,
    Mkdirat,
    /// Nobody need be told: see `holes.rs`.
    Seek,
}

impl Which {
    const ALL: [Self; 12] = [
        Self::Openat2,
        Self::Openat,
        Self::Pread,
        Self::Flock,
        Self::Pwrite,
        Self::Fallocate,
        Self::Ftruncate,
        Self::Fsync,
        Self::Linkat,
        Self::Renameat,
        Self::Unlinkat,
        Self::Mkdirat,
    ];

    pub(super) fn of(call: &Call<'_>) -> Self {
        match call {
            Call::Openat2 => Self::Openat2,
            Call::Openat { .. } => Self::Openat,
            Call::Pread => Self::Pread,
            Call::Flock => Self::Flock,
            Call::Pwrite { .. } => Self::Pwrite,
            Call::Fallocate { .. } => Self::Fallocate,
            Call::Ftruncate { .. } => Self::Ftruncate,
            Call::Fsync { .. } => Self::Fsync,
            Call::Linkat { .. } => Self::Linkat,
            Call::Renameat { .. } => Self::Renameat,
            Call::Unlinkat { .. } => Self::Unlinkat,
            Call::Mkdirat { .. } => Self::Mkdirat,
            Call::Seek => Self::Seek,
        }
    }

    /// Whether a call that was interrupted is made again.
    fn is_tried_again(self) -> bool {
        matches!(self, Self::Openat2 | Self::Pread | Self::Pwrite | Self::Fallocate)
    }
}
