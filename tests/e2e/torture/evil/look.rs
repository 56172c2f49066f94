//! What is looked at after every behaviour, whatever it was.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::support::{Run, Running, World, until};

/// A client that has ended.
pub(super) struct Look {
    what: String,
    run: Run,
}

impl Look {
    /// Waits for its end.
    pub(super) fn at(what: &str, mut client: Running) -> Self {
        let began = Instant::now();
        let mut peak = 0;
        // Its last word on itself is at most one look old when it ends.
        until(what, || {
            peak = client.process.peak_memory_kib().unwrap_or(0).max(peak);
            client.process.has_ended()
        });
        let run = client.wait();
        eprintln!("{what}: exit code {}, {} MiB, {} ms", run.code, peak / 1024, began.elapsed().as_millis());
        assert!(peak < LIMIT_KIB, "{what}: the client needed {} MiB", peak / 1024);
        Self { what: what.into(), run }
    }

    /// With this exit code, these lines, and nothing that a terminal would obey.
    pub(super) fn ends(&self, code: i32, says: &[&str]) {
        let Self { what, run } = self;
        assert_eq!(run.code, code, "{what}: {}", clipped(&run.stderr));
        let mut missing = says.to_vec();
        for line in run.stderr.lines() {
            let summary = ["got ", "put "].iter().any(|word| line.starts_with(word));
            assert!(line.starts_with("ftpq: ") || summary, "{what}: {line:?}");
            assert!(line.len() < LINE_MAX, "{what}: a line of {} bytes", line.len());
            let many = |said: &&&str| said.strip_prefix('*').is_some_and(|said| line.contains(said));
            match missing.iter().position(|said| line.contains(said)) {
                Some(at) => drop(missing.swap_remove(at)),
                None => assert!(says.iter().any(|said| many(&said)), "{what}: it says {line:?} as well"),
            }
        }
        missing.retain(|said| !said.starts_with('*'));
        assert!(missing.is_empty(), "{what}: it does not say {missing:?}: {}", clipped(&run.stderr));
        nothing_raw(what, &run.stderr);
        nothing_raw(what, &run.stdout);
    }

    pub(super) fn prints(&self, lines: &[&str]) {
        assert_eq!(self.run.lines(), lines, "{}", self.what);
    }

    /// These are new, and nothing else has changed.
    pub(super) fn leaves(&self, before: &Everything, after: &Everything, leaves: &[&str]) {
        let what = &self.what;
        for (path, thing) in &before.0 {
            assert_eq!(after.0.get(path), Some(thing), "{what}: {} has changed", path.display());
        }
        let new = after.0.keys().filter(|path| !before.0.contains_key(*path));
        let (in_work, elsewhere): (Vec<_>, Vec<_>) = new.partition(|path| path.starts_with("work"));
        assert!(elsewhere.iter().all(|path| own(path)), "{what}: {elsewhere:?} is new");
        let shown = |path: &&PathBuf| after.0[*path].shown(path.strip_prefix("work").unwrap());
        let mut found: Vec<_> = in_work.iter().map(shown).collect();
        let mut leaves = leaves.to_vec();
        // A star at the end: whatever is in that folder.
        let any: Vec<_> = leaves.iter().filter_map(|leaf| leaf.strip_suffix('*')).collect();
        found.retain(|path| !any.iter().any(|folder| path.starts_with(folder)));
        leaves.retain(|leaf| !leaf.ends_with('*'));
        found.sort();
        leaves.sort_unstable();
        assert_eq!(found, leaves, "{what}: what it leaves");
    }
}

/// Everything in a world.
pub(super) struct Everything(BTreeMap<PathBuf, Thing>);

#[derive(Debug, PartialEq)]
enum Thing {
    Folder,
    File(blake3::Hash),
    Link(PathBuf),
}

impl Everything {
    pub(super) fn of(world: &World) -> Self {
        let (root, mut found) = (world.path(""), BTreeMap::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(&folder).unwrap() {
                let path = item.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                let thing = if meta.is_dir() {
                    folders.push(path.clone());
                    Thing::Folder
                } else if meta.is_symlink() {
                    Thing::Link(fs::read_link(&path).unwrap())
                } else if meta.len() > READ_MAX {
                    Thing::File(blake3::hash(&meta.len().to_le_bytes()))
                } else {
                    Thing::File(blake3::hash(&fs::read(&path).unwrap()))
                };
                let special = meta.permissions().mode() & 0o7000;
                assert!(special == 0, "{}: mode {special:o}", path.display());
                found.insert(path.strip_prefix(&root).unwrap().to_owned(), thing);
            }
        }
        Self(found)
    }
}

impl Thing {
    fn shown(&self, path: &Path) -> String {
        let name = path.to_str().unwrap_or_else(|| panic!("{path:?} is no text"));
        // What is kept of a large file has a name that follows from its final one.
        let name = match name.rsplit_once(".ftpq-") {
            Some((folder, kept)) if kept.len() == 32 => format!("{folder}.ftpq-KEPT"),
            _ => name.to_owned(),
        };
        match self {
            Thing::Folder => format!("{name}/"),
            Thing::File(_) => name,
            Thing::Link(target) => format!("{name} -> {}", target.display()),
        }
    }
}

/// Whether this is a file that the client keeps for itself.
fn own(path: &Path) -> bool {
    let names = ["home/identity", "home/identity/client.pem", "home/paths", "home/state.json", "home/history"];
    names.iter().any(|name| path == Path::new(name))
}

/// Nothing but letters of some script, spaces and ends of lines.
#[track_caller]
pub(super) fn nothing_raw(what: &str, text: &str) {
    // What std would not print either, and what was no text at all.
    let raw = |c: char| c == '\u{fffd}' || (c.escape_debug().count() > 1 && !"\\'\"\n".contains(c));
    if let Some(c) = text.chars().find(|&c| raw(c)) {
        panic!("{what}: {c:?} is raw in {}", clipped(text));
    }
    for word in ["panicked", "RUST_BACKTRACE", "Err(", "Some("] {
        assert!(!text.contains(word), "{what}: {}", clipped(text));
    }
}

fn clipped(text: &str) -> String {
    format!("{:?}", text.chars().take(4000).collect::<String>())
}

/// For a client, whatever a server does.
const LIMIT_KIB: u64 = 64 * 1024;

/// The longest that a server may say, all of it escaped.
const LINE_MAX: usize = 12 * 1024;

/// What is longer has nothing in it.
const READ_MAX: u64 = 64 << 20;
