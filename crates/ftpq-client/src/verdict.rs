//! What limited a transfer, by what was counted while it went on.
//!
//! Whoever is waited for is to blame; what is not known is not guessed. A client sees little of what it receives:
//! whether the path was full, and what was lost, is known to the server that sent it.

use std::{fmt, time::Duration};

use ftpq_transport::Counters;

use crate::copy::Waited;

/// What was counted of a transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Which way the bytes went.
    pub direction: Direction,
    /// What this side read from, or wrote to.
    pub here: Here,
    /// How long it took.
    pub took: Duration,
    /// Of that, how long the busiest thread was at work that drives connections.
    pub busy: Duration,
    /// Bytes that were moved.
    pub bytes: u64,
    /// What the files waited for.
    pub waited: Waited,
    /// What the connections counted meanwhile.
    pub wires: Vec<Wire>,
}

/// One connection: what it counted, and what it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// What it counted.
    pub counters: Counters,
    /// Bytes a second that the server lets all transfers of this user move, if it said so.
    pub rate: Option<u64>,
}

/// Which way the bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Upload,
    /// From the server.
    Download,
}

/// This side's end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// Files.
    Disk,
    /// Another program.
    Pipe,
}

/// What limited a transfer. Shown, it is the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Too little was moved, or for too short a time.
    TooShort,
    /// The rate that the server grants this user, in bytes a second.
    Allowance(u64),
    /// The thread that drives the connections: it was at work for this share of the time.
    Processor(f64),
    /// This side's files or program: this share of all waiting was for it.
    Here(Here, f64),
    /// What lies between the two.
    Path(Pace),
    /// The way there and back for each of so many files and parts of files; what they hold takes little beside that.
    RoundTrips {
        /// How many.
        pieces: u64,
        /// What each took.
        rtt: Duration,
    },
    /// The server, its disk or its processor: this share of all waiting was for it, and the path had room.
    Server(f64),
    /// The server, or the path from it: only the server can tell.
    ServerOrPath(Pace),
    /// Nothing that was waited for.
    Unclear,
}

/// How a path was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Bytes of files a second.
    pub rate: f64,
    /// The round trip.
    pub rtt: Duration,
    /// The share of the packets that were lost, where this side sent them.
    pub lost: Option<f64>,
}

impl Verdict {
    /// What limited a transfer of which this was counted.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let Evidence { direction, here, took, busy, bytes, waited, .. } = *evidence;
        let (wire, rate) = (Sum::of(&evidence.wires), per_second(bytes, took));
        if took < SHORT.max(wire.rtt * ROUND_TRIPS) || bytes < LITTLE {
            return Verdict::TooShort;
        }
        if let Some(granted) = wire.granted.filter(|granted| rate >= *granted as f64 * AT_THE_LIMIT) {
            return Verdict::Allowance(granted);
        }
        let at_work = ratio(busy, took);
        if at_work >= BUSY {
            return Verdict::Processor(at_work);
        }
        let (for_here, for_there) = match direction {
            Direction::Upload => (waited.source, waited.target),
            Direction::Download => (waited.target, waited.source),
        };
        if for_here + for_there < took / 2 {
            return Verdict::Unclear;
        }
        let share = ratio(for_here, for_here + for_there);
        if share >= 0.5 {
            return Verdict::Here(here, share);
        }
        let sent = direction == Direction::Upload;
        let pace = Pace { rate, rtt: wire.rtt, lost: sent.then(|| wire.lost()) };
        let pieces = waited.pieces;
        let each = for_there.checked_div(pieces.try_into().unwrap_or(u32::MAX)).unwrap_or(for_there);
        if sent && wire.is_full(took) {
            Verdict::Path(pace)
        } else if wire.rtt >= FAR && each < wire.rtt * FEW {
            Verdict::RoundTrips { pieces, rtt: wire.rtt }
        } else if sent || wire.is_local {
            Verdict::Server(1.0 - share)
        } else {
            Verdict::ServerOrPath(pace)
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Verdict::TooShort => f.write_str("too short to tell what limited it"),
            Verdict::Allowance(rate) => write!(f, "limited by the rate that the server grants: {}", Rate(rate as f64)),
            Verdict::Processor(share) => {
                let share = Percent(share);
                write!(
                    f,
                    "limited by this machine's processor: the thread of the connections was at work {share} of the time"
                )
            }
            Verdict::Here(Here::Disk, share) => {
                write!(f, "limited by this machine's disk: {} of the waiting was for it", Percent(share))
            }
            Verdict::Here(Here::Pipe, share) => {
                let share = Percent(share);
                write!(f, "limited by the program at the other end of the pipe: {share} of the waiting was for it")
            }
            Verdict::Path(pace) => write!(f, "limited by the path: {pace}"),
            Verdict::RoundTrips { pieces, rtt } => {
                write!(f, "limited by the way there and back: {pieces} files and parts at {} each", Millis(rtt))
            }
            Verdict::Server(share) => {
                let share = Percent(share);
                write!(f, "limited by the server, its disk or its processor: {share} of the waiting was for it")
            }
            Verdict::ServerOrPath(pace) => write!(f, "limited by the server or the path from it: {pace}"),
            Verdict::Unclear => f.write_str("limited by nothing that was waited for long"),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} round trip", Rate(self.rate), Millis(self.rtt))?;
        self.lost.map_or(Ok(()), |lost| write!(f, ", {} of packets lost", Percent(lost)))
    }
}

