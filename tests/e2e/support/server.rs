//! A running `ftpq serve`, and the example server.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use super::{Lines, PATIENCE, Process, Program};

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The fingerprint of its key.
    pub(crate) key: String,
    /// Its start screen.
    pub(crate) screen: String,
    /// What it prints on standard error; nothing if that goes elsewhere.
    pub(crate) log: Lines,
}

impl Server {
    /// The one that `child` is, once it says where it listens.
    pub(crate) fn started(mut child: Child) -> Self {
        let screen = Lines::of(child.stdout.take().expect("it is a pipe"));
        let log = child.stderr.take().map_or_else(|| Lines::of(io::empty()), Lines::of);
        let process = Process::new(child);
        let told = |line: &str, word: &str| {
            line.split_whitespace().nth(1).unwrap_or_else(|| panic!("no {word} in {line:?}")).to_owned()
        };
        let address = told(&screen.wait_for("listening"), "address").parse().expect("an address");
        let key = told(&screen.wait_for("  key "), "key");
        // The last line: everything is there.
        screen.wait_for("elsewhere");
        let screen = screen.so_far().join("\n");
        Self { process, address, key, screen, log }
    }

    /// HOST:PORT for clients.
    pub(crate) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.address.port())
    }

    /// Sends `signal` and returns the exit code (a signal's number, negative, where that ended it).
    pub(crate) fn stop(mut self, signal: Signal) -> i32 {
        self.process.signal(signal);
        self.exit_code()
    }

    /// Waits for the end.
    pub(crate) fn exit_code(&mut self) -> i32 {
        self.exit_code_within(PATIENCE)
    }

    /// Waits so long for the end.
    pub(crate) fn exit_code_within(&mut self, patience: Duration) -> i32 {
        let status = self.process.wait_up_to(patience);
        self.log.wait_for_end();
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }
}

/// The example server, which knows SUM. It stops when its input ends.
pub(crate) struct SumServer {
    _process: Process,
    pub(crate) name: String,
    pub(crate) key: String,
}

impl SumServer {
    pub(crate) fn start(root: &Path, clients: &Path) -> Self {
        let mut command = Command::new(Program::sum_example());
        command.arg(root).arg("127.0.0.1:0").arg(clients);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let line = Lines::of(child.stdout.take().expect("it is a pipe")).wait_for("listening on");
        let words: Vec<_> = line.split_whitespace().collect();
        let ["listening", "on", name, key] = words.as_slice() else { panic!("{line:?}") };
        Self { name: (*name).into(), key: (*key).into(), _process: Process::new(child) }
    }
}
