//! What the runs of a peer come to, and whether a goal is met.

use super::{
    peers,
    record::{Results, Run},
    rows::{Goal, QUICK_MIB, Row, Unit, Work},
    stats::{Spread, number},
};

/// All runs of one peer in one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Summary {
    /// In the row's unit.
    pub(super) value: Spread,
    /// Bytes of one run.
    pub(super) bytes: u64,
    pub(super) runs: usize,
    /// CPU seconds of one run: medians.
    pub(super) client_cpu: f64,
    pub(super) server_cpu: f64,
    /// Peak memory in bytes: the highest of all runs.
    pub(super) client_memory: u64,
    pub(super) server_memory: u64,
    /// Packets lost, in per cent: the median.
    pub(super) lost: Option<f64>,
}

impl Summary {
    /// `None` where no run has succeeded.
    pub(super) fn of(results: &Results, row: &Row, peer: &str) -> Option<Self> {
        let runs: Vec<&Run> = results.runs(row.id).filter(|run| run.peer == peer && run.failed.is_none()).collect();
        let median = |of: fn(&Run) -> f64| Spread::of(runs.iter().map(|run| of(run))).map(|spread| spread.median);
        Some(Self {
            value: Spread::of(runs.iter().filter_map(|run| value(run, row.unit)))?,
            bytes: runs.first()?.bytes,
            runs: runs.len(),
            client_cpu: median(|run| run.client_cpu)?,
            server_cpu: median(|run| run.server_cpu)?,
            client_memory: runs.iter().map(|run| run.client_memory).max()?,
            server_memory: runs.iter().map(|run| run.server_memory).max()?,
            lost: Spread::of(runs.iter().filter_map(|run| run.lost)).map(|spread| spread.median),
        })
    }

    /// CPU seconds of both ends for each GB.
    pub(super) fn cpu_per_gigabyte(&self) -> f64 {
        (self.client_cpu + self.server_cpu) / (self.bytes as f64 / 1e9)
    }

    /// How many times as fast as `other` this is.
    pub(super) fn ratio(&self, other: &Self, unit: Unit) -> f64 {
        match unit {
            Unit::Seconds | Unit::Milliseconds => other.value.median / self.value.median,
            _ => self.value.median / other.value.median,
        }
    }
}

/// A run in this unit.
pub(super) fn value(run: &Run, unit: Unit) -> Option<f64> {
    match unit {
        Unit::MegabytesPerSecond => Some(run.bytes as f64 / 1e6 / run.seconds),
        Unit::MegabitsPerSecond => Some(run.bytes as f64 * 8.0 / 1e6 / run.seconds),
        Unit::Seconds => Some(run.seconds),
        Unit::Milliseconds => Some(run.seconds * 1e3),
        Unit::Percent => run.share,
    }
}

/// A unit as it is written.
pub(super) fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::MegabytesPerSecond => "MB/s",
        Unit::MegabitsPerSecond => "Mbit/s",
        Unit::Seconds => "s",
        Unit::Milliseconds => "ms",
        Unit::Percent => "% of the bottleneck",
    }
}

/// One goal, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) goal: String,
    pub(super) measured: String,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    Missed,
    /// Somebody or something was not there, or the work was smaller than the goal is for.
    Open,
}

/// Compares medians with the goal.
pub(super) fn judge(goal: &Goal, row: &Row, results: &Results) -> Judged {
    let ours = row.peers.first().copied().unwrap_or_default();
    let (text, measured) = match *goal {
        Goal::Ratio(least, peer) => {
            let both = Summary::of(results, row, ours).zip(Summary::of(results, row, peer));
            let ratio = both.map(|(ours, theirs)| ours.ratio(&theirs, row.unit));
            (format!("≥ {least} × {}", label(peer)), ratio.map(|ratio| (format!("{ratio:.2} ×"), ratio >= least)))
        }
        Goal::AtLeast(least, who) => absolute("≥", least, who, row, results, |value| value >= least),
        Goal::AtMost(most, who) => absolute("≤", most, who, row, results, |value| value <= most),
        Goal::Cpu(most) => {
            let cpu = Summary::of(results, row, ours).map(|ours| ours.cpu_per_gigabyte());
            (format!("≤ {most} CPU s/GB, both ends"), cpu.map(|cpu| (format!("{cpu:.2} s/GB"), cpu <= most)))
        }
        Goal::Lost(most, who) => {
            let lost = Summary::of(results, row, who).and_then(|summary| summary.lost);
            let text = format!("≤ {most} % of packets lost ({})", label(who));
            (text, lost.map(|lost| (format!("{lost:.2} %"), lost <= most)))
        }
        Goal::Share(least, most) => {
            let shares = row.peers.iter().filter_map(|peer| Summary::of(results, row, peer));
            let shares: Vec<f64> = shares.map(|summary| summary.value.median).collect();
            let within = shares.iter().all(|share| (least..=most).contains(share));
            let shown: Vec<String> = shares.iter().map(|share| format!("{share:.0} %")).collect();
            (format!("each {least}–{most} %"), (!shares.is_empty()).then(|| (shown.join(" and "), within)))
        }
    };
    match measured {
        None => Judged { goal: text, measured: "–".into(), verdict: Verdict::Open },
        Some((measured, met)) => {
            // A ratio shows with less than an absolute figure, in which the start weighs.
            let enough = if matches!(goal, Goal::Ratio(..)) { QUICK_MIB } else { u64::MAX };
            let verdict = match met {
                _ if smaller(row, results, enough) => Verdict::Open,
                true => Verdict::Met,
                false => Verdict::Missed,
            };
            Judged { goal: text, measured, verdict }
        }
    }
}

