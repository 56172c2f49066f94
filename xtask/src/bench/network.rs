//! Networks that exist only while they are measured: namespaces, joined by a device pair or by an emulated path.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::TcpStream,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use xshell::{Shell, cmd};

use super::{
    rows::{Net, Wan},
    tools,
};
use crate::scratch::check_interrupted;

/// A network that is up. Dropping it takes it down.
pub(super) struct Network {
    pub(super) client: Namespace,
    pub(super) server: Namespace,
    /// The server's address.
    pub(super) host: String,
    pub(super) net: Net,
    device: &'static str,
    emulator: Option<Emulator>,
    shell: Shell,
}

impl Network {
    pub(super) fn up(shell: &Shell, net: Net, wanlab: Option<&Path>) -> Result<Self> {
        let shell = shell.clone();
        let names = ["a", "b"].map(|end| format!("fb{}-{end}", std::process::id()));
        let mut guard = Names { names: &names, shell: &shell, armed: true };
        let [a, b] = &names;
        let (mut emulator, mut host, mut device) = (None, "10.78.0.2", "fb0");
        match (net, wanlab) {
            (Net::Loopback, _) => {
                cmd!(shell, "ip netns add {a}").quiet().run()?;
                cmd!(shell, "ip -n {a} link set lo up").quiet().run()?;
                (host, device) = ("127.0.0.1", "lo");
            }
            (Net::Veth { mtu, offloads }, _) => pair(&shell, &names, mtu, offloads)?,
            (Net::Wan(path), Some(wanlab)) => {
                emulator = Some(emulate(wanlab, path)?);
                (host, device) = ("10.77.0.2", "wan0");
            }
            (Net::Wan(path), None) => {
                pair(&shell, &names, 1500, false)?;
                netem(&shell, &names, path)?;
            }
        }
        let client = Namespace::open(a)?;
        let server = Namespace::open(if net == Net::Loopback { a } else { b })?;
        guard.armed = false;
        Ok(Self { client, server, host: host.into(), net, device, emulator, shell: shell.clone() })
    }

    /// TCP's congestion control, for connections made from now on; nothing of a path is kept for the next.
    pub(super) fn set_congestion(&self, name: &str) -> Result<()> {
        for end in [&self.client, &self.server] {
            end.enter(|| {
                fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name)?;
                fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
            })??;
        }
        Ok(())
    }

    /// Packets that entered the path and packets that left it, both directions together, since it is up. `None`
    /// where no path of ours can lose any.
    pub(super) fn packets(&self) -> Option<Packets> {
        self.emulator.as_ref()?;
        let read = |end: &Namespace| end.enter(|| fs::read_to_string("/proc/thread-self/net/dev")).ok()?.ok();
        let (a, b) = (counters(&read(&self.client)?, self.device)?, counters(&read(&self.server)?, self.device)?);
        Some(Packets { sent: a.sent + b.sent, received: a.received + b.received })
    }

    /// Waits until somebody listens on `port` of the server.
    pub(super) fn wait_for(&self, port: u16, mut alive: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        let host = self.host.as_str();
        let listens = || self.server.enter(|| TcpStream::connect((host, port)).is_ok());
        while !listens()? {
            check_interrupted()?;
            if start.elapsed() > Duration::from_secs(10) || !alive() {
                bail!("nobody listens on port {port}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It removes the namespaces that it made.
        drop(self.emulator.take());
        let names = [self.client.name.clone(), self.server.name.clone()];
        drop(Names { names: &names, shell: &self.shell, armed: true });
    }
}

/// What passed a device pair or an emulated path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packets {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// One network namespace.
pub(super) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    fn open(name: &str) -> Result<Self> {
        let file = Path::new("/run/netns").join(name);
        Ok(Self { name: name.into(), file: File::open(&file).with_context(|| format!("no {}", file.display()))? })
    }

    /// Does something inside, on a thread of its own: a thread that went in does not come back.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || -> Result<T> {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(inside).join()).map_err(|_| anyhow!("a thread in {} failed", self.name))?
    }

    /// Starts a process inside; the moment before it was started. It does not hear of Ctrl-C: what must be
    /// cleaned up comes first.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<(Child, Instant)> {
        command.process_group(0);
        let started = self.enter(|| {
            let start = Instant::now();
            command.spawn().map(|child| (child, start))
        })?;
        started.with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}

