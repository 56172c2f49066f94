//! `ftpq mkdir`.

use std::ffi::OsString;

use crate::{client::Client, target::Target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folders to make
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Make the folders above too, and do not mind those that exist
    #[arg(short, long)]
    parents: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    for path in &args.paths {
        let (server, path) = client.locate(&Target::parse(path, client.global.port)?)?;
        client.storage(&server).await?.make_folder(&path, args.parents).await?;
    }
    Ok(())
}
