//! `cargo xtask e2e`: the tests that drive the real program. Arguments go to `cargo test`.

use std::process::ExitCode;

use anyhow::Result;
use xshell::cmd;

use crate::project;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let shell = project::shell()?;
    project::build_for_tests(&shell)?;
    let status = std::process::Command::from(cmd!(shell, "cargo test --package ftpq-tests {args...}")).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
