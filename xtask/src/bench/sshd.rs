//! An OpenSSH server of our own, with throw-away keys, on a free port of this machine.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// What a client calls the server.
pub(super) const HOST: &str = "bench";

/// OpenSSH's programs.
pub(super) struct Ssh {
    sshd: PathBuf,
    keygen: PathBuf,
    pub(super) scp: PathBuf,
}

/// Both sides of OpenSSH, or what to install.
pub(super) fn find() -> Result<Ssh> {
    let program = |name: &str, package: &str| {
        // An ordinary user's PATH rarely has the folders of services.
        let usual = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
        let listed = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&listed).chain(usual).map(|folder| folder.join(name));
        places.find(|file| file.is_file()).with_context(|| {
            format!("THE BENCHMARK NEEDS {name}, which is not installed: run `apt-get install {package}`")
        })
    };
    Ok(Ssh {
        sshd: program("sshd", "openssh-server")?,
        keygen: program("ssh-keygen", "openssh-client")?,
        scp: program("scp", "openssh-client")?,
    })
}

/// The server. Dropping it kills it.
pub(super) struct Sshd {
    child: Child,
    folder: PathBuf,
}

impl Sshd {
    /// Everything it needs is made in `folder`.
    pub(super) fn start(ssh: &Ssh, folder: &Path) -> Result<Self> {
        for key in ["host_key", "user_key"] {
            let made = Command::new(&ssh.keygen)
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key))
                .status()?;
            if !made.success() {
                bail!("ssh-keygen failed");
            }
        }
        fs::copy(folder.join("user_key.pub"), folder.join("authorized_keys"))?;
        let address = free_address()?;
        let at = |name: &str| folder.join(name).display().to_string();
        fs::write(folder.join("sshd_config"), server_config(address, &at))?;
        fs::write(folder.join("config"), client_config(address, &at))?;
        if rustix::process::geteuid().is_root() {
            // Debian's sshd wants it, and only its service script makes it.
            fs::create_dir_all("/run/sshd")?;
        }
        let child = Command::new(&ssh.sshd)
            .args(["-D", "-e", "-f", &at("sshd_config")])
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.join("sshd.log"))?)
            .spawn()
            .context("cannot start sshd")?;
        let mut sshd = Self { child, folder: folder.into() };
        sshd.wait_for(address)?;
        Ok(sshd)
    }

    /// The client's configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > Duration::from_secs(10) || self.child.try_wait()?.is_some() {
                let log = fs::read_to_string(self.folder.join("sshd.log")).unwrap_or_default();
                bail!("sshd does not listen on {address}:\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// `internal-sftp` needs no path and no shell, and is the faster of the two.
fn server_config(address: SocketAddr, at: &dyn Fn(&str) -> String) -> String {
    format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nSubsystem sftp internal-sftp\n",
        at("host_key"),
        at("authorized_keys"),
    )
}

fn client_config(address: SocketAddr, at: &dyn Fn(&str) -> String) -> String {
    format!(
        "Host {HOST}\n  HostName {}\n  Port {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
         StrictHostKeyChecking no\n  BatchMode yes\n  LogLevel ERROR\n",
        address.ip(),
        address.port(),
        at("user_key"),
        at("known_hosts"),
    )
}
