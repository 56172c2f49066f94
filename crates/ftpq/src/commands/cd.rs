//! `ftpq cd`: goes to a remote folder, and remembers it for the commands that follow.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use ftpq_proto::{UserPath, commands::cd};

use crate::{client::Client, target::Target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder; `..` goes up, `-` back to the one before; where absent, shows where you are
    path: Option<OsString>,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    let Some(typed) = args.path else { return super::pwd::run(client) };
    let target = Target::parse(&typed, client.global.port)?;
    let server = client.server(target.server.as_ref())?;
    let path = if typed == "-" { UserPath::from(client.state.previous(&server)) } else { target.path };
    let cwd = client.state.folder(&server);
    let session = client.session(&server).await?;
    let folder: cd::Folder = session.call(cd::VERB, &cwd, &cd::Args { path }).await?;
    client.state.set_folder(&server, &folder.path)?;
    Ok(writeln!(io::stdout(), "{}", folder.path)?)
}
