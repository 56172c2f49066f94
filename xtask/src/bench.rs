//! `cargo xtask bench`: put and get of one file over loopback, beside scp in the same run. `--mib` sets
//! the file's size, `--reps` the number of runs, `--write` puts the table into docs/benchmarks.md.
//!
//! Contestants take turns, so that what else the machine does hits all of them; a transfer's target
//! is removed before it, and compared byte for byte after the clock has stopped.

mod report;
mod sshd;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{
    report::{Report, Run},
    sshd::Sshd,
};
use crate::{
    files::{compare_files, write_random},
    project,
    scratch::{Scratch, check_interrupted},
    server::{Server, peak_memory},
};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    if options.write {
        // Before minutes of work, not after.
        report::check_document()?;
    }
    let ssh = sshd::find()?;
    let shell = project::shell()?;
    let ftpq = project::build_release(&shell)?;
    let scratch = Scratch::new(place(options.bytes()), false)?;
    let folder = scratch.path();
    for sub in ["source", "served", "fetched", "ssh"] {
        fs::create_dir(folder.join(sub))?;
    }
    write_random(&folder.join("source/one.bin"), options.bytes(), "ftpq bench")?;
    // The server's copy for downloads: the same file, so that it need not be held twice.
    fs::hard_link(folder.join("source/one.bin"), folder.join("served/down.bin"))?;

    shell.set_var("FTPQ_HOME", folder.join("home"));
    shell.change_dir(folder);
    let server = Server::start(&shell, &ftpq, "served", &folder.join("server.log"), false)?;
    let sshd = Sshd::start(&ssh, &folder.join("ssh"))?;
    let bench = Bench { folder, ftpq, address: server.address.to_string(), scp: ssh.scp, ssh: sshd.config() };
    let mut runs = Vec::new();
    for rep in 1..=options.reps {
        for direction in [Direction::Put, Direction::Get] {
            for contestant in [Contestant::Ftpq, Contestant::Scp, Contestant::ScpGcm] {
                let run = bench.transfer(contestant, direction)?;
                eprintln!(
                    "{rep}/{}  {:<4} {:<14} {:>6.2} s",
                    options.reps,
                    direction.name(),
                    contestant.name(),
                    run.time.as_secs_f64()
                );
                runs.push(run);
            }
        }
    }
    let report = Report { mib: options.mib, reps: options.reps, runs, server_memory: server.peak_memory() };
    server.stop()?;
    drop(sshd);
    scratch.close()?;

    print!("{report}");
    if options.write {
        report.write()?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Options {
    mib: u64,
    reps: usize,
    write: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { mib: 2048, reps: 3, write: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u64> {
                let text = args.next().with_context(|| format!("{arg} needs a number"))?;
                match text.parse() {
                    Ok(number) if number > 0 => Ok(number),
                    _ => bail!("{arg} needs a number above zero, not {text:?}"),
                }
            };
            match arg.as_str() {
                "--mib" => options.mib = number()?,
                "--reps" => options.reps = usize::try_from(number()?)?,
                "--write" => options.write = true,
                other => project::refuse(other)?,
            }
        }
        Ok(options)
    }

    fn bytes(&self) -> u64 {
        self.mib * 1024 * 1024
    }
}

/// Memory where there is enough for the source and one copy: a disk would be measured otherwise.
fn place(bytes: u64) -> Option<&'static Path> {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map(|space| space.f_bavail * space.f_frsize).unwrap_or(0);
    if free < bytes * 5 / 2 {
        eprintln!("/dev/shm has no room for two such files: measuring with files on disk");
        return None;
    }
    Some(memory)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Put,
    Get,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    Ftpq,
    Scp,
    ScpGcm,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Self::Ftpq => "ftpq",
            Self::Scp => "scp",
            Self::ScpGcm => "scp, AES-GCM",
        }
    }
}

struct Bench<'a> {
    folder: &'a Path,
    ftpq: PathBuf,
    address: String,
    scp: PathBuf,
    ssh: PathBuf,
}

impl Bench<'_> {
    /// One timed transfer into an empty place, compared afterwards.
    fn transfer(&self, contestant: Contestant, direction: Direction) -> Result<Run> {
        check_interrupted()?;
        let source = self.folder.join("source/one.bin");
        let target = match direction {
            Direction::Put => self.folder.join("served/one.bin"),
            Direction::Get => self.folder.join("fetched/down.bin"),
        };
        let (time, memory) = timed(self.command(contestant, direction))
            .with_context(|| format!("{} of {}", direction.name(), contestant.name()))?;
        compare_files(&source, &target)?;
        fs::remove_file(&target)?;
        Ok(Run { contestant, direction, time, memory })
    }

    fn command(&self, contestant: Contestant, direction: Direction) -> Command {
        let in_folder = |sub: &str| self.folder.join(sub);
        let mut command = Command::new(if contestant == Contestant::Ftpq { &self.ftpq } else { &self.scp });
        command.stdin(Stdio::null()).env("FTPQ_HOME", in_folder("home"));
        if contestant == Contestant::Ftpq {
            match direction {
                Direction::Put => {
                    command.current_dir(in_folder("source")).args(["put", "-q", "-s", &self.address, "one.bin"])
                }
                Direction::Get => {
                    command.current_dir(in_folder("fetched")).args(["get", "-q", "-s", &self.address, "down.bin"])
                }
            };
            return command;
        }
        command.arg("-q").arg("-F").arg(&self.ssh);
        if contestant == Contestant::ScpGcm {
            command.args(["-c", "aes128-gcm@openssh.com"]);
        }
        let remote = |sub: &str| format!("{}:{}", sshd::HOST, in_folder(sub).display());
        match direction {
            Direction::Put => command.arg(in_folder("source/one.bin")).arg(remote("served/one.bin")),
            Direction::Get => command.arg(remote("served/down.bin")).arg(in_folder("fetched/down.bin")),
        };
        command
    }
}

/// How long the command took, start and end included, and the most memory it held meanwhile.
fn timed(mut command: Command) -> Result<(Duration, Option<u64>)> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let (id, over) = (child.id(), AtomicBool::new(false));
    thread::scope(|scope| {
        // The figure is gone with the process, so it is read again and again until then.
        let memory = scope.spawn(|| {
            let mut memory = None;
            while !over.load(Ordering::Relaxed) {
                memory = memory.max(peak_memory(id));
                thread::sleep(Duration::from_millis(20));
            }
            memory
        });
        let status = child.wait();
        let time = start.elapsed();
        over.store(true, Ordering::Relaxed);
        let memory = memory.join().unwrap_or_default();
        match status? {
            status if status.success() => Ok((time, memory)),
            status => bail!("ended with {status}"),
        }
    })
}
