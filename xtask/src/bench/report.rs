//! What the benchmark found, as a table in Markdown.

use std::{fmt, fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result};

use super::{Contestant, Direction};
use crate::project;

/// One transfer.
pub(super) struct Run {
    pub(super) contestant: Contestant,
    pub(super) direction: Direction,
    pub(super) time: Duration,
    /// The most memory that the client held, in bytes.
    pub(super) memory: Option<u64>,
}

/// All of them.
pub(super) struct Report {
    pub(super) mib: u64,
    pub(super) reps: usize,
    pub(super) runs: Vec<Run>,
    /// The most memory that the server held, in bytes.
    pub(super) server_memory: Option<u64>,
}

impl Report {
    /// Replaces the table in the document.
    pub(super) fn write(&self) -> Result<()> {
        let document = document()?;
        let text = fs::read_to_string(&document)?;
        let text = replace_section(&text, &self.to_string()).context(NO_SECTION)?;
        Ok(fs::write(document, text)?)
    }

    /// Median, minimum and maximum in MB/s.
    fn speed(&self, contestant: Contestant, direction: Direction) -> Option<Speed> {
        let megabytes = (self.mib * 1024 * 1024) as f64 / 1e6;
        let runs = self.runs.iter().filter(|run| run.contestant == contestant && run.direction == direction);
        Speed::of(runs.map(|run| megabytes / run.time.as_secs_f64()).collect())
    }

    fn client_memory(&self, direction: Direction) -> Option<u64> {
        let runs = self.runs.iter().filter(|run| run.contestant == Contestant::Ftpq && run.direction == direction);
        runs.filter_map(|run| run.memory).max()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (mib, reps) = (self.mib, self.reps);
        writeln!(
            f,
            "One file of {mib} MiB over loopback, {cores} cores, median of {reps} (minimum – maximum) in MB/s:\n"
        )?;
        writeln!(f, "| | ftpq | scp | scp, AES-GCM | ftpq ÷ scp | ftpq ÷ scp, AES-GCM |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for direction in [Direction::Put, Direction::Get] {
            let speeds = [Contestant::Ftpq, Contestant::Scp, Contestant::ScpGcm].map(|who| self.speed(who, direction));
            let [Some(ftpq), Some(scp), Some(gcm)] = speeds else { continue };
            let (name, by_scp, by_gcm) = (direction.name(), ftpq.median / scp.median, ftpq.median / gcm.median);
            writeln!(f, "| {name} | {ftpq} | {scp} | {gcm} | {by_scp:.2} | {by_gcm:.2} |")?;
        }
        let memory = [self.server_memory, self.client_memory(Direction::Put), self.client_memory(Direction::Get)];
        if let [Some(server), Some(put), Some(get)] = memory.map(|bytes| bytes.map(|bytes| bytes.div_ceil(1024 * 1024)))
        {
            writeln!(
                f,
                "\nftpq's peak resident memory: server {server} MiB, client {put} MiB (put), {get} MiB (get)."
            )?;
        }
        Ok(())
    }
}

/// An error where the document has no place for the table.
pub(super) fn check_document() -> Result<()> {
    let text = fs::read_to_string(document()?).context("cannot read docs/benchmarks.md")?;
    replace_section(&text, "").map(drop).context(NO_SECTION)
}

const BEGIN: &str = "<!-- loopback:begin -->\n";
const END: &str = "<!-- loopback:end -->";
const NO_SECTION: &str = "docs/benchmarks.md has no section between `loopback:begin` and `loopback:end`";

fn document() -> Result<PathBuf> {
    Ok(project::root()?.join("docs/benchmarks.md"))
}

/// `text` with everything between the marks replaced; `None` where there are none.
fn replace_section(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{section}{END}{after}"))
}

#[derive(Debug, PartialEq)]
struct Speed {
    median: f64,
    minimum: f64,
    maximum: f64,
}

impl Speed {
    fn of(mut speeds: Vec<f64>) -> Option<Self> {
        speeds.sort_by(f64::total_cmp);
        let middle = speeds.len() / 2;
        let upper = *speeds.get(middle)?;
        let lower = if speeds.len().is_multiple_of(2) { *speeds.get(middle.checked_sub(1)?)? } else { upper };
        Some(Self { median: (lower + upper) / 2.0, minimum: *speeds.first()?, maximum: *speeds.last()? })
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} ({:.0} – {:.0})", self.median, self.minimum, self.maximum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Speed::of(vec![3.0, 1.0, 2.0]).unwrap().to_string(), "2 (1 – 3)");
        assert_eq!(Speed::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Speed::of(vec![]), None);
    }

    #[test]
    fn only_the_section_is_replaced() {
        let text = format!("a\n{BEGIN}old\n{END}\nb\n");
        assert_eq!(replace_section(&text, "new\n").unwrap(), format!("a\n{BEGIN}new\n{END}\nb\n"));
        assert_eq!(replace_section("nothing", "new"), None);
    }

    #[test]
    fn a_table_has_a_row_for_each_direction() {
        let who = [Contestant::Ftpq, Contestant::Scp, Contestant::ScpGcm];
        let runs = [Direction::Put, Direction::Get].into_iter().flat_map(|direction| {
            who.map(|contestant| Run { contestant, direction, time: Duration::from_secs(1), memory: Some(1) })
        });
        let table = Report { mib: 1000, reps: 1, runs: runs.collect(), server_memory: Some(1) }.to_string();
        assert!(table.contains("| get | 1049 (1049 – 1049) |") && table.contains("| put |"), "{table}");
        assert!(table.contains("server 1 MiB, client 1 MiB (put)"), "{table}");
    }
}
