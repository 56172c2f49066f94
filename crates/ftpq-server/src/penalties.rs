//! Networks that are kept out for a while, after what their clients did. The idea and most figures are
//! those of OpenSSH's `PerSourcePenalties`.
//!
//! Only a client whose address is proved can be blamed: by a token that went there and came back, or by a finished
//! handshake.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// What is blamed on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offence {
    /// The key is not let in.
    Refused,
    /// The secret of a ticket was wrong, or spent.
    BadTicket,
    /// Nothing that makes sense came in time.
    Stalled,
    /// What came was no message, before anybody was known.
    Malformed,
    /// The client ended the handshake: it does not trust this server's key, say.
    TurnedAway,
}

impl Offence {
    /// How much longer its network is kept out for it.
    const fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Offence::TurnedAway => 1,
            Offence::Refused => 5,
            Offence::Stalled => 10,
            Offence::BadTicket | Offence::Malformed => 15,
        })
    }
}

/// Some addresses that are taken for one source: an IPv4 address, or an IPv6 /64, which is what one customer
/// gets at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// That of `address`.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        })
    }

    /// Whether it is this machine.
    pub fn is_loopback(self) -> bool {
        match self.0 {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address == Ipv6Addr::UNSPECIFIED || address.is_loopback(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Who is kept out, and until when.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    networks: HashMap<Network, Penalty>,
}

#[derive(Debug)]
struct Penalty {
    until: Instant,
    /// It has come to enough to be enforced.
    enforced: bool,
}

impl Penalties {
    /// Blames `network` for `offence`. Returns for how long it is kept out, if that begins with this.
    pub(crate) fn add(&mut self, network: Network, offence: Offence, now: Instant) -> Option<Duration> {
        self.make_room(now);
        let penalty = self.networks.entry(network).or_insert(Penalty { until: now, enforced: false });
        if penalty.until <= now {
            *penalty = Penalty { until: now, enforced: false };
        }
        penalty.until = (penalty.until + offence.penalty()).min(now + MOST);
        let begins = !penalty.enforced && penalty.until - now >= LEAST;
        penalty.enforced |= begins;
        begins.then(|| penalty.until - now)
    }

    /// Whether `network` is kept out.
    pub(crate) fn holds(&self, network: Network, now: Instant) -> bool {
        self.networks.get(&network).is_some_and(|penalty| penalty.enforced && penalty.until > now)
    }

    /// Forgets those whose time is over, and should that not do, whose time is over first.
    fn make_room(&mut self, now: Instant) {
        if self.networks.len() < NETWORKS_MAX {
            return;
        }
        self.networks.retain(|_, penalty| penalty.until > now);
        let first = self.networks.iter().min_by_key(|(_, penalty)| penalty.until).map(|(network, _)| *network);
        if let Some(first) = first.filter(|_| self.networks.len() >= NETWORKS_MAX) {
            self.networks.remove(&first);
        }
    }
}

/// Less than this is forgiven: somebody who has not yet been let in tries twice.
const LEAST: Duration = Duration::from_secs(15);

/// Nobody is kept out for longer: addresses change hands.
const MOST: Duration = Duration::from_secs(10 * 60);

/// Networks that are remembered.
const NETWORKS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn offences_add_up_are_enforced_from_the_least_on_and_end() {
        let (mut penalties, begin) = (Penalties::default(), Instant::now());
        let (bad, other) = (network("192.0.2.1"), network("192.0.2.2"));
        let at = |secs| begin + Duration::from_secs(secs);
        // What happened, when, and whether the network is kept out right after it.
        let table = [
            (0, Offence::Refused, false),
            (0, Offence::Refused, false),
            (0, Offence::Refused, true),     // 15 s
            (10, Offence::TurnedAway, true), // until 16
            (17, Offence::Refused, false),   // anew: until 22
            (18, Offence::BadTicket, true),  // until 37
            (100, Offence::BadTicket, true),
            (200, Offence::Stalled, false),
            (201, Offence::Malformed, true),
        ];
        for (secs, offence, kept_out) in table {
            penalties.add(bad, offence, at(secs));
            assert_eq!(penalties.holds(bad, at(secs)), kept_out, "{offence:?} at {secs} s");
            assert!(!penalties.holds(other, at(secs)));
        }
        assert!(penalties.holds(bad, at(223)) && !penalties.holds(bad, at(226)));
    }

    #[test]
    fn no_penalty_is_longer_than_the_longest() {
        let (mut penalties, begin) = (Penalties::default(), Instant::now());
        for _ in 0..1000 {
            penalties.add(network("192.0.2.1"), Offence::BadTicket, begin);
        }
        assert!(penalties.holds(network("192.0.2.1"), begin + MOST - Duration::from_secs(1)));
        assert!(!penalties.holds(network("192.0.2.1"), begin + MOST));
    }

    #[test]
    fn a_customer_with_a_64_is_one_source() {
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::9"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert!(network("::1").is_loopback() && network("127.9.9.9").is_loopback());
        assert!(!network("2001:db8::1").is_loopback());
    }

    #[test]
    fn the_table_does_not_grow_without_end() {
        let (mut penalties, begin) = (Penalties::default(), Instant::now());
        for number in 0..NETWORKS_MAX as u32 + 10 {
            let network = Network::of(Ipv4Addr::from_bits(number).into());
            penalties.add(network, Offence::Refused, begin + Duration::from_millis(u64::from(number)));
        }
        assert!(penalties.networks.len() <= NETWORKS_MAX);
    }
}
