//! Every number that shapes speed and memory on the wire, in one place, each with its reason.
//!
//! quinn's own defaults fit neither a file transfer (small socket buffers, an ACK for every second
//! packet) nor a server of many clients (a connection may buffer without limit). What is said to be
//! measured was: 2 GiB over loopback, medians; see `docs/benchmarks.md`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ftpq_congestion::{INITIAL_WINDOW, Remembered};
use quinn::{
    AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig},
};

use crate::traffic::{Congestion, Traffic, link_mtu};

/// Bytes asked of the kernel for each direction of a socket. Its own default of about 200 kB loses
/// thousands of packets per file; more than this gains nothing.
pub const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Bytes in flight on one stream of a network: 300 Mbit/s at 150 ms, and half as much again while what was lost
/// comes once more, since all behind it waits.
pub const STREAM_WINDOW: u32 = 8 * 1024 * 1024;

/// The same on loopback, where what waits to be read should not fall out of the processor's cache: windows of
/// 32 MiB cost a fifth of the speed.
pub const LOOPBACK_STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that a peer may have in flight on all streams of a connection, at first: what one peer can make
/// this side hold. Twice what a path of 300 Mbit/s holds at 280 ms, or one of 1 Gbit/s at 80 ms.
pub const CONNECTION_WINDOW: u32 = 20 * 1024 * 1024;

/// Bytes handed to quinn and not yet acknowledged, over all streams of a connection, at first.
pub const SEND_WINDOW: u64 = 12 * 1024 * 1024;

/// What [`CONNECTION_WINDOW`] grows to where the path holds so much: 1 Gbit/s at 250 ms, twice. The most that a
/// server can make a client hold, and within a server's budget the other way round. Four extents of a large file
/// take half of it: four [`STREAM_WINDOW`]s.
pub const CONNECTION_WINDOW_MAX: u32 = 64 * 1024 * 1024;

/// What [`SEND_WINDOW`] grows to where the path holds so much: 1 Gbit/s at 200 ms, twice.
pub const SEND_WINDOW_MAX: u64 = 48 * 1024 * 1024;

/// How much of what was used in a round trip a window has when it grows, which is when half of it was used. So
/// a sender may double in each round trip, and the window ends at two to three times what the path holds: what was
/// lost comes once more, while all behind it waits.
pub const FIT_GROWTH: u64 = 3;

/// On shorter paths windows stay as they are: they hold 600 MB/s and more for so long, and where that is not enough the
/// processor is the limit. What looks like a full window there is a queue before it, and costs memory and cache.
pub const FIT_RTT_MIN: Duration = Duration::from_millis(20);

/// Windows grow by multiples of this.
pub const FIT_STEP: u64 = 1024 * 1024;

/// How often it is looked whether windows should grow: twice in a round trip, but a look costs some microseconds ...
pub const FIT_EVERY_MIN: Duration = Duration::from_millis(10);
/// ... and a round trip of more than a second is a queue's.
pub const FIT_EVERY_MAX: Duration = Duration::from_millis(500);

/// What a server lets one connection hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Bytes that the peer may have in flight on all streams.
    pub receive: u32,
    /// Bytes handed to quinn and not yet acknowledged, on all streams.
    pub send: u64,
    /// Streams that the peer may have open.
    pub streams: u32,
}

impl Windows {
    /// For somebody who is known, while there is memory.
    pub const FULL: Self = Self { receive: CONNECTION_WINDOW, send: SEND_WINDOW, streams: STREAMS };

    /// Before a peer's first command told who it is: that command, and some small files in the same flight. With
    /// two streams, as many as are served at a time by then, 100 files of 4 KiB took a round trip more. But each
    /// stream that is not read lets a hostile peer pin some memory.
    pub const UNSETTLED: Self = Self { receive: UNSETTLED_WINDOW, send: UNSETTLED_WINDOW as u64, streams: 8 };

    /// The same for one that comes from where somebody was let in before: what its start from a remembered rate
    /// may have in flight by then, half of what a path of 300 Mbit/s holds at 200 ms. It saves a round trip.
    pub const RETURNING: Self = Self { receive: 4 * 1024 * 1024, streams: 64, ..Self::UNSETTLED };

