//! A child process that never outlives its test.

use std::{
    fs,
    path::PathBuf,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes this long, on a slow disk either: a test that waits longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Waits for something that nobody announces.
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    look_every(Duration::from_millis(5), PATIENCE, what, holds);
}

/// The same, where what comes next must not come late.
pub(crate) fn as_soon_as(what: &str, holds: impl FnMut() -> bool) {
    look_every(Duration::from_micros(100), PATIENCE, what, holds);
}

/// A child process. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self { child }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Kills it, if it has not ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.wait();
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.wait_up_to(PATIENCE)
    }

    /// Waits so long for the end.
    pub(crate) fn wait_up_to(&mut self, patience: Duration) -> ExitStatus {
        let mut ended = None;
        look_every(Duration::from_millis(5), patience, "the process ends", || {
            ended = self.child.try_wait().expect("a child can be waited for");
            ended.is_some()
        });
        ended.expect("it has ended")
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// The most memory that it ever had resident, in KiB; `None` before it has begun and once it has ended.
    pub(crate) fn peak_memory_kib(&self) -> Option<u64> {
        // Until it runs its own program it has this process's memory (vfork).
        let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
        let begun = program(&self.child.id().to_string())? != program("self")?;
        if begun { self.number("status", "VmHWM:") } else { None }
    }

    /// The memory that it has resident now, in KiB; 0 once it has ended.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.number("status", "VmRSS:").unwrap_or(0)
    }

    /// Where its open files lead: paths, and names such as `socket:[7]`.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        // One may be closed while they are looked at.
        folder.map(|files| files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).collect()).unwrap_or_default()
    }

    /// What it was started with, as everybody on this machine can see it.
    pub(crate) fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.child.id())).expect("it runs");
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    /// Bytes that it has read from files so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.number("io", "rchar:").unwrap_or(0)
    }

    /// Bytes that it has written to files so far.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.number("io", "wchar:").unwrap_or(0)
    }

    /// What the system says of it.
    pub(crate) fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is there")
    }

    /// What the system says of each of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the process is there");
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok()).collect()
    }

    fn number(&self, file: &str, field: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).ok()?;
        let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
        rest.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn look_every(pause: Duration, patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(pause);
    }
}
