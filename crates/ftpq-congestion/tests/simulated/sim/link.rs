//! The bottleneck: a rate, a drop-tail queue, a delay; loss and jitter from a seeded generator.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;

/// Bytes that IPv4 and UDP add to each datagram.
const HEADERS: usize = 28;

/// A path: data one way through the bottleneck, acknowledgements back without a queue.
#[derive(Clone)]
pub(crate) struct Link {
    /// Bits per second.
    pub(crate) rate: f64,
    /// Of the empty path, there and back.
    pub(crate) rtt: Duration,
    /// Bytes of the queue, in parts of `rate * rtt`.
    pub(crate) buffer: f64,
    /// Probability with which a packet is lost, each way.
    pub(crate) loss: f64,
    /// Added to the delay of a packet, evenly distributed; order is kept.
    pub(crate) jitter: Duration,
    /// What changes when.
    pub(crate) changes: Vec<(Duration, Change)>,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// Bits per second.
    Rate(f64),
    /// Of the empty path.
    Rtt(Duration),
    /// Probability.
    Loss(f64),
}

impl Link {
    /// Of `mbit` and `millis`, with a queue of one bandwidth-delay product.
    pub(crate) fn new(mbit: f64, millis: f64) -> Self {
        let rtt = Duration::from_secs_f64(millis / 1e3);
        let (jitter, changes) = (Duration::ZERO, Vec::new());
        Self { rate: mbit * 1e6, rtt, buffer: 1.0, loss: 0.0, jitter, changes, seed: 1 }
    }

    pub(crate) fn loss(mut self, percent: f64) -> Self {
        self.loss = percent / 100.0;
        self
    }

    pub(crate) fn buffer(mut self, parts: f64) -> Self {
        self.buffer = parts;
        self
    }

    pub(crate) fn jitter(mut self, millis: f64) -> Self {
        self.jitter = Duration::from_secs_f64(millis / 1e3);
        self
    }

    pub(crate) fn change(mut self, seconds: f64, change: Change) -> Self {
        self.changes.push((Duration::from_secs_f64(seconds), change));
        self
    }

    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Bytes in flight that fill the empty path.
    pub(crate) fn bdp(&self) -> f64 {
        self.rate / 8.0 * self.rtt.as_secs_f64()
    }
}

pub(super) enum Fate {
    Lost,
    Dropped,
    Queued,
    /// Queued as the only one; departs then.
    First(Instant),
}

pub(super) struct State {
    link: Link,
    limit: usize,
    queue: VecDeque<(usize, BytesMut)>,
    bytes: usize,
    pub(super) queue_max: u64,
    last: [Option<Instant>; 2],
    random: u64,
}

impl State {
    pub(super) fn new(link: Link) -> Self {
        // No router holds less than some packets.
        let limit = ((link.bdp() * link.buffer) as usize).max(10 * 1500);
        let random = link.seed;
        Self { link, limit, queue: VecDeque::new(), bytes: 0, queue_max: 0, last: [None; 2], random }
    }

    pub(super) fn moments(&self) -> Vec<Duration> {
        self.link.changes.iter().map(|(at, _)| *at).collect()
    }

    pub(super) fn change(&mut self, index: usize) {
        match self.link.changes[index].1 {
            Change::Rate(rate) => self.link.rate = rate,
            Change::Rtt(rtt) => self.link.rtt = rtt,
            Change::Loss(loss) => self.link.loss = loss,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.bytes
    }

    pub(super) fn offer(&mut self, now: Instant, flow: usize, packet: BytesMut) -> Fate {
        if self.random() < self.link.loss {
            return Fate::Lost;
        }
        let size = packet.len() + HEADERS;
        if self.bytes + size > self.limit {
            return Fate::Dropped;
        }
        self.bytes += size;
        self.queue_max = self.queue_max.max(self.bytes as u64);
        self.queue.push_back((flow, packet));
        if self.queue.len() > 1 { Fate::Queued } else { Fate::First(now + self.serialise(size)) }
    }

    /// The packet that has been serialised, and when it arrives.
    pub(super) fn depart(&mut self, now: Instant) -> (usize, BytesMut, Instant) {
        let (flow, packet) = self.queue.pop_front().unwrap();
        self.bytes -= packet.len() + HEADERS;
        (flow, packet, self.travel(now, 0))
    }

    pub(super) fn next_departure(&self, now: Instant) -> Option<Instant> {
        self.queue.front().map(|(_, packet)| now + self.serialise(packet.len() + HEADERS))
    }

    /// When a packet of the receiver arrives, if it does.
    pub(super) fn back(&mut self, now: Instant) -> Option<Instant> {
        (self.random() >= self.link.loss).then(|| self.travel(now, 1))
    }

    fn serialise(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.link.rate)
    }

    fn travel(&mut self, now: Instant, way: usize) -> Instant {
        let jitter = self.link.jitter.mul_f64(self.random() / 2.0);
        let arrives = now + self.link.rtt / 2 + jitter;
        let arrives = self.last[way].map_or(arrives, |last| last.max(arrives));
        self.last[way] = Some(arrives);
        arrives
    }

    /// SplitMix64, as a fraction.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
