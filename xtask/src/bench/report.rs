//! docs/benchmarks.md and its plots, from the raw results alone.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    peers,
    plot::{self, Bar},
    record::{Results, Session},
    rows::{Direction, Goal, ROWS, Row, Unit, Work},
    stats::number,
    verdict::{Judged, Summary, Verdict, judge, label, unit},
};

/// Where the raw results of a folder are.
pub(super) fn results_file(folder: &Path) -> PathBuf {
    folder.join("results.jsonl")
}

/// Writes the plots into `folder`, and the report beside it: `benchmarks.md` for `benchmarks/`. What is written by
/// hand, `analysis.md` in the folder, becomes its last part.
pub(super) fn write(folder: &Path) -> Result<PathBuf> {
    let file = results_file(folder);
    let results = Results::load(&file)?;
    let name = folder.file_name().context("the results lie in no folder")?.to_string_lossy().into_owned();
    for row in ROWS {
        let plot = folder.join(format!("{}.svg", row.id));
        let bars = bars(row, &results);
        if !bars.is_empty() {
            fs::write(plot, plot::svg(row.title, &axis(row), &bars)?)?;
        } else if plot.exists() {
            fs::remove_file(plot)?;
        }
    }
    let mut text = render(&results, &name)? + include_str!("method.md");
    if let Ok(analysis) = fs::read_to_string(folder.join("analysis.md")) {
        write!(text, "\n{analysis}")?;
    }
    let report = folder.with_extension("md");
    fs::write(&report, text)?;
    Ok(report)
}

/// Machine, goals and tables. `folder` is the name of the folder with the plots.
fn render(results: &Results, folder: &str) -> Result<String> {
    let mut out = format!(
        "# Benchmarks\n\n<!-- Written by `cargo xtask bench`, from {folder}/results.jsonl: changes here are lost. -->\n\n\
         ftpq beside others that move files between two machines, measured in the same run, taking turns. Medians,\n\
         with [minimum–maximum]. MB are 10⁶ bytes, MiB 2²⁰.\n\n"
    );
    machine(&mut out, results)?;
    goals(&mut out, results)?;
    writeln!(out, "## Results\n")?;
    for row in ROWS.iter().filter(|row| known(row, results)) {
        section(&mut out, row, results, folder)?;
    }
    Ok(out)
}

fn known(row: &Row, results: &Results) -> bool {
    results.runs(row.id).next().is_some() || results.skips(row.id).next().is_some()
}

fn machine(out: &mut String, results: &Results) -> Result<()> {
    let Some(last) = results.sessions().last() else { return Ok(()) };
    let machine = &last.machine;
    let emulator = results.sessions().filter_map(|session| session.machine.emulator.as_deref()).last();
    let gib = machine.memory as f64 / f64::from(1 << 30);
    writeln!(out, "## Machine\n")?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| processor | {}, {} cores |", machine.processor, machine.cores)?;
    writeln!(out, "| memory | {gib:.0} GiB |")?;
    writeln!(out, "| kernel | {} |", machine.kernel)?;
    writeln!(out, "| long paths | {} |", emulator.unwrap_or("none: those rows are left out"))?;
    writeln!(out, "| disk | {} |", machine.disk.as_deref().unwrap_or("none"))?;
    writeln!(out, "| programs | {} |\n", last.versions.join(", "))?;
    for Session { date, command, commit, .. } in results.sessions() {
        writeln!(out, "- {date}, commit {commit}: `{command}`")?;
    }
    Ok(writeln!(out)?)
}

fn goals(out: &mut String, results: &Results) -> Result<()> {
    writeln!(out, "## Goals\n\nWhat ftpq is meant to reach, and what it reached. Medians are compared.\n")?;
    writeln!(out, "| row | goal | measured | |\n|---|---|---|---|")?;
    let (mut met, mut all) = (0, 0);
    for row in ROWS.iter().filter(|row| known(row, results)) {
        for goal in row.goals {
            let Judged { goal, measured, verdict } = judge(goal, row, results);
            met += usize::from(verdict == Verdict::Met);
            all += usize::from(verdict != Verdict::Open);
            writeln!(
                out,
                "| [{}](#{}) | {goal} | {measured} | {} |",
                row.title,
                anchor(row.title),
                verdict_of(verdict)
            )?;
        }
    }
    Ok(writeln!(out, "\n{met} of {all} goals that could be judged are met.\n")?)
}

