//! `ftpq serve`: serves a folder until it is told to stop.

mod audit;
mod log;
mod open;
mod sandbox;
mod screen;
mod settings;
mod shards;
mod user;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::builder::BoolishValueParser;
use ftpq_server::Server;
use ftpq_transport::{BindError, BoundSocket, Listener, Paths};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    audit::Audit,
    log::Log,
    open::Opened,
    sandbox::{Confined, Sandbox},
    screen::Screen,
    settings::{LimitArgs, Settings},
    shards::Shards,
    user::Account,
};
use super::shown;
use crate::{exit::Ended, global::Global, home::Home, output::say, rotation::Keeper};

#[derive(clap::Args)]
#[command(after_help = "ROOT and the options above --config are also keys of server.toml, without dashes in front. \
    What is typed counts before the environment, and that before the file.")]
pub(crate) struct Args {
    /// Folder to serve; ./Arquivos where absent, which is made if missing
    #[arg(env = "FTPQ_ROOT")]
    root: Option<PathBuf>,
    /// Address to listen on, repeatable; port 0 takes a free one; all addresses, IPv6 and IPv4, where absent
    #[arg(long, value_name = "ADDR:PORT", env = "FTPQ_LISTEN", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Threads that share the work, each at a port of its own from the first one on: firewalls must let these through;
    /// half as many as there are processors, but at most 8, where absent, and 1 for up to 3 processors
    #[arg(long, value_name = "N", env = "FTPQ_SHARDS", value_parser = clap::value_parser!(u8).range(1..=16))]
    shards: Option<u8>,
    /// List of the clients that may connect, instead of the one in the home folder
    #[arg(long, value_name = "FILE", env = "FTPQ_AUTHORIZED_CLIENTS")]
    authorized_clients: Option<PathBuf>,
    /// Days for which an upload that was cut can be gone on with; 7 where absent
    #[arg(long, value_name = "DAYS", env = "FTPQ_KEEP_UNFINISHED",
        value_parser = clap::value_parser!(u64).range(1..=3650))]
    keep_unfinished: Option<u64>,
    /// Append a line of JSON for each command, and for whoever is turned away; SIGHUP opens the file anew
    #[arg(long, value_name = "FILE", env = "FTPQ_AUDIT")]
    audit: Option<PathBuf>,
    /// Started by root, go on as this user once the ports are bound
    #[arg(long, value_name = "NAME", env = "FTPQ_USER")]
    user: Option<String>,
    /// Confine the server to its files and its own state (Landlock), where the kernel can; true where absent
    #[arg(long, value_name = "BOOL", env = "FTPQ_SANDBOX", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), overrides_with = "no_sandbox")]
    sandbox: Option<bool>,
    /// The same as --sandbox=false
    #[arg(long, overrides_with = "sandbox")]
    no_sandbox: bool,
    /// What else to read these from; where absent, server.toml in ftpq's configuration folder, if it is there
    #[arg(long, value_name = "FILE", env = "FTPQ_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Serves until a signal says to stop.
