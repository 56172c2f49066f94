//! `cargo xtask torture`: faults at random moments (`tests/e2e/torture/`), all cases or one by its
//! name. The short form is what `cargo xtask test` runs, too; `--long` takes hours, and the release
//! build.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use xshell::cmd;

use crate::project;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let (mut long, mut name) = (false, None);
    for argument in args {
        match argument.as_str() {
            "--long" => long = true,
            flag if flag.starts_with('-') || name.is_some() => project::refuse(flag)?,
            case => name = Some(case),
        }
    }
    let shell = project::shell()?;
    project::build_for_tests(&shell)?;
    if long {
        shell.set_var("FTPQ_BIN", project::build_release(&shell)?);
        shell.set_var("FTPQ_TORTURE", "long");
    }
    // Tests are named by their path: torture::FILE::NAME.
    let filter = name.map_or("torture::".into(), |name| format!("::{name}"));
    let listed = cmd!(shell, "cargo test --quiet --package ftpq-tests {filter} -- --list").read()?;
    let cases: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    if cases.is_empty() || !cases.iter().all(|case| case.starts_with("torture::")) {
        bail!("{:?} is the name of no case", name.unwrap_or_default());
    }
    if let Ok(commit) = cmd!(shell, "git rev-parse --short HEAD").quiet().ignore_stderr().read() {
        eprintln!("{} of commit {commit}", if long { "long" } else { "short" });
    }
    let test = cmd!(shell, "cargo test --package ftpq-tests {filter} -- --nocapture");
    Ok(if Command::from(test).status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
