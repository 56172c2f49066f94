//! A folder that is a link to somewhere else at one moment, and itself again at the next.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{GIB, Torture};
use crate::support::{World, all_names};

/// In the tree that is served: whoever is let into it must not come out of it.
#[test]
fn t12_names_that_flip_to_links_and_back_on_the_server() {
    let torture = Torture::of("t12");
    let world = World::in_memory(GIB);
    let outside = Outside::beside(&world);
    let flipper = Flipper::start(&world.served(), &outside.folder);
    fs::write(world.work().join("new"), "new").unwrap();
    fs::write(world.work().join("larger"), vec![b'n'; 300_000]).unwrap();
    let mut batch = String::new();
    for number in 0..50 {
        batch += "-get -f flip/canary --to got\n-put -f new --to flip/canary\n-ls -a flip\n";
        batch += "-stat flip/canary\n-get -f -r flip --to tree/\n-put -f larger --to flip/canary\n";
        batch += &format!(
            "-put -f new --to flip/new-{number}\n-mkdir flip/made-{number}\n-mkdir -p flip/deep/er-{number}\n"
        );
        batch += &format!("-rm flip/new-{number}\n-mv flip/made-{number} flip/moved-{number}\n-rm -r flip/deep\n");
        batch += "-put -f new --to flip/\n-rm -r flip/only-outside\n";
    }
    fs::create_dir(world.work().join("tree")).unwrap();
    for _ in torture.until(|| flipper.swaps(), 100_000, 1_000_000) {
        let run = world.client().args(["shell", "-b", "-"]).input(batch.clone()).run().ok();
        assert!(!run.stdout.contains("only-outside"), "{}", run.stdout);
        outside.check();
        never_read(&world.work());
        met_both(&run.stderr);
    }
    drop(flipper);
    outside.check();
}

/// In the tree that a client writes to, and in the one that it reads.
#[test]
fn t12_names_that_flip_to_links_and_back_on_the_client() {
    let torture = Torture::of("t12");
    let world = World::in_memory(GIB);
    let outside = Outside::beside(&world);
    let (from, into) = (world.work().join("from"), world.work().join("into"));
    let source = world.served().join("tree/flip");
    for folder in [&from, &into, &source] {
        fs::create_dir_all(folder).unwrap();
    }
    for (name, len) in [("canary", 10), ("larger", 300_000), ("new", 20)] {
        fs::write(source.join(name), vec![b'n'; len]).unwrap();
    }
    fs::create_dir(source.join("deeper")).unwrap();
    fs::write(source.join("deeper/new"), "new").unwrap();
    fs::create_dir(into.join("tree")).unwrap();
    let flippers = [&from, &into.join("tree")].map(|folder| Flipper::start(folder, &outside.folder));
    let batch = "-get -f -r tree --to into/\n-put -f -r from --to /back/\n".repeat(50);
    for _ in torture.until(|| flippers.iter().map(Flipper::swaps).min().unwrap_or(0), 100_000, 1_000_000) {
        let run = world.client().args(["shell", "-b", "-"]).input(batch.as_str()).run().ok();
        met_both(&run.stderr);
        outside.check();
        never_read(&world.served());
    }
    drop(flippers);
    outside.check();
}

/// What nobody may read or touch.
struct Outside {
    folder: PathBuf,
}

impl Outside {
    fn beside(world: &World) -> Self {
        let folder = world.path("outside");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("canary"), SECRET).unwrap();
        fs::create_dir(folder.join("only-outside")).unwrap();
        Self { folder }
    }

    #[track_caller]
    fn check(&self) {
        assert_eq!(all_names(&self.folder), ["canary", "only-outside"]);
        assert_eq!(fs::read_to_string(self.folder.join("canary")).unwrap(), SECRET);
    }
}

/// Swaps `flip`, a folder, with `aside`, a link that leads out, as fast as it can, until dropped.
struct Flipper {
    shared: Arc<(AtomicU64, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl Flipper {
    fn start(folder: &Path, outside: &Path) -> Self {
        let (flip, aside) = (folder.join("flip"), folder.join("aside"));
        fs::create_dir(&flip).unwrap();
        fs::write(flip.join("canary"), "inside").unwrap();
        symlink(outside, &aside).unwrap();
        let shared = Arc::<(AtomicU64, AtomicBool)>::default();
        let state = shared.clone();
        let thread = thread::spawn(move || {
            while !state.1.load(Ordering::SeqCst) {
                renameat_with(CWD, &flip, CWD, &aside, RenameFlags::EXCHANGE).unwrap();
                state.0.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    fn swaps(&self) -> u64 {
        self.shared.0.load(Ordering::SeqCst)
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.shared.1.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The folder was met as itself, and as a link: otherwise nothing was shown.
#[track_caller]
fn met_both(said: &str) {
    assert!(said.contains("put 1 file") && said.contains("not a folder"), "{said}");
}

/// No file in `folder` holds what stands outside.
#[track_caller]
fn never_read(folder: &Path) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        assert!(!path.ends_with("only-outside"), "{path:?}");
        match fs::symlink_metadata(&path) {
            Ok(is) if is.is_dir() => never_read(&path),
            Ok(is) if is.is_file() => assert!(!fs::read_to_string(&path).unwrap().contains(SECRET), "{path:?}"),
            _ => {}
        }
    }
}

const SECRET: &str = "nobody may read this";
