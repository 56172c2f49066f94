//! `ftpq mv`.

use std::ffi::OsString;

use ftpq_proto::Status;

use crate::{
    client::Client,
    exit::{self, Ended},
    target::Target,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to move
    from: OsString,
    /// Its new path, or an existing folder to put it into
    to: OsString,
    /// Replace a file that stands there
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    let (from_server, from) = client.locate(&Target::parse(&args.from, client.global.port)?)?;
    let to = Target::parse(&args.to, client.global.port)?;
    let to_server = if to.server.is_some() { client.server(to.server.as_ref())? } else { from_server.clone() };
    if from_server != to_server {
        return Err(Ended::usage("mv works within one server: use get and put between two"));
    }
    let to = client.resolve(&to_server, &to.path)?;
    match client.storage(&from_server).await?.rename(&from, &to, args.force).await {
        Err(error) if error.status() == Status::Exists => {
            Err(Ended::with(exit::FAILED, format!("{error} (-f replaces it)")))
        }
        moved => Ok(moved?),
    }
}
