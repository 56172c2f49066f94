//! The servers of all peers: private ones with throw-away keys, in the server's namespace, for one network.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use super::{network::Network, processes::Killed, tools};
use crate::server::Server;

/// What ssh calls the server.
pub(super) const HOST: &str = "bench";
/// The folder of what is served from which clients fetch.
pub(super) const DOCUMENTS: &str = "src";
/// The folder of what is served to which copies go, in either direction.
pub(super) const TARGET: &str = "dst";

pub(super) const FTPQ_PORT: u16 = 4433;
pub(super) const NGINX_PORT: u16 = 4434;
pub(super) const RSYNCD_PORT: u16 = 4435;
const SSH_PORT: u16 = 4436;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    Ftpq,
    Sshd,
    Nginx,
    Rsyncd,
}

impl Service {
    /// The server's program, where it is not the client's.
    pub(super) fn program(self) -> Option<&'static str> {
        match self {
            Self::Sshd => Some("sshd"),
            Self::Nginx => Some("nginx"),
            Self::Ftpq | Self::Rsyncd => None,
        }
    }
}

/// Where things lie.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    pub(super) ftpq: PathBuf,
    /// Keys, configurations and logs.
    pub(super) state: PathBuf,
    /// What clients may fetch: a folder named [`DOCUMENTS`].
    pub(super) documents: PathBuf,
    /// What is served: it holds a folder named [`TARGET`].
    pub(super) served: PathBuf,
}

impl Folders {
    pub(super) fn target(&self) -> PathBuf {
        self.served.join(TARGET)
    }

    /// What was copied before, where it is not removed at once.
    pub(super) fn aside(&self) -> PathBuf {
        self.served.join("aside")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.state.join("home")
    }

    pub(super) fn ssh_config(&self) -> PathBuf {
        self.state.join("ssh_config")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.state.join("cert.pem")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.log"))
    }
}

/// Keys and certificates for all networks. Where ssh is missing, its keys are.
pub(super) fn make_keys(shell: &Shell, state: &Path) -> Result<()> {
    if let Some(keygen) = tools::find("ssh-keygen") {
        for name in ["host_key", "user_key"] {
            let key = state.join(name);
            cmd!(shell, "{keygen} -q -t ed25519 -N '' -C bench -f {key}").quiet().run()?;
        }
        fs::copy(state.join("user_key.pub"), state.join("authorized_keys"))?;
    }
    let names = ["127.0.0.1", "10.77.0.2", "10.78.0.2"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    fs::write(state.join("cert.pem"), made.cert.pem())?;
    Ok(fs::write(state.join("key.pem"), made.signing_key.serialize_pem())?)
}

/// The servers that run now. Dropping it ends them.
pub(super) struct Services<'a> {
    network: &'a Network,
    folders: Folders,
    theirs: BTreeMap<Service, Killed>,
    ours: Option<Server>,
    greeted: bool,
}

impl<'a> Services<'a> {
    pub(super) fn new(network: &'a Network, folders: Folders) -> Result<Self> {
        fs::write(folders.ssh_config(), ssh_config(&network.host, &folders.state))?;
        Ok(Self { network, folders, theirs: BTreeMap::new(), ours: None, greeted: false })
    }

