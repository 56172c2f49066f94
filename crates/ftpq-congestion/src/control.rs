//! The controller: what is counted at each packet, and what follows from it.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerMetrics},
};

use crate::{
    Config, Phase, Report,
    compete::Compete,
    cruise::Cruise,
    delivery::Delivery,
    filter::{MaxByRound, MinByTime},
    loss::Ledger,
    round::{Round, product, quotient, scale},
    startup::{Exit, Resume, Startup},
};

/// Congestion control for bulk transfer. Built by [`Config`]; read with [`Report::of`].
#[derive(Clone, Debug)]
pub struct Bulk {
    config: Arc<Config>,
    pub(crate) mtu: u64,
    pub(crate) window: u64,
    pub(crate) mode: Mode,
    pub(crate) cruise: Cruise,
    startup: Startup,
    pub(crate) model: Model,
    batch: Batch,
    /// Bytes, as far as quinn tells.
    in_flight: u64,
    lost: u64,
    /// The path was full at some time.
    filled: bool,
    /// Bytes below which the window does not fall on a path without a network.
    local: u64,
}

/// What is known of the path.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) delivery: Delivery,
    pub(crate) bandwidth: MaxByRound,
    best: u64,
    /// Bytes of the rounds in which the window was in use.
    pressed: u64,
    min_rtt: MinByTime,
    /// Mean difference of one round-trip time from the one before.
    pub(crate) jitter: Duration,
    last_rtt: Option<Duration>,
    /// Of the last batches of acknowledgements.
    recent: [Duration; BATCHES],
    pub(crate) round: Round,
    pub(crate) ledger: Ledger,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Startup,
    Cruise,
    Compete(Compete),
}

/// Acknowledgements that came together.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    bytes: u64,
    rtt: Option<Duration>,
    /// When the fastest packet was sent, and what was in flight then.
    sent: Option<Instant>,
    in_flight: u64,
}

/// Datagrams that may always be in flight: with fewer, a lost one is not noticed by those after it.
const WINDOW_MIN: u64 = 4;
/// Datagrams in the window below which it more than doubles: the pacer would let it less than double.
const EARLY: u64 = 512;
/// More is not worth its memory, and quinn does not pace what is over 4 GiB.
const WINDOW_MAX: u64 = 1 << 30;
/// How long a round-trip time counts as that of the empty path: BBR's ten seconds, or these rounds.
const MIN_RTT_SPAN: Duration = Duration::from_secs(10);
const MIN_RTT_ROUNDS: u32 = 100;
/// How much longer where somebody else fills the queue.
const COMPETING_SPANS: u32 = 6;
/// Batches of acknowledgements of which the fastest packet says something about the queue: HyStart's eight.
const BATCHES: usize = 8;
/// Below this round-trip time there is no network, only the kernel's buffers ...
const LOCAL_RTT: Duration = Duration::from_millis(1);
/// ... of which so much may be used, until something is lost. They are of 4 MiB.
const LOCAL_WINDOW: u64 = 2 * 1024 * 1024;
/// Until the first measurement.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);