fn absolute(
    sign: &str,
    bound: f64,
    who: &str,
    row: &Row,
    results: &Results,
    met: impl FnOnce(f64) -> bool,
) -> (String, Option<(String, bool)>) {
    let median = Summary::of(results, row, who).map(|summary| summary.value.median);
    let whom = if who == "ftpq" { String::new() } else { format!(" ({})", label(who)) };
    let text = format!("{sign} {bound} {}{whom}", unit(row.unit));
    (text, median.map(|median| (format!("{} {}", number(median), unit(row.unit)), met(median))))
}

/// Whether the file was smaller than the row's and than `enough` MiB.
fn smaller(row: &Row, results: &Results, enough: u64) -> bool {
    let (Work::File { mib, .. } | Work::Share { mib }) = row.work else { return false };
    let runs = results.runs(row.id).filter(|run| peers::is_ours(&run.peer));
    runs.map(|run| run.bytes).max().is_some_and(|bytes| bytes < mib.min(enough) * 1024 * 1024)
}

/// The name of a peer in tables.
pub(super) fn label(name: &str) -> &str {
    peers::find(name).map_or(name, |peer| peer.label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{record::Line, rows::ROWS};

    fn row(id: &str) -> &'static Row {
        ROWS.iter().find(|row| row.id == id).unwrap()
    }

    /// One run of each `(peer, seconds)`, of `mib` MiB.
    fn results(row: &str, mib: u64, times: &[(&str, f64)]) -> Results {
        let run = |&(peer, seconds): &(&str, f64)| Run {
            row: row.into(),
            peer: peer.into(),
            bytes: mib << 20,
            seconds,
            client_cpu: 1.0,
            server_cpu: 2.0,
            lost: Some(3.0),
            share: Some(seconds),
            ..Run::default()
        };
        Results(times.iter().map(|time| Line::Run(run(time))).collect())
    }

    fn verdict(goal: Goal, id: &str, mib: u64, times: &[(&str, f64)]) -> Verdict {
        judge(&goal, row(id), &results(id, mib, times)).verdict
    }

    #[test]
    fn ratios_are_of_speeds_and_of_times_turned_round() {
        let goal = Goal::Ratio(2.0, "scp-gcm");
        assert_eq!(verdict(goal, "loopback-up", 2048, &[("ftpq", 1.0), ("scp-gcm", 2.0)]), Verdict::Met);
        assert_eq!(verdict(goal, "loopback-up", 2048, &[("ftpq", 1.0), ("scp-gcm", 1.9)]), Verdict::Missed);
        assert_eq!(verdict(goal, "loopback-up", 256, &[("ftpq", 1.0), ("scp-gcm", 1.9)]), Verdict::Missed);
        assert_eq!(verdict(goal, "loopback-up", 255, &[("ftpq", 1.0), ("scp-gcm", 1.9)]), Verdict::Open);
        assert_eq!(verdict(goal, "loopback-up", 2048, &[("ftpq", 1.0)]), Verdict::Open);
        let goal = Goal::Ratio(2.0, "rsync-fsync");
        assert_eq!(verdict(goal, "small-durable", 39, &[("ftpq", 1.0), ("rsync-fsync", 2.1)]), Verdict::Met);
        assert_eq!(verdict(goal, "small-durable", 39, &[("ftpq", 2.1), ("rsync-fsync", 1.0)]), Verdict::Missed);
    }

    #[test]
    fn what_is_absolute_needs_the_whole_size() {
        // 128 MiB at 258 Mbit/s take 4.16 s.
        let goal = Goal::AtLeast(258.0, "ftpq-first");
        assert_eq!(verdict(goal, "wan-300-50-0", 128, &[("ftpq-first", 4.0)]), Verdict::Met);
        assert_eq!(verdict(goal, "wan-300-50-0", 128, &[("ftpq-first", 4.2)]), Verdict::Missed);
        assert_eq!(verdict(goal, "wan-300-50-0", 64, &[("ftpq-first", 2.0)]), Verdict::Open);
        assert_eq!(verdict(Goal::Cpu(1.4), "loopback-up", 2048, &[("ftpq", 1.0)]), Verdict::Met);
        assert_eq!(verdict(Goal::Cpu(1.3), "loopback-up", 2048, &[("ftpq", 1.0)]), Verdict::Missed);
    }

    #[test]
    fn bounds_hold_at_the_bound() {
        assert_eq!(verdict(Goal::AtMost(0.5, "ftpq"), "small-loopback", 39, &[("ftpq", 0.5)]), Verdict::Met);
        assert_eq!(verdict(Goal::AtMost(0.5, "ftpq"), "small-loopback", 39, &[("ftpq", 0.51)]), Verdict::Missed);
        assert_eq!(verdict(Goal::Lost(3.0, "ftpq-first"), "wan-300-50-0", 128, &[("ftpq-first", 4.0)]), Verdict::Met);
        let share = Goal::Share(25.0, 75.0);
        assert_eq!(verdict(share, "share-cubic", 256, &[("ftpq", 75.0), ("curl", 25.0)]), Verdict::Met);
        assert_eq!(verdict(share, "share-cubic", 256, &[("ftpq", 76.0), ("curl", 24.0)]), Verdict::Missed);
        assert_eq!(verdict(share, "share-cubic", 256, &[]), Verdict::Open);
    }

    #[test]
    fn failed_runs_count_for_nothing() {
        let mut results = results("loopback-up", 1, &[("ftpq", 1.0)]);
        if let Line::Run(run) = &mut results.0[0] {
            run.failed = Some("differs".into());
        }
        assert_eq!(Summary::of(&results, row("loopback-up"), "ftpq"), None);
    }
}