    /// Starts it, unless it runs. The number of its first process.
    pub(super) fn need(&mut self, service: Service) -> Result<u32> {
        if service == Service::Ftpq {
            return self.need_ftpq();
        }
        if let Some(running) = self.theirs.get(&service) {
            return Ok(running.0.id());
        }
        let (name, port, mut command) = self.command(service)?;
        let log = self.folders.log(name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut running = Killed(self.network.server.spawn(&mut command)?.0);
        let listens = self.network.wait_for(port, || matches!(running.0.try_wait(), Ok(None)));
        listens.with_context(|| format!("{name}:\n{}", fs::read_to_string(&log).unwrap_or_default()))?;
        let id = running.0.id();
        self.theirs.insert(service, running);
        Ok(id)
    }

    /// Makes server and client forget what they know of paths: the one is started anew, the other's file goes.
    pub(super) fn forget_paths(&mut self) -> Result<()> {
        self.need_ftpq()?;
        if let Some(server) = self.ours.take() {
            server.stop()?;
        }
        match fs::remove_file(self.folders.home().join(PATHS)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("cannot forget the paths"),
            _ => {}
        }
        self.need_ftpq().map(drop)
    }

    fn need_ftpq(&mut self) -> Result<u32> {
        if let Some(server) = &self.ours {
            return Ok(server.id());
        }
        let mut command = self.ftpq();
        command.arg("serve").arg(&self.folders.served).args(["--listen", &format!("0.0.0.0:{FTPQ_PORT}")]);
        let spawn = |command: &mut Command| Ok(self.network.server.spawn(command)?.0);
        let server = Server::start_by(command, &self.folders.log("ftpq"), false, spawn)?;
        if !self.greeted {
            // Its key is remembered, so that later runs and later servers need no such thing.
            let mut greet = self.ftpq();
            greet.args(["con", "--accept-new", &format!("{}:{FTPQ_PORT}", self.network.host)]);
            greet.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if !self.network.client.spawn(&mut greet)?.0.wait()?.success() {
                bail!("ftpq cannot connect to its server");
            }
            self.greeted = true;
        }
        Ok(self.ours.insert(server).id())
    }

    fn ftpq(&self) -> Command {
        let mut command = Command::new(&self.folders.ftpq);
        command.env("FTPQ_HOME", self.folders.home());
        command
    }

    fn command(&self, service: Service) -> Result<(&'static str, u16, Command)> {
        let state = &self.folders.state;
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let file = state.join(name);
            fs::write(&file, text)?;
            Ok(file)
        };
        let program = |name: &str| tools::find(name).map(Command::new).with_context(|| tools::advice(name));
        let (name, port, command) = match service {
            Service::Sshd => {
                // Debian's sshd wants it, and only its service script makes it.
                fs::create_dir_all("/run/sshd")?;
                let mut command = program("sshd")?;
                command.args(["-D", "-e", "-f"]).arg(write("sshd_config", sshd_config(state))?);
                ("sshd", SSH_PORT, command)
            }
            Service::Nginx => {
                let mut command = program("nginx")?;
                command.arg("-c").arg(write("nginx.conf", nginx_config(&self.folders))?);
                ("nginx", NGINX_PORT, command)
            }
            Service::Rsyncd => {
                let mut command = program("rsync")?;
                let config = write("rsyncd.conf", rsyncd_config(&self.folders))?;
                command.args(["--daemon", "--no-detach"]).arg(format!("--config={}", config.display()));
                ("rsync daemon", RSYNCD_PORT, command)
            }
            Service::Ftpq => bail!("ftpq is started otherwise"),
        };
        Ok((name, port, command))
    }
}

/// Where the client keeps what it knows of paths, in its home.
const PATHS: &str = "paths";

/// `internal-sftp` needs no program of its own and is the faster of the two. With `SHLVL`, bash takes itself for
/// no first shell and skips its start-up files, which may take longer than the command.
fn sshd_config(state: &Path) -> String {
    let at = |name: &str| state.join(name).display().to_string();
    format!(
        "Port {SSH_PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nMaxStartups 100\n\
         Subsystem sftp internal-sftp\nSetEnv SHLVL=1\n",
        at("host_key"),
        at("authorized_keys"),
    )
}

fn ssh_config(host: &str, state: &Path) -> String {
    let at = |name: &str| state.join(name).display().to_string();
    format!(
        "Host {HOST} {host}\n  HostName {host}\n  Port {SSH_PORT}\n  User root\n  IdentityFile {}\n  \
         IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking no\n  BatchMode yes\n  LogLevel ERROR\n",
        at("user_key"),
        at("known_hosts"),
    )
}

/// A body that is uploaded lies where it goes to, so that it is renamed and not copied.
fn nginx_config(folders: &Folders) -> String {
    let (state, target) = (folders.state.display(), folders.target());
    let (target, documents) = (target.display(), folders.documents.display());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "daemon off;\nuser root;\nworker_processes {workers};\npid {state}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  client_max_body_size 0;\n  \
         client_body_temp_path {target}.bodies;\n  proxy_temp_path {state}/p;\n  fastcgi_temp_path {state}/f;\n  \
         uwsgi_temp_path {state}/u;\n  scgi_temp_path {state}/s;\n  \
         server {{\n    listen {NGINX_PORT} ssl;\n    ssl_protocols TLSv1.3;\n    ssl_certificate {state}/cert.pem;\n    \
         ssl_certificate_key {state}/key.pem;\n    root /;\n    location {documents}/ {{ }}\n    \
         location {target}/ {{ dav_methods PUT; create_full_put_path on; }}\n  }}\n}}\n",
    )
}

fn rsyncd_config(folders: &Folders) -> String {
    format!(
        "uid = root\ngid = root\nuse chroot = no\nport = {RSYNCD_PORT}\npid file = {}\n\
         [{DOCUMENTS}]\npath = {}\n[{TARGET}]\npath = {}\nread only = no\n",
        folders.state.join("rsyncd.pid").display(),
        folders.documents.display(),
        folders.target().display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_name_what_is_served_and_nothing_else() {
        let folders = Folders {
            ftpq: "ftpq".into(),
            state: "/m/state".into(),
            documents: "/m/served/src".into(),
            served: "/m/served".into(),
        };
        let nginx = nginx_config(&folders);
        assert!(
            nginx.contains("location /m/served/src/ { }")
                && nginx.contains("client_body_temp_path /m/served/dst.bodies;")
        );
        assert_eq!(nginx.matches('{').count(), nginx.matches('}').count());
        assert!(rsyncd_config(&folders).contains("[dst]\npath = /m/served/dst\nread only = no"));
        assert!(ssh_config("10.0.0.2", &folders.state).contains("HostName 10.0.0.2\n"));
    }
}
