//! `ftpq serve`: serves a folder until it is told to stop.

use std::{
    env, fs,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use ftpq_handler::{Limits, User};
use ftpq_proto::{
    Escaped, Rights,
    commands::{prove, read, write},
};
use ftpq_server::{Access, Event, Observer, Server};
use ftpq_storage::LocalFs;
use ftpq_transport::{BindError, Identity, Listener};
use indicatif::HumanBytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::transfer::shown;
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
    let count = access.count();
    let log = Log { quiet: global.quiet, parts: global.verbose > 0 };
    let next_key = keeper.screen_line();
    let builder = Server::builder(storage, access).observer(log).keep_unfinished(age);
    let server = builder.successor(move || keeper.say()).build()?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let verbs: Vec<_> = server.verbs().iter().map(|spec| spec.verb.as_str()).collect();
    let mut screen = vec![format!("ftpq {} serves {}", env!("CARGO_PKG_VERSION"), shown(&root))];
    screen.extend(listeners.iter().map(|listener| format!("  listening    {} (UDP)", listener.local_addr())));
    let port = listeners.first().map_or(global.port, |listener| listener.local_addr().port());
    let (own, host) = (at("localhost", port), at(&host_name(), port));
    screen.push(format!("  key          {}", identity.fingerprint()));
    screen.extend(next_key);
    screen.extend([
        format!("  verbs        {}", verbs.join(" ")),
        format!("  clients      {count} in {}", shown(&clients)),
        format!("  from here    ftpq ls -s {own}"),
        format!("  elsewhere    ftpq con {host}, once that client's key (ftpq key) stands in the file above"),
    ]);
    // Nobody need be there to read it.
    let _ = writeln!(io::stdout(), "{}", screen.join("\n"));

    let stop = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        say(format_args!("ftpq: {name}: finishing what runs; once more stops at once"));
    };
    let served = server.serve(listeners, stop);
    tokio::select! {
        () = served => Ok(()),
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

/// Resolves at the second signal to stop.
async fn second_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn at(host: &str, port: u16) -> String {
    if port == 4433 { host.into() } else { format!("{host}:{port}") }
}

/// One line for each command, on standard error.
struct Log {
    quiet: bool,
    /// Tell of each part of a large file, too.
    parts: bool,
}

impl Log {
    /// What would fill the log with lines that all say the same.
    fn leaves_out(&self, event: &Event<'_>) -> bool {
        let part = |verb: &str| [write::VERB, prove::VERB, read::VERB].contains(&verb);
        matches!(event, Event::Command { verb, outcome: Ok(()), .. } if part(verb)) && !self.parts
    }
}

impl Observer for Log {
    fn event(&self, event: Event<'_>) {
        let left_out = self.leaves_out(&event);
        let line = match event {
            Event::Command { user, remote, verb, path, bytes, elapsed, outcome } => {
                let path = path.map(|path| format!(" {path}")).unwrap_or_default();
                let (user, verb) = (Escaped::new(user), Escaped::new(verb));
                let outcome = match outcome {
                    Ok(()) => "ok".into(),
                    Err(failure) => {
                        let cause = failure.cause().map(|cause| format!(" ({cause})")).unwrap_or_default();
                        format!("{}: {}{}", failure.status(), Escaped::new(&failure.to_string()), Escaped::new(&cause))
                    }
                };
                format!("{user}@{remote}  {verb}{path}  {}  {}  {outcome}", HumanBytes(bytes), took(elapsed))
            }
            Event::NotAuthorised { remote, key } => format!("{key}@{remote}  refused: not in the list of clients"),
            Event::HandshakeFailed { remote, why } => format!("{remote}  handshake failed: {why}"),
            Event::AccessLineRejected(line) => {
                // Whoever runs the server must see this, however quiet.
                let (number, why) = (line.number, &line.why);
                return say(format_args!("ftpq: authorized_clients line {number} counts for nothing: {why}"));
            }
            _ => return,
        };
        if !self.quiet && !left_out {
            let now = jiff::Zoned::now();
            say(format_args!("{}  {line}", now.strftime("%Y-%m-%d %H:%M:%S")));
        }
    }
}

fn took(elapsed: Duration) -> String {
    match elapsed.as_millis() {
        millis if millis < 10_000 => format!("{millis} ms"),
        millis => format!("{} s", millis / 1000),
    }
}
