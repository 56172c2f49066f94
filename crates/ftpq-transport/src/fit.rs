//! Windows that follow what the path holds: a long fat one needs more than a connection is granted at first.
//!
//! The traffic itself drives it: with each piece of a body that is sent or received, now and then, it is looked at how
//! much arrives in a round trip and how much may be in flight. What is used up to a half grows before it limits
//! anything. An idle connection costs nothing.
//!
//! Windows grow and do not shrink: QUIC cannot take back what it let the peer send, and what was handed over for
//! sending stays until it was acknowledged.

use std::{
    fmt,
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::tuning::{
    CONNECTION_WINDOW, CONNECTION_WINDOW_MAX, FIT_EVERY_MAX, FIT_EVERY_MIN, FIT_GROWTH, FIT_RTT_MIN, FIT_STEP,
    SEND_WINDOW, SEND_WINDOW_MAX, Windows,
};

/// Whether windows may grow from the first to the second.
pub(crate) type Grant = Box<dyn Fn(Windows, Windows) -> bool + Send + Sync>;

/// Fits the windows of one connection.
pub(crate) struct Fit {
    connection: quinn::Connection,
    began: Instant,
    /// When to look again, in microseconds from the beginning.
    next: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// `None` while they stay as they are.
    windows: Option<Windows>,
    grant: Option<Grant>,
    /// When it was looked the last two times, and what had arrived by then. From the first of them on it is a round
    /// trip: in parts of one, bytes come in bursts.
    looks: [(Duration, u64); 2],
}

/// What was seen of a connection.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Bytes that arrived.
    received: u64,
    /// In so long.
    over: Duration,
    /// A round trip, without the queues of either end.
    rtt: Duration,
    /// Bytes that the congestion control lets be in flight.
    window: u64,
}

impl Fit {
    /// A client decides for itself; what a server may grant is said by [`Self::ask`] and [`Self::settle`].
    pub(crate) fn new(connection: quinn::Connection, is_client: bool) -> Self {
        let at_first = Windows { receive: CONNECTION_WINDOW, send: SEND_WINDOW, streams: 0 };
        let windows = (is_client && !is_local(&connection)).then_some(at_first);
        let grant = is_client.then(|| Box::new(|_, _| true) as Grant);
        let state = Mutex::new(State { windows, grant, looks: Default::default() });
        Self { connection, began: Instant::now(), next: AtomicU64::new(0), state }
    }

    /// The windows are these from now on.
    pub(crate) fn settle(&self, windows: Windows) {
        self.connection.set_receive_window(windows.receive.into());
        self.connection.set_send_window(windows.send);
        // On loopback larger ones fall out of the processor's cache.
        self.lock().windows = Some(windows).filter(|_| !is_local(&self.connection));
    }

    /// Before windows grow, `grant` is asked.
    pub(crate) fn ask(&self, grant: Grant) {
        self.lock().grant = Some(grant);
    }

    /// Looks whether it is time for larger windows. Called with each piece of a body: it is quick.
    pub(crate) fn look(&self) {
        let now = self.began.elapsed();
        if (now.as_micros() as u64) < self.next.load(Ordering::Relaxed) {
            return;
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody else is at it.
            Err(TryLockError::WouldBlock) => return,
        };
        let stats = self.connection.stats();
        // Queues, also those before a processor that is busy, make a round trip longer, and hold nothing for the path.
        let rtt = stats.path.rtt.min(stats.path.min_rtt * 2);
        let next = now + (rtt / 2).clamp(FIT_EVERY_MIN, FIT_EVERY_MAX);
        self.next.store(next.as_micros() as u64, Ordering::Relaxed);
        let [(since, before), last] = state.looks;
        let received = stats.udp_rx.bytes.saturating_sub(before);
        let seen = Seen { received, over: now.saturating_sub(since), rtt, window: stats.path.cwnd };
        state.looks = [last, (now, stats.udp_rx.bytes)];
        let Some(windows) = state.windows else { return };
        let fitted = fitted(windows, seen);
        if fitted == windows || !state.grant.as_ref().is_some_and(|grant| grant(windows, fitted)) {
            return;
        }
        tracing::debug!(receive = fitted.receive, send = fitted.send, ?rtt, "larger windows");
        state.windows = Some(fitted);
        self.connection.set_receive_window(fitted.receive.into());
        self.connection.set_send_window(fitted.send);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fit").finish_non_exhaustive()
    }
}