pub(crate) async fn run(home: Home, global: &Global, args: Args) -> anyhow::Result<()> {
    raise_open_files();
    let settings = Settings::gather(args, &home)?;
    let account = settings.user.as_deref().map(Account::find).transpose()?;
    // What only root may do comes first.
    let sockets = bind(&settings.listen, global.port)?;
    let port = settings.listen.first().map_or(global.port, SocketAddr::port);
    let shards = Shards::bind(&sockets, port, settings.shards)?;
    let audit = settings.audit.as_deref().map(open_audit).transpose()?;
    if let Some(account) = &account {
        account.take_on()?;
    }
    let Opened { root, storage, rotation, identity, clients, access, home } =
        Opened::open(&settings, global, home, account.as_ref())?;
    let traffic = global.traffic(Paths::default());
    let on = |socket| Ok(Listener::on(socket, &identity).map_err(explain)?.with_traffic(traffic.clone()));
    let mut listeners = sockets.into_iter().map(on).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(listener) = listeners.first() {
        // For `ftpq invite`; without it, that takes the usual port.
        let _ = home.set_serving(listener.local_addr().port());
    }
    let stop = Stop::listen()?;
    audit.as_ref().map(reopen_when_told).transpose()?;
    // Whatever is opened from here on lies in one of these.
    let confined = match settings.sandbox {
        true => {
            let files: Vec<&Path> =
                [Some(clients.as_path()), global.identity.as_deref()].into_iter().flatten().collect();
            confine(&root, &home, &files, audit.as_ref())
        }
        false => Confined::Not("it was switched off".into()),
    };
    // Its threads must be confined, too, and run as whom this one does now.
    let more = shards.start(&identity, &traffic)?;
    let ports: Vec<_> = more.iter().map(|listener| listener.local_addr().port()).collect();
    let usual = listeners.len();
    listeners.extend(more);
    let keeper = Keeper::start(rotation, identity.clone(), &listeners);
    let next_key = keeper.screen_line();
    let counts = access.count();
    let log = Log { quiet: global.quiet, parts: global.verbose > 0 };
    let observers = (audit.clone(), log);
    let builder = Server::builder(storage, access).observer(observers).keep_unfinished(settings.keep_unfinished);
    let server = builder.limits(settings.limits).successor(move || keeper.say()).ports(ports.clone()).build()?;
    Screen {
        root: &root,
        listeners: listeners.get(..usual).unwrap_or_default(),
        ports: &ports,
        key: identity.fingerprint(),
        next_key,
        server: &server,
        list: &clients,
        clients: counts,
        confined: &confined,
        audit: audit.as_ref(),
    }
    .show();
    serve(server, listeners, stop).await
}

fn open_audit(file: &Path) -> anyhow::Result<Audit> {
    Audit::open(file).with_context(|| format!("cannot open the audit log {}", shown(file)))
}

/// Gives up every file but the served ones and the server's own.
fn confine(root: &Path, home: &Home, elsewhere: &[&Path], audit: Option<&Audit>) -> Confined {
    let sandbox = Sandbox::default().serve(root).state(home.data());
    let sandbox = elsewhere.iter().fold(sandbox, |sandbox, file| sandbox.own(file));
    audit.into_iter().fold(sandbox, |sandbox, audit| sandbox.log(audit.file())).enter()
}

/// Serves until the first signal, then finishes what runs; the second one ends that.
async fn serve(server: Server, listeners: Vec<Listener>, mut stop: Stop) -> anyhow::Result<()> {
    let stopped = async {
        let name = stop.signal().await;
        say(format_args!("ftpq: {name}: finishing what runs; once more stops at once"));
    };
    tokio::select! {
        () = server.serve(listeners, stopped) => Ok(()),
        () = second_signal() => Err(Ended::with(crate::exit::FAILED, "stopped at once: what was running is cut")),
    }
}

/// A server needs many files at a time; what a shell gives by default is meant for other programs.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn bind(wanted: &[SocketAddr], port: u16) -> anyhow::Result<Vec<BoundSocket>> {
    if wanted.is_empty() {
        let both = Listener::bind_socket((Ipv6Addr::UNSPECIFIED, port).into());
        // A machine without IPv6 still has IPv4.
        let socket = match both {
            Err(BindError::Socket { error, .. }) if error.kind() != io::ErrorKind::AddrInUse => {
                Listener::bind_socket((Ipv4Addr::UNSPECIFIED, port).into())
            }
            bound => bound,
        };
        return Ok(vec![socket.map_err(explain)?]);
    }
    wanted.iter().map(|&address| Listener::bind_socket(address).map_err(explain)).collect()
}

fn explain(error: BindError) -> anyhow::Error {
    match &error {
        BindError::Socket { address, error: cause } if cause.kind() == io::ErrorKind::AddrInUse => Ended::with(
            crate::exit::FAILED,
            format!("UDP {address} is in use: stop what uses it, or choose another with --listen"),
        ),
        _ => error.into(),
    }
}

/// From now on, whoever renames the audit log says so with SIGHUP.
fn reopen_when_told(audit: &Audit) -> io::Result<()> {
    let (audit, mut hangup) = (audit.clone(), signal(SignalKind::hangup())?);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            audit.reopen();
        }
    });
    Ok(())
}

/// The signals that stop a server.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From now on, neither of them ends the process.
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and says which it is.
    async fn signal(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Resolves at the second signal to stop.
async fn second_signal() {
    let Ok(mut stop) = Stop::listen() else { return std::future::pending().await };
    stop.signal().await;
    stop.signal().await;
}
