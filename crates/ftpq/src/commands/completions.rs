//! `ftpq completions`: scripts that complete ftpq's command line in a shell.

use std::io;

use clap::CommandFactory;

use crate::cli::Cli;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Shell to complete for
    shell: clap_complete::Shell,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        clap_complete::generate(self.shell, &mut Cli::command(), "ftpq", &mut io::stdout());
        Ok(())
    }
}