    /// The same, halved so many times, down to what still works.
    #[must_use]
    pub fn halved(self, times: u32) -> Self {
        Self {
            receive: self.receive.checked_shr(times).unwrap_or(0).max(UNSETTLED_WINDOW),
            send: self.send.checked_shr(times).unwrap_or(0).max(UNSETTLED_WINDOW.into()),
            streams: self.streams.checked_shr(times).unwrap_or(0).max(STREAMS_MIN),
        }
    }
}

/// The same as [`CONNECTION_WINDOW`], before the peer's first command told who it is.
pub const UNSETTLED_WINDOW: u32 = 64 * 1024;

/// Streams that a peer may have open: enough for a tree of small files to fill a long path. From its opening
/// until the peer hears that another may take its place, a stream takes two round trips: 10,000 files of 4 KiB
/// over 50 ms took 5.4 s with 256 of them.
pub const STREAMS: u32 = 1024;

/// Streams that a peer may have open when memory is short.
pub const STREAMS_MIN: u32 = 4;

/// A connection without any packet for this long is dead. Both sides' values count; the smaller wins.
pub const IDLE: Duration = Duration::from_secs(30);

/// A client lets no connection fall silent for longer. NATs would allow 30 s and more; this is how
/// soon a dead server can be told from one that is busy.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// So many bytes of a block, or a trailer, must make it through a stream within [`STALL`], or the peer
/// counts as stalled: 1 kB/s. A path that loses every tenth packet at 600 ms still carries 3 kB/s.
pub const STALL_BYTES: usize = 64 * 1024;
/// See [`STALL_BYTES`].
pub const STALL: Duration = Duration::from_secs(60);

/// For the next chunk of a body of unknown length, which comes from a program that may be at work for long. It
/// holds a stream and a file without a name meanwhile, and whoever is gone ends with the connection.
pub const PRODUCER: Duration = Duration::from_secs(24 * 60 * 60);

/// The last packets of a stream must be through within this time; nobody waits longer for a goodbye.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// Packets that may arrive before an ACK must go out (RFC 9000 says 2): fewer system calls.
pub const ACK_EVERY: u32 = 10;

/// How long an ACK for fewer packets may wait (RFC 9000 says 25 ms) where they are so large that the least window,
/// [`UNSETTLED_WINDOW`], does not hold as many: the path would be idle for so long in every round trip. Over loopback
/// it carried 2.4 MB/s.
pub const ACK_WITHIN: Duration = Duration::from_millis(5);

/// UDP payload that every path carries (RFC 9000, section 14). Handshakes use it, and discovery starts there.
pub const MTU_MIN: u16 = 1200;

/// UDP payload where the system does not tell what its link carries: fits Ethernet with a tunnel to spare.
pub const MTU: u16 = 1452;

/// UDP payload at the most, on loopback: its MTU of 65,536 less the IPv6 and UDP headers. Fewer, larger packets
/// are the cheapest bytes there are: 1,680 MB/s against 780 with [`MTU`].
pub const MTU_MAX: u16 = 65_488;

/// Bytes of UDP payload that are worth a question: quinn's own value.
pub const MTU_STEP: u16 = 20;

/// How soon a larger size is tried again where large packets seemed to vanish. Not a minute, as quinn would: a
/// burst of losses looks the same.
pub const MTU_AGAIN: Duration = Duration::from_secs(5);

/// Full packets that may be in flight at the start, at the least. A datagram must fit into the window, and what
/// answers it beside it: with less, a farewell on loopback is held back for good, as whoever closes takes no
/// more acknowledgements.
pub const START_PACKETS: u64 = 4;

/// Datagrams that quinn hands over in one go, as long as it has them (`MAX_TRANSMIT_SEGMENTS` of quinn 0.11).
/// Four such bursts fill a call of datagrams that fit an Ethernet.
pub const BURST: usize = 10;

/// The most that one `sendmsg` may carry, however many segments (Linux: 65,535 less IPv4 and UDP
/// headers). quinn does not know this limit, and takes the `EMSGSIZE` for packet loss.
pub const GSO_BYTES_MAX: usize = 65_507;

/// Connections that may be waiting for their handshake. quinn's 65,536 would be a gift to a flood.
pub const INCOMING_MAX: usize = 1024;

/// Bytes held for one, and for all connections that are not accepted yet: first flights only.
pub const INCOMING_BUFFER: u64 = 64 * 1024;
/// See [`INCOMING_BUFFER`].
pub const INCOMING_BUFFER_TOTAL: u64 = 16 * 1024 * 1024;

