//! `ftpq serve`: serves a folder until it is told to stop.

mod log;
mod screen;

use std::{
    env, fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use ftpq_handler::{Limits, User};
use ftpq_proto::Rights;
use ftpq_server::{Access, Server};
use ftpq_storage::LocalFs;
use ftpq_transport::{BindError, Identity, Listener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{log::Log, screen::Screen};
use super::shown;
use crate::{
    exit::Ended,
    global::Global,
    home::Home,
    output::say,
    rotation::{Keeper, Rotation},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder to serve; ./Arquivos where absent, which is made if missing
    #[arg(env = "FTPQ_ROOT")]
    root: Option<PathBuf>,
    /// Address to listen on, repeatable; port 0 takes a free one; all addresses, IPv6 and IPv4, where absent
    #[arg(long, value_name = "ADDR:PORT", env = "FTPQ_LISTEN", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// List of the clients that may connect, instead of the one in the home folder
    #[arg(long, value_name = "FILE", env = "FTPQ_AUTHORIZED_CLIENTS")]
    authorized_clients: Option<PathBuf>,
    /// Days for which an upload that was cut can be gone on with
    #[arg(long, value_name = "DAYS", env = "FTPQ_KEEP_UNFINISHED", default_value_t = 7,
        value_parser = clap::value_parser!(u64).range(1..=3650))]
    keep_unfinished: u64,
}

/// Serves until a signal says to stop.
pub(crate) async fn run(home: &Home, global: &Global, args: Args) -> anyhow::Result<()> {
    raise_open_files();
    let root = open_root(args.root)?;
    let rotation = Rotation::of(home, global);
    let identity = rotation.load(jiff::Timestamp::now())?;
    let clients = args.authorized_clients.unwrap_or_else(|| home.authorized_clients());
    let access = open_access(home, &clients)?;
    let listeners = listen(&args.listen, global.port, &identity)?;
    let keeper = Keeper::start(rotation, identity.clone(), &listeners);
    let age = Duration::from_secs(args.keep_unfinished * 24 * 60 * 60);
    let storage = LocalFs::open(&root).with_context(|| shown(&root))?.keep_unfinished(age);
    let counts = access.count();
    let log = Log { quiet: global.quiet, parts: global.verbose > 0 };
    let next_key = keeper.screen_line();
    let builder = Server::builder(storage, access).observer(log).keep_unfinished(age);
    let server = builder.successor(move || keeper.say()).build()?;
    let key = identity.fingerprint();
    if let Some(listener) = listeners.first() {
        // For `ftpq invite`; without it, that takes the usual port.
        let _ = home.set_serving(listener.local_addr().port());
    }
    let stop = Stop::listen()?;
    Screen { root: &root, listeners: &listeners, key, next_key, server: &server, list: &clients, clients: counts }
        .show();
    serve(server, listeners, stop).await
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

/// The folder to serve. The default one is made; one that was named must be there.
fn open_root(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let root = match named {
        Some(root) => root,
        None => {
            let root = env::current_dir()?.join("Arquivos");
            fs::create_dir_all(&root).with_context(|| format!("cannot make {}", shown(&root)))?;
            root
        }
    };
    let real = fs::canonicalize(&root).map_err(|error| {
        let problem = ftpq_storage::Problem::from(error);
        Ended::with(crate::exit::code_of_status(problem.status()), format!("cannot serve {}: {problem}", shown(&root)))
    })?;
    if real.is_dir() { Ok(real) } else { Err(Ended::usage(format!("cannot serve {}: not a folder", shown(&root)))) }
}

/// The list of authorised clients. At the first start it is made, with the user who starts the
/// server in it: whoever can start a server can read its files anyway.
fn open_access(home: &Home, file: &Path) -> anyhow::Result<Access> {
    let first_start = !file.exists();
    let access = Access::open(file).with_context(|| shown(file))?;
    if first_start {
        let own = Identity::load_or_create(&home.client_identity())?;
        let plain = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
        let name = env::var("USER").ok().filter(plain).unwrap_or_else(|| "owner".into());
        let user = User { name, key: own.fingerprint(), rights: Rights::ALL, limits: Limits::default() };
        access.authorise(&user).with_context(|| format!("cannot write {}", shown(file)))?;
    }
    Ok(access)
}

fn listen(wanted: &[SocketAddr], port: u16, identity: &Identity) -> anyhow::Result<Vec<Listener>> {
    if wanted.is_empty() {
        let both = Listener::bind((Ipv6Addr::UNSPECIFIED, port).into(), identity);
        // A machine without IPv6 still has IPv4.
        let listener = match both {
            Err(BindError::Socket { error, .. }) if error.kind() != io::ErrorKind::AddrInUse => {
                Listener::bind((Ipv4Addr::UNSPECIFIED, port).into(), identity)
            }
            bound => bound,
        };
        return Ok(vec![listener.map_err(explain)?]);
    }
    wanted.iter().map(|&address| Listener::bind(address, identity).map_err(explain)).collect()
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
