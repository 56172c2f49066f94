//! What can be typed. Each command's own arguments stand in its file of `commands/`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands::{call, cd, completions, con, get, ls, mkdir, mv, put, rm, serve, stat};

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

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Server to talk to: HOST[:PORT]; the last one connected to where absent
    #[arg(short, long, global = true, env = "FTPQ_SERVER", value_name = "HOST[:PORT]")]
    pub(crate) server: Option<String>,
    /// Port of servers named without one
    #[arg(short = 'P', long, global = true, env = "FTPQ_PORT", default_value_t = 4433)]
    pub(crate) port: u16,
    /// Key and certificate to use (PEM), instead of the one in the home folder
    #[arg(short, long, global = true, env = "FTPQ_IDENTITY", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Trust a server that is not known yet without asking; a changed key is an error all the same
    #[arg(long, global = true)]
    pub(crate) accept_new: bool,
    /// Use IPv4 only
    #[arg(short = '4', long, global = true, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long, global = true)]
    pub(crate) ipv6: bool,
    /// Seconds to wait for a server's answer
    #[arg(long, global = true, env = "FTPQ_TIMEOUT", default_value_t = 8, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// No progress and no summary
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more on standard error; repeat for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Everything that ftpq does.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve a folder
    Serve(serve::Args),
    #[command(flatten)]
    Client(ClientCommand),
    /// Type commands at a prompt, or run a file of them
    Shell(crate::shell::Args),
    /// Print the fingerprint of this client's key
    Key,
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// What a client does, in one shot or at the prompt. The names of the protocol's verbs work too.
#[derive(Subcommand)]
pub(crate) enum ClientCommand {
    /// Connect, and remember the server as the current one
    Con(con::Args),
    /// List a folder
    #[command(alias = "list")]
    Ls(ls::Args),
    /// Go to a remote folder, or show where you are
    Cd(cd::Args),
    /// Show the current server and folder
    Pwd,
    /// Upload files and, with -r, folders
    #[command(alias = "upld")]
    Put(put::Args),
    /// Download files and, with -r, folders
    #[command(alias = "dwld")]
    Get(get::Args),
    /// Make a remote folder
    Mkdir(mkdir::Args),
    /// Remove remote files and, with -r, folders
    Rm(rm::Args),
    /// Rename or move a remote file or folder
    Mv(mv::Args),
    /// Describe a remote file or folder
    Stat(stat::Args),
    /// Call any verb that the server offers
    Call(call::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
