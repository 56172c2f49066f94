//! The largest of the last rounds, the smallest of the last seconds.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The largest value of the last [`ROUNDS`] rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct MaxByRound(VecDeque<u64>);

/// As in BBR: longer than a cycle, so that what was once reached is still known in the next.
const ROUNDS: usize = 10;

impl MaxByRound {
    pub(crate) fn get(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, value: u64) {
        match self.0.back_mut() {
            Some(last) => *last = value.max(*last),
            None => self.0.push_back(value),
        }
    }

    pub(crate) fn next_round(&mut self) {
        self.0.push_back(0);
        self.keep(ROUNDS);
    }

    /// Forgets all but the last rounds.
    pub(crate) fn keep(&mut self, rounds: usize) {
        while self.0.len() > rounds {
            self.0.pop_front();
        }
    }
}

/// The smallest value of a span of time: ascending candidates, each younger than the one before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MinByTime(VecDeque<(Instant, Duration)>);

/// Enough to have one candidate for every part of the span.
const CANDIDATES: usize = 32;

impl MinByTime {
    pub(crate) fn get(&self) -> Option<Duration> {
        self.0.front().map(|(_, value)| *value)
    }

    pub(crate) fn insert(&mut self, now: Instant, value: Duration, span: Duration) {
        while self.0.back().is_some_and(|(_, last)| *last >= value) {
            self.0.pop_back();
        }
        // A candidate a moment after the last one would only fill the list.
        let crowded = |(at, _): &(Instant, Duration)| now.saturating_duration_since(*at) < span / CANDIDATES as u32;
        if !self.0.back().is_some_and(crowded) {
            self.0.push_back((now, value));
        }
        let expired = |(at, _): &(Instant, Duration)| now.saturating_duration_since(*at) > span;
        while self.0.len() > CANDIDATES || (self.0.len() > 1 && self.0.front().is_some_and(expired)) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_ten_rounds() {
        let mut filter = MaxByRound::default();
        filter.insert(9);
        for _ in 0..9 {
            filter.next_round();
            filter.insert(5);
            filter.insert(4);
        }
        assert_eq!(filter.get(), 9);
        filter.next_round();
        assert_eq!(filter.get(), 5);
    }

    #[test]
    fn the_smallest_of_ten_seconds() {
        let (start, span) = (Instant::now(), Duration::from_secs(10));
        let mut filter = MinByTime::default();
        assert_eq!(filter.get(), None);
        for (at, value, smallest) in [(0, 50, 50), (3, 60, 50), (6, 55, 50), (9, 70, 50), (11, 80, 55), (17, 90, 70)] {
            filter.insert(start + Duration::from_secs(at), Duration::from_millis(value), span);
            assert_eq!(filter.get(), Some(Duration::from_millis(smallest)), "at {at} s");
        }
        filter.insert(start + Duration::from_secs(60), Duration::from_millis(99), span);
        assert_eq!(filter.get(), Some(Duration::from_millis(99)), "the last one is never forgotten without another");
    }
}
