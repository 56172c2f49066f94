//! Rows that share a network: who is there, whose turn it is, and what each turn came to.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::{
    Bench,
    measure::{self, Measured},
    network::{Congestion, Network},
    options::Planned,
    peers::{self, AGAIN, Client, FIRST, Job, Op, Peer},
    record::{Line, Run, Skip},
    rows::{Direction, Unit, Work},
    services::{Folders, Service, Services},
    sources,
    stats::number,
    tools, verdict,
};
use crate::scratch::check_interrupted;

/// Everything that a turn needs.
pub(super) struct Runner<'a> {
    network: &'a Network,
    services: Services<'a>,
    folders: Folders,
    congestion: &'a Congestion,
    /// Whether ftpq has just moved something over this path.
    warm: bool,
}

impl<'a> Runner<'a> {
    pub(super) fn new(
        network: &'a Network,
        services: Services<'a>,
        folders: Folders,
        congestion: &'a Congestion,
    ) -> Self {
        Self { network, services, folders, congestion, warm: false }
    }

    pub(super) fn rows(&mut self, rows: &[Planned], bench: &mut Bench) -> Result<()> {
        for planned in rows {
            self.row(planned, bench).with_context(|| planned.row.id)?;
        }
        Ok(())
    }

    fn row(&mut self, planned: &Planned, bench: &mut Bench) -> Result<()> {
        let row = planned.row;
        bench.results.forget(row.id);
        let mut present = Vec::new();
        for peer in planned.peers.iter().filter_map(|name| peers::find(name)) {
            match self.missing(peer) {
                None => present.push(peer),
                Some(why) => {
                    eprintln!("LEFT OUT: {} of {}: {why}", peer.name, row.id);
                    bench.add(Line::Skip(Skip { row: row.id.into(), peer: Some(peer.name.into()), why }))?;
                }
            }
        }
        for rep in 1..=planned.reps {
            let runs = match (planned.work, present.as_slice()) {
                (Work::Share { .. }, &[one, other]) => self.share(planned, [one, other])?.to_vec(),
                (Work::Share { .. }, _) => vec![],
                (_, peers) => {
                    let mut late = BTreeSet::new();
                    for peer in peers {
                        let (run, is_late) = self.turn(planned, peer)?;
                        keep(bench, planned, rep, run)?;
                        late.extend(is_late.then_some(peer.name));
                    }
                    // It would be so again.
                    present.retain(|peer| !late.contains(peer.name));
                    vec![]
                }
            };
            for run in runs {
                keep(bench, planned, rep, run)?;
            }
        }
        Ok(())
    }

    /// Why this peer cannot take part.
    fn missing(&self, peer: &Peer) -> Option<String> {
        let needed = [Some(peer.program).filter(|_| peer.service != Service::Ftpq), peer.service.program()];
        if let Some(program) = needed.into_iter().flatten().find(|program| tools::find(program).is_none()) {
            return Some(tools::advice(program));
        }
        let known = self.congestion.available.iter().any(|name| name == peer.congestion);
        (!known).then(|| format!("this kernel has no TCP {}", peer.congestion))
    }

    /// One peer's turn, and whether it took too long.
    fn turn(&mut self, planned: &Planned, peer: &Peer) -> Result<(Run, bool)> {
        check_interrupted()?;
        let small = peer.yields_to_loss;
        let source = sources::source(&self.folders.documents, planned.work, small)?;
        let target = self.folders.target();
        let job = Job { op: op(planned.work), source: &source, target: &target, tree: source.is_dir() };
        if peer.name == FIRST {
            self.services.forget_paths()?;
            self.warm = false;
        } else if peer.name == AGAIN && !self.warm {
            self.timed(planned, peer, &job)?;
        }
        let measured = self.timed(planned, peer, &job)?;
        let late = measured.late;
        Ok((Run { bytes: sources::bytes(planned.work, small), ..record(peer, measured) }, late))
    }

