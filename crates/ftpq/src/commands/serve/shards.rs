//! The server's threads besides the first, each at a port of its own: several cores serve one client, or many.
//!
//! One port for all of them (`SO_REUSEPORT`) would not do: the kernel chooses by the client's address, and a
//! connection that moves to another would meet a thread that does not know it.

use std::{io, net::SocketAddr, sync::Arc};

use ftpq_transport::{BindError, BoundSocket, Identity, Listener, Shard, Traffic, processors};

use super::explain;
use crate::output::say;

/// Ports that are bound, for threads to come.
#[derive(Debug, Default)]
pub(super) struct Shards {
    bound: Vec<BoundSocket>,
}

impl Shards {
    /// Binds what `wanted` shards need besides the first: ports from `port` on, at the address of the first of
    /// `sockets`. Those that suit the machine are as many as can be had; those that were asked for must be there.
    pub(super) fn bind(sockets: &[BoundSocket], port: u16, wanted: Option<usize>) -> anyhow::Result<Self> {
        let Some(first) = sockets.first() else { return Ok(Self::default()) };
        let count = wanted.unwrap_or_else(|| usual(processors()));
        Self::after(first.local_addr(), port, count, wanted.is_some())
    }

    fn after(first: SocketAddr, port: u16, count: usize, all: bool) -> anyhow::Result<Self> {
        let mut bound = Vec::new();
        for number in 1..count {
            match next(first, port, number).and_then(Listener::bind_socket) {
                Ok(socket) => bound.push(socket),
                Err(error) if all => return Err(explain(error)),
                Err(error) => {
                    say(format_args!("ftpq: {number} of {count} shards, which is slower for many at a time: {error}"));
                    break;
                }
            }
        }
        Ok(Self { bound })
    }

    /// Starts the threads. They are what the calling one is by now: as confined, and the same user's.
    pub(super) fn start(self, identity: &Identity, traffic: &Traffic) -> anyhow::Result<Vec<Listener>> {
        let start = |socket| {
            let listener = Listener::on_shard(socket, identity, Arc::new(Shard::start()?)).map_err(explain)?;
            Ok(listener.with_traffic(traffic.clone()))
        };
        self.bound.into_iter().map(start).collect()
    }
}

/// Where the shard of this `number` listens.
fn next(first: SocketAddr, port: u16, number: usize) -> Result<SocketAddr, BindError> {
    // Any free port is followed by any other.
    let next = if port == 0 { Some(0) } else { u16::try_from(usize::from(port) + number).ok() };
    let beyond = || BindError::Socket {
        address: first,
        error: io::Error::new(io::ErrorKind::AddrNotAvailable, "there are not so many ports after this one"),
    };
    next.map(|next| SocketAddr::new(first.ip(), next)).ok_or_else(beyond)
}

/// How many shards suit a machine of so many processors. Half: the others read, write and digest the files, which
/// takes about as long as the packets. Below 4 there is nothing to share: on 2 of them, one thread was 10 % faster
/// than two. Beyond 8 the disks and the network are the limit, and each port is one more for firewalls.
fn usual(processors: usize) -> usize {
    const MOST: usize = 8;
    if processors <= 3 { 1 } else { (processors / 2).min(MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_processors_have_a_shard() {
        let counts = [0, 1, 2, 3, 4, 5, 8, 16, 17, 1000].map(usual);
        assert_eq!(counts, [1, 1, 1, 1, 2, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn the_ports_follow_the_first() {
        let port = |port, number| next(SocketAddr::from(([127, 0, 0, 1], 1)), port, number).ok();
        assert_eq!(port(4433, 2), Some(SocketAddr::from(([127, 0, 0, 1], 4435))));
        assert_eq!(port(0, 2), Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert_eq!(port(65_534, 1), Some(SocketAddr::from(([127, 0, 0, 1], 65_535))));
        assert_eq!(port(65_534, 2), None);
    }

    #[test]
    fn ports_that_were_asked_for_must_be_had_and_others_need_not() {
        // A port that is taken, and the one before it.
        let (first, _taken) = (0..100)
            .find_map(|_| {
                let taken = Listener::bind_socket(([127, 0, 0, 1], 0).into()).ok()?;
                let before = SocketAddr::new(taken.local_addr().ip(), taken.local_addr().port().checked_sub(1)?);
                Some((Listener::bind_socket(before).ok()?, taken))
            })
            .unwrap();
        let address = first.local_addr();
        let refused = Shards::after(address, address.port(), 2, true).unwrap_err().to_string();
        assert!(refused.contains("is in use"), "{refused}");
        assert!(Shards::after(address, address.port(), 2, false).unwrap().bound.is_empty());
        assert_eq!(Shards::bind(&[first], 0, Some(3)).unwrap().bound.len(), 2);
    }
}
