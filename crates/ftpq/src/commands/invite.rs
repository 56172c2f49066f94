//! `ftpq invite`: prints a ticket that lets one more client in, once.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    net::UdpSocket,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow};
use fast_qr::{ECL, QRBuilder};
use ftpq_handler::Limits;
use ftpq_proto::{RemotePath, Rights};
use ftpq_server::{
    access::{AccessFile, Invitation, Offer, parse_name, parse_networks, parse_rate, parse_root, parse_time},
    units::{bytes_text, parse_bytes},
};
use ftpq_transport::{Identity, Ticket};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    exit::Ended,
    global::{DEFAULT_PORT, Global},
    home::Home,
    output::{self, SCHEMA, local_moment, say},
    target::ServerName,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the log calls the client
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// What the client may do: some of list, read, write, delete and admin
    #[arg(long, value_name = "RIGHT,…", default_value = "list,read,write")]
    rights: Rights,
    /// Folder that is all the client sees, from the served one
    #[arg(long, value_name = "/FOLDER", value_parser = parse_root, default_value = "/")]
    root: RemotePath,
    /// Bytes that may lie in that folder, as 10G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    quota: Option<u64>,
    /// Files, folders and links that may lie there
    #[arg(long, value_name = "COUNT")]
    files: Option<u64>,
    /// Bytes a second of the client's transfers, each way, as 10M
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Networks that the client may come from, as 10.0.0.0/8,2001:db8::/32
    #[arg(long, value_name = "NETWORK,…", value_parser = networks)]
    from: Option<Networks>,
    /// Day or moment from which the client is let in no more, as 2027-01-01
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<Timestamp>,
    /// How long the ticket is good, in s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    valid: Duration,
    /// Where the client finds this server: HOST or HOST:PORT; this machine's address where absent
    #[arg(long, value_name = "HOST[:PORT]", env = "FTPQ_ADDRESS")]
    address: Option<String>,
    /// Print the ticket as a QR code, too
    #[arg(long)]
    qr: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// List of the clients that may connect, instead of the one in the home folder
    #[arg(long, value_name = "FILE", env = "FTPQ_AUTHORIZED_CLIENTS")]
    authorized_clients: Option<PathBuf>,
}

#[derive(Clone)]
struct Networks(Vec<IpNet>);

pub(crate) fn run(home: &Home, global: &Global, mut args: Args) -> anyhow::Result<()> {
    if args.name.is_none() {
        ask(&mut args)?;
    }
    if let Some(expires) = args.expires.filter(|expires| *expires <= Timestamp::now()) {
        return Err(Ended::usage(format!("--expires {expires}: that is over: nobody would be let in")));
    }
    let identity = match &global.identity {
        Some(file) => Identity::load(file)?,
        None => Identity::load_or_create(&home.server_identity())?,
    };
    let address = match &args.address {
        Some(address) => ServerName::parse(address, port_of_server(home, global))?,
        None => own_address(port_of_server(home, global))?,
    };
    let file = AccessFile::new(&args.authorized_clients.clone().unwrap_or_else(|| home.authorized_clients()));
    let secret = Ticket::generate_secret()?;
    let ticket = Ticket::new(&address.to_string(), identity.fingerprint(), secret)
        .map_err(|error| Ended::usage(format!("{address}: {error}")))?;
    let until = Timestamp::now() + SignedDuration::try_from(args.valid)?;
    let invitation = Invitation::new(&secret, until, args.offer());
    file.add_invitation(&invitation, Timestamp::now())?;
    args.show(&ticket, &invitation)
}

impl Args {
    fn offer(&self) -> Offer {
        Offer {
            name: self.name.clone().unwrap_or_else(|| GUEST.into()),
            rights: self.rights,
            limits: Limits {
                bytes: self.quota,
                files: self.files,
                rate: self.rate,
                expires: self.expires.map(Timestamp::as_second),
            },
            root: self.root.clone(),
            from: self.from.clone().map(|Networks(networks)| networks).unwrap_or_default(),
        }
    }

