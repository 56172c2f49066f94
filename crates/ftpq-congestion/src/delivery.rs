//! How fast the path delivers: samples as in draft-cheng-iccrg-delivery-rate-estimation.
//!
//! With each packet is kept what had been delivered when it was sent; its acknowledgement then says
//! how much was delivered in between. The longer of the two spans, of sending and of
//! acknowledging, is divided by, so that acknowledgements in bunches do not look like speed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What was so when a packet was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) window: u64,
    pub(crate) in_flight: u64,
    /// While the queue was being drained.
    pub(crate) drained: bool,
    /// The application did not fill the window.
    limited: bool,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Bytes per second; None when the span was too short to say.
    pub(crate) rate: Option<u64>,
    /// The application did not fill the window: the path may be faster.
    pub(crate) limited: bool,
    /// All that was in flight at the last such moment has been delivered or lost.
    pub(crate) round_over: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    sent: VecDeque<Sent>,
    /// The newest packet of the acknowledgements that are being read.
    newest: Option<Sent>,
    round_ends: u64,
    limited_until: u64,
    idle: bool,
}

/// Packets sent within so small a part of a round trip share what is kept of them.
const GRAINS: u32 = 512;

/// Several round trips' worth of grains; more is never kept.
const SENT_MAX: usize = 8 * GRAINS as usize;

impl Delivery {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            sent: VecDeque::new(),
            newest: None,
            round_ends: 0,
            limited_until: 0,
            idle: true,
        }
    }

    pub(crate) fn on_sent(&mut self, now: Instant, rtt: Duration, window: u64, in_flight: u64, drained: bool) {
        if self.idle {
            // Nothing was on its way: a silence is not slowness.
            (self.first_sent, self.delivered_at, self.idle) = (now, now, false);
        }
        let shares = |last: &Sent| now < last.at + rtt / GRAINS && last.drained == drained;
        if self.sent.back().is_some_and(|last| shares(last) || last.at >= now) {
            return;
        }
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        let limited = self.delivered < self.limited_until;
        let (delivered, delivered_at, first_sent) = (self.delivered, self.delivered_at, self.first_sent);
        self.sent.push_back(Sent { at: now, window, in_flight, drained, limited, delivered, delivered_at, first_sent });
    }

    /// Counts a packet; what was so when it was sent.
    pub(crate) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) -> Option<Sent> {
        self.delivered = self.delivered.saturating_add(bytes);
        self.delivered_at = now;
        let found = self.find(sent)?;
        if self.newest.is_none_or(|newest| newest.at < found.at) {
            self.newest = Some(found);
        }
        Some(found)
    }

    /// What was so when the packet of that moment was sent.
    pub(crate) fn find(&self, sent: Instant) -> Option<Sent> {
        let after = self.sent.partition_point(|packet| packet.at <= sent);
        self.sent.get(after.checked_sub(1)?).copied()
    }

    /// The measurement of a batch of acknowledgements; `rtt` is the longest that still matters.
    pub(crate) fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        min_rtt: Duration,
    ) -> Option<Sample> {
        if app_limited {
            self.limited_until = self.delivered.saturating_add(in_flight).max(1);
        }
        self.idle = in_flight == 0;
        let newest = self.newest.take()?;
        let sending = newest.at.saturating_duration_since(newest.first_sent);
        let acknowledging = now.saturating_duration_since(newest.delivered_at);
        let span = sending.max(acknowledging);
        let bytes = self.delivered.saturating_sub(newest.delivered);
        let rate = (span >= min_rtt && !span.is_zero()).then(|| (bytes as f64 / span.as_secs_f64()) as u64);
        self.first_sent = self.first_sent.max(newest.at);
        let round_over = newest.delivered >= self.round_ends;
        if round_over {
            self.round_ends = self.delivered;
        }
        self.forget(newest.at, now.saturating_duration_since(newest.at));
        Some(Sample { rate, limited: newest.limited, round_over })
    }

    /// What was sent a round trip before the newest acknowledged packet is acknowledged or lost.
    fn forget(&mut self, newest: Instant, rtt: Duration) {
        while self.sent.get(1).is_some_and(|next| next.at + rtt < newest) {
            self.sent.pop_front();
        }
    }
}
