//! `ftpq con`: connects once, pins the server, and makes it the current one. With a ticket, the server and
//! this client get to know each other by it.

use std::io::{self, IsTerminal, Write};

use ftpq_client::Session;
use ftpq_proto::commands::con::{Limits, Welcome};
use ftpq_transport::Ticket;
use indicatif::HumanBytes;
use serde_json::{Map, Value, json};

use crate::{
    client::{Client, typed_line},
    exit::Ended,
    output::{self, SCHEMA, say},
    target::ServerName,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server: HOST, HOST:PORT or ftpq://HOST; or a ticket; or - to read a ticket from standard input, so
    /// that nobody sees it among the processes; the current server where absent
    #[arg(value_name = "SERVER|TICKET")]
    target: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    let server = match args.target.as_deref() {
        None => client.server(None)?,
        Some("-") => client.redeem(&read_ticket().await?).await?,
        // Only a ticket goes on after a #.
        Some(text) if text.starts_with("ftpq://") && text.contains('#') => client.redeem(&ticket(text)?).await?,
        Some(text) => ServerName::parse(text, client.global.port)?,
    };
    let session = client.session(&server).await?;
    let welcome = session.welcome().await?;
    client.state.set_current(&server)?;
    if args.json {
        return Ok(output::json_line(&as_json(&server, &session, &welcome))?);
    }
    let shown = |text: &str| ftpq_proto::Escaped::new(text).to_string();
    let verbs: Vec<_> = welcome.verbs.iter().map(|spec| shown(&spec.verb)).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "server   {server} ({}, protocol {})", shown(&welcome.agent), welcome.version)?;
    writeln!(out, "key      {}", session.connection().peer())?;
    if let Some(next) = session.next_key(None) {
        writeln!(out, "next key {next}")?;
    }
    writeln!(out, "you      {} ({})", shown(&welcome.user), shown(&welcome.key))?;
    writeln!(out, "rights   {}", welcome.rights)?;
    if !welcome.limits.is_none() {
        writeln!(out, "limits   {}", limits(&welcome.limits))?;
    }
    writeln!(out, "verbs    {}", verbs.join(" "))?;
    writeln!(out, "folder   {}", client.state.folder(&server))?;
    Ok(())
}

/// A line of standard input.
async fn read_ticket() -> anyhow::Result<Ticket> {
    if io::stdin().is_terminal() {
        say("ftpq: paste the ticket, then press Enter");
    }
    let line = typed_line(Ticket::LEN_MAX as u64 + 2).await?;
    match line.trim() {
        "" => Err(Ended::usage("standard input holds no ticket")),
        text => ticket(text),
    }
}

fn ticket(text: &str) -> anyhow::Result<Ticket> {
    text.parse().map_err(|error: ftpq_transport::ParseTicketError| Ended::usage(error.to_string()))
}

/// How much the user may do, for a person.
fn limits(limits: &Limits) -> String {
    let parts = [
        limits.bytes.map(|bytes| HumanBytes(bytes).to_string()),
        limits.files.map(|files| format!("{files} files")),
        limits.rate.map(|rate| format!("{}/s each way", HumanBytes(rate))),
        limits.expires.map(|expires| format!("until {}", output::local_seconds(expires))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn as_json(server: &ServerName, session: &Session, welcome: &Welcome) -> Value {
    let (key, next) = (session.connection().peer().to_string(), session.next_key(None).map(|next| next.to_string()));
    let Limits { bytes, files, rate, expires } = welcome.limits;
    let expires = expires.map(|expires| json!(output::utc_seconds(expires)));
    let limits =
        [("bytes", bytes.map(Value::from)), ("files", files.map(Value::from)), ("rate", rate.map(Value::from))];
    let limits = limits.into_iter().chain([("expires", expires)]);
    let limits: Map<_, _> = limits.filter_map(|(name, limit)| Some((name.to_owned(), limit?))).collect();
    json!({
        "schema": SCHEMA, "server": server.to_string(), "server_key": key, "next_server_key": next,
        "agent": welcome.agent, "version": welcome.version, "features": welcome.features, "verbs": welcome.verbs,
        "user": welcome.user, "key": welcome.key, "rights": welcome.rights, "limits": limits,
    })
}
