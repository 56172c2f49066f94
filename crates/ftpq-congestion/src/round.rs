//! What was seen in one round trip.

use std::time::Duration;

use crate::delivery::Sent;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Of the fastest packet.
    pub(crate) rtt: Option<Duration>,
    /// The window in force when it was sent.
    pub(crate) window: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// The window was in use, all of it or nearly.
    pub(crate) filled: bool,
    /// Bytes per second, the best.
    pub(crate) rate: u64,
}

impl Round {
    pub(crate) fn on_packet(&mut self, rtt: Duration, sent: Option<Sent>) {
        let Some(sent) = sent else { return };
        if self.rtt.is_none_or(|least| rtt < least) {
            (self.rtt, self.window) = (Some(rtt), sent.window);
        }
    }

    /// Share of the bytes that were lost.
    pub(crate) fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost.saturating_add(self.delivered)).max(1) as f64
    }
}

/// So many bytes, scaled by the ratio of two times.
pub(crate) fn scale(bytes: u64, by: Duration, over: Duration) -> u64 {
    (bytes as f64 * by.as_secs_f64() / over.as_secs_f64().max(1e-9)) as u64
}

/// Bytes that a rate delivers in a time.
pub(crate) fn product(rate: u64, time: Duration) -> u64 {
    (rate as f64 * time.as_secs_f64()) as u64
}

/// The time that a rate takes for so many bytes.
pub(crate) fn quotient(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64((bytes as f64 / rate.max(1) as f64).min(60.0))
}
