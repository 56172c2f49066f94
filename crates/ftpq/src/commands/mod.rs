//! The user's side of each command, one file each: arguments, then `run`.

pub(crate) mod call;
pub(crate) mod cd;
pub(crate) mod clients;
pub(crate) mod completions;
pub(crate) mod con;
pub(crate) mod get;
pub(crate) mod invite;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod mkdir;
pub(crate) mod mv;
mod pipe;
pub(crate) mod put;
pub(crate) mod pwd;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod servers;
mod several;
pub(crate) mod stat;
mod transfer;

pub(crate) use transfer::shown;

use clap::Subcommand;

use crate::{client::Client, exit, interrupt::WHOLE};

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

impl ClientCommand {
    /// What it means for this command to be interrupted.
    pub(crate) fn interrupted(&self) -> String {
        let goes_on = match self {
            Self::Put(args) => !args.is_pipe(),
            Self::Get(args) => !args.is_pipe(),
            _ => false,
        };
        let next = if goes_on { "; the same again goes on from there (a tree: with --no-clobber)" } else { "" };
        format!(": {WHOLE}{next}")
    }
}

/// Runs a client command, in one shot or at the prompt. Returns its exit code.
pub(crate) async fn run(client: &mut Client, command: ClientCommand) -> anyhow::Result<u8> {
    match command {
        ClientCommand::Con(args) => con::run(client, args).await?,
        ClientCommand::Ls(args) => ls::run(client, args).await?,
        ClientCommand::Cd(args) => cd::run(client, args).await?,
        ClientCommand::Pwd => pwd::run(client)?,
        ClientCommand::Put(args) => return put::run(client, args).await,
        ClientCommand::Get(args) => return get::run(client, args).await,
        ClientCommand::Mkdir(args) => return mkdir::run(client, args).await,
        ClientCommand::Rm(args) => return rm::run(client, args).await,
        ClientCommand::Mv(args) => mv::run(client, args).await?,
        ClientCommand::Stat(args) => stat::run(client, args).await?,
        ClientCommand::Call(args) => call::run(client, args).await?,
    }
    Ok(exit::OK)
}