/// All connections as if they were one.
#[derive(Default)]
struct Sum {
    bytes_sent: u64,
    packets_sent: u64,
    packets_lost: u64,
    /// Bytes that the other side acknowledged, and those that the congestion window held back.
    acknowledged: u64,
    pressed: u64,
    /// Bytes a second that other congestion controls than ours let go now.
    lets_go: f64,
    /// Of the connection that moved most.
    rtt: Duration,
    granted: Option<u64>,
    is_local: bool,
}

impl Sum {
    fn of(wires: &[Wire]) -> Self {
        let mut sum = Self::default();
        let mut most = 0;
        for Wire { counters, rate } in wires {
            sum.bytes_sent += counters.bytes_sent;
            sum.packets_sent += counters.packets_sent;
            sum.packets_lost += counters.packets_lost;
            match counters.path {
                Some(path) => {
                    sum.acknowledged += path.acknowledged;
                    sum.pressed += path.pressed;
                }
                None if counters.rtt.is_zero() => {}
                None => sum.lets_go += per_second(counters.window, counters.rtt),
            }
            let moved = counters.bytes_sent + counters.bytes_received;
            if moved > most {
                most = moved;
                (sum.rtt, sum.granted, sum.is_local) = (counters.rtt, *rate, counters.is_local);
            }
        }
        sum
    }

    fn lost(&self) -> f64 {
        self.packets_lost as f64 / self.packets_sent.max(1) as f64
    }

    /// Whether the path was what held back most of what was sent. There is none on one machine.
    fn is_full(&self, took: Duration) -> bool {
        let pressed = self.acknowledged > 0 && self.pressed >= self.acknowledged / 2;
        // Other congestion controls do not tell: what they let go in the end stands for all the time.
        let all_sent = self.lets_go > 0.0 && per_second(self.bytes_sent, took) >= self.lets_go * FULL;
        !self.is_local && (pressed || all_sent)
    }
}

fn per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64().max(1e-6)
}

fn ratio(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64().max(1e-6)
}

struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate < 1e6 => write!(f, "{:.1} kB/s", rate / 1e3),
            rate if rate < 1e9 => write!(f, "{:.1} MB/s", rate / 1e6),
            rate => write!(f, "{:.2} GB/s", rate / 1e9),
        }
    }
}

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 * 100.0 {
            percent if percent < 10.0 => write!(f, "{percent:.1} %"),
            // Clocks differ a little.
            percent => write!(f, "{:.0} %", percent.min(100.0)),
        }
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() * 1e3 {
            millis if millis < 10.0 => write!(f, "{millis:.1} ms"),
            millis => write!(f, "{millis:.0} ms"),
        }
    }
}

/// What takes less time than that, or so many round trips, is over before anything is in its stride.
const SHORT: Duration = Duration::from_millis(500);
/// See [`SHORT`]: doubling takes a dozen, and is to be a small part of it.
const ROUND_TRIPS: u32 = 40;

/// Fewer bytes tell nothing.
const LITTLE: u64 = 1024 * 1024;

/// Who gets so much of what is granted was held back by that: the server evens it out over a second or so.
const AT_THE_LIMIT: f64 = 0.85;

/// A thread that is at work for so much of the time has no time to spare: the system takes some of it.
const BUSY: f64 = 0.9;

/// So much of what a congestion control lets go fills the path: the start takes its part.
const FULL: f64 = 0.6;

/// Round trips that are worth a word.
const FAR: Duration = Duration::from_millis(5);

/// A file or part that waits for less than so many of them waits for little else: one to begin, one to hear that all
/// is there, and what it holds comes in between.
const FEW: u32 = 4;

#[cfg(test)]
mod tests {
    use ftpq_transport::Path;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const MB: u64 = 1_000_000;

    /// An upload of ten seconds over 50 ms whose files waited for the server and little else.
    fn upload() -> Evidence {
        Evidence {
            direction: Direction::Upload,
            here: Here::Disk,
            took: 10_000 * MS,
            busy: 2_000 * MS,
            bytes: 361 * MB,
            waited: Waited { source: 500 * MS, target: 39_500 * MS, pieces: 43 },
            wires: vec![wire(380 * MB)],
        }
    }

