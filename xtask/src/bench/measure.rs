//! One timed run: a client from its start to its end, and what both ends spent on it.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{
    network::Network,
    processes::{self, Killed, Peaks, Progress},
    rows::Net,
};
use crate::scratch::check_interrupted;

/// What a run took.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// From the start of the client to its end; of two clients, to the end of the first.
    pub(super) seconds: f64,
    /// CPU seconds.
    pub(super) client_cpu: f64,
    pub(super) server_cpu: f64,
    pub(super) peaks: Peaks,
    /// Packets that were lost on the way, in per cent of those sent.
    pub(super) lost: Option<f64>,
    /// How much each of two clients had sent when the first had ended, in bytes.
    pub(super) sent: Option<[u64; 2]>,
    /// Why it counts for nothing.
    pub(super) failed: Option<String>,
    /// Because it took too long.
    pub(super) late: bool,
}

/// Runs `command` on the client's side. `servers` are the processes that serve it; what it complains of goes to
/// the file `log`. After `limit` it is ended, and has failed.
pub(super) fn run(
    network: &Network,
    mut command: Command,
    servers: &[u32],
    log: &Path,
    limit: Duration,
) -> Result<Measured> {
    let before = Before::look(network, servers);
    prepare(&mut command, log)?;
    let (child, start) = network.client.spawn(&mut command)?;
    let mut child = Killed(child);
    let (id, over) = (child.0.id(), AtomicBool::new(false));
    let (seconds, peaks) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peaks = Peaks::default();
            while !over.load(Ordering::Relaxed) {
                peaks.look(&[id], servers);
                if start.elapsed() > limit || check_interrupted().is_err() {
                    processes::kill_tree(id);
                }
                thread::sleep((start.elapsed() / 10).clamp(Duration::from_millis(2), Duration::from_millis(50)));
            }
            peaks
        });
        // Not waited for, it still tells its CPU time.
        let ended = waitid(WaitId::Pid(Pid::from_child(&child.0)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let seconds = start.elapsed();
        over.store(true, Ordering::Relaxed);
        ended.map(|_| (seconds, watch.join().unwrap_or_default()))
    })?;
    let client_cpu = processes::own_cpu(id).unwrap_or_default();
    let status = child.0.wait()?;
    check_interrupted()?;
    let mut measured = before.until_now(network, servers);
    measured.failed = failure(status.success(), &status.to_string(), seconds, limit, log);
    measured.late = measured.failed.is_some() && seconds >= limit;
    Ok(Measured { seconds: seconds.as_secs_f64(), client_cpu, peaks, ..measured })
}

/// Runs two commands at once, and looks how far both are when the first of them ends. Both end.
pub(super) fn run_two(
    network: &Network,
    commands: [Command; 2],
    servers: &[u32],
    log: &Path,
    limit: Duration,
) -> Result<Measured> {
    let before = Before::look(network, servers);
    let start = Instant::now();
    let mut children = Vec::new();
    for mut command in commands {
        prepare(&mut command, log)?;
        children.push(Killed(network.client.spawn(&mut command)?.0));
    }
    let ids: Vec<u32> = children.iter().map(|child| child.0.id()).collect();
    let (mut peaks, mut progress, mut first) = (Peaks::default(), Progress::default(), None);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        peaks.look(&ids, servers);
        let mut ended = 0;
        for child in &children {
            ended += usize::from(waitid(WaitId::Pid(Pid::from_child(&child.0)), options)?.is_some());
        }
        if ended == 0 {
            progress.look(&ids);
        } else if first.is_none() {
            first = Some(start.elapsed());
        }
        check_interrupted()?;
        if ended == children.len() || start.elapsed() > limit {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let client_cpu = ids.iter().filter_map(|&id| processes::own_cpu(id)).sum();
    let mut good = true;
    for child in &mut children {
        good &= matches!(child.0.try_wait()?, Some(status) if status.success());
    }
    // Those that go on too long end here.
    drop(children);
    let mut measured = before.until_now(network, servers);
    let seconds = first.unwrap_or(limit);
    measured.failed = failure(good, "one of the two failed", seconds, limit, log);
    let sent = <[u32; 2]>::try_from(ids).ok().map(|ids| ids.map(|id| progress.of(id)));
    measured.late = measured.failed.is_some() && seconds >= limit;
    Ok(Measured { seconds: seconds.as_secs_f64(), client_cpu, peaks, sent, ..measured })
}

fn prepare(command: &mut Command, log: &Path) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
    Ok(())
}

fn failure(good: bool, status: &str, time: Duration, limit: Duration, log: &Path) -> Option<String> {
    if good {
        return None;
    }
    if time >= limit {
        return Some(format!("took more than {} s", limit.as_secs()));
    }
    let complaint = fs::read(log).unwrap_or_default();
    let complaint = String::from_utf8_lossy(&complaint);
    let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Some(format!("{status}: {last}"))
}

/// What the servers and the path had done before a run.
struct Before {
    cpu: f64,
    processes: usize,
    packets: Option<super::network::Packets>,
}

impl Before {
    fn look(network: &Network, servers: &[u32]) -> Self {
        processes::reset_memory(servers);
        let processes = servers.iter().map(|&server| processes::tree(server).len()).sum();
        Self { cpu: processes::cpu(servers), processes, packets: network.packets() }
    }

    /// What they did since.
    fn until_now(self, network: &Network, servers: &[u32]) -> Measured {
        processes::settle(servers, self.processes);
        if let Net::Wan(path) = network.net {
            // The last packets are still on their way.
            thread::sleep(Duration::from_millis(u64::from(path.rtt) * 2));
        }
        let lost = self.packets.zip(network.packets()).and_then(|(before, now)| {
            let (sent, received) = (now.sent - before.sent, now.received - before.received);
            (sent > 0).then(|| 100.0 * sent.saturating_sub(received) as f64 / sent as f64)
        });
        Measured { server_cpu: (processes::cpu(servers) - self.cpu).max(0.0), lost, ..Measured::default() }
    }
}
