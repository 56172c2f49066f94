//! What processes and all that they started cost: CPU seconds and memory, as `/proc` tells.

use std::{collections::BTreeMap, fs, process::Child, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::peak_memory;

/// The process and all its descendants.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// CPU seconds that these processes have used, with all that they started.
pub(super) fn cpu(roots: &[u32]) -> f64 {
    roots.iter().flat_map(|&root| tree(root)).filter_map(own_cpu).sum()
}

/// CPU seconds of one process and of those of its children that it has waited for; one that has ended and was
/// not waited for still tells.
pub(super) fn own_cpu(process: u32) -> Option<f64> {
    let ticks = ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes that a process has read, from files or otherwise.
pub(super) fn bytes_read(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar:"))?.trim().parse().ok()
}

/// Bytes of memory: the peaks of all processes below `roots` that live now, together. Pages that several of
/// them share are counted for each.
pub(super) fn memory(roots: &[u32]) -> u64 {
    roots.iter().flat_map(|&root| tree(root)).filter_map(peak_memory).sum()
}

/// Lets peaks begin anew from here.
pub(super) fn reset_memory(roots: &[u32]) {
    for process in roots.iter().flat_map(|&root| tree(root)) {
        // Without it, the peak is that of all runs so far.
        let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
    }
}

/// Waits until a service has only the processes that it had before: what served a client has ended then, and its
/// CPU time is that of the one who waited for it.
pub(super) fn settle(roots: &[u32], before: usize) {
    for _ in 0..100 {
        if roots.iter().map(|&root| tree(root).len()).sum::<usize>() <= before {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a process and all that it started, at once.
pub(super) fn kill_tree(root: u32) {
    for process in tree(root) {
        if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
            // Fails where it has ended already.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// A process that is ended when it is dropped, with all that it started.
pub(super) struct Killed(pub(super) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            kill_tree(self.0.id());
            let _ = self.0.wait();
        }
    }
}

/// User and system time, own and of children waited for, in clock ticks: fields 14 to 17 of `/proc/PID/stat`,
/// see proc(5). The name in the second field may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

/// The most that each end held at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peaks {
    pub(super) client: u64,
    pub(super) server: u64,
}

impl Peaks {
    pub(super) fn look(&mut self, client: &[u32], server: &[u32]) {
        self.client = self.client.max(memory(client));
        self.server = self.server.max(memory(server));
    }
}

/// How much of each source its client has read, by the client's number.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(BTreeMap<u32, u64>);

impl Progress {
    pub(super) fn look(&mut self, clients: &[u32]) {
        for &client in clients {
            let read: u64 = tree(client).into_iter().filter_map(bytes_read).sum();
            // An ended process tells nothing: what it told last stays.
            let known = self.0.entry(client).or_default();
            *known = read.max(*known);
        }
    }

    pub(super) fn of(&self, client: u32) -> u64 {
        self.0.get(&client).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(110));
        assert_eq!(ticks("7 (x) S 1"), Some(0));
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn a_dropped_process_is_gone_with_its_children() {
        let child = Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let killed = Killed(child);
        while tree(id).len() < 2 {
            thread::yield_now();
        }
        assert!(memory(&[id]) > 0 && own_cpu(id).is_some());
        drop(killed);
        assert_eq!(own_cpu(id), None);
    }
}
