//! `ftpq mkdir`.

use std::ffi::OsString;

use super::several::Several;
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

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<u8> {
    let mut several = Several::new(args.paths.len());
    for path in &args.paths {
        let (server, path) = client.locate(&Target::parse(path, client.global.port)?)?;
        let made = client.storage(&server).await?.make_folder(&path, args.parents).await;
        several.one(made.map_err(Into::into))?;
    }
    Ok(several.code())
}
