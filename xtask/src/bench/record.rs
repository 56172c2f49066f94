//! The raw results: one JSON object a line, the one thing from which the report is written.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Line {
    Session(Session),
    Run(Run),
    Skip(Skip),
}

/// One call of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(super) struct Session {
    pub(super) date: String,
    pub(super) command: String,
    pub(super) commit: String,
    pub(super) machine: Machine,
    pub(super) versions: Vec<String>,
}

/// What all of it ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    /// In bytes.
    pub(super) memory: u64,
    pub(super) kernel: String,
    /// What emulates long paths; absent where nothing does.
    pub(super) emulator: Option<String>,
    /// The file system of durable files.
    pub(super) disk: Option<String>,
}

impl Machine {
    /// Whether figures from both can stand side by side; where no path was emulated, nothing was measured on one.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { emulator: None, ..self.clone() } == Self { emulator: None, ..other.clone() }
    }
}

/// One timed run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(super) struct Run {
    pub(super) row: String,
    pub(super) peer: String,
    pub(super) rep: usize,
    /// Of all files together.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// CPU seconds.
    pub(super) client_cpu: f64,
    pub(super) server_cpu: f64,
    /// Peak memory in bytes.
    pub(super) client_memory: u64,
    pub(super) server_memory: u64,
    /// Packets lost on the way, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<f64>,
    /// This peer's part of the bottleneck, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) share: Option<f64>,
    /// Why the run counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

/// What could not be measured here: a row, or one peer of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct Skip {
    pub(super) row: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    pub(super) why: String,
}

/// All lines, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Results(pub(super) Vec<Line>);

impl Results {
    /// What is kept in `file`; nothing where there is none.
    pub(super) fn load(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(file)?;
        Self::parse(&text).with_context(|| format!("cannot understand {}", file.display()))
    }

    pub(super) fn save(&self, file: &Path) -> Result<()> {
        Ok(fs::write(file, self.text()?)?)
    }

    /// Takes away what is known of a row.
    pub(super) fn forget(&mut self, row: &str) {
        self.0.retain(|line| match line {
            Line::Session(_) => true,
            Line::Run(run) => run.row != row,
            Line::Skip(skip) => skip.row != row,
        });
    }

    /// Those of which something is left.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.0.windows(2).filter_map(|lines| match lines {
            [Line::Session(session), Line::Run(_) | Line::Skip(_)] => Some(session),
            _ => None,
        })
    }

    /// The runs of a row, failed ones included.
    pub(super) fn runs<'a>(&'a self, row: &'a str) -> impl Iterator<Item = &'a Run> {
        let runs = self.0.iter().filter_map(|line| if let Line::Run(run) = line { Some(run) } else { None });
        runs.filter(move |run| run.row == row)
    }

    pub(super) fn skips<'a>(&'a self, row: &'a str) -> impl Iterator<Item = &'a Skip> {
        let skips = self.0.iter().filter_map(|line| if let Line::Skip(skip) = line { Some(skip) } else { None });
        skips.filter(move |skip| skip.row == row)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>().map(Self)
    }

    fn text(&self) -> Result<String> {
        self.0.iter().map(|line| Ok(serde_json::to_string(line)? + "\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let run = Run { row: "loopback-up".into(), peer: "ftpq".into(), lost: Some(0.5), ..Run::default() };
        let skip = Skip { row: "veth-up".into(), peer: None, why: "no \"ethtool\"".into() };
        let mut results =
            Results(vec![Line::Session(Session::default()), Line::Run(run.clone()), Line::Skip(skip.clone())]);
        assert_eq!(Results::parse(&results.text().unwrap()).unwrap(), results);
        assert_eq!(results.runs("loopback-up").collect::<Vec<_>>(), [&run]);
        assert_eq!(results.skips("veth-up").collect::<Vec<_>>(), [&skip]);

        results.forget("loopback-up");
        assert_eq!((results.0.len(), results.runs("loopback-up").count(), results.sessions().count()), (2, 0, 1));
        results.forget("veth-up");
        assert_eq!(results.sessions().count(), 0);
        assert!(Results::parse("{\"kind\":\"other\"}").is_err());
    }

    #[test]
    fn a_machine_is_the_same_with_an_emulator_and_without() {
        let machine = Machine { cores: 2, ..Machine::default() };
        assert!(machine.is_like(&Machine { emulator: Some("tc netem".into()), ..machine.clone() }));
        assert!(!machine.is_like(&Machine { cores: 4, ..machine.clone() }));
    }
}
