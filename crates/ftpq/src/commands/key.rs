//! `ftpq key`: this client's fingerprint, which a server's owner needs to let it in; the fingerprint of
//! the server that this user runs, and the rotation of its key.

use std::io::{self, Write};

use clap::{Subcommand, ValueEnum};
use ftpq_transport::Identity;
use jiff::{SignedDuration, Timestamp};

use super::shown;
use crate::{
    global::Global,
    home::Home,
    rotation::{Rotation, local},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the fingerprint of this client's key, as `ftpq key` does alone, or of the server's
    Show(ShowArgs),
    /// Give the server that you run another key, which it announces first
    ///
    /// The next key lies beside the one in use until its time has come. Meanwhile the server tells every
    /// client that connects, signed with the key in use, and the client then trusts both. When the time has
    /// come, the next key takes over, also in a running server, and transfers go on. A client that did not
    /// connect meanwhile must be told: its user compares the new key and runs `ftpq servers remove HOST`.
    Rotate(RotateArgs),
}

#[derive(clap::Args)]
struct ShowArgs {
    /// Whose: this client's, or the server's that you run, with the next one that it announces
    #[arg(value_enum, default_value_t = Side::Client)]
    whose: Side,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Client,
    Server,
}

#[derive(clap::Args)]
struct RotateArgs {
    /// Days for which the server announces the next key before it takes over
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=3650),
        conflicts_with_all = ["now", "cancel"])]
    overlap: i64,
    /// Let the key that is announced take over at once
    #[arg(long, conflicts_with = "cancel")]
    now: bool,
    /// Withdraw the key that is announced
    #[arg(long)]
    cancel: bool,
}

pub(crate) fn run(home: &Home, global: &Global, args: Args) -> anyhow::Result<()> {
    let rotation = Rotation::of(home, global);
    match args.command.unwrap_or(Command::Show(ShowArgs { whose: Side::Client })) {
        Command::Show(ShowArgs { whose: Side::Client }) => show_client(home, global),
        Command::Show(ShowArgs { whose: Side::Server }) => show_server(&rotation),
        Command::Rotate(RotateArgs { now: true, .. }) => end(&rotation),
        Command::Rotate(RotateArgs { cancel: true, .. }) => cancel(&rotation),
        Command::Rotate(RotateArgs { overlap, .. }) => begin(&rotation, overlap),
    }
}

fn show_client(home: &Home, global: &Global) -> anyhow::Result<()> {
    let identity = match &global.identity {
        Some(file) => Identity::load(file)?,
        None => Identity::load_or_create(&home.client_identity())?,
    };
    Ok(writeln!(io::stdout(), "{}", identity.fingerprint())?)
}

fn show_server(rotation: &Rotation) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", rotation.current()?.fingerprint())?;
    if let Some(pending) = rotation.pending()? {
        writeln!(out, "next {} from {}", pending.next, local(pending.takes_over))?;
    }
    Ok(())
}

fn begin(rotation: &Rotation, days: i64) -> anyhow::Result<()> {
    let current = rotation.current()?.fingerprint();
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let pending = rotation.begin(now.checked_add(SignedDuration::from_hours(24 * days))?)?;
    let when = local(pending.takes_over);
    let mut out = io::stdout().lock();
    writeln!(out, "key      {current} until {when}")?;
    writeln!(out, "next     {} from then on, in {}", pending.next, shown(&rotation.next_file()))?;
    writeln!(out, "Until then the server tells each client that connects. Whoever does not connect before that")?;
    writeln!(out, "gets an error about a changed key, and has to run: ftpq servers remove HOST")?;
    writeln!(out, "To end this at once: ftpq key rotate --now. To withdraw it: ftpq key rotate --cancel")?;
    Ok(())
}

fn end(rotation: &Rotation) -> anyhow::Result<()> {
    let taken = rotation.take_over()?;
    let mut out = io::stdout().lock();
    writeln!(out, "key      {}", taken.key)?;
    if let Some((former, kept)) = taken.former {
        writeln!(out, "former   {former}, kept in {}", shown(&kept))?;
    }
    writeln!(out, "A running server has it from the next connection on.")?;
    Ok(())
}

fn cancel(rotation: &Rotation) -> anyhow::Result<()> {
    rotation.cancel()?;
    let current = rotation.current()?.fingerprint();
    writeln!(io::stdout(), "key      {current}, and no other: clients forget the next one when they connect")?;
    Ok(())
}
