//! What `cargo xtask bench` was asked to do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    peers,
    rows::{QUICK_MIB, QUICK_PEERS, ROWS, Row, Work},
};
use crate::project;

/// The command line.
#[derive(Debug, Default)]
pub(super) struct Options {
    quick: bool,
    reps: Option<usize>,
    mib: Option<u64>,
    only: Option<String>,
    peers: Option<Vec<String>>,
    pub(super) out: Option<PathBuf>,
    pub(super) wanlab: Option<PathBuf>,
    pub(super) ftpq: Option<PathBuf>,
    pub(super) install: bool,
}

/// A row as it is to be measured.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) row: &'static Row,
    pub(super) work: Work,
    pub(super) peers: Vec<&'static str>,
    pub(super) reps: usize,
    /// Longer than this, a run has failed.
    pub(super) limit: Duration,
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--install" => options.install = true,
                "--reps" => options.reps = Some(usize::try_from(above_zero(arg, value()?)?)?),
                "--mib" => options.mib = Some(above_zero(arg, value()?)?),
                "--only" => options.only = Some(value()?.clone()),
                "--peers" => options.peers = Some(value()?.split(',').map(str::to_owned).collect()),
                "--out" => options.out = Some(value()?.into()),
                "--wanlab" => options.wanlab = Some(value()?.into()),
                "--ftpq" => options.ftpq = Some(value()?.into()),
                other => project::refuse(other)?,
            }
        }
        for name in options.peers.iter().flatten() {
            if peers::find(name).is_none() {
                let known: Vec<&str> = peers::PEERS.iter().map(|peer| peer.name).collect();
                bail!("there is no peer {name:?}, but these: {}", known.join(" "));
            }
        }
        Ok(options)
    }

    /// The rows that were asked for, in their order.
    pub(super) fn plan(&self) -> Result<Vec<Planned>> {
        let wanted = |row: &&Row| match &self.only {
            Some(prefix) => row.id.starts_with(prefix.as_str()),
            None => row.quick || !self.quick,
        };
        let plan: Vec<Planned> = ROWS.iter().filter(wanted).map(|row| self.planned(row)).collect();
        if plan.is_empty() {
            let known: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
            bail!("no row begins with {:?}; there are {}", self.only.as_deref().unwrap_or_default(), known.join(" "));
        }
        Ok(plan)
    }

    /// Whether rows or peers were left out on purpose: earlier results of the others stay.
    pub(super) fn partial(&self) -> bool {
        self.only.is_some()
    }

    /// Where results go. A quick look must not take the place of what was measured with patience.
    pub(super) fn out(&self) -> Result<PathBuf> {
        let default = if self.quick { "target/bench-quick" } else { "docs/benchmarks" };
        Ok(match &self.out {
            Some(folder) => std::path::absolute(folder)?,
            None => project::root()?.join(default),
        })
    }

    fn planned(&self, row: &'static Row) -> Planned {
        let most = self.mib.or(self.quick.then_some(QUICK_MIB));
        let wanted = |name: &&str| match &self.peers {
            Some(list) => list.iter().any(|listed| listed == name || (listed == "ftpq" && peers::is_ours(name))),
            None => !self.quick || QUICK_PEERS.contains(name),
        };
        // Two that share a bottleneck are one measurement.
        let whole = matches!(row.work, Work::Share { .. });
        let peers = row.peers.iter().copied().filter(|name| whole || wanted(name)).collect();
        let work = most.map_or(row.work, |most| row.work.capped(most));
        let limit = Duration::from_secs(if self.quick { 30 } else { 300 });
        Planned { row, work, peers, reps: self.reps.unwrap_or(row.reps(self.quick)), limit }
    }
}

fn above_zero(option: &str, text: &str) -> Result<u64> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("{option} needs a number above zero, not {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Vec<Planned>> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args)?.plan()
    }

    #[test]
    fn everything_is_planned_where_nothing_is_said() {
        let plan = plan("").unwrap();
        assert_eq!(plan.len(), ROWS.len());
        assert!(plan.iter().all(|planned| planned.work == planned.row.work && planned.peers == planned.row.peers));
    }

    #[test]
    fn options_narrow_the_plan() {
        let few = plan("--only loopback --peers ftpq,curl --reps 7 --mib 64").unwrap();
        let ids: Vec<&str> = few.iter().map(|planned| planned.row.id).collect();
        assert_eq!(ids, ["loopback-up", "loopback-down"]);
        assert_eq!((few[0].peers.as_slice(), few[0].reps), (["ftpq", "curl"].as_slice(), 7));
        assert!(matches!(few[0].work, Work::File { mib: 64, lossy: 64, .. }));

        let quick = plan("--quick").unwrap();
        assert!(quick.len() < ROWS.len() && quick.iter().all(|planned| planned.reps <= 3));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["--reps 0", "--reps", "--peers nobody", "--only nothing", "--fast"] {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
