//! Every target on any toolchain: each seed of its corpus as it is, then changed at random.
//!
//! `FTPQ_FUZZ_EXECS` sets how often each target runs, `FTPQ_FUZZ_SECONDS` for how long instead. What fails
//! prints its seed; with `FTPQ_SEED` set to that, the same inputs come again in the same order.

// Counts and what has failed are printed; what is wrong with a corpus panics.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

mod mutator;

use std::{
    collections::BTreeSet,
    env, fs,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ftpq_fuzz_targets::{TARGETS, Target};
use mutator::Mutator;

/// A test for each target, and how often it runs there: as often as is done in some seconds by a debug
/// build.
macro_rules! targets {
    ($($name:ident $executions:literal),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name), $executions);
            }
        )+

        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

targets! {
    authorized_clients 4_000,
    config 4_000,
    escape 20_000,
    extents 4_000,
    frame 10_000,
    known_servers 10_000,
    link_target 20_000,
    messages 20_000,
    path 4_000,
    session 100,
    ticket 10_000,
}

/// A target is in the table, in a test above, in cargo-fuzz's list, and has a corpus.
#[test]
fn every_target_is_everywhere() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, TESTED.iter().map(ToString::to_string).collect());
    assert_eq!(names, names_in(&fuzz.join("fuzz_targets")));
    assert_eq!(names, names_in(&fuzz.join("corpus")));
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        assert!(!corpus(name).is_empty(), "{name} has no corpus");
        let source = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("ftpq_fuzz_targets::{name}(data)")), "{name}.rs runs something else");
    }
}

/// Replays the corpus, then runs changed inputs.
fn run(name: &'static str, executions: u64) {
    let _cleaner = (name == "session").then_some(StopSession);
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let corpus = corpus(name);
    for (seed, input) in &corpus {
        watched(*target, input, || format!("{name}: the seed {}", seed.display()));
    }
    let number = |variable| env::var(variable).ok().map(|value| value.parse::<u64>().expect(variable));
    let seed = number("FTPQ_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    let end = number("FTPQ_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let executions = number("FTPQ_FUZZ_EXECS").unwrap_or(executions);
    let mut mutator = Mutator::new(seed, corpus.into_iter().map(|(_, input)| input).collect());
    let mut done = 0;
    while end.map_or(done < executions, |end| Instant::now() < end) {
        let input = mutator.next_input();
        watched(*target, &input, || format!("{name}: FTPQ_SEED={seed}, execution {done}"));
        done += 1;
    }
    println!("fuzz: {name} {done} executions");
}

/// Leaves no server behind, also after a failure.
struct StopSession;

impl Drop for StopSession {
    fn drop(&mut self) {
        ftpq_fuzz_targets::stop_session();
    }
}

/// Runs `target`, and if it panics says on what.
fn watched(target: Target, input: &[u8], what: impl Fn() -> String) {
    struct Report<'a, F: Fn() -> String>(&'a [u8], F);
    impl<F: Fn() -> String> Drop for Report<'_, F> {
        fn drop(&mut self) {
            if thread::panicking() {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("{}\ninput: {hex}", (self.1)());
            }
        }
    }
    let _report = Report(input, what);
    target(input);
}

/// The seeds of a target, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// The names in a folder, without what follows a dot.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}
