//! Who is compared: ftpq and others that move files between two machines, each as its users call it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    rows::Net,
    services::{DOCUMENTS, FTPQ_PORT, HOST, NGINX_PORT, RSYNCD_PORT, Service, TARGET},
    tools,
};

/// A contestant.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name in [`super::rows::ROWS`], in `--peers` and in the raw results.
    pub(super) name: &'static str,
    /// Its name in tables and plots.
    pub(super) label: &'static str,
    /// The program that must be installed on the client's side.
    pub(super) program: &'static str,
    pub(super) service: Service,
    /// Of TCP, on both ends.
    pub(super) congestion: &'static str,
    /// Whether its congestion control takes each loss for congestion.
    pub(super) yields_to_loss: bool,
    command: fn(&Client, &Job<'_>) -> Command,
}

/// What a client must know of the place where it runs.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) ftpq: PathBuf,
    /// `FTPQ_HOME` of client and server, who are the same user.
    pub(super) home: PathBuf,
    /// The server's address.
    pub(super) host: String,
    pub(super) ssh_config: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) net: Net,
}

/// One piece of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) op: Op,
    /// The file or folder that is copied. It lies in the folder [`DOCUMENTS`] of what is served.
    pub(super) source: &'a Path,
    /// The empty folder that the copy goes to: [`TARGET`] in what is served.
    pub(super) target: &'a Path,
    pub(super) tree: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Up,
    Down,
    Connect,
}

/// The peer of this name.
pub(super) fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

/// Whether it is ftpq, in one of its states.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("ftpq")
}

/// The path was never seen before: no memory of it on either side.
pub(super) const FIRST: &str = "ftpq-first";
/// The run before went over the same path.
pub(super) const AGAIN: &str = "ftpq-again";

impl Peer {
    pub(super) fn command(&self, client: &Client, job: &Job<'_>) -> Command {
        (self.command)(client, job)
    }
}

