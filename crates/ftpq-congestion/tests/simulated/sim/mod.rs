//! A network on a clock of its own: real connections of quinn-proto at its ends, one bottleneck between
//! them. Same seed, same result; no socket, no thread, no real time.
//!
//! What is real: handshake, pacer, window check, loss detection, probes, delayed ACKs. What is
//! simulated: the link, its drop-tail queue, random loss, jitter, and timers that fire on whole
//! milliseconds, as tokio's do.

#![allow(dead_code)] // the example and the tests take what each needs

mod end;
mod link;
pub(crate) mod scenarios;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use self::end::{Ends, Side};
pub(crate) use self::{
    end::{Algorithm, App},
    link::{Change, Link},
};

/// One connection that sends.
#[derive(Clone)]
pub(crate) struct Flow {
    pub(crate) algorithm: Algorithm,
    pub(crate) start: Duration,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    pub(crate) app: App,
}

impl Flow {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, start: Duration::ZERO, bytes: u64::MAX, app: App::Bulk }
    }

    pub(crate) fn of(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    pub(crate) fn from(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }
}

/// What became of a flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Result {
    /// From its start to the last byte read.
    pub(crate) took: Option<Duration>,
    /// Bytes of the file that were read, in each [`SLICE`] of the simulation.
    pub(crate) slices: Vec<u64>,
    /// Packets that were sent, were lost on the way, and found the queue full.
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) dropped: u64,
    pub(crate) report: Option<ftpq_congestion::Report>,
}

impl Result {
    /// Bytes read between two moments.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> u64 {
        let index = |at: Duration| (at.as_nanos() / SLICE.as_nanos()) as usize;
        self.slices.iter().take(index(to)).skip(index(from)).sum()
    }

    /// Share of the packets that the queue dropped.
    pub(crate) fn dropped_share(&self) -> f64 {
        self.dropped as f64 / self.packets.max(1) as f64
    }
}

/// What became of everything.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) flows: Vec<Result>,
    /// Of the queue, in bytes, over the slices of the simulation.
    pub(crate) queue: Vec<f64>,
    pub(crate) queue_max: u64,
    pub(crate) end: Duration,
}

impl Outcome {
    /// Mbit/s of the first flow's file, over all of its time.
    pub(crate) fn goodput(&self) -> f64 {
        let flow = &self.flows[0];
        let took = flow.took.unwrap_or(self.end).as_secs_f64();
        flow.slices.iter().sum::<u64>() as f64 * 8e-6 / took
    }

    /// Mbit/s of a flow between two moments.
    pub(crate) fn rate(&self, flow: usize, from: Duration, to: Duration) -> f64 {
        self.flows[flow].between(from, to) as f64 * 8e-6 / (to - from).as_secs_f64()
    }

    /// Share of the first flow in what all got between two moments.
    pub(crate) fn share(&self, from: Duration, to: Duration) -> f64 {
        let all: u64 = self.flows.iter().map(|flow| flow.between(from, to)).sum();
        self.flows[0].between(from, to) as f64 / all.max(1) as f64
    }

    /// Mean bytes in the queue between two moments.
    pub(crate) fn queue_between(&self, from: Duration, to: Duration) -> f64 {
        let index = |at: Duration| (at.as_nanos() / SLICE.as_nanos()) as usize;
        let part: Vec<f64> = self.queue.iter().copied().take(index(to)).skip(index(from)).collect();
        part.iter().sum::<f64>() / part.len().max(1) as f64
    }

    pub(crate) fn queue_mean(&self) -> f64 {
        self.queue.iter().sum::<f64>() / self.queue.len().max(1) as f64
    }
}

/// What results are counted in.
pub(crate) const SLICE: Duration = Duration::from_millis(10);

/// Runs `flows` over `link` until all are done, or until `limit`.
pub(crate) fn run(link: Link, flows: &[Flow], limit: Duration) -> Outcome {
    Simulation::new(link, flows).run(limit)
}

enum Event {
    Start(usize),
    Arrive { flow: usize, to: Side, packet: BytesMut },
    Depart,
    Timer { flow: usize, side: Side },
    Write(usize),
    Change(usize),
}