fn verdict_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "**not met**",
        Verdict::Open => "not judged",
    }
}

fn section(out: &mut String, row: &Row, results: &Results, folder: &str) -> Result<()> {
    writeln!(out, "### {}\n", row.title)?;
    let summaries = summaries(row, results);
    let ours = summaries.iter().find(|(name, _)| peers::is_ours(name)).map(|(_, summary)| summary);
    if !summaries.is_empty() {
        let size = ours.or(summaries.first().map(|(_, summary)| summary)).map(|summary| summary.bytes);
        writeln!(out, "{}\n", work(row, size.unwrap_or_default()))?;
        writeln!(out, "![{}]({folder}/{}.svg)\n", row.title, row.id)?;
        table(out, row, results, &summaries, ours)?;
    }
    for skip in results.skips(row.id) {
        let who = skip.peer.as_deref().map_or("This row", label);
        writeln!(out, "- Left out: {who}: {}.", skip.why)?;
    }
    for (name, why, failed) in failures(row, results) {
        writeln!(out, "- {}: {failed} runs failed, the last with: {why}.", label(name))?;
    }
    for goal in row.goals {
        let Judged { goal, measured, verdict } = judge(goal, row, results);
        writeln!(out, "- Goal {goal}: {measured}, {}.", verdict_of(verdict))?;
    }
    Ok(writeln!(out)?)
}

fn table(
    out: &mut String,
    row: &Row,
    results: &Results,
    summaries: &[(&str, Summary)],
    ours: Option<&Summary>,
) -> Result<()> {
    let per_gigabyte = matches!(row.work, Work::File { .. } | Work::Share { .. });
    let cpu = if per_gigabyte { "CPU s/GB, client + server" } else { "CPU s, client + server" };
    let lost = summaries.iter().any(|(_, summary)| summary.lost.is_some());
    let share = row.unit == Unit::Percent;
    let ratio = if share { "" } else { " ftpq ÷ it |" };
    let (head, line) = if lost { (" packets lost |", "---|") } else { ("", "") };
    let ratio_line = if share { "" } else { "---|" };
    writeln!(out, "| | {} |{ratio} {cpu} | peak MiB, client + server | runs |{head}", unit(row.unit))?;
    writeln!(out, "|---|---|{ratio_line}---|---|---|{line}")?;
    for (name, summary) in summaries {
        // What two spend at once cannot be told apart.
        let bytes = if share { summary.bytes * 2 } else { summary.bytes };
        let scale = if per_gigabyte { bytes as f64 / 1e9 } else { 1.0 };
        write!(out, "| {} | {} |", shown_label(name, summary, ours), summary.value.show())?;
        if !share {
            let times = ours.filter(|_| !peers::is_ours(name)).map(|ours| ours.ratio(summary, row.unit));
            write!(out, " {} |", times.map_or("–".into(), |times| format!("{times:.2}")))?;
        }
        let [client, server] = [summary.client_cpu, summary.server_cpu].map(|cpu| number(cpu / scale));
        let [held, served] = [summary.client_memory, summary.server_memory].map(|bytes| bytes.div_ceil(1 << 20));
        write!(out, " {client} + {server} | {held} + {served} | {} |", summary.runs)?;
        if lost {
            write!(out, " {} |", summary.lost.map_or("–".into(), |lost| format!("{lost:.2} %")))?;
        }
        writeln!(out)?;
    }
    for skip in results.skips(row.id) {
        if let Some(peer) = &skip.peer {
            let cells = 4 - usize::from(share) + usize::from(lost);
            writeln!(out, "| {} | left out |{}", label(peer), " – |".repeat(cells))?;
        }
    }
    Ok(writeln!(out)?)
}

/// Those that have a result, in the row's order.
fn summaries<'a>(row: &'a Row, results: &Results) -> Vec<(&'a str, Summary)> {
    row.peers.iter().filter_map(|&peer| Some((peer, Summary::of(results, row, peer)?))).collect()
}