/// Whether this user may make networks, with the reason why not.
pub(super) fn check(shell: &Shell) -> Result<()> {
    let probe = format!("fb{}-p", std::process::id());
    if !rustix::process::geteuid().is_root()
        || cmd!(shell, "ip netns add {probe}").quiet().ignore_stderr().run().is_err()
    {
        bail!("the benchmark needs root and network namespaces (`ip netns`)");
    }
    Ok(cmd!(shell, "ip netns del {probe}").quiet().run()?)
}

/// What emulates long paths: its name for the report, or why there is none.
pub(super) fn emulator(shell: &Shell, wanlab: Option<&Path>) -> Result<String, String> {
    if let Some(wanlab) = wanlab {
        return if wanlab.is_file() { Ok("wanlab".into()) } else { Err(format!("{} is no file", wanlab.display())) };
    }
    let name = format!("fb{}-p", std::process::id());
    let _guard = Names { names: &[name.clone(), name.clone()], shell, armed: true };
    let try_netem = || -> xshell::Result<()> {
        cmd!(shell, "ip netns add {name}").quiet().run()?;
        cmd!(shell, "tc -n {name} qdisc add dev lo root netem delay 1ms").quiet().ignore_stderr().run()
    };
    try_netem().map(|()| "tc netem".into()).map_err(|_| {
        "this kernel has no `tc netem`, and neither --wanlab nor FTPQ_WANLAB names a link emulator".to_owned()
    })
}

/// Allows every TCP congestion control that the kernel has as a default, until it is dropped.
pub(super) struct Congestion {
    before: String,
    pub(super) available: Vec<String>,
}

impl Congestion {
    pub(super) fn allow() -> Result<Self> {
        let available = fs::read_to_string(AVAILABLE)?;
        let guard = Self {
            before: fs::read_to_string(ALLOWED)?,
            available: available.split_whitespace().map(str::to_owned).collect(),
        };
        fs::write(ALLOWED, &available).context("cannot allow all of TCP's congestion controls")?;
        Ok(guard)
    }
}

impl Drop for Congestion {
    fn drop(&mut self) {
        if fs::write(ALLOWED, &self.before).is_err() {
            eprintln!("{ALLOWED} stays changed; it was {}", self.before.trim());
        }
    }
}

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Namespaces that are to be gone.
struct Names<'a> {
    names: &'a [String; 2],
    shell: &'a Shell,
    armed: bool,
}

impl Drop for Names<'_> {
    fn drop(&mut self) {
        for name in self.names.iter().filter(|name| self.armed && Path::new("/run/netns").join(name).exists()) {
            if cmd!(self.shell, "ip netns del {name}").quiet().run().is_err() {
                eprintln!("the network namespace {name} is still there");
            }
        }
    }
}

/// Two namespaces with a virtual Ethernet between them.
fn pair(shell: &Shell, names: &[String; 2], mtu: u32, offloads: bool) -> Result<()> {
    let [a, b] = names;
    let mtu = mtu.to_string();
    cmd!(shell, "ip netns add {a}").quiet().run()?;
    cmd!(shell, "ip netns add {b}").quiet().run()?;
    cmd!(shell, "ip link add fb0 netns {a} mtu {mtu} type veth peer name fb0 netns {b} mtu {mtu}").quiet().run()?;
    for (name, address) in [(a, "10.78.0.1/24"), (b, "10.78.0.2/24")] {
        cmd!(shell, "ip -n {name} link set lo up").quiet().run()?;
        cmd!(shell, "ip -n {name} addr add {address} dev fb0").quiet().run()?;
        cmd!(shell, "ip -n {name} link set fb0 up").quiet().run()?;
        for feature in ["tso", "gso", "gro", "tx-udp-segmentation"] {
            if !offloads {
                cmd!(shell, "ip netns exec {name} ethtool -K fb0 {feature} off").quiet().ignore_stdout().run()?;
            }
        }
    }
    Ok(())
}