fn is_local(connection: &quinn::Connection) -> bool {
    connection.remote_address().ip().to_canonical().is_loopback()
}

/// What `windows` should be, after this was seen. Never less.
fn fitted(windows: Windows, seen: Seen) -> Windows {
    if seen.rtt < FIT_RTT_MIN {
        return windows;
    }
    let micros = seen.over.as_micros().max(1);
    let arrived = u128::from(seen.received).saturating_mul(seen.rtt.as_micros()) / micros;
    let arrived = u64::try_from(arrived).unwrap_or(u64::MAX);
    let receive = grown(windows.receive.into(), arrived, CONNECTION_WINDOW_MAX.into());
    let send = grown(windows.send, seen.window, SEND_WINDOW_MAX);
    Windows { receive: receive.try_into().unwrap_or(windows.receive), send, ..windows }
}

/// A window of which so much is used in a round trip.
fn grown(window: u64, used: u64, most: u64) -> u64 {
    if used <= window / 2 {
        return window;
    }
    let wanted = used.saturating_mul(FIT_GROWTH).min(most).next_multiple_of(FIT_STEP);
    wanted.max(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const MS: Duration = Duration::from_millis(1);

    /// A round trip of 150 ms in which so much arrived and so much might be in flight.
    fn seen(received: u64, window: u64) -> Seen {
        Seen { received, over: 150 * MS, rtt: 150 * MS, window }
    }

    #[test]
    fn windows_grow_when_half_of_them_is_used() {
        let at_first = Windows::FULL;
        assert_eq!(fitted(at_first, seen(10 * MIB, 6 * MIB)), at_first);
        let receive = fitted(at_first, seen(10 * MIB + 1, 6 * MIB));
        assert_eq!((receive.receive, receive.send), (31 * MIB as u32, at_first.send));
        let send = fitted(at_first, seen(10 * MIB, 6 * MIB + 1));
        assert_eq!((send.receive, send.send), (at_first.receive, 19 * MIB));
        // It is the round trip that counts, not how often it is looked.
        let often = Seen { over: 75 * MS, ..seen(6 * MIB, 0) };
        assert_eq!(fitted(at_first, often).receive, 36 * MIB as u32);
        let seldom = Seen { over: 1500 * MS, ..seen(60 * MIB, 0) };
        assert_eq!(fitted(at_first, seldom), at_first);
    }

    #[test]
    fn windows_of_short_paths_stay_as_they_are() {
        let near = |rtt| Seen { over: rtt, rtt, ..seen(100 * MIB, 100 * MIB) };
        assert_eq!(fitted(Windows::FULL, near(FIT_RTT_MIN - MS)), Windows::FULL);
        assert!(fitted(Windows::FULL, near(FIT_RTT_MIN)).receive > Windows::FULL.receive);
    }

    #[test]
    fn windows_stay_within_bounds_whatever_is_seen() {
        let most = Windows { receive: CONNECTION_WINDOW_MAX, send: SEND_WINDOW_MAX, ..Windows::FULL };
        let extremes = [Duration::ZERO, Duration::from_micros(1), MS, Duration::MAX];
        for (over, rtt) in extremes.iter().flat_map(|over| extremes.iter().map(move |rtt| (*over, *rtt))) {
            for bytes in [0, 1, 100 * MIB, u64::MAX] {
                let seen = Seen { received: bytes, over, rtt, window: bytes };
                for windows in [Windows::FULL, Windows::FULL.halved(9), most] {
                    let fitted = fitted(windows, seen);
                    assert!(fitted.receive >= windows.receive && fitted.receive <= most.receive, "{seen:?}");
                    assert!(fitted.send >= windows.send && fitted.send <= most.send, "{seen:?}");
                    assert_eq!(fitted.streams, windows.streams);
                }
            }
        }
    }

    /// A path of 1 Gbit/s and 150 ms, whose sender doubles in each round trip until it is full.
    #[test]
    fn windows_never_hold_back_who_doubles() {
        let product = 1_000_000_000 / 8 * 150 / 1000;
        let (mut windows, mut in_flight) = (Windows::FULL, 64 * 1024);
        while in_flight < product {
            assert!(windows.send > in_flight && u64::from(windows.receive) > in_flight, "{windows:?}, {in_flight}");
            windows = fitted(windows, seen(in_flight, in_flight));
            in_flight *= 2;
        }
        windows = fitted(windows, seen(product, product));
        assert!(windows.send >= 2 * product && u64::from(windows.receive) >= 2 * product, "{windows:?}");
    }
}
