//! How packets are made and paced: what the owner of an end wants of it, and what it remembers of the
//! paths that it used before.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    net::{IpAddr, UdpSocket},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::net::sockopt;

/// What an end's connections do. Cheap to clone; clones remember together.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// What decides how much is in flight.
    pub congestion: Congestion,
    /// Bytes of UDP payload in every full packet, 1,200 to 65,488. Found out where absent.
    pub mtu: Option<u16>,
    /// What is known of paths.
    pub paths: Paths,
}

/// What decides how much is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// ftpq's own: fills a link that loses packets by itself, and keeps its queue short. See
    /// [`ftpq_congestion`].
    #[default]
    Bulk,
    /// RFC 9438, as most of the internet's TCP does: any loss is congestion.
    Cubic,
    /// quinn's BBR, version 1: fast under loss, and floods a queue.
    Bbr,
}

impl Congestion {
    /// All that there are, the default first.
    pub const ALL: [Self; 3] = [Self::Bulk, Self::Cubic, Self::Bbr];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Congestion {
    type Err = UnknownCongestion;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|congestion| congestion.name() == name).ok_or(UnknownCongestion)
    }
}

/// No such congestion control.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are bulk, cubic and bbr")]
pub struct UnknownCongestion;

/// What was learnt of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// Bytes per second that it carried.
    pub bandwidth: u64,
    /// Round-trip time when it was empty.
    pub min_rtt: Duration,
}

/// What was learnt of paths, by the address at their other end. A connection starts from it, once the first
/// round trip shows that the path is still as long. Clones are the same memory, which is bounded and forgets
/// after [`Paths::LIFETIME`].
#[derive(Clone, Debug, Default)]
pub struct Paths(Arc<Mutex<HashMap<IpAddr, (Learnt, SystemTime)>>>);

impl Paths {
    /// Paths remembered at once; the oldest are forgotten for newer ones.
    pub const MOST: usize = 1024;

    /// How long what was learnt is used: networks change.
    pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

    /// What [`Paths::to_text`] made. Lines that cannot be understood count for nothing: nothing in them is
    /// worth an error.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let paths = Self::default();
        text.lines().filter_map(parse).for_each(|(peer, learnt, at)| paths.insert(peer, learnt, at));
        paths
    }

    /// One line for each path: address, bytes per second, round-trip time in microseconds, and when that was
    /// learnt, in seconds since 1970.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut lines: Vec<_> = self.lock().iter().map(|(peer, &(learnt, at))| (at, *peer, learnt)).collect();
        lines.sort_unstable_by_key(|&(at, peer, _)| (at, peer));
        lines.iter().fold(String::new(), |mut text, (at, peer, Learnt { bandwidth, min_rtt })| {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{peer} {bandwidth} {} {at}", min_rtt.as_micros());
            text
        })
    }

    /// What is known of the path to `peer`.
    #[must_use]
    pub fn recall(&self, peer: IpAddr) -> Option<Learnt> {
        let (learnt, at) = *self.lock().get(&peer.to_canonical())?;
        // A clock that was set back makes it young, not wrong.
        (at.elapsed().unwrap_or_default() < Self::LIFETIME).then_some(learnt)
    }

    /// Remembers it.
    pub fn note(&self, peer: IpAddr, learnt: Learnt) {
        self.insert(peer.to_canonical(), learnt, SystemTime::now());
    }

    fn insert(&self, peer: IpAddr, learnt: Learnt, at: SystemTime) {
        let mut paths = self.lock();
        if paths.len() >= Self::MOST && !paths.contains_key(&peer) {
            let oldest = paths.iter().min_by_key(|(_, (_, at))| *at).map(|(peer, _)| *peer);
            oldest.and_then(|peer| paths.remove(&peer));
        }
        paths.insert(peer, (learnt, at));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, (Learnt, SystemTime)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of UDP payload that fit into one packet of the link on which packets for `peer` leave this machine.
/// The path beyond may carry less. None where the system does not tell.
pub(crate) fn link_mtu(peer: IpAddr) -> Option<u16> {
    let (any, headers): (IpAddr, _) = match peer {
        IpAddr::V4(_) => ([0; 4].into(), IPV4_UDP),
        IpAddr::V6(_) => ([0; 16].into(), IPV6_UDP),
    };
    // Connecting a datagram socket looks the route up, and sends nothing.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 9)).ok()?;
    let mtu = if peer.is_ipv4() { sockopt::ip_mtu(&socket) } else { sockopt::ipv6_mtu(&socket) };
    Some(u16::try_from(mtu.ok()?.saturating_sub(headers)).unwrap_or(u16::MAX))
}

fn parse(line: &str) -> Option<(IpAddr, Learnt, SystemTime)> {
    let mut words = line.split_ascii_whitespace();
    let peer: IpAddr = words.next()?.parse().ok()?;
    let [bandwidth, rtt, at] = [words.next()?, words.next()?, words.next()?].map(|word| word.parse::<u64>().ok());
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(at?))?;
    Some((peer.to_canonical(), Learnt { bandwidth: bandwidth?, min_rtt: Duration::from_micros(rtt?) }, at))
}

/// Bytes of the headers in front of a UDP payload.
const IPV4_UDP: u32 = 20 + 8;
/// See [`IPV4_UDP`].
const IPV6_UDP: u32 = 40 + 8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn learnt(bandwidth: u64) -> Learnt {
        Learnt { bandwidth, min_rtt: Duration::from_millis(50) }
    }

    #[test]
    fn paths_survive_as_text_and_age() {
        let paths = Paths::default();
        let [home, away] = ["192.0.2.7", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        paths.note("::ffff:192.0.2.7".parse().unwrap(), learnt(1));
        paths.note(home, learnt(37_500_000));
        paths.insert(away, learnt(2), SystemTime::now() - Paths::LIFETIME);
        let again = Paths::from_text(&format!("{}nonsense\n192.0.2.9 1 x 3\n1\n", paths.to_text()));
        assert_eq!(again.to_text(), paths.to_text());
        assert_eq!((again.recall(home), again.recall(away)), (Some(learnt(37_500_000)), None));
        assert_eq!(Paths::from_text(&format!("::1 1 1 {}", u64::MAX)).to_text(), "");
    }

    #[test]
    fn the_oldest_paths_make_room() {
        let paths = Paths::default();
        let peer = |n: usize| IpAddr::from(Ipv4Addr::from_bits(n as u32));
        for n in 0..=Paths::MOST {
            paths.insert(peer(n), learnt(n as u64), SystemTime::now() + Duration::from_secs(n as u64));
        }
        assert_eq!((paths.recall(peer(0)), paths.recall(peer(1))), (None, Some(learnt(1))));
        assert_eq!(paths.lock().len(), Paths::MOST);
    }

    #[test]
    fn the_system_tells_what_a_link_carries() {
        // What fits into an IPv4 packet, though loopback itself takes a byte more.
        assert_eq!(link_mtu(Ipv4Addr::LOCALHOST.into()), Some(65_507));
    }

    #[test]
    fn congestion_has_a_name() {
        for congestion in Congestion::ALL {
            assert_eq!(congestion.to_string().parse(), Ok(congestion));
        }
        assert_eq!("reno".parse::<Congestion>(), Err(UnknownCongestion));
    }
}