impl Bulk {
    pub(crate) fn new(config: Arc<Config>, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu).max(1);
        let startup = Startup::new(config.remembered);
        let mut this = Self {
            config,
            mtu,
            window: 0,
            mode: Mode::Startup,
            cruise: Cruise::new(now),
            startup,
            model: Model::new(now),
            batch: Batch::default(),
            in_flight: 0,
            lost: 0,
            filled: false,
            local: LOCAL_WINDOW,
        };
        this.set_window(this.config.initial_window);
        this
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            bandwidth: self.model.bandwidth.get(),
            bandwidth_best: self.model.best,
            min_rtt: self.model.min_rtt.get(),
            delivered: self.model.delivery.delivered,
            pressed: self.model.pressed,
            lost: self.lost,
            random_loss: self.model.ledger.random(self.mtu).map(|share| (share * 1e6) as u32),
            filled: self.filled,
            phase: self.phase(),
        }
    }

    fn phase(&self) -> Phase {
        match self.mode {
            Mode::Startup if matches!(self.startup.resume, Resume::Unvalidated { .. }) => Phase::Resume,
            Mode::Startup => Phase::Startup,
            _ if self.cruise.draining() => Phase::Drain,
            Mode::Cruise => Phase::Cruise,
            Mode::Compete(_) => Phase::Compete,
        }
    }

    pub(crate) fn set_window(&mut self, window: u64) {
        let local = self.model.min_rtt.get().is_some_and(|rtt| rtt < LOCAL_RTT);
        let least = (WINDOW_MIN * self.mtu).max(if local { self.local } else { 0 });
        self.window = window.clamp(least, WINDOW_MAX);
    }

    /// What [`Controller::on_ack`] does, without quinn's estimator of round trips: that takes a connection to make.
    pub fn acknowledge(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent).max(Duration::from_micros(1));
        let found = self.model.delivery.on_ack(now, sent, bytes);
        self.model.ledger.delivered(bytes, found.is_some_and(|found| found.drained));
        self.model.round.delivered = self.model.round.delivered.saturating_add(bytes);
        self.model.round.on_packet(rtt, found);
        self.batch.bytes = self.batch.bytes.saturating_add(bytes);
        // Of packets that are acknowledged together, the last one did not wait for the acknowledgement.
        if self.batch.rtt.is_none_or(|least| rtt <= least) {
            self.batch.rtt = Some(rtt);
            self.batch.sent = Some(sent);
            self.batch.in_flight = found.map_or(0, |found| found.in_flight);
        }
    }

    /// What a batch of acknowledgements says while doubling.
    fn start_up(&mut self, now: Instant, rtt: Duration, before: u64) {
        // On a path without a network the pacer's clock is slower than the path: it would keep the window from
        // ever being seen full.
        self.set_window(self.window);
        if let Some(window) = self.startup.jump(now, rtt) {
            self.set_window(self.window.max(window));
            return;
        }
        if before.saturating_mul(2) < self.window {
            return; // more would not be used, and the queue is somebody else's
        }
        if self.startup.queue(self.model.recent_rtt(), self.model.min_rtt(), self.model.jitter) {
            return self.leave_startup(now, Exit::Queue);
        }
        if let Resume::Unvalidated { since, window } = self.startup.resume {
            if self.batch.sent.is_some_and(|sent| sent > since) {
                self.set_window(self.window.saturating_add(self.batch.bytes).min(window));
                if self.window >= window {
                    (self.mode, self.startup.resume) = (Mode::Cruise, Resume::Normal);
                    self.filled = true;
                }
            }
            return;
        }
        let early = self.window < EARLY * self.mtu;
        let growth = if early { self.batch.bytes.saturating_mul(3) / 2 } else { self.batch.bytes };
        self.set_window(self.window.saturating_add(growth));
    }

    fn leave_startup(&mut self, now: Instant, exit: Exit) {
        let min_rtt = self.model.min_rtt();
        let known = product(self.model.bandwidth.get(), min_rtt);
        // A packet that waited in the queue tells how much was before it, and so what the path holds.
        let seen = scale(self.batch.in_flight, min_rtt, self.model.rtt());
        let base = match exit {
            Exit::Queue => known.max(seen),
            Exit::Flat | Exit::Loss => known,
        };
        let base = base.min(self.window);
        self.mode = Mode::Cruise;
        self.startup.resume = Resume::Normal;
        self.filled = true;
        // What was sent so far may still turn out to be lost: that is answered herewith.
        self.cruise.answered(now);
        self.model.ledger = Ledger::default();
        if exit == Exit::Loss {
            self.cruise.yield_share(self.share(), self.mtu);
        }
        self.drain(base, base.saturating_add(self.share()), true);
    }

    fn end_round(&mut self, now: Instant) {
        if self.model.round.lost > 0 {
            self.local /= 4;
        }
        match self.mode {
            Mode::Startup => {
                if self.startup.end_round(&self.model.round) {
                    self.leave_startup(now, Exit::Flat);
                }
            }
            Mode::Cruise | Mode::Compete(_) => self.cruise_round(now),
        }
        self.model.next_round();
    }

    fn on_loss(&mut self, now: Instant, sent: Instant, bytes: u64) {
        if self.cruise.is_news(sent) {
            let drained = self.model.delivery.find(sent).is_some_and(|sent| sent.drained);
            self.model.ledger.lost(bytes, drained);
            self.model.round.lost = self.model.round.lost.saturating_add(bytes);
        }
        self.lost = self.lost.saturating_add(bytes);
        self.in_flight = self.in_flight.saturating_sub(bytes);
        match self.mode {
            Mode::Startup => {
                let delivered = self.model.delivery.delivered;
                if self.startup.overflow(&self.model.round, delivered, self.window, self.mtu) || bytes == 0 {
                    self.leave_startup(now, Exit::Loss);
                }
            }
            Mode::Cruise | Mode::Compete(_) => self.cruise_loss(now, sent, bytes == 0),
        }
    }

    /// The path has become much faster.
    pub(crate) fn start_again(&mut self) {
        self.mode = Mode::Startup;
        self.startup = Startup::default();
        self.cruise.restart();
    }

    /// Nothing came through for a long time: from the start again, with what is known of the delay.
    fn start_over(&mut self, now: Instant) {
        self.mode = Mode::Startup;
        self.startup = Startup::default();
        self.cruise = Cruise::new(now);
        self.model.bandwidth.keep(0);
        self.set_window(0);
    }
}