    /// The ticket on standard output, and what to do with it beside it.
    fn show(&self, ticket: &Ticket, Invitation { until, offer, .. }: &Invitation) -> anyhow::Result<()> {
        if self.json {
            return Ok(output::json_line(&json!({
                "schema": SCHEMA, "ticket": ticket.to_string(), "until": until.to_string(),
                "name": offer.name, "rights": offer.rights, "root": offer.root.to_string(),
            }))?);
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{ticket}")?;
        if self.qr {
            let code = QRBuilder::new(ticket.to_string()).ecl(ECL::L).build();
            writeln!(out, "{}", code.map_err(|error| anyhow!("cannot make a QR code: {error}"))?.to_str())?;
        }
        out.flush()?;
        say(format_args!(
            "For {}: {} in {}. Good once, until {}.",
            offer.name,
            offer.rights,
            offer.root,
            local_moment(*until)
        ));
        say("Whoever has it comes in: send it on a way that you trust. There: ftpq con 'THE TICKET'");
        Ok(())
    }
}

/// Asks for what was not said, where there is somebody to ask.
fn ask(args: &mut Args) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(());
    }
    args.name = Some(question("Name of the client", GUEST, parse_name)?);
    args.rights =
        question("Rights", &args.rights.to_string(), |text| text.parse::<Rights>().map_err(|e| e.to_string()))?;
    args.root = question("Folder that it sees", &args.root.to_string(), parse_root)?;
    let quota = |text: &str| match text {
        NO_QUOTA => Ok(None),
        text => parse_bytes(text).map(Some).map_err(|error| error.to_string()),
    };
    let given = args.quota.map_or_else(|| NO_QUOTA.into(), bytes_text);
    args.quota = question("Quota in bytes, as 10G", &given, quota)?;
    args.valid = question("The ticket is good for", &duration_text(args.valid), parse_duration)?;
    Ok(())
}

/// Asks until there is an answer that makes sense; an empty one is `default`.
fn question<T>(what: &str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> anyhow::Result<T> {
    let mut stderr = io::stderr();
    loop {
        write!(stderr, "{what} [{default}]: ")?;
        stderr.flush()?;
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer)? == 0 {
            return Err(Ended::usage("no answer: nobody was invited"));
        }
        let answer = answer.trim();
        match parse(if answer.is_empty() { default } else { answer }) {
            Ok(value) => return Ok(value),
            Err(why) => say(format_args!("  {why}")),
        }
    }
}

/// The port that was named, or the one on which this user's server listens.
fn port_of_server(home: &Home, global: &Global) -> u16 {
    if global.port == DEFAULT_PORT { home.serving().unwrap_or(DEFAULT_PORT) } else { global.port }
}

/// The address by which others reach this machine, as far as it knows itself.
fn own_address(port: u16) -> anyhow::Result<ServerName> {
    // Connecting a UDP socket sends nothing: it only chooses the way.
    let address = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let host = match address {
        Ok(address) if !address.ip().is_loopback() && !address.ip().is_unspecified() => address.ip().to_string(),
        _ => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    ServerName::parse(&host, port).context("cannot tell this machine's address: name it with --address")
}

/// As [`parse_duration`] reads it.
fn duration_text(time: Duration) -> String {
    let seconds = time.as_secs();
    let (unit, letter) = UNITS.into_iter().rfind(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, 's'));
    format!("{}{letter}", seconds / unit)
}

/// `90s`, `10m`, `12h` or `7d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit = UNITS.into_iter().find(|(_, letter)| text.ends_with(*letter)).map_or(0, |(unit, _)| unit);
    let number = text.get(..text.len().saturating_sub(1)).and_then(|digits| digits.parse::<u32>().ok());
    match number.map(|number| u64::from(number) * unit) {
        Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("a time is a number with s, m, h or d behind it, and a year at the most".into()),
    }
}

fn networks(text: &str) -> Result<Networks, String> {
    parse_networks(text).map(Networks)
}

/// Seconds of each unit, the shortest first.
const UNITS: [(u64, char); 4] = [(1, 's'), (60, 'm'), (60 * 60, 'h'), (24 * 60 * 60, 'd')];

/// How it is said that there is no quota.
const NO_QUOTA: &str = "none";

/// What a client is called that was given no name.
const GUEST: &str = "guest";

/// Seconds that a ticket may be good.
const LONGEST: u64 = 365 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
            assert_eq!(duration_text(Duration::from_secs(seconds)), text);
        }
        for bad in ["", "m", "10", "-1m", "0s", "366d", "10é", "1.5h", "99999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