    /// An empty target, the clock, the comparison.
    fn timed(&mut self, planned: &Planned, peer: &Peer, job: &Job<'_>) -> Result<Measured> {
        match planned.work {
            // Where many inodes were freed within the last minute, ext4 takes far longer to find one for a new file.
            Work::Tree { durable: true, .. } => sources::set_aside(job.target, &self.folders.aside())?,
            _ => sources::empty(job.target)?,
        }
        self.network.set_congestion(peer.congestion)?;
        let server = self.services.need(peer.service)?;
        let command = peer.command(&self.client(), job);
        let mut measured =
            measure::run(self.network, command, &[server], &self.folders.state.join("client.log"), planned.limit)?;
        if job.op != Op::Connect && measured.failed.is_none() {
            measured.failed = sources::compare(job.source, job.target).err().map(|error| format!("{error:#}"));
            check_interrupted()?;
        }
        self.warm |= peer.service == Service::Ftpq;
        Ok(measured)
    }

    /// Two at once.
    fn share(&mut self, planned: &Planned, both: [&Peer; 2]) -> Result<[Run; 2]> {
        check_interrupted()?;
        let target = self.folders.target();
        let one = sources::source(&self.folders.documents, planned.work, false)?;
        let other = sources::second(&self.folders.documents, &one)?;
        sources::empty(&target)?;
        self.services.forget_paths()?;
        self.network.set_congestion("cubic")?;
        let mut servers =
            both.map(|peer| self.services.need(peer.service)).into_iter().collect::<Result<Vec<u32>>>()?;
        servers.dedup();
        let job = |source| Job { op: op(planned.work), source, target: &target, tree: false };
        let [first, second] = both;
        let client = self.client();
        let commands = [first.command(&client, &job(&one)), second.command(&client, &job(&other))];
        let log = self.folders.state.join("client.log");
        let mut measured = measure::run_two(self.network, commands, &servers, &log, planned.limit)?;
        let copies = [&one, &other].map(|source| sources::compare(source, &target).err());
        let different = copies.into_iter().flatten().next().map(|error| format!("{error:#}"));
        measured.failed = measured.failed.or(different);
        let bytes = sources::bytes(planned.work, false);
        let [sent, sent_other] = measured.sent.unwrap_or_default();
        let part = |mine: u64| Some(100.0 * mine as f64 / ((sent + sent_other).max(1)) as f64);
        let run = |peer, mine| Run { bytes, share: part(mine), ..record(peer, measured.clone()) };
        Ok([run(first, sent), run(second, sent_other)])
    }

    fn client(&self) -> Client {
        Client {
            ftpq: self.folders.ftpq.clone(),
            home: self.folders.home(),
            host: self.network.host.clone(),
            ssh_config: self.folders.ssh_config(),
            certificate: self.folders.certificate(),
            net: self.network.net,
        }
    }
}

fn op(work: Work) -> Op {
    match work {
        Work::File { direction: Direction::Down, .. } => Op::Down,
        Work::File { .. } | Work::Tree { .. } | Work::Share { .. } => Op::Up,
        Work::Connect => Op::Connect,
    }
}

fn record(peer: &Peer, measured: Measured) -> Run {
    Run {
        peer: peer.name.into(),
        seconds: measured.seconds,
        client_cpu: measured.client_cpu,
        server_cpu: measured.server_cpu,
        client_memory: measured.peaks.client,
        server_memory: measured.peaks.server,
        lost: measured.lost,
        failed: measured.failed,
        ..Run::default()
    }
}

/// Writes a run down, and shows it.
fn keep(bench: &mut Bench, planned: &Planned, rep: usize, run: Run) -> Result<()> {
    let (row, unit) = (planned.row, planned.row.unit);
    let shown = match (&run.failed, verdict::value(&run, unit)) {
        (Some(why), _) => format!("FAILED: {why}"),
        (None, Some(value)) => format!("{} {}", number(value), verdict::unit(unit)),
        (None, None) => String::new(),
    };
    let seconds = if matches!(unit, Unit::Seconds | Unit::Milliseconds) {
        String::new()
    } else {
        format!("{:.2} s", run.seconds)
    };
    eprintln!("{:<16} {rep}/{} {:<11} {shown:<16} {seconds}", row.id, planned.reps, run.peer);
    bench.add(Line::Run(Run { row: row.id.into(), rep, ..run }))
}