/// What is common to most.
const fn peer(name: &'static str, label: &'static str, command: fn(&Client, &Job<'_>) -> Command) -> Peer {
    Peer { name, label, program: "ssh", service: Service::Sshd, congestion: "cubic", yields_to_loss: true, command }
}

const fn ours(name: &'static str, label: &'static str) -> Peer {
    Peer { program: "ftpq", service: Service::Ftpq, yields_to_loss: false, ..peer(name, label, ftpq) }
}

const fn web(name: &'static str, label: &'static str, command: fn(&Client, &Job<'_>) -> Command) -> Peer {
    Peer { program: "curl", service: Service::Nginx, ..peer(name, label, command) }
}

/// Everybody.
pub(super) const PEERS: &[Peer] = &[
    ours("ftpq", "ftpq"),
    ours(FIRST, "ftpq, at first sight"),
    ours(AGAIN, "ftpq, remembered path"),
    ours("ftpq-other", "ftpq, the other one"),
    peer("ssh", "ssh HOST true", ssh),
    peer("scp", "scp", |client, job| scp(client, job, &[])),
    peer("scp-gcm", "scp, AES-128-GCM", |client, job| scp(client, job, &GCM)),
    Peer {
        congestion: "bbr",
        yields_to_loss: false,
        ..peer("scp-bbr", "scp, TCP bbr", |client, job| scp(client, job, &[]))
    },
    peer("sftp", "sftp", sftp),
    Peer { program: "rsync", ..peer("rsync", "rsync over ssh", |client, job| rsync(client, job, &[])) },
    Peer {
        program: "rsync",
        ..peer("rsync-fsync", "rsync --fsync over ssh", |client, job| rsync(client, job, &["--fsync"]))
    },
    Peer { program: "rsync", service: Service::Rsyncd, ..peer("rsyncd", "rsync daemon, not encrypted", rsyncd) },
    peer("tar-ssh", "tar over ssh", tar),
    web("curl", "curl + nginx", curl),
    Peer { congestion: "bbr", yields_to_loss: false, ..web("curl-bbr", "curl + nginx, TCP bbr", curl) },
    web("curl-head", "curl HEAD", |client, job| curl_small(client, job, &["--head"])),
    web("curl-get", "curl GET", |client, job| curl_small(client, job, &[])),
    Peer { program: "qcp", ..peer("qcp", "qcp", |client, job| qcp(client, job, &[])) },
    Peer {
        program: "qcp",
        yields_to_loss: false,
        ..peer("qcp-bbr", "qcp, bbr", |client, job| qcp(client, job, &["--congestion", "bbr"]))
    },
    Peer { program: "qcp", ..peer("qcp-j8", "qcp -j 8", |client, job| qcp(client, job, &["-j", "8"])) },
];

const GCM: [&str; 2] = ["-c", "aes128-gcm@openssh.com"];

fn ftpq(client: &Client, job: &Job<'_>) -> Command {
    let mut command = Command::new(&client.ftpq);
    command.env("FTPQ_HOME", &client.home);
    let source = format!("/{DOCUMENTS}/{}", name(job).display());
    match job.op {
        Op::Up => command.args(["put", "-q"]).arg(job.source).args(["--to", &format!("/{TARGET}/")]),
        Op::Down => command.args(["get", "-q", &source, "--to"]).arg(folder(job.target)),
        Op::Connect => command.args(["ls", &source]),
    };
    if job.tree {
        command.arg("-r");
    }
    command.args(["-s", &format!("{}:{FTPQ_PORT}", client.host)]);
    command
}

fn ssh(client: &Client, _: &Job<'_>) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-F").arg(&client.ssh_config).args([HOST, "true"]);
    command
}

fn scp(client: &Client, job: &Job<'_>, options: &[&str]) -> Command {
    let mut command = Command::new("scp");
    command.arg("-q").arg("-F").arg(&client.ssh_config).args(options);
    if job.tree {
        command.arg("-r");
    }
    let (from, to) = ends(job);
    command.args([from, to]);
    command
}

fn sftp(client: &Client, job: &Job<'_>) -> Command {
    let verb = if job.op == Op::Up { "put" } else { "get" };
    let option = if job.tree { "-r " } else { "" };
    let batch = format!("{verb} {option}{} {}", job.source.display(), folder(job.target));
    shell(r#"echo "$1" | sftp -q -F "$2" -b - "$3""#, &[batch.as_ref(), client.ssh_config.as_ref(), HOST.as_ref()])
}

fn rsync(client: &Client, job: &Job<'_>, options: &[&str]) -> Command {
    let mut command = Command::new("rsync");
    let (from, to) = ends(job);
    command.arg("-a").args(options).args(["-e", &format!("ssh -F {}", client.ssh_config.display())]).args([from, to]);
    command
}

fn rsyncd(client: &Client, job: &Job<'_>) -> Command {
    let mut command = Command::new("rsync");
    let module = |name: &str| format!("rsync://{}:{RSYNCD_PORT}/{name}/", client.host);
    command.arg("-a");
    match job.op {
        Op::Up => command.arg(job.source).arg(module(TARGET)),
        _ => command.arg(format!("{}{}", module(DOCUMENTS), name(job).display())).arg(folder(job.target)),
    };
    command
}

fn tar(client: &Client, job: &Job<'_>) -> Command {
    let script = match job.op {
        Op::Up => r#"tar -C "$1" -cf - "$2" | ssh -F "$4" "$5" tar -C "$3" -xf -"#,
        _ => r#"ssh -F "$4" "$5" tar -C "$1" -cf - "$2" | tar -C "$3" -xf -"#,
    };
    let from = job.source.parent().unwrap_or(job.source);
    shell(script, &[from.as_ref(), name(job).as_ref(), job.target.as_ref(), client.ssh_config.as_ref(), HOST.as_ref()])
}

fn curl(client: &Client, job: &Job<'_>) -> Command {
    let mut command = https(client);
    match job.op {
        Op::Up => command.arg("--upload-file").arg(job.source).arg(url(client, &folder(job.target))),
        _ => command.arg("--output").arg(job.target.join(name(job))).arg(url(client, &job.source.to_string_lossy())),
    };
    command
}

fn curl_small(client: &Client, job: &Job<'_>, options: &[&str]) -> Command {
    let mut command = https(client);
    command.args(options).args(["--output", "/dev/null"]).arg(url(client, &job.source.to_string_lossy()));
    command
}

fn https(client: &Client) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--http1.1", "--tlsv1.3"]);
    command.args(["--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--cacert"]).arg(&client.certificate);
    command
}

fn url(client: &Client, path: &str) -> String {
    format!("https://{}:{NGINX_PORT}{path}", client.host)
}

/// It wants to be told what the path is like, and is: the truth.
fn qcp(client: &Client, job: &Job<'_>, options: &[&str]) -> Command {
    let program = tools::find("qcp").unwrap_or_else(|| "qcp".into());
    let (rate, rtt) = match client.net {
        // Bytes a second.
        Net::Wan(path) => (format!("{}M", f64::from(path.rate) / 8.0), path.rtt),
        _ => ("1250M".into(), 1),
    };
    let mut command = Command::new(&program);
    command.arg("-q").arg("--ssh-config").arg(&client.ssh_config).args(["-S", "-F", "-S"]).arg(&client.ssh_config);
    command.arg("--remote-qcp-binary").arg(&program).args(["--rx", &rate, "--rtt", &rtt.to_string()]).args(options);
    if job.tree {
        command.arg("-r");
    }
    let (from, to) = ends(job);
    command.args([from, to]);
    command
}

/// Both ends as scp, rsync and qcp write them.
fn ends(job: &Job<'_>) -> (String, String) {
    let (source, target) = (job.source.display(), folder(job.target));
    match job.op {
        Op::Up => (source.to_string(), format!("{HOST}:{target}")),
        _ => (format!("{HOST}:{source}"), target),
    }
}

/// The path of a folder, so that nobody takes it for a new name.
fn folder(path: &Path) -> String {
    format!("{}/", path.display())
}

fn name<'a>(job: &Job<'a>) -> &'a Path {
    job.source.file_name().map_or(job.source, Path::new)
}

