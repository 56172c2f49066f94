//! `ftpq completions`: scripts that complete ftpq's command line in a shell.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::cli::Cli;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Shell to complete for
    shell: clap_complete::Shell,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // Into memory first: clap_complete panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ftpq", &mut script);
        Ok(io::stdout().write_all(&script)?)
    }
}
