//! Several hosts on one machine, each a network namespace, with wires between them.
//!
//! They are seen by nobody else, and gone with the test, however that ends: what holds a namespace is a
//! process that ends with its input.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{ChildStdin, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Process;

/// A server's host, and a wire to each of some others.
///
/// On wire N the server is 10.19.N.1 and the other host 10.19.N.2. Every address that is nobody's is beyond
/// the last wire, whose host forwards nothing.
pub(crate) struct Hosts {
    pub(crate) server: Host,
    pub(crate) others: Vec<Host>,
}

/// A host of a test's own.
pub(crate) struct Host {
    _holder: Process,
    id: u32,
    _input: ChildStdin,
    /// Its own on its wire, if it is not the server's.
    pub(crate) address: Ipv4Addr,
    /// The server's on the same wire.
    pub(crate) server: Ipv4Addr,
    /// The server's end of the wire.
    wire: String,
}

/// What went over a wire, as the server's host counts it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// To the server: payloads of UDP.
    pub(crate) bytes_in: u64,
    pub(crate) packets_in: u64,
    /// From the server.
    pub(crate) bytes_out: u64,
    pub(crate) packets_out: u64,
}

impl Hosts {
    /// The server's host and `count` others; `None`, and a word about it, where that is not allowed.
    pub(crate) fn new(test: &str, count: u8) -> Option<Self> {
        match Self::wired(count) {
            Ok(hosts) => Some(hosts),
            Err(error) => {
                eprintln!("SKIPPED {test}: cannot make hosts of its own here (root, unshare, nsenter, ip): {error}");
                None
            }
        }
    }

    fn wired(count: u8) -> io::Result<Self> {
        let mut hosts = Self { server: Host::new(0)?, others: Vec::new() };
        hosts.server.run("ip link set lo up")?;
        for number in 1..=count {
            let host = Host::new(number)?;
            let (wire, address, server, id) = (&host.wire, host.address, host.server, host.id);
            hosts.server.run(&format!("ip link add {wire} type veth peer name {wire} netns {id}"))?;
            for (at, address) in [(&host, address), (&hosts.server, server)] {
                // Nothing but the test's own packets is to be counted.
                at.run(&format!("ip link set {wire} addrgenmode none"))?;
                at.run(&format!("ip address add {address}/24 dev {wire}"))?;
                at.run(&format!("ip link set {wire} up"))?;
            }
            host.run("ip link set lo up")?;
            host.run(&format!("ip route add default via {server}"))?;
            hosts.server.run(&format!("ip route replace default via {address}"))?;
            hosts.others.push(host);
        }
        Ok(hosts)
    }

    /// What has gone over the wire of `host`.
    pub(crate) fn traffic(&self, host: &Host) -> Traffic {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", self.server.id)).unwrap();
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{}:", host.wire)));
        let numbers: Vec<u64> =
            line.expect("the wire is there").split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [bytes_in, packets_in, bytes_out, packets_out] = [numbers[0], numbers[1], numbers[8], numbers[9]];
        // ARP, the only other thing on the wire, has no more than these.
        let payload = |bytes: u64, packets| bytes.saturating_sub(packets * HEADERS);
        Traffic {
            bytes_in: payload(bytes_in, packets_in),
            packets_in,
            bytes_out: payload(bytes_out, packets_out),
            packets_out,
        }
    }

    /// Makes the wire of `host` carry so many megabits a second at most, either way.
    pub(crate) fn limit(&self, host: &Host, megabits: u64) {
        for at in [host, &self.server] {
            let wire = &host.wire;
            at.run(&format!("tc qdisc add dev {wire} root tbf rate {megabits}mbit burst 256kb latency 20ms")).unwrap();
        }
    }
}

impl Traffic {
    /// What has come since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            bytes_in: self.bytes_in - earlier.bytes_in,
            packets_in: self.packets_in - earlier.packets_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
            packets_out: self.packets_out - earlier.packets_out,
        }
    }
}

impl Host {
    fn new(number: u8) -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo there && exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (id, input) = (child.id(), child.stdin.take().expect("it is a pipe"));
        let output = child.stdout.take().expect("it is a pipe");
        let holder = Process::new(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::other("unshare --net failed"));
        }
        let [address, server] = [2, 1].map(|end| Ipv4Addr::new(10, 19, number, end));
        Ok(Self { _holder: holder, id, _input: input, address, server, wire: format!("wire{number}") })
    }

    /// What runs `program` here.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace())).arg("--").arg(program);
        command
    }

    /// Moves this thread here, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let namespace = File::open(self.namespace())?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.id)
    }

    fn run(&self, words: &str) -> io::Result<()> {
        let mut words = words.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        let output = command.args(words).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// Ethernet's, IPv4's and UDP's.
const HEADERS: u64 = 14 + 20 + 8;
