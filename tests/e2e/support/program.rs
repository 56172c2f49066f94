//! Running ftpq: put together, run to its end, left running, or made a server.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use super::{Host, Lines, PATIENCE, Process, Server};

/// ftpq, about to be run. It sees none of this process's environment but the search path.
pub(crate) struct Program {
    command: Command,
    input: Option<Vec<u8>>,
    log: Option<File>,
}

impl Program {
    /// `ftpq` as built for these tests.
    pub(crate) fn path() -> &'static Path {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| find("FTPQ_BIN", "ftpq"))
    }

    /// The example server with a verb of its own.
    pub(crate) fn sum_example() -> PathBuf {
        find("FTPQ_SUM_EXAMPLE", "examples/sum")
    }

    pub(crate) fn new(home: &Path, folder: &Path) -> Self {
        let mut command = Command::new(Self::path());
        command.env_clear().env("FTPQ_HOME", home).env("HOME", home).current_dir(folder);
        command.env("PATH", env::var_os("PATH").unwrap_or_default()).env("TZ", "UTC").env("USER", "tester");
        Self { command, input: None, log: None }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// What it reads on its standard input; nothing otherwise.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Where a server's standard error goes, instead of to the test.
    pub(crate) fn log_to(mut self, file: File) -> Self {
        self.log = Some(file);
        self
    }

    /// As another user of this machine.
    pub(crate) fn user(self, program: &Path, uid: u32) -> Self {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command.uid(uid).gid(uid);
        self.become_of(command)
    }

    /// On another host.
    pub(crate) fn on(self, host: &Host) -> Self {
        let command = host.command(self.command.get_program());
        self.become_of(command)
    }

    /// The same, with `command` before the arguments.
    fn become_of(mut self, mut command: Command) -> Self {
        command.args(self.command.get_args()).env_clear();
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.command.get_current_dir().expect("every program has a folder"));
        self.command = command;
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Run {
        self.spawn().wait()
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Running {
        self.spawn_onto(Stdio::piped())
    }

    /// Starts it with a standard output that nobody reads any more.
    pub(crate) fn spawn_unheard(self) -> Running {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        self.spawn_onto(writer.into())
    }

    fn spawn_onto(mut self, stdout: Stdio) -> Running {
        let shown = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let input = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(input).stdout(stdout).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("ftpq can be started");
        if let Some(input) = self.input {
            let mut pipe = child.stdin.take().expect("it is a pipe");
            // A program that ends early does not read it all.
            thread::spawn(move || pipe.write_all(&input));
        }
        let stdout = child.stdout.take().map_or_else(|| collect(io::empty()), collect);
        let stderr = collect(child.stderr.take().expect("it is a pipe"));
        Running { process: Process::new(child), stdout, stderr, shown }
    }

    /// Starts it with its standard output for the test to read, which then blocks it, or not.
    pub(crate) fn spawn_unread(mut self) -> (Process, std::process::ChildStdout, Lines) {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("ftpq can be started");
        let stdout = child.stdout.take().expect("it is a pipe");
        let stderr = Lines::of(child.stderr.take().expect("it is a pipe"));
        (Process::new(child), stdout, stderr)
    }

    /// Starts it as a server, and waits until it listens.
    pub(crate) fn serve(mut self) -> Server {
        let log = self.log.take().map_or_else(Stdio::piped, Stdio::from);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        Server::started(self.command.spawn().expect("ftpq can be started"))
    }
}

/// ftpq, running.
pub(crate) struct Running {
    pub(crate) process: Process,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn wait(self) -> Run {
        self.wait_up_to(PATIENCE)
    }

    pub(crate) fn wait_up_to(mut self, patience: Duration) -> Run {
        let end = |output: &mpsc::Receiver<Vec<u8>>| {
            output.recv_timeout(patience).unwrap_or_else(|_| panic!("ftpq {} hangs", self.shown))
        };
        let (stdout, stderr) = (end(&self.stdout), end(&self.stderr));
        let status = self.process.wait();
        let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
        Run {
            code,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            bytes: stdout,
            shown: self.shown,
        }
    }
}

/// ftpq, after its end.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its exit code; a signal's number, negative, where that ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Standard output as it came.
    pub(crate) bytes: Vec<u8>,
    shown: String,
}

impl Run {
    /// It did what it was asked to.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ends(0)
    }

    /// It ended with `code`.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "ftpq {}\n{}{}", self.shown, self.stdout, self.stderr);
        self.says_nothing_raw();
        self
    }

    /// It failed with `code` and one line for a person, which contains `text`. Returns that line.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, text: &str) -> String {
        let run = self.ends(code);
        let lines: Vec<_> = run.stderr.lines().collect();
        let [line] = lines.as_slice() else { panic!("ftpq {}: one line, not {lines:#?}", run.shown) };
        assert!(line.starts_with("ftpq: "), "ftpq {}: {line}", run.shown);
        assert!(line.contains(text), "ftpq {}: {line:?} does not say {text:?}", run.shown);
        (*line).to_owned()
    }

    /// One JSON object a line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The lines of standard output.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Neither the insides of the program nor anything that a terminal would obey.
    #[track_caller]
    fn says_nothing_raw(&self) {
        for raw in ["panicked", "RUST_BACKTRACE", "Error {", "Os {", "Err(", "Some(", "\u{1b}", "\r"] {
            assert!(!self.stderr.contains(raw), "ftpq {} says {raw:?}: {}", self.shown, self.stderr);
        }
    }
}

fn collect(mut source: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.read_to_end(&mut bytes);
        let _ = done.send(bytes);
    });
    result
}

/// Named by the environment, or beside these tests.
fn find(variable: &str, name: &str) -> PathBuf {
    let file = env::var_os(variable).filter(|file| !file.is_empty()).map_or_else(
        || {
            let itself: OsString = env::current_exe().expect("a test knows where it is").into();
            let profile = Path::new(&itself).ancestors().nth(2).expect("it lies in target/PROFILE/deps");
            profile.join(name)
        },
        PathBuf::from,
    );
    assert!(file.is_file(), "{} is missing: build it first: cargo xtask e2e", file.display());
    std::path::absolute(file).expect("the current folder is known")
}
