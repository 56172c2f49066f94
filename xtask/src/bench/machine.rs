//! What the benchmark runs on, for the report.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use super::{
    record::{Machine, Session},
    tools,
};
use crate::project;

/// This machine. `emulator` is what makes long paths, `disk` the file system of durable files.
pub(super) fn describe(emulator: Option<String>, disk: Option<String>) -> Machine {
    let system = rustix::system::uname();
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    Machine {
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
        cores: thread::available_parallelism().map_or(1, usize::from),
        memory: field(&read("/proc/meminfo"), "MemTotal").and_then(|text| kib(&text)).unwrap_or_default() * 1024,
        kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
        emulator,
        disk,
    }
}

/// This call of the benchmark.
pub(super) fn session(shell: &Shell, args: &[String], machine: Machine, ftpq: &Path) -> Session {
    let said = |command: xshell::Cmd<'_>| command.quiet().ignore_stderr().read().unwrap_or_default();
    let dirty =
        if said(cmd!(shell, "git status --porcelain --untracked-files=no")).is_empty() { "" } else { ", changed" };
    Session {
        date: said(cmd!(shell, "date --utc +%Y-%m-%d")),
        command: shown(args),
        commit: format!("{}{dirty}", said(cmd!(shell, "git rev-parse --short HEAD"))),
        machine,
        versions: tools::versions(ftpq),
    }
}

/// A folder on a disk, and its file system. What lies in memory is durable for nobody.
pub(super) fn disk() -> Result<(PathBuf, &'static str)> {
    for folder in [env::temp_dir(), project::root()?.join("target")] {
        let Ok(system) = rustix::fs::statfs(&folder) else { continue };
        // Of Linux's magic.h.
        match system.f_type as u64 {
            0xef53 => return Ok((folder, "ext4")),
            0x5846_5342 => return Ok((folder, "XFS")),
            0x9123_683e => return Ok((folder, "Btrfs")),
            _ => {}
        }
    }
    bail!("neither the temporary folder nor target/ lies on ext4, XFS or Btrfs")
}

/// An error where memory has no room for files of these sizes, in MiB, and a copy of the largest.
pub(super) fn check_room(place: &Path, sizes: &[u64]) -> Result<()> {
    let space = rustix::fs::statvfs(place)?;
    let free = space.f_bavail * space.f_frsize / (1024 * 1024);
    // Small files and what servers keep come on top.
    let needed = sizes.iter().sum::<u64>() + sizes.iter().max().unwrap_or(&0) + 300;
    if free < needed {
        bail!("{} has {free} MiB free, and {needed} MiB are needed: `--mib N` makes files smaller", place.display());
    }
    Ok(())
}

/// The command as it can be repeated elsewhere: of paths, only the last part.
fn shown(args: &[String]) -> String {
    let shorten = |word: &String| match word.rsplit_once('/') {
        Some((_, last)) if word.starts_with('/') => last.to_owned(),
        _ => word.clone(),
    };
    let words = ["cargo".into(), "xtask".into(), "bench".into()].into_iter().chain(args.iter().map(shorten));
    words.collect::<Vec<String>>().join(" ")
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: AMD  EPYC\nmodel name\t: other\n";
        assert_eq!(field(text, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(field("MemTotal:       16 kB\n", "MemTotal").and_then(|text| kib(&text)), Some(16));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn a_command_shows_no_paths_of_this_machine() {
        let args = ["--ftpq", "/home/me/ftpq", "--only", "wan", "--out", "docs/here"].map(str::to_owned);
        assert_eq!(shown(&args), "cargo xtask bench --ftpq ftpq --only wan --out docs/here");
    }
}
