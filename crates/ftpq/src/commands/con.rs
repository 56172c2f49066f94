//! `ftpq con`: connects once, pins the server, and makes it the current one.

use std::io::{self, Write};

use serde_json::json;

use crate::{
    client::Client,
    output::{self, SCHEMA},
    target::ServerName,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server: HOST, HOST:PORT or ftpq://HOST; the current one where absent
    target: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    let named = args.target.map(|target| ServerName::parse(&target, client.global.port)).transpose()?;
    let server = client.server(named.as_ref())?;
    let session = client.session(&server).await?;
    let welcome = session.welcome().await?;
    client.state.set_current(&server)?;
    let key = session.connection().peer().to_string();
    if args.json {
        return Ok(output::json_line(&json!({
            "schema": SCHEMA, "server": server.to_string(), "server_key": key, "agent": welcome.agent,
            "version": welcome.version, "features": welcome.features, "verbs": welcome.verbs,
            "user": welcome.user, "key": welcome.key, "rights": welcome.rights,
        }))?);
    }
    let shown = |text: &str| ftpq_proto::Escaped::new(text).to_string();
    let verbs: Vec<_> = welcome.verbs.iter().map(|spec| shown(&spec.verb)).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "server   {server} ({}, protocol {})", shown(&welcome.agent), welcome.version)?;
    writeln!(out, "key      {key}")?;
    writeln!(out, "you      {} ({})", shown(&welcome.user), shown(&welcome.key))?;
    writeln!(out, "rights   {}", welcome.rights)?;
    writeln!(out, "verbs    {}", verbs.join(" "))?;
    writeln!(out, "folder   {}", client.state.folder(&server))?;
    Ok(())
}
