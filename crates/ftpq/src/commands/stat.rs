//! `ftpq stat`.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use crate::{
    client::Client,
    output::{entry_json, json_line, local_time},
    target::Target,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files and folders to describe
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    for path in &args.paths {
        let (server, path) = client.locate(&Target::parse(path, client.global.port)?)?;
        let entry = client.storage(&server).await?.stat(&path).await?;
        if args.json {
            json_line(&entry_json(&path.to_string(), &entry))?;
            continue;
        }
        let mut out = io::stdout().lock();
        writeln!(out, "path   {path}\nkind   {}\nsize   {} bytes", entry.kind.as_str(), entry.size)?;
        writeln!(out, "mtime  {}\nmode   {:04o}", local_time(entry.mtime), entry.mode)?;
        if let Some(target) = &entry.target {
            writeln!(out, "target {target}")?;
        }
    }
    Ok(())
}
