//! `ftpq servers`: the servers whose keys this client trusts.

use std::io::{self, Write};

use clap::Subcommand;
use ftpq_client::KnownServers;
use ftpq_proto::Escaped;
use serde_json::json;

use crate::{
    exit::{self, Ended},
    global::Global,
    home::Home,
    output::SCHEMA,
    target::ServerName,
};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Show them; what `ftpq servers` does alone
    List(ListArgs),
    /// Forget servers: the next time each is unknown, and its key is for you to compare
    Remove(RemoveArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct RemoveArgs {
    /// Servers as they are listed; without a port, the one of --port
    #[arg(required = true, value_name = "HOST[:PORT]")]
    servers: Vec<String>,
}

pub(crate) fn run(home: &Home, global: &Global, args: Args) -> anyhow::Result<()> {
    let known = KnownServers::new(home.known_servers());
    match args.command.unwrap_or(Command::List(args.list)) {
        Command::List(args) => list(&known, &args),
        Command::Remove(args) => remove(&known, global.port, &args),
    }
}

fn list(known: &KnownServers, args: &ListArgs) -> anyhow::Result<()> {
    let all = known.all()?;
    let widest = all.keys().map(|server| server.chars().count()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    for (server, keys) in all {
        let next = keys.next.map(|next| next.to_string());
        if args.json {
            let line = json!({ "schema": SCHEMA, "server": server, "key": keys.key.to_string(), "next": next });
            writeln!(out, "{line}")?;
            continue;
        }
        let next = next.map(|next| format!("  next {next}")).unwrap_or_default();
        writeln!(out, "{:widest$}  {}{next}", Escaped::new(&server).to_string(), keys.key)?;
    }
    Ok(())
}

fn remove(known: &KnownServers, port: u16, args: &RemoveArgs) -> anyhow::Result<()> {
    let parse = |server: &String| ServerName::parse(server, port).map(|name| name.to_string());
    let servers = args.servers.iter().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    let forgotten = known.forget(&servers)?;
    let mut missing = Vec::new();
    for (server, keys) in servers.iter().zip(forgotten) {
        match keys {
            Some(keys) => writeln!(io::stdout(), "removed {server} {}", keys.key)?,
            None => missing.push(server.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("{}: not among the known servers: ftpq servers lists them", missing.join(", "));
    Err(Ended::with(exit::NOT_FOUND, message))
}