/// A pipe of several programs. What it works with are arguments, so that nothing must be quoted.
fn shell(script: &str, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::{Net, Wan};

    fn line(name: &str, op: Op) -> String {
        let client = Client {
            ftpq: "ftpq".into(),
            home: "home".into(),
            host: "10.0.0.2".into(),
            ssh_config: "config".into(),
            certificate: "cert".into(),
            net: Net::Wan(Wan { rate: 300, rtt: 50, loss: 0.0 }),
        };
        let job = Job { op, source: Path::new("/m/src/one"), target: Path::new("/m/dst"), tree: false };
        let command = find(name).unwrap().command(&client, &job);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_are_those_of_their_users() {
        assert_eq!(line("ftpq", Op::Up), "ftpq put -q /m/src/one --to /dst/ -s 10.0.0.2:4433");
        assert_eq!(line("ftpq", Op::Down), "ftpq get -q /src/one --to /m/dst/ -s 10.0.0.2:4433");
        assert_eq!(line("ftpq", Op::Connect), "ftpq ls /src/one -s 10.0.0.2:4433");
        assert_eq!(line("scp-gcm", Op::Up), "scp -q -F config -c aes128-gcm@openssh.com /m/src/one bench:/m/dst/");
        assert_eq!(line("rsync", Op::Down), "rsync -a -e ssh -F config bench:/m/src/one /m/dst/");
        assert!(line("curl", Op::Up).ends_with("--upload-file /m/src/one https://10.0.0.2:4434/m/dst/"));
        assert!(line("qcp-bbr", Op::Up).contains("--rx 37.5M --rtt 50 --congestion bbr"));
    }

    #[test]
    fn names_are_unique() {
        for peer in PEERS {
            assert_eq!(PEERS.iter().filter(|other| other.name == peer.name).count(), 1, "{}", peer.name);
        }
    }
}