struct Queued(Instant, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Simulation {
    base: Instant,
    now: Instant,
    sequence: u64,
    events: BinaryHeap<Reverse<Queued>>,
    link: link::State,
    ends: Vec<Ends>,
    results: Vec<Result>,
    queue: Vec<f64>,
    queued_until: Instant,
}

impl Simulation {
    fn new(link: Link, flows: &[Flow]) -> Self {
        let base = Instant::now();
        let mut this = Self {
            base,
            now: base,
            sequence: 0,
            events: BinaryHeap::new(),
            ends: flows.iter().enumerate().map(|(index, flow)| Ends::new(index, flow)).collect(),
            results: vec![Result::default(); flows.len()],
            queue: Vec::new(),
            queued_until: base,
            link: link::State::new(link),
        };
        for (index, flow) in flows.iter().enumerate() {
            this.at(base + flow.start, Event::Start(index));
        }
        for (index, at) in this.link.moments().into_iter().enumerate() {
            this.at(base + at, Event::Change(index));
        }
        this
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Queued(at, self.sequence, event)));
    }

    fn run(mut self, limit: Duration) -> Outcome {
        while let Some(Reverse(Queued(at, _, event))) = self.events.pop() {
            if at - self.base > limit || self.results.iter().all(|result| result.took.is_some()) {
                break;
            }
            self.now = at;
            self.measure();
            self.handle(event);
        }
        for (result, ends) in self.results.iter_mut().zip(&self.ends) {
            result.report = ends.report();
        }
        let end = (self.now - self.base).min(limit);
        Outcome { flows: self.results, queue: self.queue, queue_max: self.link.queue_max, end }
    }

    /// Notes the queue at the end of each slice that has passed.
    fn measure(&mut self) {
        while self.queued_until + SLICE <= self.now {
            self.queued_until += SLICE;
            self.queue.push(self.link.queued() as f64);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(flow) => {
                self.ends[flow].start(self.now);
                self.drive(flow, Side::Sender);
            }
            Event::Arrive { flow, to, packet } => {
                self.ends[flow].receive(self.now, to, packet);
                self.drive(flow, to);
            }
            Event::Timer { flow, side } => {
                if self.ends[flow].timeout(self.now, side) {
                    self.drive(flow, side);
                }
            }
            Event::Write(flow) => self.drive(flow, Side::Sender),
            Event::Change(index) => self.link.change(index),
            Event::Depart => {
                let (flow, packet, arrives) = self.link.depart(self.now);
                if let Some(next) = self.link.next_departure(self.now) {
                    self.at(next, Event::Depart);
                }
                self.at(arrives, Event::Arrive { flow, to: Side::Receiver, packet });
            }
        }
    }

    /// Lets one end of a flow do all it can do at this moment.
    fn drive(&mut self, flow: usize, side: Side) {
        let since = self.now - self.base;
        let read = self.ends[flow].pump(since, side);
        let result = &mut self.results[flow];
        let slice = (since.as_nanos() / SLICE.as_nanos()) as usize;
        if result.slices.len() <= slice {
            result.slices.resize(slice + 1, 0);
        }
        result.slices[slice] += read;
        if self.ends[flow].done() && result.took.is_none() {
            result.took = Some(since - self.ends[flow].flow.start);
        }
        for packet in self.ends[flow].transmit(self.now, side) {
            self.send(flow, side, packet);
        }
        if let Some(deadline) = self.ends[flow].deadline(side) {
            let micros = (deadline.saturating_duration_since(self.base)).as_nanos().div_ceil(1_000_000);
            let deadline = (self.base + Duration::from_millis(micros as u64)).max(self.now);
            self.at(deadline, Event::Timer { flow, side });
        }
        if side == Side::Sender
            && let Some(next) = self.ends[flow].next_write(since)
        {
            self.at(self.base + next, Event::Write(flow));
        }
    }

    fn send(&mut self, flow: usize, side: Side, packet: BytesMut) {
        if side == Side::Receiver {
            if let Some(arrives) = self.link.back(self.now) {
                self.at(arrives, Event::Arrive { flow, to: Side::Sender, packet });
            }
            return;
        }
        self.results[flow].packets += 1;
        match self.link.offer(self.now, flow, packet) {
            link::Fate::Lost => self.results[flow].lost += 1,
            link::Fate::Dropped => self.results[flow].dropped += 1,
            link::Fate::Queued => {}
            link::Fate::First(departs) => self.at(departs, Event::Depart),
        }
    }
}
