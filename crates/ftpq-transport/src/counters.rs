//! What a connection has counted: a plain snapshot, for whoever wants to know what limited it.

use std::time::Duration;

use ftpq_congestion::Report;

/// What a connection has counted since its start, and how its path is now. Packets and bytes are those of QUIC, with
/// headers, acknowledgements and all that was sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Bytes in them.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets sent that were lost on the way. What this side receives, the other side counts.
    pub packets_lost: u64,
    /// Losses to which the congestion control had to answer.
    pub congestion_events: u64,
    /// How often large packets seemed to vanish, and smaller ones were sent from then on.
    pub black_holes: u64,
    /// Bytes of UDP payload that a packet may have now.
    pub mtu: u16,
    /// The round trip now, on average.
    pub rtt: Duration,
    /// The shortest round trip that was seen.
    pub min_rtt: Duration,
    /// Bytes that may be in flight now.
    pub window: u64,
    /// Whether the other side is on this machine.
    pub is_local: bool,
    /// What ftpq's own congestion control has learnt of the path. `None` with another one.
    pub path: Option<Path>,
}

/// What ftpq's own congestion control has learnt of a path in the direction in which this side sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Bytes a second that it delivered at best in the last round trips. 0 before the first measurement.
    pub bandwidth: u64,
    /// Of the empty path. `None` before the first acknowledgement.
    pub min_rtt: Option<Duration>,
    /// Whether it was full at some time: otherwise it may carry more than [`Self::bandwidth`].
    pub filled: bool,
    /// Bytes that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that the congestion window held back: the others came as there was something to send.
    pub pressed: u64,
}

impl Counters {
    pub(crate) fn new(stats: &quinn::ConnectionStats, report: Option<Report>, is_local: bool) -> Self {
        let quinn::ConnectionStats { udp_tx, udp_rx, path, .. } = stats;
        Self {
            datagrams_sent: udp_tx.datagrams,
            bytes_sent: udp_tx.bytes,
            datagrams_received: udp_rx.datagrams,
            bytes_received: udp_rx.bytes,
            packets_sent: path.sent_packets,
            packets_lost: path.lost_packets,
            congestion_events: path.congestion_events,
            black_holes: path.black_holes_detected,
            mtu: path.current_mtu,
            rtt: path.rtt,
            min_rtt: path.min_rtt,
            window: path.cwnd,
            is_local,
            path: report.map(|report| Path {
                bandwidth: report.bandwidth,
                min_rtt: report.min_rtt,
                filled: report.filled,
                acknowledged: report.delivered,
                pressed: report.pressed,
            }),
        }
    }

    /// What was counted since `earlier`; all of it, where that is of another connection. What is so now stays.
    #[must_use]
    pub fn since(self, earlier: &Self) -> Self {
        let same =
            self.datagrams_sent >= earlier.datagrams_sent && self.datagrams_received >= earlier.datagrams_received;
        let Some(earlier) = same.then_some(earlier) else { return self };
        Self {
            datagrams_sent: self.datagrams_sent - earlier.datagrams_sent,
            bytes_sent: self.bytes_sent.saturating_sub(earlier.bytes_sent),
            datagrams_received: self.datagrams_received - earlier.datagrams_received,
            bytes_received: self.bytes_received.saturating_sub(earlier.bytes_received),
            packets_sent: self.packets_sent.saturating_sub(earlier.packets_sent),
            packets_lost: self.packets_lost.saturating_sub(earlier.packets_lost),
            congestion_events: self.congestion_events.saturating_sub(earlier.congestion_events),
            black_holes: self.black_holes.saturating_sub(earlier.black_holes),
            path: self.path.map(|path| path.since(earlier.path.unwrap_or_default())),
            ..self
        }
    }
}

impl Path {
    fn since(self, earlier: Self) -> Self {
        Self {
            acknowledged: self.acknowledged.saturating_sub(earlier.acknowledged),
            pressed: self.pressed.saturating_sub(earlier.pressed),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_in_between_is_told_from_what_is_so_now() {
        let path = |acknowledged| Path { bandwidth: 7, acknowledged, pressed: acknowledged / 2, ..Path::default() };
        let before = Counters {
            datagrams_sent: 10,
            bytes_sent: 1000,
            packets_lost: 1,
            mtu: 1200,
            path: Some(path(800)),
            ..Counters::default()
        };
        let after = Counters {
            datagrams_sent: 15,
            bytes_sent: 1700,
            packets_lost: 3,
            mtu: 1452,
            path: Some(path(1400)),
            ..before
        };
        let between = Counters { datagrams_sent: 5, bytes_sent: 700, packets_lost: 2, path: Some(path(600)), ..after };
        assert_eq!(after.since(&before), between);
        // A new connection begins at nothing.
        assert_eq!(before.since(&after), before);
    }
}
