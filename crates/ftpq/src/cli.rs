//! What can be typed. Each command's own arguments stand in its file of `commands/`.

use clap::{Parser, Subcommand};

use crate::{
    commands::{ClientCommand, clients, completions, invite, key, serve, servers},
    global::Global,
    shell,
};

/// Secure file transfer over QUIC.
#[derive(Parser)]
#[command(name = "ftpq", version, about, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Remote paths: PATH on the current server, HOST:PATH, :PATH or ftpq://HOST[:PORT]/PATH.\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused or not trusted, 5 temporary,\n\
    6 integrity, 23 some files failed, 130 interrupted, 143 terminated.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Everything that ftpq does.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve a folder
    Serve(serve::Args),
    /// Print a ticket that lets somebody in on the server of this user
    Invite(invite::Args),
    /// Show or change whom the server of this user lets in
    Clients(clients::Args),
    #[command(flatten)]
    Client(ClientCommand),
    /// Type commands at a prompt, or run a file of them
    Shell(shell::Args),
    /// Print the fingerprint of this client's key, or rotate the server's
    Key(key::Args),
    /// List or remove the servers whose keys this client trusts
    Servers(servers::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