impl Model {
    fn new(now: Instant) -> Self {
        Self {
            delivery: Delivery::new(now),
            bandwidth: MaxByRound::default(),
            best: 0,
            pressed: 0,
            min_rtt: MinByTime::default(),
            jitter: Duration::ZERO,
            last_rtt: None,
            recent: [Duration::ZERO; BATCHES],
            round: Round::default(),
            ledger: Ledger::default(),
        }
    }

    pub(crate) fn min_rtt(&self) -> Duration {
        self.min_rtt.get().unwrap_or(RTT_UNKNOWN)
    }

    /// Of the fastest packet of the last batches; zero before there were enough.
    pub(crate) fn recent_rtt(&self) -> Duration {
        self.recent.into_iter().min().unwrap_or_default()
    }

    /// The latest round-trip time.
    pub(crate) fn rtt(&self) -> Duration {
        self.last_rtt.unwrap_or(RTT_UNKNOWN)
    }

    /// The time that the path takes for so many bytes.
    pub(crate) fn delay(&self, bytes: u64) -> Duration {
        quotient(bytes, self.bandwidth.get())
    }

    /// The empty path's round-trip time, found anew.
    pub(crate) fn path_is(&mut self, now: Instant, rtt: Duration) {
        self.min_rtt = MinByTime::default();
        self.min_rtt.insert(now, rtt, MIN_RTT_SPAN);
    }

    fn on_rtt(&mut self, now: Instant, rtt: Duration, competing: bool) {
        let span = MIN_RTT_SPAN.max(self.min_rtt().saturating_mul(MIN_RTT_ROUNDS));
        // Those who fill the queue keep it from being seen empty.
        self.min_rtt.insert(now, rtt, if competing { span * COMPETING_SPANS } else { span });
        self.recent.rotate_right(1);
        if let Some(first) = self.recent.first_mut() {
            *first = rtt;
        }
        if let Some(last) = self.last_rtt {
            self.jitter = (self.jitter.saturating_mul(15).saturating_add(last.abs_diff(rtt))) / 16;
        }
        self.last_rtt = Some(rtt);
    }

    fn on_rate(&mut self, rate: u64, limited: bool) {
        self.round.rate = self.round.rate.max(rate);
        if !limited || rate > self.bandwidth.get() {
            self.bandwidth.insert(rate);
            self.best = self.best.max(rate);
        }
    }

    fn next_round(&mut self) {
        if self.round.filled {
            self.pressed = self.pressed.saturating_add(self.round.delivered);
            self.bandwidth.next_round(); // others say nothing of the path
        }
        self.round = Round::default();
    }
}

