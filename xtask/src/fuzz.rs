//! `cargo xtask fuzz`: the targets in `fuzz/`, all or one, each for a while; then how often each ran.
//!
//! With cargo-fuzz, which goes where the code has not been yet. It wants flags of a nightly compiler, which
//! the stable one takes if told to. Without it, the tests of `fuzz/targets` run for as long: they change the
//! same corpora, blindly.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::{
    project,
    scratch::{self, Scratch},
};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let (mut seconds, mut wanted) = (60_u64, None);
    let mut args = args.iter();
    while let Some(argument) = args.next() {
        match argument.as_str() {
            "--seconds" => seconds = args.next().and_then(|n| n.parse().ok()).context("--seconds needs a number")?,
            flag if flag.starts_with('-') || wanted.is_some() => project::refuse(flag)?,
            name => wanted = Some(name),
        }
    }
    let mut targets = targets()?;
    targets.retain(|target| wanted.is_none_or(|wanted| wanted == target));
    if targets.is_empty() {
        bail!("{:?} is the name of no target in fuzz/fuzz_targets", wanted.unwrap_or_default());
    }
    let shell = project::shell()?;
    let guided = cmd!(shell, "cargo fuzz --version").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    if !guided {
        eprintln!("cargo-fuzz is not there (`cargo install cargo-fuzz`): the tests of fuzz/targets run instead");
    }
    // A server that dies with its process leaves its folder; in memory, flushing costs nothing.
    let memory = Path::new("/dev/shm");
    let scratch = Scratch::new(Some(memory).filter(|memory| memory.is_dir()), false)?;
    shell.set_var("TMPDIR", scratch.path());
    let mut rows = Vec::new();
    for target in &targets {
        scratch::check_interrupted()?;
        let ran = if guided { run_guided(&shell, target, seconds)? } else { run_blindly(&shell, target, seconds)? };
        rows.push((target, ran));
    }
    scratch.close()?;
    println!("{:<20} {:>14}  result", "target", "executions");
    for (target, ran) in &rows {
        println!("{target:<20} {:>14}  {}", ran.executions, if ran.good { "nothing found" } else { "FAILED" });
    }
    Ok(if rows.iter().all(|(_, ran)| ran.good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of a target.
struct Ran {
    executions: u64,
    good: bool,
}

/// With cargo-fuzz. What it finds out is kept in `target/fuzz-corpus`, what fails in `fuzz/artifacts`.
fn run_guided(shell: &Shell, target: &str, seconds: u64) -> Result<Ran> {
    let _env = shell.push_env("RUSTC_BOOTSTRAP", "1");
    // In a session most of the time goes into QUIC, which is not what is looked at: nothing is traced there, and
    // what is built for it differently is kept apart.
    let (kind, flags): (_, &[&str]) = match target {
        "session" => ("fuzz-session", &["--sanitizer", "none", "--no-trace-compares"]),
        _ => ("fuzz", &[]),
    };
    let target_dir = Path::new("target").join(kind);
    let found = Path::new("target/fuzz-corpus").join(target);
    shell.create_dir(&found)?;
    let seeds = Path::new("fuzz/corpus").join(target);
    // No decoder needs so much at once for what fits a message or a file.
    let malloc = if target == "session" { "0" } else { "64" };
    let seconds = seconds.to_string();
    let command = cmd!(
        shell,
        "cargo fuzz run {flags...} --target-dir {target_dir} {target} {found} {seeds} -- -max_total_time={seconds}
         -print_final_stats=1 -detect_leaks=0 -malloc_limit_mb={malloc}"
    );
    let mut child = Command::from(command).stderr(Stdio::piped()).spawn().context("cannot run cargo fuzz")?;
    let executions = watch(child.stderr.take().context("cargo fuzz says nothing")?, |line| {
        line.strip_prefix("stat::number_of_executed_units:").and_then(|count| count.trim().parse().ok())
    })?;
    Ok(Ran { executions, good: child.wait()?.success() })
}

/// With the tests of `fuzz/targets`.
fn run_blindly(shell: &Shell, target: &str, seconds: u64) -> Result<Ran> {
    let _env = shell.push_env("FTPQ_FUZZ_SECONDS", seconds.to_string());
    let command =
        cmd!(shell, "cargo test --quiet --package ftpq-fuzz-targets --test smoke -- --exact --nocapture {target}");
    let mut child = Command::from(command).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let executions = watch(child.stdout.take().context("cargo says nothing")?, |line| {
        line.strip_prefix("fuzz: ")?.strip_suffix(" executions")?.rsplit(' ').next()?.parse().ok()
    })?;
    Ok(Ran { executions, good: child.wait()?.success() })
}

/// Passes on what a program says, and takes the last number that `count` finds in it.
fn watch(output: impl Read, count: impl Fn(&str) -> Option<u64>) -> Result<u64> {
    let mut executions = 0;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        executions = count(&line).unwrap_or(executions);
    }
    Ok(executions)
}

/// The names of all targets, sorted.
fn targets() -> Result<Vec<String>> {
    let folder = project::root()?.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(ToOwned::to_owned));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_counted_from_what_the_program_says() {
        let count = |line: &str| line.strip_prefix("n ").and_then(|count| count.parse().ok());
        assert_eq!(watch(&b"n 1\nother\nn 20\n\xff\n"[..], count).unwrap(), 20);
    }

    #[test]
    fn a_session_is_a_target() {
        assert!(targets().unwrap().contains(&"session".to_owned()));
    }
}