/// Delay, loss and rate on both ends of a pair. The queue holds one bandwidth-delay product beyond what the path
/// itself holds, as the other emulator's does.
fn netem(shell: &Shell, names: &[String; 2], path: Wan) -> Result<()> {
    let product = u64::from(path.rate) * 1_000_000 / 8 * u64::from(path.rtt) / 1000;
    let (delay, loss) = (format!("{}us", path.rtt * 500), format!("{}%", path.loss));
    let (rate, limit) = (format!("{}mbit", path.rate), (product * 2 / 1500).max(100).to_string());
    for name in names {
        cmd!(shell, "tc -n {name} qdisc add dev fb0 root netem delay {delay} loss {loss} rate {rate} limit {limit}")
            .quiet()
            .run()?;
    }
    Ok(())
}

/// A running link emulator. Dropping it ends it.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Starts the emulator, which makes both namespaces, and waits until it says so.
fn emulate(wanlab: &Path, path: Wan) -> Result<Emulator> {
    let child = Command::new(wanlab)
        .args(["--name", &format!("fb{}", std::process::id()), "--delay", &(f64::from(path.rtt) / 2.0).to_string()])
        .args(["--loss", &path.loss.to_string(), "--rate", &path.rate.to_string(), "--stats", "/dev/null", "up"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start the link emulator")?;
    let mut emulator = Emulator(child);
    let (up, is_up) = mpsc::channel();
    let screen = emulator.0.stdout.take().context("the link emulator has no output")?;
    thread::spawn(move || {
        up.send(BufReader::new(screen).lines().map_while(io::Result::ok).any(|line| line.contains("up")))
    });
    if matches!(is_up.recv_timeout(Duration::from_secs(10)), Ok(true)) {
        return Ok(emulator);
    }
    bail!("the link emulator did not come up");
}

/// Packets sent and received by one device, from `/proc/net/dev`.
fn counters(text: &str, device: &str) -> Option<Packets> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let mut fields = line.split_whitespace().map(|field| field.parse().ok());
    Some(Packets { received: fields.nth(1)??, sent: fields.nth(7)?? })
}

/// The link emulator: named on the command line, else by `FTPQ_WANLAB`.
pub(super) fn wanlab(option: Option<PathBuf>) -> Option<PathBuf> {
    option.or_else(|| std::env::var_os("FTPQ_WANLAB").map(PathBuf::from))
}

/// Whether what a network needs is there, with the reason why not.
pub(super) fn possible(net: Net, emulator: &Result<String, String>) -> Result<(), String> {
    match net {
        Net::Wan(_) => emulator.as_ref().map(drop).map_err(Clone::clone),
        Net::Veth { offloads: false, .. } if tools::find("ethtool").is_none() => Err(tools::advice("ethtool")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_from_the_kernels_table() {
        let table = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop fifo frame \
                     compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo: 9 1 0 0 0 0 \
                     0 0 9 1 0 0 0 0 0 0\n  wan0: 600 5 0 0 0 0 0 0 12000 8 0 0 0 0 0 0\n";
        assert_eq!(counters(table, "wan0"), Some(Packets { sent: 8, received: 5 }));
        assert_eq!(counters(table, "wan"), None);
    }

    #[test]
    fn a_path_that_cannot_be_made_is_told() {
        let none = Err("no emulator".to_owned());
        assert!(possible(Net::Loopback, &none).is_ok());
        assert_eq!(possible(Net::Wan(Wan { rate: 1, rtt: 1, loss: 0.0 }), &none), Err("no emulator".into()));
    }
}
