//! Where clients were let in from: whoever comes from there again may send more before it has said who it is.
//!
//! It saves those who come back a round trip, and tells nothing of who they are: a stranger behind the same address
//! has the same. What that may cost is taken from the budget for memory like everything else.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ftpq_transport::Paths;

use crate::penalties::Network;

/// Networks by when a client was last let in from there.
#[derive(Debug, Default)]
pub(crate) struct Returning(HashMap<Network, Instant>);

/// Networks that are known at once. The oldest makes room.
const MOST: usize = 4096;

/// How long one is known after a client was let in from there: as long as a client knows its path.
const LIFETIME: Duration = Paths::LIFETIME;

impl Returning {
    /// A client was let in from there.
    pub(crate) fn note(&mut self, network: Network, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&network) {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(network, _)| *network);
            oldest.and_then(|network| self.0.remove(&network));
        }
        self.0.insert(network, now);
    }

    /// Whether one was, not long ago.
    pub(crate) fn knows(&self, network: Network, now: Instant) -> bool {
        self.0.get(&network).is_some_and(|at| now.saturating_duration_since(*at) < LIFETIME)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn network(number: usize) -> Network {
        Network::of(IpAddr::from(Ipv4Addr::from_bits(number as u32)))
    }

    #[test]
    fn networks_are_known_for_a_day() {
        let (mut returning, now) = (Returning::default(), Instant::now());
        returning.note(network(1), now);
        assert!(returning.knows(network(1), now + LIFETIME - Duration::from_secs(1)));
        assert!(!returning.knows(network(1), now + LIFETIME) && !returning.knows(network(2), now));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut returning, now) = (Returning::default(), Instant::now());
        for number in 0..=MOST {
            returning.note(network(number), now + Duration::from_millis(number as u64));
        }
        assert_eq!(returning.0.len(), MOST);
        assert!(!returning.knows(network(0), now) && returning.knows(network(1), now));
    }
}