    fn wire(sent: u64) -> Wire {
        let counters = Counters {
            bytes_sent: sent,
            packets_sent: 261_000,
            packets_lost: 2_349,
            window: 2 * MB,
            rtt: 51 * MS,
            path: Some(Path { acknowledged: sent, pressed: sent / 10 * 9, ..Path::default() }),
            ..Counters::default()
        };
        Wire { counters, rate: None }
    }

    fn download() -> Evidence {
        let waited = Waited { source: 39_500 * MS, target: 500 * MS, pieces: 43 };
        Evidence { direction: Direction::Download, waited, ..upload() }
    }

    /// The same with what `change` makes of its connection.
    fn with(evidence: Evidence, change: impl Fn(&mut Counters)) -> Evidence {
        let mut evidence = evidence;
        evidence.wires.iter_mut().for_each(|wire| change(&mut wire.counters));
        evidence
    }

    #[track_caller]
    fn check(evidence: &Evidence, said: &str) {
        assert_eq!(Verdict::of(evidence).to_string(), said, "{evidence:?}");
    }

    #[test]
    fn whoever_is_waited_for_is_to_blame() {
        let path = "limited by the path: 36.1 MB/s at 51 ms round trip, 0.9 % of packets lost";
        let server = "limited by the server, its disk or its processor: 99 % of the waiting was for it";
        check(&upload(), path);
        // There was mostly room in the window.
        check(&with(upload(), |wire| wire.path.as_mut().unwrap().pressed = 100 * MB), server);
        // Another congestion control: 2 MB in 51 ms are 39 MB/s.
        check(&with(upload(), |wire| wire.path = None), path);
        check(&with(upload(), |wire| (wire.path, wire.window) = (None, 8 * MB)), server);
        // Two connections over the same path.
        check(&Evidence { wires: vec![wire(190 * MB); 2], ..upload() }, path);
        check(&with(upload(), |wire| wire.is_local = true), server);

        let disk = Waited { source: 30_000 * MS, target: 10_000 * MS, pieces: 43 };
        let share = "75 % of the waiting was for it";
        check(&Evidence { waited: disk, ..upload() }, &format!("limited by this machine's disk: {share}"));
        let other = format!("limited by the program at the other end of the pipe: {share}");
        check(&Evidence { waited: disk, here: Here::Pipe, ..upload() }, &other);

        let either = "limited by the server or the path from it: 36.1 MB/s at 51 ms round trip";
        check(&download(), either);
        check(&with(download(), |wire| wire.is_local = true), server);
        let disk = Waited { source: 10_000 * MS, target: 30_000 * MS, pieces: 43 };
        check(&Evidence { waited: disk, ..download() }, &format!("limited by this machine's disk: {share}"));
    }

    #[test]
    fn some_limits_are_known_before_anybody_waits() {
        let busy = "limited by this machine's processor: the thread of the connections was at work 96 % of the time";
        for evidence in [upload(), download()] {
            check(&Evidence { busy: 9_600 * MS, ..evidence }, busy);
        }
        let granted = |rate| {
            let mut evidence = download();
            evidence.wires[0].rate = Some(rate);
            evidence
        };
        check(&granted(40 * MB), "limited by the rate that the server grants: 40.0 MB/s");
        check(&granted(80 * MB), "limited by the server or the path from it: 36.1 MB/s at 51 ms round trip");
    }

    #[test]
    fn small_files_and_parts_take_round_trips() {
        let waited = Waited { source: 100_000 * MS, target: 1_100_000 * MS, pieces: 10_000 };
        let small = Evidence { bytes: 41 * MB, waited, ..upload() };
        let small = with(small, |wire| wire.path.as_mut().unwrap().pressed = 20 * MB);
        check(&small, "limited by the way there and back: 10000 files and parts at 51 ms each");
        // Few enough in flight that the path idles while they begin.
        let waited = Waited { source: 39_500 * MS, target: 500 * MS, pieces: 200 };
        check(
            &Evidence { waited, ..download() },
            "limited by the way there and back: 200 files and parts at 51 ms each",
        );
        let near = with(small, |wire| wire.rtt = MS);
        check(&near, "limited by the server, its disk or its processor: 92 % of the waiting was for it");
    }

    #[test]
    fn too_little_tells_nothing() {
        let short = "too short to tell what limited it";
        for evidence in [upload(), download()] {
            check(&Evidence { took: 499 * MS, ..evidence.clone() }, short);
            check(&Evidence { took: 39 * 51 * MS, ..evidence.clone() }, short);
            check(&Evidence { bytes: LITTLE - 1, ..evidence.clone() }, short);
            let nothing = Evidence { waited: Waited::default(), ..evidence.clone() };
            check(&nothing, "limited by nothing that was waited for long");
            // All connections were lost.
            check(&Evidence { wires: Vec::new(), took: Duration::ZERO, ..evidence }, short);
        }
    }
}
