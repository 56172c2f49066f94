//! The user's side of each command, one file each: arguments, then `run`.

pub(crate) mod call;
pub(crate) mod cd;
pub(crate) mod completions;
pub(crate) mod con;
pub(crate) mod get;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod mkdir;
pub(crate) mod mv;
pub(crate) mod put;
pub(crate) mod pwd;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod stat;
mod transfer;

pub(crate) use transfer::shown;

use crate::{cli::ClientCommand, client::Client, exit};

/// Runs a client command, in one shot or at the prompt. Returns its exit code.
pub(crate) async fn run(client: &mut Client, command: ClientCommand) -> anyhow::Result<u8> {
    match command {
        ClientCommand::Con(args) => con::run(client, args).await?,
        ClientCommand::Ls(args) => ls::run(client, args).await?,
        ClientCommand::Cd(args) => cd::run(client, args).await?,
        ClientCommand::Pwd => pwd::run(client)?,
        ClientCommand::Put(args) => return put::run(client, args).await,
        ClientCommand::Get(args) => return get::run(client, args).await,
        ClientCommand::Mkdir(args) => mkdir::run(client, args).await?,
        ClientCommand::Rm(args) => rm::run(client, args).await?,
        ClientCommand::Mv(args) => mv::run(client, args).await?,
        ClientCommand::Stat(args) => stat::run(client, args).await?,
        ClientCommand::Call(args) => call::run(client, args).await?,
    }
    Ok(exit::OK)
}
