//! Where the project lies, and how the programs that tasks drive are built.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

/// A shell that stands at the root of the workspace.
pub(crate) fn shell() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(root()?);
    Ok(shell)
}

/// The root of the workspace.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no workspace")
}

/// The release build of `ftpq`.
pub(crate) fn build_release(shell: &Shell) -> Result<PathBuf> {
    cmd!(shell, "cargo build --release --package ftpq").run()?;
    built("release", "ftpq")
}

/// Builds what the end-to-end tests drive, and tells them where it is.
pub(crate) fn build_for_tests(shell: &Shell) -> Result<()> {
    // The whole workspace, so that features come out as in `cargo test --workspace` and nothing is built twice.
    cmd!(shell, "cargo build --workspace --bin ftpq --example sum").run()?;
    shell.set_var("FTPQ_BIN", built("debug", "ftpq")?);
    shell.set_var("FTPQ_SUM_EXAMPLE", built("debug", "examples/sum")?);
    Ok(())
}

/// A task takes no arguments but those it knows.
pub(crate) fn refuse(argument: &str) -> Result<()> {
    bail!("unknown argument {argument:?}: `cargo xtask` shows what each task takes")
}

fn built(profile: &str, name: &str) -> Result<PathBuf> {
    // xtask itself lies in <target>/<profile>, wherever the target folder is.
    let itself = env::current_exe()?;
    let target = itself.ancestors().nth(2).context("xtask lies in no target folder")?;
    let file = target.join(profile).join(format!("{name}{}", env::consts::EXE_SUFFIX));
    if !file.is_file() {
        bail!("{} was not built", file.display());
    }
    Ok(file)
}
