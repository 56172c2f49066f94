//! `ftpq clients`: whom this user's server lets in.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use ftpq_proto::Escaped;
use ftpq_server::{
    access::{AccessFile, Grant, Line, List, Offer},
    units::bytes_text,
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    exit::{self, Ended},
    home::Home,
    output::{SCHEMA, local_moment, say},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// List of the clients that may connect, instead of the one in the home folder
    #[arg(long, global = true, value_name = "FILE", env = "FTPQ_AUTHORIZED_CLIENTS")]
    authorized_clients: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List them, and the open invitations (the default)
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of some
    Show {
        /// Names, or fingerprints of keys
        #[arg(required = true, value_name = "NAME|KEY")]
        clients: Vec<String>,
    },
    /// Let some in no more: their connections end within a second, and their invitations are taken back
    Remove {
        /// Names, or fingerprints of keys
        #[arg(required = true, value_name = "NAME|KEY")]
        clients: Vec<String>,
    },
}

pub(crate) fn run(home: &Home, args: Args) -> anyhow::Result<()> {
    let file = AccessFile::new(&args.authorized_clients.unwrap_or_else(|| home.authorized_clients()));
    match args.action.unwrap_or(Action::List { json: false }) {
        Action::List { json } => list(&file, json),
        Action::Show { clients } => show(&file, &clients),
        Action::Remove { clients } => remove(&file, &clients),
    }
}

fn list(file: &AccessFile, json: bool) -> anyhow::Result<()> {
    let list = read(file)?;
    let mut out = io::stdout().lock();
    for line in lines(&list) {
        let text = if json { as_json(&line).to_string() } else { as_text(&line) };
        writeln!(out, "{text}")?;
    }
    for rejected in list.rejected() {
        say(format_args!("ftpq: line {} counts for nothing: {}", rejected.number, rejected.why));
    }
    if !json && list.grants().count() == 0 && list.invitations().is_empty() {
        say("Nobody is let in. ftpq invite prints a ticket for somebody.");
    }
    Ok(())
}

fn show(file: &AccessFile, wanted: &[String]) -> anyhow::Result<()> {
    let list = read(file)?;
    let mut out = io::stdout().lock();
    for wanted in wanted {
        let found: Vec<_> = lines(&list).into_iter().filter(|line| is(line, wanted)).collect();
        if found.is_empty() {
            return Err(unknown(wanted));
        }
        found.iter().try_for_each(|line| describe(&mut out, line))?;
    }
    Ok(())
}

fn remove(file: &AccessFile, wanted: &[String]) -> anyhow::Result<()> {
    for wanted in wanted {
        let gone = file.remove(|line| is(line, wanted))?;
        if gone.is_empty() {
            return Err(unknown(wanted));
        }
        gone.iter().for_each(|line| say(format_args!("removed {}", as_text(line))));
    }
    Ok(())
}

fn read(file: &AccessFile) -> anyhow::Result<List> {
    let text = file.read().map_err(|error| Ended::with(exit::FAILED, format!("{}: {error}", file.path().display())))?;
    Ok(List::parse(&text))
}

/// The clients by name, then the invitations.
fn lines(list: &List) -> Vec<Line> {
    let mut clients: Vec<Grant> = list.grants().map(|grant| Grant::clone(grant)).collect();
    clients.sort_by(|a, b| (&a.user.name, a.user.key).cmp(&(&b.user.name, b.user.key)));
    let invitations = list.invitations().iter().cloned().map(Line::Invitation);
    clients.into_iter().map(Line::Client).chain(invitations).collect()
}

fn is(line: &Line, wanted: &str) -> bool {
    line.name() == Some(wanted) || line.key().is_some_and(|key| key.to_string() == wanted)
}

fn unknown(wanted: &str) -> anyhow::Error {
    Ended::with(exit::NOT_FOUND, format!("{}: no client has this name or key (ftpq clients)", Escaped::new(wanted)))
}

fn as_text(line: &Line) -> String {
    let (offer, whose) = match line {
        Line::Client(grant) => (Offer::from(grant.clone()), grant.user.key.to_string()),
        Line::Invitation(invitation) => {
            (invitation.offer.clone(), format!("invited until {}", local_moment(invitation.until)))
        }
        Line::Empty => return String::new(),
    };
    let limits: Vec<_> = limits(&offer).into_iter().map(|(what, limit)| format!("{what} {limit}")).collect();
    let limits = if limits.is_empty() { String::new() } else { format!("  {}", limits.join(", ")) };
    format!(
        "{:<16} {:<30} {}{limits}  {whose}",
        Escaped::new(&offer.name).to_string(),
        offer.rights.to_string(),
        offer.root
    )
}

fn describe(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let offer = match line {
        Line::Client(grant) => {
            writeln!(out, "key      {}", grant.user.key)?;
            Offer::from(grant.clone())
        }
        Line::Invitation(invitation) => {
            writeln!(out, "invited  until {}", local_moment(invitation.until))?;
            invitation.offer.clone()
        }
        Line::Empty => return Ok(()),
    };
    writeln!(out, "name     {}", Escaped::new(&offer.name))?;
    writeln!(out, "rights   {}", offer.rights)?;
    writeln!(out, "root     {}", offer.root)?;
    limits(&offer).into_iter().try_for_each(|(what, limit)| writeln!(out, "{what:<8} {limit}"))
}

/// What is limited, as people read it.
fn limits(offer: &Offer) -> Vec<(&'static str, String)> {
    let networks: Vec<_> = offer.from.iter().map(ToString::to_string).collect();
    let expires = offer.limits.expires.and_then(|second| Timestamp::from_second(second).ok());
    let all = [
        ("quota", offer.limits.bytes.map(bytes_text)),
        ("files", offer.limits.files.map(|files| files.to_string())),
        ("rate", offer.limits.rate.map(|rate| format!("{}/s", bytes_text(rate)))),
        ("from", (!networks.is_empty()).then(|| networks.join(","))),
        ("expires", expires.map(local_moment)),
    ];
    all.into_iter().filter_map(|(what, limit)| Some((what, limit?))).collect()
}

fn as_json(line: &Line) -> serde_json::Value {
    let (offer, key, until) = match line {
        Line::Client(grant) => (Offer::from(grant.clone()), Some(grant.user.key.to_string()), None),
        Line::Invitation(invitation) => (invitation.offer.clone(), None, Some(invitation.until.to_string())),
        Line::Empty => return serde_json::Value::Null,
    };
    let networks: Vec<_> = offer.from.iter().map(ToString::to_string).collect();
    json!({
        "schema": SCHEMA, "name": offer.name, "key": key, "invited_until": until, "rights": offer.rights,
        "root": offer.root.to_string(), "quota": offer.limits.bytes, "files": offer.limits.files,
        "rate": offer.limits.rate, "from": networks,
        "expires": offer.limits.expires.and_then(|second| Timestamp::from_second(second).ok()).map(|time| time.to_string()),
    })
}
