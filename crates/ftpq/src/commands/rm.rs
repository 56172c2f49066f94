//! `ftpq rm`.

use std::ffi::OsString;

use super::several::Several;
use crate::{client::Client, target::Target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files and links to remove and, with -r, folders
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Remove folders with all they hold
    #[arg(short, long)]
    recursive: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<u8> {
    let mut several = Several::new(args.paths.len());
    for path in &args.paths {
        let (server, path) = client.locate(&Target::parse(path, client.global.port)?)?;
        let removed = client.storage(&server).await?.remove(&path, args.recursive).await;
        several.one(removed.map_err(Into::into))?;
    }
    Ok(several.code())
}