/// First packets that a server answers in a second, at each port, of those with a token and of those without. Each
/// takes some 20 µs of the one thread that drives the connections of a port, so this is a tenth of it at the most. More
/// would slow transfers down; fewer would, in a flood, leave less for those who come in earnest, who send
/// two and try again after 1, 3 and 7 s.
pub const FIRST_PACKETS: f64 = 4000.0;

/// First packets that a server answers at once: all of its clients may come back at the same moment.
pub const FIRST_PACKETS_AT_ONCE: f64 = 4000.0;

/// What a client wants of a connection to `peer`.
pub(crate) fn client(peer: IpAddr, traffic: &Traffic) -> Arc<TransportConfig> {
    let mut config = common(peer, traffic);
    config.receive_window(CONNECTION_WINDOW.into());
    config.max_concurrent_bidi_streams(VarInt::from_u32(0)); // only clients open streams
    config.keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(config)
}

/// What a server grants a `peer` that it does not know yet; [`crate::Connection::settle`] grants more.
pub(crate) fn server(peer: IpAddr, traffic: &Traffic, windows: Windows) -> Arc<TransportConfig> {
    let mut config = common(peer, traffic);
    config.receive_window(windows.receive.into());
    config.send_window(windows.send);
    config.max_concurrent_bidi_streams(windows.streams.into());
    Arc::new(config)
}

fn common(peer: IpAddr, traffic: &Traffic) -> TransportConfig {
    let mut config = TransportConfig::default();
    let peer = peer.to_canonical();
    let (mtu, most) = datagrams(&mut config, peer, traffic.mtu);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_EVERY.into());
    if u32::from(most) * ACK_EVERY > UNSETTLED_WINDOW {
        acks.max_ack_delay(Some(ACK_WITHIN));
    }
    config
        .stream_receive_window(if peer.is_loopback() { LOOPBACK_STREAM_WINDOW } else { STREAM_WINDOW }.into())
        .send_window(SEND_WINDOW)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(congestion(peer, traffic, mtu));
    config
}

/// Sets how large datagrams are. Returns the size at the start, and the most that is tried.
fn datagrams(config: &mut TransportConfig, peer: IpAddr, wanted: Option<u16>) -> (u16, u16) {
    if let Some(wanted) = wanted {
        let wanted = wanted.clamp(MTU_MIN, MTU_MAX);
        config.initial_mtu(wanted).mtu_discovery_config(None);
        return (wanted, wanted);
    }
    let link = link_mtu(peer).unwrap_or(MTU).clamp(MTU_MIN, MTU_MAX);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(link).black_hole_cooldown(MTU_AGAIN);
    if peer.is_loopback() {
        discovery.minimum_change(loopback_step(link));
    }
    config.initial_mtu(MTU_MIN).mtu_discovery_config(Some(discovery));
    (MTU_MIN, link)
}

/// The shortest step of the search on loopback. Three quarters of the way make quinn try the `link`'s own size
/// first and settle for the least where that fails: there is no path behind this link, or a relay that nobody
/// knows. Without any step it would ask for ever.
fn loopback_step(link: u16) -> u16 {
    (link.saturating_sub(MTU_MIN) / 4 * 3).max(MTU_STEP)
}

fn congestion(peer: IpAddr, traffic: &Traffic, mtu: u16) -> Arc<dyn ControllerFactory + Send + Sync> {
    let window = INITIAL_WINDOW.max(START_PACKETS * u64::from(mtu));
    match traffic.congestion {
        Congestion::Bulk => {
            let learnt = traffic.paths.recall(peer);
            let remembered = learnt.map(|path| Remembered { bandwidth: path.bandwidth, min_rtt: path.min_rtt });
            Arc::new(ftpq_congestion::Config { initial_window: window, remembered })
        }
        Congestion::Cubic => Arc::new(CubicConfig::default().initial_window(window).clone()),
        Congestion::Bbr => Arc::new(BbrConfig::default().initial_window(window).clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_asked_once_and_never_for_ever() {
        // quinn asks for the middle, unless that is too short a step: then for the end.
        let all = MTU_MAX - MTU_MIN;
        assert!((all / 2 + 1..=all).contains(&loopback_step(MTU_MAX)));
        assert!([MTU_MIN, MTU_MIN + 3, MTU_MIN + 30].map(loopback_step).iter().all(|step| *step >= MTU_STEP));
    }
}
