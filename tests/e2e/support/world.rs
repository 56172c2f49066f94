//! A world of one test's own.

use std::{
    ffi::OsStr,
    fs,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Host, Program, Run, Server};

/// A home, a folder to work in, a folder that is served, and, mostly, a server.
pub(crate) struct World {
    server: Option<Server>,
    folder: TempDir,
}

impl World {
    /// Without a server.
    pub(crate) fn new() -> Self {
        Self::at(&std::env::temp_dir())
    }

    /// With a server.
    pub(crate) fn serving() -> Self {
        let mut world = Self::new();
        world.start();
        world
    }

    /// With a server and files in memory, if that holds `bytes` twice; on disk otherwise.
    pub(crate) fn in_memory(bytes: u64) -> Self {
        let mut world = Self::roomy(bytes);
        world.start();
        world
    }

    /// The same without a server.
    pub(crate) fn roomy(bytes: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(memory).map(|space| space.f_bavail * space.f_frsize).unwrap_or(0);
        // Up to three copies, and something beside them.
        if free > bytes.saturating_mul(7) / 2 { Self::at(memory) } else { Self::new() }
    }

    fn at(place: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("ftpq-e2e-").tempdir_in(place).expect("a temporary folder");
        for name in ["home", "work", "served"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { server: None, folder }
    }

    /// Starts the server, on a port of the system's choice.
    pub(crate) fn start(&mut self) {
        self.server = Some(self.server_program().serve());
    }

    /// Starts the server on another host, on all of its addresses.
    pub(crate) fn start_on(&mut self, host: &Host) {
        let program = self.home_program().arg("serve").arg(self.served()).args(["--listen", "[::]:0"]);
        self.server = Some(program.on(host).serve());
    }

    /// The client with this home, about to be run on another host on the server of the hosts.
    pub(crate) fn client_on(&self, host: &Host, home: &Path) -> Program {
        let server = format!("{}:{}", host.server, self.server().address.port());
        self.client_of(home).env("FTPQ_SERVER", server).on(host)
    }

    /// Starts a server of another folder.
    pub(crate) fn start_serving(&mut self, folder: &Path) {
        let program = self.home_program().arg("serve").arg(folder);
        self.server = Some(program.args(["--listen", "127.0.0.1:0"]).serve());
    }

    /// Stops the server and starts it again where it was.
    pub(crate) fn restart(&mut self) {
        let address = self.server().address;
        assert_eq!(self.stop_server(Signal::TERM), 0);
        self.start_at(address);
    }

    /// Starts the server where another was.
    pub(crate) fn start_at(&mut self, address: SocketAddr) {
        let program = self.home_program().arg("serve").arg(self.served());
        self.server = Some(program.args(["--listen", &address.to_string()]).serve());
    }

    /// Another server in the place of this one, at the same address.
    pub(crate) fn replace_server(&mut self, start: impl FnOnce(Program, String) -> Server) {
        let address = self.server.take().expect("a server").address.to_string();
        self.server = Some(start(self.home_program(), address));
    }

    /// Starts a server that was put together elsewhere.
    pub(crate) fn start_program(&mut self, program: Program) {
        self.server = Some(program.serve());
    }

    /// Kills the server.
    pub(crate) fn kill_server(&mut self) {
        self.server.take().expect("a server").process.kill();
    }

    /// Kills the server and starts it again where it was.
    pub(crate) fn crash_and_restart(&mut self) {
        let address = self.server().address;
        self.kill_server();
        self.start_at(address);
    }

    /// Sends the server a signal.
    pub(crate) fn signal_server(&self, signal: Signal) {
        self.server().process.signal(signal);
    }

    /// Waits so long for the server's end and returns its exit code.
    pub(crate) fn server_ends_within(&mut self, patience: Duration) -> i32 {
        self.server.take().expect("a server").exit_code_within(patience)
    }

    /// Stops the server with `signal` and returns its exit code.
    pub(crate) fn stop_server(&mut self, signal: Signal) -> i32 {
        self.server.take().expect("a server").stop(signal)
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("this world has a server")
    }

    /// The home of the server and of its user.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Where the client stands.
    pub(crate) fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// What the server serves.
    pub(crate) fn served(&self) -> PathBuf {
        self.path("served")
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }

    /// A home of somebody else.
    pub(crate) fn stranger(&self) -> PathBuf {
        self.path("stranger")
    }

    /// The server, about to be started.
    pub(crate) fn server_program(&self) -> Program {
        let address = format!("127.0.0.1:{}", lasting_port());
        self.home_program().arg("serve").arg(self.served()).args(["--listen", &address])
    }

    /// ftpq in this world, with no server named.
    pub(crate) fn home_program(&self) -> Program {
        Program::new(&self.home(), &self.work())
    }

    /// The client, about to be run on the server.
    pub(crate) fn client(&self) -> Program {
        self.client_of(&self.home())
    }

    /// The client with another home.
    pub(crate) fn client_of(&self, home: &Path) -> Program {
        let program = Program::new(home, &self.work());
        match &self.server {
            Some(server) => program.env("FTPQ_SERVER", server.name()),
            None => program,
        }
    }

    /// Runs the client on the server.
    pub(crate) fn ftpq<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        self.client().args(args).run()
    }

    /// The fingerprint of the client with this home.
    pub(crate) fn key_of(&self, home: &Path) -> String {
        self.client_of(home).arg("key").run().ok().stdout.trim().to_owned()
    }

    /// Adds `options` for the client with this home to the list of clients.
    pub(crate) fn authorise(&self, home: &Path, options: &str) {
        self.authorise_key(&self.key_of(home), options);
    }

    /// The same for a key that lies in no home.
    pub(crate) fn authorise_key(&self, key: &str, options: &str) {
        let list = fs::read_to_string(self.authorized_clients()).unwrap_or_default();
        self.set_clients(&format!("{list}{key} {options}\n"));
    }

    /// Replaces the list of clients in one step, which counts at once.
    pub(crate) fn set_clients(&self, list: &str) {
        let new = self.path("list");
        fs::write(&new, list).unwrap();
        if let Ok(before) = fs::metadata(self.authorized_clients()) {
            fs::set_permissions(&new, before.permissions()).unwrap();
        }
        fs::rename(new, self.authorized_clients()).unwrap();
    }

    pub(crate) fn authorized_clients(&self) -> PathBuf {
        self.home().join("authorized_clients")
    }
}

/// A port that nobody is given by chance, and that no other server of these tests has: one that is started again must
/// find it free.
fn lasting_port() -> u16 {
    /// Below those from which Linux chooses (`ip_local_port_range`).
    const PORTS: Range<u16> = 15_000..32_000;
    /// A server may have several.
    const APART: u16 = 8;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other runs begin elsewhere.
        let number = std::process::id().wrapping_mul(331).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + APART * (number % u32::from((PORTS.end - PORTS.start) / APART)) as u16;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