impl Controller for Bulk {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        self.in_flight = self.in_flight.saturating_add(bytes);
        let rtt = self.model.min_rtt();
        let (window, drained) = (self.window_in_force(), self.cruise.draining());
        self.model.delivery.on_sent(now, rtt, window, self.in_flight, drained);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.acknowledge(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        self.in_flight = in_flight;
        let Some(rtt) = self.batch.rtt else { return };
        self.model.on_rtt(now, rtt, matches!(self.mode, Mode::Compete(_)));
        let min_rtt = self.model.min_rtt();
        let before = in_flight.saturating_add(self.batch.bytes);
        // The pacer holds back up to ten datagrams.
        let slack = (self.window / 8).max(10 * self.mtu).min(self.window / 2);
        self.model.round.filled |= !app_limited && before.saturating_add(slack) >= self.window_in_force();
        let sample = self.model.delivery.on_end_acks(now, in_flight, app_limited, min_rtt);
        if let Some(rate) = sample.and_then(|sample| sample.rate) {
            self.model.on_rate(rate, sample.is_some_and(|sample| sample.limited));
        }
        if matches!(self.mode, Mode::Startup) {
            self.start_up(now, rtt, before);
        }
        if sample.is_some_and(|sample| sample.round_over) {
            self.end_round(now);
        }
        if self.cruise.draining() {
            self.keep_pace(in_flight);
        }
        self.batch = Batch::default();
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.on_loss(now, sent, lost_bytes);
        if is_persistent_congestion {
            self.start_over(now);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu).max(1);
        self.set_window(self.window);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = Some(self.model.bandwidth.get().saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.config.initial_window.clamp(WINDOW_MIN * self.mtu, WINDOW_MAX)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Remembered;

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Wait(u64),
        Sent(u64),
        Acked { ago: u64, bytes: u64 },
        EndAcks { in_flight: u64, app_limited: bool },
        Lost { ago: u64, bytes: u64, persistent: bool },
        Mtu(u16),
    }

    fn call() -> impl Strategy<Value = Call> {
        let bytes = prop_oneof![0..100_000u64, Just(u64::MAX), any::<u64>()];
        let ago = prop_oneof![0..1_000_000u64, 0..10_000_000_000u64];
        prop_oneof![
            (0..100_000_000u64).prop_map(Call::Wait),
            bytes.clone().prop_map(Call::Sent),
            (ago.clone(), bytes.clone()).prop_map(|(ago, bytes)| Call::Acked { ago, bytes }),
            (bytes.clone(), any::<bool>())
                .prop_map(|(in_flight, app_limited)| Call::EndAcks { in_flight, app_limited }),
            (ago, bytes, prop::bool::weighted(0.05)).prop_map(|(ago, bytes, persistent)| Call::Lost {
                ago,
                bytes,
                persistent
            }),
            any::<u16>().prop_map(Call::Mtu),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_called_the_window_stays_within_bounds(
            calls in prop::collection::vec(call(), 0..400),
            remembered in prop::option::of((any::<u64>(), any::<u32>())),
            initial_window in any::<u64>(),
        ) {
            let remembered = remembered.map(|(bandwidth, micros)| Remembered {
                bandwidth,
                min_rtt: Duration::from_micros(micros.into()),
            });
            let mut now = Instant::now() + Duration::from_secs(100);
            let mut bulk = Bulk::new(Arc::new(Config { initial_window, remembered }), now, 1200);
            for call in calls {
                let before = |ago| now.checked_sub(Duration::from_nanos(ago)).unwrap_or(now);
                match call {
                    Call::Wait(nanos) => now += Duration::from_nanos(nanos),
                    Call::Sent(bytes) => bulk.on_sent(now, bytes, 0),
                    Call::Acked { ago, bytes } => bulk.acknowledge(now, before(ago), bytes),
                    Call::EndAcks { in_flight, app_limited } => bulk.on_end_acks(now, in_flight, app_limited, None),
                    Call::Lost { ago, bytes, persistent } => {
                        bulk.on_congestion_event(now, before(ago), persistent, bytes);
                    }
                    Call::Mtu(mtu) => bulk.on_mtu_update(mtu),
                }
                prop_assert!(bulk.window() >= WINDOW_MIN * bulk.mtu);
                prop_assert!(bulk.window() <= WINDOW_MAX);
                let _ = bulk.report();
            }
        }
    }
}
