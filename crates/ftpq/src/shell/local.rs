//! The commands of the prompt that concern this machine.

use std::{
    env, fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;

use crate::{commands::shown, exit, output};

/// A command for this side.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// Go to a folder.
    Lcd(String),
    /// List a folder.
    Lls(String),
    /// Show where one is.
    Lpwd,
}

impl Command {
    /// `None` where the words are no command for this side.
    pub(super) fn parse(words: &[&str]) -> anyhow::Result<Option<Self>> {
        Ok(Some(match words {
            ["lpwd"] => Self::Lpwd,
            ["lls"] => Self::Lls(".".into()),
            ["lls", folder] => Self::Lls((*folder).into()),
            ["lcd", folder] => Self::Lcd((*folder).into()),
            ["lcd" | "lls" | "lpwd", ..] => return Err(exit::Ended::usage("lcd FOLDER, lls [FOLDER] or lpwd")),
            _ => return Ok(None),
        }))
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Lpwd => writeln!(io::stdout(), "{}", shown(&env::current_dir()?))?,
            Self::Lcd(folder) => env::set_current_dir(&folder).with_context(|| shown(folder.as_ref()))?,
            Self::Lls(folder) => list(folder.as_ref())?,
        }
        Ok(())
    }
}

fn list(folder: &Path) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder).with_context(|| shown(folder))? {
        let item = item?;
        let name = shown(item.file_name().as_ref());
        names.push(if item.file_type()?.is_dir() { name + "/" } else { name });
    }
    names.sort();
    Ok(output::columns(&names)?)
}

/// Runs `command` in this machine's shell. Returns its exit code.
pub(super) async fn system(command: &str) -> anyhow::Result<u8> {
    let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut child = std::process::Command::new(shell);
    child.arg("-c").arg(command);
    let status = tokio::task::spawn_blocking(move || child.status()).await?.context("cannot run a shell")?;
    Ok(status.code().and_then(|code| code.try_into().ok()).unwrap_or(exit::FAILED))
}
