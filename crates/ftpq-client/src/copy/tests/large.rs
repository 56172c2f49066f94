//! Large files: what was acknowledged is not sent again, and what was not the same is never kept.

use std::{
    collections::BTreeMap,
    os::unix::fs::{FileExt, MetadataExt},
    sync::LazyLock,
};

use tempfile::TempDir;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_on_wherever_it_is_cut() {
    for cuts in [
        &[][..],
        &[(Cut::Begin, 2)],
        &[(Cut::BeginReply, 2)],
        &[(Cut::Extent(0), 1)],
        &[(Cut::Extent(1), 3), (Cut::Extent(2), 1)],
        &[(Cut::ExtentReply(1), 1)],
        &[(Cut::ExtentReply(0), 1), (Cut::Extent(1), 1), (Cut::ExtentReply(2), 1)],
        &[(Cut::Commit, 2)],
        &[(Cut::CommitReply, 1)],
        &[(Cut::Begin, 1), (Cut::Extent(2), 1), (Cut::ExtentReply(2), 1), (Cut::Commit, 1), (Cut::CommitReply, 1)],
    ] {
        for extents in [1, 4] {
            let run = Run::new(&BYTES);
            let watch = Watch::new();
            let target = run.target(cuts);
            let summary = run.copy(target.clone(), Options { extents, ..OPTIONS }, &watch).await.unwrap();
            assert_eq!((summary.files, summary.bytes, summary.resumed), (1, SIZE, 0), "{cuts:?} {extents}");
            run.only_this_is_there(&BYTES);
            watch.adds_up_to(SIZE);
            nothing_acknowledged_is_written_again(&target);
            if extents == 1 {
                // Those whose acknowledgement was lost were there, and were found.
                let cut_within = |index| {
                    cuts.iter().filter(|(cut, _)| *cut == Cut::Extent(index)).map(|&(_, times)| times).sum::<u32>()
                };
                let expected = (0..COUNT).map(|index| (index, 1 + cut_within(index))).collect();
                assert_eq!(writes(&target), expected, "{cuts:?}");
                let interruptions = cuts.iter().map(|&(_, times)| times).sum::<u32>();
                assert_eq!(watch.counts().interruptions, interruptions, "{cuts:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_run_goes_on_and_says_what_it_did_not_send() {
    let run = interrupted_at(2).await;
    let (watch, target) = (Watch::new(), run.target(&[]));
    let summary = run.copy(target.clone(), OPTIONS, &watch).await.unwrap();
    assert_eq!((summary.bytes, summary.resumed), (SIZE, 2 * EXTENT));
    assert_eq!(writes(&target), [(2, 1)].into());
    assert_eq!((watch.counts().resumed, watch.counts().lost), (2 * EXTENT, 0));
    watch.adds_up_to(SIZE);
    run.only_this_is_there(&BYTES);
}

/// What the first attempt of the next run could not prove yet is still the earlier run's.
#[tokio::test(start_paused = true)]
async fn the_next_run_may_be_cut_too() {
    let run = interrupted_at(2).await;
    let (watch, target) = (Watch::new(), run.target(&[(Cut::BeginReply, 1), (Cut::Extent(2), 2), (Cut::Commit, 1)]));
    let summary = run.copy(target.clone(), OPTIONS, &watch).await.unwrap();
    assert_eq!(summary.resumed, 2 * EXTENT);
    assert_eq!(writes(&target), [(2, 3)].into());
    watch.adds_up_to(SIZE);
    run.only_this_is_there(&BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_to_begin_afresh_keeps_its_own_alone() {
    let run = interrupted_at(2).await;
    let (watch, target) = (Watch::new(), run.target(&[(Cut::Extent(2), 1)]));
    let options = Options { resume: false, extents: 1, ..OPTIONS };
    let summary = run.copy(target.clone(), options, &watch).await.unwrap();
    assert_eq!(summary.resumed, 0);
    assert_eq!(writes(&target), [(0, 1), (1, 1), (2, 2)].into());
    watch.adds_up_to(SIZE);
    run.only_this_is_there(&BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_changed_between_two_runs_is_not_spliced() {
    let run = interrupted_at(2).await;
    let new = run.change(EXTENT + 5);
    let (watch, target) = (Watch::new(), run.target(&[]));
    let summary = run.copy(target.clone(), OPTIONS, &watch).await.unwrap();
    assert_eq!(summary.resumed, EXTENT);
    assert_eq!(writes(&target), [(1, 1), (2, 1)].into());
    watch.adds_up_to(SIZE);
    run.only_this_is_there(&new);
}

/// What is kept of the old one counts as there until the new one arrives: a commit that overtook it would spoil all.
#[tokio::test(start_paused = true)]
async fn a_commit_does_not_overtake_what_takes_the_place_of_something_kept() {
    let run = Run::new(&BYTES);
    let target = run.target(&[(Cut::Commit, 1)]);
    run.copy(target, Options { extents: 1, ..ONCE }, &Watch::new()).await.unwrap_err();
    let new = run.change(2 * EXTENT + 5);
    let summary = run.copy(run.target(&[(Cut::Late(2), 1)]), ONCE, &Watch::new()).await.unwrap();
    assert_eq!(summary.resumed, 2 * EXTENT);
    run.only_this_is_there(&new);
}

/// One that was missing is told apart by the target: the commit is sent again.
#[tokio::test(start_paused = true)]
async fn a_commit_that_overtakes_an_extent_is_sent_again() {
    let run = Run::new(&BYTES);
    let summary = run.copy(run.target(&[(Cut::Late(1), 1)]), ONCE, &Watch::new()).await.unwrap();
    assert_eq!((summary.bytes, summary.resumed), (SIZE, 0));
    run.only_this_is_there(&BYTES);
}

/// On a long path the answers of two come long after they were sent.
#[tokio::test(start_paused = true)]
async fn those_that_wait_for_their_answers_hold_up_no_others() {
    let run = Run::new(&BYTES);
    let target = run.target(&[(Cut::Late(0), 1), (Cut::Late(1), 1), (Cut::Late(2), 1)]);
    let began = tokio::time::Instant::now();
    run.copy(target, Options { extents: 2, ..ONCE }, &Watch::new()).await.unwrap();
    // Each takes a second, on a clock that only waiting moves.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    run.only_this_is_there(&BYTES);
}

/// The same where the target itself has seen what it keeps.
#[tokio::test(start_paused = true)]
async fn a_source_that_changed_between_two_runs_to_one_server_is_not_spliced() {
    let run = Run::new(&BYTES);
    let target = run.target(&[(Cut::Extent(2), 1)]);
    run.copy(target.clone(), Options { extents: 1, ..ONCE }, &Watch::new()).await.unwrap_err();
    let new = run.change(EXTENT + 5);
    let summary = run.copy(target.clone(), OPTIONS, &Watch::new()).await.unwrap();
    assert_eq!(summary.resumed, EXTENT);
    assert_eq!(writes(&target), [(0, 1), (1, 2), (2, 2)].into());
    run.only_this_is_there(&new);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_changed_between_two_attempts_is_not_spliced() {
    let run = Run::new(&BYTES);
    let (watch, target) = (Watch::new(), run.target(&[(Cut::Extent(2), 1)]));
    let changing = run.clone();
    watch.when_interrupted(move || drop(changing.change(EXTENT + 5)));
    let options = Options { extents: 1, ..OPTIONS };
    let summary = run.copy(target.clone(), options, &watch).await.unwrap();
    assert_eq!((summary.bytes, summary.resumed), (SIZE, 0));
    assert_eq!(writes(&target), [(0, 1), (1, 2), (2, 2)].into());
    watch.adds_up_to(SIZE);
    run.only_this_is_there(&run.source_now());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_changes_while_it_is_copied_is_an_error() {
    // Within an extent, and between two.
    for after in [1, EXTENT, EXTENT + 1, 2 * EXTENT, 2 * EXTENT + 1] {
        let run = Run::new(&BYTES);
        let (watch, target) = (Watch::new(), run.target(&[]));
        let changing = run.clone();
        watch.when_advanced(after, move || drop(changing.change(5)));
        let error = run.copy(target.clone(), Options { extents: 1, ..OPTIONS }, &watch).await.unwrap_err();
        assert_eq!((error.side, error.status()), (Side::Source, Status::Changed), "after {after} bytes");
        assert!(!run.at_target().exists());
        // The next run has the new one.
        run.copy(target, OPTIONS, &Watch::new()).await.unwrap();
        run.only_this_is_there(&run.source_now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_not_large_any_more_is_copied_as_it_is_then() {
    let run = Run::new(&BYTES);
    let (watch, target) = (Watch::new(), run.target(&[(Cut::Extent(2), 1)]));
    let source = run.at_source();
    watch.when_interrupted(move || fs::write(source, b"small").unwrap());
    let summary = run.copy(target, Options { extents: 1, ..OPTIONS }, &watch).await.unwrap();
    assert_eq!(summary.bytes, 5);
    assert_eq!(fs::read(run.at_target()).unwrap(), b"small");
    watch.adds_up_to(5);
}

#[tokio::test(start_paused = true)]
async fn who_is_superseded_goes_on_apart_and_both_files_are_right() {
    let run = Run::new(&BYTES);
    let (watch, target) = (Watch::new(), run.target(&[(Cut::TakeOver(2), 1)]));
    let options = Options { overwrite: true, extents: 1, ..OPTIONS };
    let summary = run.copy(target.clone(), options, &watch).await.unwrap();
    assert_eq!((summary.bytes, summary.resumed), (SIZE, 0));
    // All of it again, the first one twice.
    assert_eq!(writes(&target), [(0, 3), (1, 2), (2, 1)].into());
    watch.adds_up_to(SIZE);
    assert_eq!(fs::read(run.at_target()).unwrap(), *BYTES);

    let other = target.other.lock().unwrap().take().unwrap();
    assert_eq!(other.held(0).iter().map(|held| held.index).collect::<Vec<_>>(), [0, 1]);
    let from = LocalFs::open(run.0.from.path()).unwrap();
    let info = match from.open_up_to(&path(), 1).await.unwrap() {
        Opened::Large(info) => info,
        Opened::Whole(_) => panic!("not large"),
    };
    let pinned = Pinned { path: path(), version: info.version, extents: other.extents() };
    let mut reader = from.open_extent(&pinned, 2).await.unwrap();
    let mut last = other.write(2, Holes::NONE).await.unwrap();
    while let Some(block) = reader.next_block().await.unwrap() {
        last.write(block).await.unwrap();
    }
    last.commit(reader.finish().await.unwrap()).await.unwrap();
    let digest = from.open(&path()).await.unwrap().finish().await.unwrap();
    other.commit(Publish { digest, mode: None, mtime: None }).await.unwrap();
    run.only_this_is_there(&BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_the_commit_is_no_excuse_for_another_file() {
    let run = Run::new(&BYTES);
    let (watch, target) = (Watch::new(), run.target(&[(Cut::CommitReply, 1)]));
    let at_target = run.at_target();
    watch.when_interrupted(move || {
        fs::remove_file(&at_target).unwrap();
        fs::write(&at_target, vec![7; SIZE as usize]).unwrap();
    });
    assert_eq!(run.copy(target, OPTIONS, &watch).await.unwrap_err().status(), Status::Exists);
    run.only_this_is_there(&vec![7; SIZE as usize]);
}

#[tokio::test(start_paused = true)]
async fn a_large_file_that_never_gets_further_is_given_up_and_can_be_gone_on_with() {
    let run = Run::new(&BYTES);
    let target = run.target(&[(Cut::Extent(1), u32::MAX)]);
    let options = Options { extents: 1, ..OPTIONS };
    let watch = Watch::new();
    let copied = tokio::time::timeout(10 * OPTIONS.retry_for, run.copy(target.clone(), options, &watch)).await;
    assert_eq!(copied.expect("an end").unwrap_err().status(), Status::Unavailable);
    watch.adds_up_to(EXTENT);
    target.cuts.lock().unwrap().clear();
    let summary = run.copy(target, OPTIONS, &Watch::new()).await.unwrap();
    assert_eq!(summary.resumed, EXTENT);
    run.only_this_is_there(&BYTES);
}

#[tokio::test(start_paused = true)]
async fn holes_stay_holes_and_count_as_bytes() {
    for size in [MIB, 3 * EXTENT] {
        let run = Run::new(b"");
        let file = fs::File::options().write(true).open(run.at_source()).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&BYTES[..65_536], size / 2).unwrap();
        let watch = Watch::new();
        run.copy(run.target(&[(Cut::ExtentReply(1), 1)]), OPTIONS, &watch).await.unwrap();
        watch.adds_up_to(size);
        run.only_this_is_there(&run.source_now());
        assert!(fs::metadata(run.at_target()).unwrap().blocks() * 512 < MIB / 2, "{size}");
    }
}

const MIB: u64 = 1024 * 1024;

const EXTENT: u64 = ftpq_proto::limits::EXTENT_MIN;

/// Two extents and some of a third.
const SIZE: u64 = 2 * EXTENT + 3 * MIB + 77;

const COUNT: u32 = 3;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..SIZE).map(|i| (i * 31 % 251) as u8).collect());

/// An interruption is an error.
const ONCE: Options = Options { retry_for: Duration::ZERO, ..OPTIONS };

/// A file `f`, and the folder that it goes to.
#[derive(Clone)]
struct Run(Arc<Folders>);

struct Folders {
    from: TempDir,
    to: TempDir,
}

impl Run {
    fn new(bytes: &[u8]) -> Self {
        let folders = Folders { from: tempfile::tempdir().unwrap(), to: tempfile::tempdir().unwrap() };
        let run = Self(Arc::new(folders));
        fs::write(run.at_source(), bytes).unwrap();
        run
    }

    fn at_source(&self) -> std::path::PathBuf {
        self.0.from.path().join("f")
    }

    fn at_target(&self) -> std::path::PathBuf {
        self.0.to.path().join("f")
    }

    /// A storage that knows nothing of those before.
    fn target(&self, cuts: &[(Cut, u32)]) -> Arc<Cutting> {
        let cuts: Vec<_> = cuts.iter().map(|&(cut, times)| ("f", cut, times)).collect();
        Cutting::new(self.0.to.path(), &cuts)
    }

    async fn copy(&self, target: Arc<Cutting>, options: Options, watch: &Arc<Watch>) -> Result<Summary, CopyError> {
        let from = Arc::new(LocalFs::open(self.0.from.path()).unwrap());
        Copy::new(from, target, options, watch.clone()).file(&path(), &path()).await
    }

    /// Changes one byte of the source, and makes it look as before. Returns what it is then.
    fn change(&self, at: u64) -> Vec<u8> {
        let file = fs::File::options().read(true).write(true).open(self.at_source()).unwrap();
        let (before, mut byte) = (file.metadata().unwrap(), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        let changed = || {
            let now = file.metadata().unwrap();
            (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec())
        };
        // The clock of a file system may stand still for some milliseconds.
        while !changed() {
            file.write_all_at(&[!byte[0]], at).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
        self.source_now()
    }

    fn source_now(&self) -> Vec<u8> {
        fs::read(self.at_source()).unwrap()
    }

    fn only_this_is_there(&self, bytes: &[u8]) {
        let there: Vec<_> = fs::read_dir(self.0.to.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
        assert_eq!(there, ["f"]);
        assert!(fs::read(self.at_target()).unwrap() == bytes, "other bytes");
    }
}

/// After a run that left the extents before `index`, and has nothing open any more.
async fn interrupted_at(index: u32) -> Run {
    let run = Run::new(&BYTES);
    let target = run.target(&[(Cut::ExtentReply(index - 1), 1)]);
    let error = run.copy(target, Options { extents: 1, ..ONCE }, &Watch::new()).await.unwrap_err();
    assert_eq!(error.status(), Status::Unavailable);
    assert!(!run.at_target().exists());
    run
}

fn path() -> RemotePath {
    "f".parse().unwrap()
}

/// How often each extent was begun.
fn writes(target: &Cutting) -> BTreeMap<u32, u32> {
    let mut writes = BTreeMap::new();
    for seen in &*target.seen.lock().unwrap() {
        if let Seen::Begun(index) = seen {
            *writes.entry(*index).or_default() += 1;
        }
    }
    writes
}

fn nothing_acknowledged_is_written_again(target: &Cutting) {
    let seen = target.seen.lock().unwrap();
    for (place, event) in seen.iter().enumerate() {
        if let Seen::Acknowledged(index) = event {
            assert!(!seen[place..].contains(&Seen::Begun(*index)), "{index} in {seen:?}");
        }
    }
}

/// Adds up what it is told, and does something at some point.
struct Watch {
    counts: Mutex<Counts>,
    when_interrupted: Mutex<Option<Act>>,
    when_advanced: Mutex<Option<(u64, Act)>>,
}

type Act = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    advanced: u64,
    resumed: u64,
    lost: u64,
    interruptions: u32,
}

impl Watch {
    fn new() -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), when_interrupted: Mutex::default(), when_advanced: Mutex::default() })
    }

    fn when_interrupted(&self, act: impl FnOnce() + Send + 'static) {
        *self.when_interrupted.lock().unwrap() = Some(Box::new(act));
    }

    fn when_advanced(&self, bytes: u64, act: impl FnOnce() + Send + 'static) {
        *self.when_advanced.lock().unwrap() = Some((bytes, Box::new(act)));
    }

    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }

    fn adds_up_to(&self, size: u64) {
        let counts = self.counts();
        assert_eq!(counts.advanced + counts.resumed, size + counts.lost, "{counts:?}");
    }
}

impl Progress for Watch {
    fn planned(&self, _: u64, _: u64) {}
    fn started(&self, _: FileId, _: &RemotePath, _: u64) {}

    fn advanced(&self, _: FileId, bytes: u64) {
        self.counts.lock().unwrap().advanced += bytes;
        let now = self.counts().advanced;
        let act = self.when_advanced.lock().unwrap().take_if(|(bytes, _)| now >= *bytes);
        if let Some((_, act)) = act {
            act();
        }
    }

    fn resumed(&self, _: FileId, bytes: u64) {
        self.counts.lock().unwrap().resumed += bytes;
    }

    fn lost(&self, _: FileId, bytes: u64) {
        self.counts.lock().unwrap().lost += bytes;
    }

    fn interrupted(&self, _: FileId, _: &CopyError) {
        self.counts.lock().unwrap().interruptions += 1;
        if let Some(act) = self.when_interrupted.lock().unwrap().take() {
            act();
        }
    }

    fn finished(&self, _: FileId) {}
    fn failed(&self, _: Option<FileId>, _: &CopyError) {}
    fn skipped(&self, _: &RemotePath, _: LeftOut) {}
}
