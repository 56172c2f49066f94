//! A running `ftpq serve`: started on a port of its own, stopped by SIGTERM as an operator would.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use xshell::{Shell, cmd};

/// The process. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Serves `root` from the shell's folder and environment. What it prints is passed on if `show`; what it
    /// logs goes to the file `log`, since it would break the clients' progress bars.
    pub(crate) fn start(shell: &Shell, ftpq: &Path, root: &str, log: &Path, show: bool) -> Result<Self> {
        let command = cmd!(shell, "{ftpq} serve {root} --listen 127.0.0.1:0").into();
        Self::start_by(command, log, show, |command| command.spawn().context("cannot start ftpq serve"))
    }

    /// The same for a `command` of the caller's, who also says how it is started.
    pub(crate) fn start_by(
        mut command: Command,
        log: &Path,
        show: bool,
        spawn: impl FnOnce(&mut Command) -> Result<Child>,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log)?);
        let mut child = spawn(&mut command)?;
        let screen = child.stdout.take().context("ftpq serve has no output")?;
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, log: log.into(), address: unknown };
        match watch(screen, show).recv_timeout(START) {
            Ok(address) => server.address = address,
            Err(_) => bail!("ftpq serve did not say where it is listening:\n{}", server.last_words()),
        }
        Ok(server)
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and expects it to do so by itself and without complaint.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        match wait(&mut self.child, STOP)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("ftpq serve ended with {status}:\n{}", self.last_words()),
            None => bail!("ftpq serve did not stop within {} s of SIGTERM:\n{}", STOP.as_secs(), self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(20)).map(|line| format!("  {line}\n")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that process `id` has held, in bytes.
pub(crate) fn peak_memory(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

const START: Duration = Duration::from_secs(20);

/// Longer than the server gives the commands that still run.
const STOP: Duration = Duration::from_secs(20);

/// Reads the screen to its end, so that the server never waits for us, and sends the address when it comes.
fn watch(screen: ChildStdout, show: bool) -> mpsc::Receiver<SocketAddr> {
    let (found, address) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(screen).lines().map_while(Result::ok) {
            if show {
                println!("{line}");
            }
            if let Some(address) = listening(&line) {
                // Nobody asks for the second one.
                let _ = found.send(address);
            }
        }
    });
    address
}

/// The address in `  listening    127.0.0.1:43121 (UDP)`.
fn listening(line: &str) -> Option<SocketAddr> {
    let mut addresses = line.split_whitespace().filter_map(|word| word.parse::<SocketAddr>().ok());
    line.contains("listening").then(|| addresses.find(|address| address.port() != 0)).flatten()
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_on_the_start_screen() {
        let found = |line| listening(line).map(|address| address.to_string());
        assert_eq!(found("  listening    127.0.0.1:43121 (UDP)").as_deref(), Some("127.0.0.1:43121"));
        assert_eq!(found("  listening    [::1]:4433 0.0.0.0:4433").as_deref(), Some("[::1]:4433"));
        assert_eq!(found("  listening    127.0.0.1:0"), None);
        assert_eq!(found("  try          ftpq ls -s 127.0.0.1:43121"), None);
    }
}
