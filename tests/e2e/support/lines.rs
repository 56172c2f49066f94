//! What a process prints, line by line, as it prints it.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::PATIENCE;

/// The lines that a process has printed so far. Clones see the same.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Collects what comes out of `source` until it ends.
    pub(crate) fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let collector = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                collector.update(|seen| seen.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            collector.update(|seen| seen.ended = true);
        });
        lines
    }

    /// All lines so far.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Waits for the first line that contains `text`.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait(&format!("a line with {text:?}"), |seen| {
            let found = seen.lines.iter().find(|line| line.contains(text)).cloned();
            assert!(found.is_some() || !seen.ended, "it ended without {text:?}; it said {:#?}", seen.lines);
            found
        })
    }

    /// Waits until the process closes its output.
    pub(crate) fn wait_for_end(&self) {
        self.wait("the end", |seen| seen.ended.then_some(()));
    }

    fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }

    /// A test that failed while it looked must not take the collector down as well.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut seen = self.lock();
        loop {
            if let Some(found) = found(&seen) {
                return found;
            }
            let (again, timeout) = self.shared.1.wait_timeout(seen, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            assert!(!timeout.timed_out(), "waited in vain for {what}; it said {:#?}", again.lines);
            seen = again;
        }
    }
}
