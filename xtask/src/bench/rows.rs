//! What is measured: one [`Row`] for each condition and operation, with the goals that it must meet.

/// One line of the benchmark: every peer does the same work under the same conditions, taking turns.
#[derive(Debug)]
pub(super) struct Row {
    /// What `--only` chooses it by.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) net: Net,
    pub(super) work: Work,
    pub(super) unit: Unit,
    /// By their names in `peers.rs`. Those of ftpq come first; the first of all is what ratios are of.
    pub(super) peers: &'static [&'static str],
    pub(super) goals: &'static [Goal],
    /// Whether `--quick` measures it.
    pub(super) quick: bool,
}

/// What lies between client and server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Net {
    /// The loopback interface of one network namespace.
    Loopback,
    /// A pair of virtual Ethernet devices, each in a namespace of its own.
    Veth { mtu: u32, offloads: bool },
    /// A long, lossy, narrow path.
    Wan(Wan),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wan {
    /// Mbit/s of the bottleneck, in each direction.
    pub(super) rate: u32,
    /// Milliseconds there and back, without queues.
    pub(super) rtt: u32,
    /// Packets lost at random, in per cent, in each direction.
    pub(super) loss: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Work {
    /// One file. `lossy` is the size for those whose congestion control takes each loss for congestion:
    /// on a lossy path they would need hours for the other.
    File { direction: Direction, mib: u64, lossy: u64 },
    /// Files of 4 KiB, up to 100 in each folder, sent to the server. `durable`: onto a disk.
    Tree { files: u32, durable: bool },
    /// The least that can be asked for over a fresh connection.
    Connect,
    /// Two files at once, by the two peers of the row, through one bottleneck.
    Share { mib: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    MegabytesPerSecond,
    MegabitsPerSecond,
    Seconds,
    Milliseconds,
    /// Of the bottleneck, in per cent.
    Percent,
}

/// What a release must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// At least so many times as fast as this peer.
    Ratio(f64, &'static str),
    /// At least so much, in the row's unit, by this peer (one of ours).
    AtLeast(f64, &'static str),
    /// At most so long, in the row's unit, by this peer (one of ours).
    AtMost(f64, &'static str),
    /// At most so many CPU seconds for each GB, both ends together.
    Cpu(f64),
    /// At most so many of the packets lost on the way, in per cent, by this peer (one of ours).
    Lost(f64, &'static str),
    /// Each of two gets a part of the bottleneck within these bounds, in per cent.
    Share(f64, f64),
}

impl Row {
    /// How often each peer runs where nothing else is asked for. What takes milliseconds varies most.
    pub(super) fn reps(&self, quick: bool) -> usize {
        match (self.work, quick) {
            (Work::Connect, false) => 10,
            (_, false) | (Work::Connect, true) => 3,
            (_, true) => 2,
        }
    }
}

impl Work {
    /// The same with no file larger than `most` MiB.
    pub(super) fn capped(self, most: u64) -> Self {
        match self {
            Self::File { direction, mib, lossy } => {
                Self::File { direction, mib: mib.min(most), lossy: lossy.min(most) }
            }
            Self::Share { mib } => Self::Share { mib: mib.min(most) },
            Self::Tree { .. } | Self::Connect => self,
        }
    }
}

/// Those that `--quick` measures, where they are in the row.
pub(super) const QUICK_PEERS: &[&str] =
    &["ftpq", "ftpq-first", "ftpq-again", "scp-gcm", "curl", "curl-bbr", "curl-get", "ssh", "rsync", "tar-ssh"];

/// The largest file of `--quick`, in MiB.
pub(super) const QUICK_MIB: u64 = 256;

const FAST: &[&str] = &["ftpq", "scp", "scp-gcm", "sftp", "rsync", "rsyncd", "tar-ssh", "curl", "qcp"];
const VETH: &[&str] = &["ftpq", "scp-gcm", "curl", "qcp"];
const CLEAN_WAN: &[&str] =
    &["ftpq-first", "ftpq-again", "scp", "scp-bbr", "rsync", "tar-ssh", "curl", "curl-bbr", "qcp", "qcp-bbr"];
const LOSSY_WAN: &[&str] = &["ftpq-first", "ftpq-again", "scp", "scp-bbr", "curl", "curl-bbr", "qcp", "qcp-bbr"];

const LOOPBACK_GOALS: &[Goal] =
    &[Goal::Ratio(1.1, "curl"), Goal::Ratio(2.0, "qcp"), Goal::Ratio(2.5, "scp-gcm"), Goal::Cpu(1.4)];
const VETH_GOALS: &[Goal] = &[Goal::Ratio(0.8, "curl"), Goal::Ratio(1.6, "qcp"), Goal::Ratio(1.7, "scp-gcm")];

/// A transfer of one file, whatever is between the two ends.
const fn file(id: &'static str, title: &'static str, net: Net, direction: Direction) -> Row {
    let work = Work::File { direction, mib: 2048, lossy: 2048 };
    Row { id, title, net, work, unit: Unit::MegabytesPerSecond, peers: VETH, goals: &[], quick: false }
}

/// An upload of one file over a long path.
const fn wan(id: &'static str, title: &'static str, path: Wan, mib: u64, lossy: u64) -> Row {
    let work = Work::File { direction: Direction::Up, mib, lossy };
    let net = Net::Wan(path);
    Row { id, title, net, work, unit: Unit::MegabitsPerSecond, peers: LOSSY_WAN, goals: &[], quick: false }
}

const JUMBO: Net = Net::Veth { mtu: 9000, offloads: true };
const PLAIN: Net = Net::Veth { mtu: 1500, offloads: true };
const BARE: Net = Net::Veth { mtu: 1500, offloads: false };

/// The path on which small files and short commands are measured.
const CLEAN: Wan = Wan { rate: 300, rtt: 50, loss: 0.0 };

/// Neighbours with the same network share it: it is made once.
pub(super) const ROWS: &[Row] = &[
    Row {
        peers: FAST,
        goals: LOOPBACK_GOALS,
        quick: true,
        ..file("loopback-up", "Loopback, upload", Net::Loopback, Direction::Up)
    },
    Row {
        peers: FAST,
        goals: LOOPBACK_GOALS,
        quick: true,
        ..file("loopback-down", "Loopback, download", Net::Loopback, Direction::Down)
    },
    Row {
        id: "small-loopback",
        title: "10,000 files of 4 KiB, loopback",
        net: Net::Loopback,
        work: Work::Tree { files: 10_000, durable: false },
        unit: Unit::Seconds,
        peers: &["ftpq", "scp", "sftp", "rsync", "rsyncd", "tar-ssh", "qcp-j8"],
        goals: &[Goal::AtMost(0.5, "ftpq")],
        quick: true,
    },
    Row {
        id: "connect-loopback",
        title: "One short command on a fresh connection, loopback",
        net: Net::Loopback,
        work: Work::Connect,
        unit: Unit::Milliseconds,
        peers: &["ftpq", "ssh", "curl-head", "curl-get", "scp", "qcp"],
        goals: &[Goal::AtMost(15.0, "ftpq")],
        quick: true,
    },
    Row {
        id: "small-durable",
        title: "10,000 files of 4 KiB onto a disk, each durable, loopback",
        net: Net::Loopback,
        work: Work::Tree { files: 10_000, durable: true },
        unit: Unit::Seconds,
        peers: &["ftpq", "rsync-fsync"],
        goals: &[Goal::Ratio(2.0, "rsync-fsync")],
        quick: false,
    },
    Row {
        goals: VETH_GOALS,
        quick: true,
        ..file("veth-up", "Ethernet pair, MTU 1,500, offloads on, upload", PLAIN, Direction::Up)
    },
    Row {
        goals: VETH_GOALS,
        quick: true,
        ..file("veth-down", "Ethernet pair, MTU 1,500, offloads on, download", PLAIN, Direction::Down)
    },
    file("veth-bare-up", "Ethernet pair, MTU 1,500, offloads off, upload", BARE, Direction::Up),
    Row {
        goals: &[Goal::Ratio(0.7, "curl"), Goal::Ratio(1.2, "qcp")],
        ..file("veth-bare-down", "Ethernet pair, MTU 1,500, offloads off, download", BARE, Direction::Down)
    },
    Row {
        goals: &[Goal::Ratio(0.9, "curl")],
        ..file("veth-9000-up", "Ethernet pair, MTU 9,000, upload", JUMBO, Direction::Up)
    },
    Row {
        goals: &[Goal::Ratio(0.9, "curl")],
        ..file("veth-9000-down", "Ethernet pair, MTU 9,000, download", JUMBO, Direction::Down)
    },
    Row {
        peers: CLEAN_WAN,
        goals: &[
            Goal::AtLeast(258.0, "ftpq-first"),
            Goal::AtLeast(270.0, "ftpq-again"),
            Goal::Lost(2.0, "ftpq-first"),
            Goal::Lost(2.0, "ftpq-again"),
        ],
        ..wan("wan-300-50-0", "300 Mbit/s, RTT 50 ms, no loss", CLEAN, 128, 128)
    },
    Row {
        id: "small-50",
        title: "10,000 files of 4 KiB, 300 Mbit/s, RTT 50 ms",
        net: Net::Wan(CLEAN),
        work: Work::Tree { files: 10_000, durable: false },
        unit: Unit::Seconds,
        // The others wait a round trip for each file.
        peers: &["ftpq-first", "ftpq-again", "rsync", "tar-ssh"],
        goals: &[Goal::AtMost(1.8, "ftpq-first")],
        quick: false,
    },
    Row {
        id: "small-few-50",
        title: "100 files of 4 KiB, 300 Mbit/s, RTT 50 ms",
        net: Net::Wan(CLEAN),
        work: Work::Tree { files: 100, durable: false },
        unit: Unit::Seconds,
        peers: &["ftpq-first", "ftpq-again", "scp", "sftp", "rsync", "tar-ssh", "qcp-j8"],
        goals: &[Goal::AtMost(0.3, "ftpq-first")],
        quick: false,
    },
    Row {
        id: "connect-50",
        title: "One short command on a fresh connection, RTT 50 ms",
        net: Net::Wan(CLEAN),
        work: Work::Connect,
        unit: Unit::Milliseconds,
        peers: &["ftpq", "ssh", "curl-head", "curl-get", "scp", "qcp"],
        goals: &[Goal::AtMost(125.0, "ftpq")],
        quick: true,
    },
    Row {
        id: "share-two",
        title: "Two ftpq uploads at once, 300 Mbit/s, RTT 50 ms",
        net: Net::Wan(CLEAN),
        work: Work::Share { mib: 256 },
        unit: Unit::Percent,
        peers: &["ftpq", "ftpq-other"],
        goals: &[Goal::Share(25.0, 75.0)],
        quick: false,
    },
    Row {
        id: "share-cubic",
        title: "An ftpq upload beside one over TCP cubic, 300 Mbit/s, RTT 50 ms",
        net: Net::Wan(CLEAN),
        work: Work::Share { mib: 256 },
        unit: Unit::Percent,
        peers: &["ftpq", "curl"],
        goals: &[Goal::Share(25.0, 75.0)],
        quick: false,
    },
    Row {
        goals: &[Goal::AtLeast(255.0, "ftpq-first"), Goal::AtLeast(265.0, "ftpq-again")],
        ..wan("wan-300-50-0.1", "300 Mbit/s, RTT 50 ms, 0.1 % loss", Wan { loss: 0.1, ..CLEAN }, 128, 8)
    },
    Row {
        goals: &[Goal::AtLeast(240.0, "ftpq-first"), Goal::AtLeast(250.0, "ftpq-again")],
        quick: true,
        ..wan("wan-300-50-1", "300 Mbit/s, RTT 50 ms, 1 % loss", Wan { loss: 1.0, ..CLEAN }, 96, 3)
    },
    Row {
        goals: &[Goal::AtLeast(185.0, "ftpq-first"), Goal::AtLeast(220.0, "ftpq-again")],
        ..wan("wan-300-150-0.5", "300 Mbit/s, RTT 150 ms, 0.5 % loss", Wan { rate: 300, rtt: 150, loss: 0.5 }, 96, 2)
    },
    Row {
        goals: &[Goal::AtLeast(85.0, "ftpq-first"), Goal::AtLeast(88.0, "ftpq-again")],
        ..wan("wan-100-50-1", "100 Mbit/s, RTT 50 ms, 1 % loss", Wan { rate: 100, rtt: 50, loss: 1.0 }, 48, 3)
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::peers;

    #[test]
    fn rows_name_peers_that_exist_and_goals_speak_of_the_rows_peers() {
        for row in ROWS {
            for name in row.peers {
                assert!(peers::find(name).is_some(), "{}: {name}", row.id);
            }
            for goal in row.goals {
                let (Goal::Ratio(_, who) | Goal::AtLeast(_, who) | Goal::AtMost(_, who) | Goal::Lost(_, who)) = goal
                else {
                    continue;
                };
                assert!(row.peers.contains(who), "{}: {who}", row.id);
            }
            assert!(row.peers[0].starts_with("ftpq"), "{}", row.id);
        }
        let ids: BTreeSet<&str> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
    }

    #[test]
    fn a_cap_makes_files_smaller_and_nothing_larger() {
        let work = Work::File { direction: Direction::Up, mib: 128, lossy: 8 };
        assert_eq!(work.capped(16), Work::File { direction: Direction::Up, mib: 16, lossy: 8 });
        assert_eq!(work.capped(999), work);
    }
}
