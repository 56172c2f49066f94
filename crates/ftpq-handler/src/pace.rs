//! How fast the bodies of one user may move, over all streams and connections.

use std::time::Duration;

use ftpq_transport::tuning::STALL_BYTES;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// The lowest rate, in bytes a second. All streams of a user share it, and of each, [`STALL_BYTES`] must move
/// within [`STALL`](ftpq_transport::tuning::STALL), or either side takes the other for dead: there is room for 64
/// of them, with as much to spare.
pub const RATE_MIN: u64 = 128 * 1024;

/// A rate, in each direction, for all who share this.
///
/// Whoever has waited longest goes next, for one [`PIECE`]: so streams share evenly, and one that has gone takes
/// nothing along. What was not used within the last second may be made up for, so a small file need not wait.
#[derive(Debug)]
pub struct Pace {
    rate: u64,
    up: Bucket,
    down: Bucket,
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// Bytes that move at a time.
pub const PIECE: usize = STALL_BYTES;

impl Pace {
    /// So many bytes a second, at least [`RATE_MIN`], each way.
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(RATE_MIN), up: Bucket::new(), down: Bucket::new() }
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// What a client should have on its way at the most: what waits for its turn here fills the windows, and must
    /// not keep requests from coming through.
    pub fn window(&self) -> u32 {
        u32::try_from(self.rate.saturating_mul(WINDOW_SECONDS)).unwrap_or(u32::MAX)
    }

    /// Waits until so many bytes, at most one [`PIECE`] where that is known, may move.
    pub async fn wait(&self, way: Way, bytes: usize) {
        self.bucket(way).take(bytes, self.rate).await;
    }

    /// Whether all of the last second could be made up for: then a new one would be the same.
    pub fn is_rested(&self) -> bool {
        [&self.up, &self.down].iter().all(|bucket| bucket.is_full())
    }

    fn bucket(&self, way: Way) -> &Bucket {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

/// What may move now: as much as a rate allows for the time since `paid`, at most [`BURST`]. In the future, `paid`
/// is when the next may go.
#[derive(Debug)]
struct Bucket {
    /// Locked by the one that is next, and those behind it wait for the lock in turn.
    paid: Mutex<Instant>,
}

impl Bucket {
    fn new() -> Self {
        Self { paid: Mutex::new(long_ago()) }
    }

    async fn take(&self, bytes: usize, rate: u64) {
        let mut paid = self.paid.lock().await;
        sleep_until(*paid).await;
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        *paid = (*paid).max(long_ago()) + cost;
    }

    fn is_full(&self) -> bool {
        self.paid.try_lock().is_ok_and(|paid| *paid <= long_ago())
    }
}

/// Nothing is made up for that is longer ago.
fn long_ago() -> Instant {
    let now = Instant::now();
    now.checked_sub(BURST).unwrap_or(now)
}

/// For so long, what was not used may be made up for.
const BURST: Duration = Duration::from_secs(1);

/// Seconds of the rate that may be on their way: more than any round trip.
const WINDOW_SECONDS: u64 = 2;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as StdMutex};

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Moves so many pieces, and tells how long that took.
    async fn pieces(pace: &Pace, way: Way, count: u64) -> Duration {
        let began = Instant::now();
        for _ in 0..count {
            pace.wait(way, PIECE).await;
        }
        began.elapsed()
    }

    fn is_about(time: Duration, seconds: f64) {
        assert!((time.as_secs_f64() - seconds).abs() < 0.1, "{time:?}, not {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_each_way_after_one_second_of_it() {
        let pace = Pace::new(MIB);
        let of_a_second = MIB / PIECE as u64;
        is_about(pieces(&pace, Way::Up, of_a_second).await, 0.0);
        assert!(!pace.is_rested());
        is_about(pieces(&pace, Way::Up, 10 * of_a_second).await, 10.0);
        is_about(pieces(&pace, Way::Down, of_a_second).await, 0.0);
        // A pause is made up for, but not all of a long one.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(pace.is_rested());
        is_about(pieces(&pace, Way::Up, 3 * of_a_second).await, 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn many_streams_move_no_more_than_one_and_share_evenly() {
        const STREAMS: usize = 256;
        let pace = Arc::new(Pace::new(RATE_MIN));
        let moved = Arc::new(StdMutex::new([0_u64; STREAMS]));
        let began = Instant::now();
        let streams: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let (pace, moved) = (pace.clone(), moved.clone());
                tokio::spawn(async move {
                    loop {
                        pace.wait(Way::Down, PIECE).await;
                        moved.lock().unwrap()[stream] += 1;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let moved = *moved.lock().unwrap();
        streams.iter().for_each(|stream| stream.abort());
        let bytes = moved.iter().sum::<u64>() * PIECE as u64;
        let rate = bytes as f64 / began.elapsed().as_secs_f64();
        assert!((rate / RATE_MIN as f64 - 1.0).abs() < 0.01, "{rate}");
        let (least, most) = (moved.iter().min().unwrap(), moved.iter().max().unwrap());
        // The first one that runs also takes what was not used before.
        let saved = 1 + RATE_MIN / PIECE as u64;
        assert!(most - least <= 1 + saved, "{least} to {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stops_waiting_takes_nothing_along() {
        let pace = Arc::new(Pace::new(MIB));
        pieces(&pace, Way::Down, MIB / PIECE as u64).await;
        let waiting = (0..100).map(|_| {
            let pace = pace.clone();
            tokio::spawn(async move { pace.wait(Way::Down, PIECE).await })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await;
        waiting.iter().for_each(|waiting| waiting.abort());
        is_about(pieces(&pace, Way::Down, MIB / PIECE as u64).await, 1.0);
    }

    /// As many streams as a client has by default, at the lowest rate.
    #[test]
    fn the_lowest_rate_is_no_stall() {
        use ftpq_transport::tuning::STALL;
        let turn = Duration::from_secs_f64(64.0 * PIECE as f64 / RATE_MIN as f64);
        assert!(turn * 3 / 2 < STALL, "{turn:?}");
    }
}
