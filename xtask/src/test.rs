//! `cargo xtask test`: every test there is, passed through as it runs. The last line, alone, is
//! `N passed, M failed`, with `, K skipped` where some were. Arguments go to `cargo test`.

use std::{
    fmt,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::project;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let shell = project::shell()?;
    project::build_for_tests(&shell)?;
    let mut cargo = Command::from(cmd!(shell, "cargo test --workspace --no-fail-fast {args...}"))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(cargo.stdout.take().context("cargo has no output")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.add(&line);
    }
    if !cargo.wait()?.success() && tally.failed == 0 {
        // It did not compile, or a test program died before it could count.
        tally.failed = 1;
    }
    println!("{tally}");
    Ok(if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sum of all test programs' counts.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Counts `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split("; ") {
            match part.split_once(' ').map(|(count, what)| (count.parse::<u64>(), what)) {
                Some((Ok(count), "passed")) => self.passed += count,
                Some((Ok(count), "failed")) => self.failed += count,
                Some((Ok(count), "ignored")) => self.skipped += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add("test tests::x ... ok");
        tally.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        assert_eq!(tally.to_string(), "12 passed, 0 failed");
        tally.add("test result: FAILED. 1 passed; 2 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(tally.to_string(), "13 passed, 2 failed, 3 skipped");
    }
}
