//! Congestion control for bulk transfer on bad links.
//!
//! What Cubic and NewReno take for congestion is loss, and a link that loses every hundredth packet
//! starves them. Here the signal is the queue: the round-trip time of a round's fastest packet,
//! beside that of the empty path. The window holds what fills the empty path and a small queue;
//! loss lowers it only where a smaller window would lose less. Against those who fill every queue
//! until it overflows, and only against them, it does as they do.
//!
//! quinn paces at 1.25 windows per round trip, whatever the controller, so the window is the only
//! control there is. `docs/congestion.md` says how it works and what it was measured to do.

mod compete;
mod control;
mod cruise;
mod delivery;
mod filter;
mod loss;
mod round;
mod startup;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::congestion::{Controller, ControllerFactory};

pub use control::Bulk;

/// How a connection starts. Builds a [`Bulk`] for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Bytes that may be in flight before anything was acknowledged.
    pub initial_window: u64,
    /// What an earlier connection learnt of the same path.
    pub remembered: Option<Remembered>,
}

/// Of a path that was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Bytes per second.
    pub bandwidth: u64,
    /// Of the empty path.
    pub min_rtt: Duration,
}

/// What a connection has learnt of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes per second that the path delivered in its best round trip of the last ten in which the window
    /// was in use. 0 before the first measurement.
    pub bandwidth: u64,
    /// Bytes per second that the path delivered in its best round trip ever.
    pub bandwidth_best: u64,
    /// Of the empty path, as far as it was seen empty lately. None before the first packet was acknowledged.
    pub min_rtt: Option<Duration>,
    /// Bytes acknowledged.
    pub delivered: u64,
    /// Those of them that were acknowledged in round trips in which the window was in use: it, and so the path, was
    /// what held them back, and not what there was to send.
    pub pressed: u64,
    /// Bytes lost.
    pub lost: u64,
    /// Of the bytes sent while the queue was empty, the share that was lost, in millionths: what the
    /// link loses by itself. None before enough was sent.
    pub random_loss: Option<u32>,
    /// Whether the path was full at some time, so that [`Self::bandwidth`] is that of the path and not what
    /// the application had to send.
    pub filled: bool,
    /// What it is doing.
    pub phase: Phase,
}

/// What a controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Doubles its window in each round trip until a queue shows.
    Startup,
    /// Started from a remembered rate, and waits for the first acknowledgements of what it sent.
    Resume,
    /// Fills the path and a small queue.
    Cruise,
    /// Lets its own queue drain, to see the empty path.
    Drain,
    /// Shares a queue with those who fill it.
    Compete,
}

impl Default for Config {
    fn default() -> Self {
        Self { initial_window: INITIAL_WINDOW, remembered: None }
    }
}

impl ControllerFactory for Config {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bulk::new(self, now, current_mtu))
    }
}

impl Report {
    /// What `controller` has learnt; None when it is not one of ours.
    #[must_use]
    pub fn of(controller: &dyn Controller) -> Option<Self> {
        let bulk = controller.clone_box().into_any().downcast::<Bulk>().ok()?;
        Some(bulk.report())
    }

    /// What to start from next time; None when this connection never filled the path.
    #[must_use]
    pub fn remember(&self) -> Option<Remembered> {
        let min_rtt = self.min_rtt?;
        (self.filled && self.bandwidth > 0).then_some(Remembered { bandwidth: self.bandwidth, min_rtt })
    }
}

/// 48 datagrams of 1,452 bytes: up to two round trips faster than the ten of RFC 9002. quinn's pacer spreads
/// them over the first round trip.
pub const INITIAL_WINDOW: u64 = 48 * 1452;