/// Peer, last reason, and how many of how many.
fn failures<'a>(row: &'a Row, results: &'a Results) -> Vec<(&'a str, &'a str, String)> {
    let of_peer = |&peer: &&'a str| {
        let all = results.runs(row.id).filter(|run| run.peer == peer).count();
        let failed = results.runs(row.id).filter(|run| run.peer == peer).filter_map(|run| run.failed.as_deref());
        let failed: Vec<&str> = failed.collect();
        failed.last().map(|&why| (peer, why, format!("{} of {all}", failed.len())))
    };
    row.peers.iter().filter_map(of_peer).collect()
}

fn bars(row: &Row, results: &Results) -> Vec<Bar> {
    let summaries = summaries(row, results);
    let ours = summaries.iter().find(|(name, _)| peers::is_ours(name)).map(|(_, summary)| summary.clone());
    let bar = |(name, summary): (&str, Summary)| Bar {
        label: shown_label(name, &summary, ours.as_ref()),
        value: summary.value,
        ours: peers::is_ours(name),
    };
    summaries.into_iter().map(bar).collect()
}

/// With the size, where it is not that of ours.
fn shown_label(name: &str, summary: &Summary, ours: Option<&Summary>) -> String {
    match ours {
        Some(ours) if ours.bytes != summary.bytes => format!("{} ({} MiB)", label(name), summary.bytes >> 20),
        _ => label(name).to_owned(),
    }
}

fn axis(row: &Row) -> String {
    match row.unit {
        Unit::Seconds | Unit::Milliseconds => format!("{}, less is better", unit(row.unit)),
        Unit::Percent => "%".into(),
        _ => unit(row.unit).into(),
    }
}

fn work(row: &Row, bytes: u64) -> String {
    match row.work {
        Work::File { direction: Direction::Up, .. } => format!("One file of {} MiB to the server.", bytes >> 20),
        Work::File { direction: Direction::Down, .. } => format!("One file of {} MiB from the server.", bytes >> 20),
        Work::Tree { files, .. } => {
            format!("{} files of 4 KiB, up to 100 in a folder, to the server.", number(files.into()))
        }
        Work::Connect => "From the start of the client to its end; everybody knows each other.".into(),
        Work::Share { .. } => format!(
            "Two uploads of {} MiB begin at once; what each has sent when the first of them ends. CPU time and memory \
             are those of both together.",
            bytes >> 20
        ),
    }
}

/// As GitHub makes them of headings.
fn anchor(title: &str) -> String {
    let kept = title
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

/// What is said on the terminal at the end.
pub(super) fn missed(results: &Results) -> Vec<String> {
    let judged = |row: &'static Row, goal: &Goal| (row.id, judge(goal, row, results));
    let all = ROWS.iter().flat_map(|row| row.goals.iter().map(move |goal| judged(row, goal)));
    let missed = all.filter(|(_, judged)| judged.verdict == Verdict::Missed);
    missed.map(|(id, judged)| format!("{id}: {} is wanted, {} was measured", judged.goal, judged.measured)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a change that is meant: `FTPQ_GOLDEN=write cargo test --package xtask`, and look at the difference.
    #[test]
    fn a_small_report_is_as_it_was() {
        let results = Results::parse(include_str!("golden/results.jsonl")).unwrap();
        let report = render(&results, "golden").unwrap();
        if std::env::var_os("FTPQ_GOLDEN").is_some() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/golden/report.md");
            fs::write(file, &report).unwrap();
            return;
        }
        assert_eq!(report, include_str!("golden/report.md"));
        assert_eq!(missed(&results).len(), report.lines().filter(|line| line.ends_with("| **not met** |")).count());
    }

    #[test]
    fn a_report_and_its_plots_are_written_from_raw_results() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("numbers");
        fs::create_dir(&folder).unwrap();
        fs::write(results_file(&folder), include_str!("golden/results.jsonl")).unwrap();
        fs::write(folder.join("analysis.md"), "## By hand\n").unwrap();
        fs::write(folder.join("veth-up.svg"), "of a run that is no more").unwrap();
        let report = fs::read_to_string(write(&folder).unwrap()).unwrap();
        assert!(report.contains("numbers/loopback-up.svg") && report.ends_with("## By hand\n"));
        assert!(folder.join("loopback-up.svg").exists() && !folder.join("veth-up.svg").exists());
    }

    #[test]
    fn anchors_are_those_of_the_headings() {
        assert_eq!(anchor("300 Mbit/s, RTT 50 ms, 0.1 % loss"), "300-mbits-rtt-50-ms-01--loss");
    }
}
