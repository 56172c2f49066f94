//! `cargo xtask bench`: ftpq beside its peers, on loopback, device pairs and long paths; tables and plots of it.
//! `cargo xtask bench report` writes the tables and plots again, from the raw results.
//!
//! `rows.rs` says what is measured, `peers.rs` who does it. A row's peers take turns, so that what else the
//! machine does hits all of them; a copy is compared byte for byte after the clock has stopped.

mod machine;
mod measure;
mod network;
mod options;
mod peers;
mod plot;
mod processes;
mod record;
mod report;
mod rows;
mod runner;
mod services;
mod sources;
mod stats;
mod tools;
mod verdict;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use self::{
    network::{Congestion, Network},
    options::{Options, Planned},
    record::{Line, Results, Session, Skip},
    rows::Work,
    runner::Runner,
    services::{DOCUMENTS, Folders, Services, TARGET},
};
use crate::{project, scratch::Scratch};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    if let Some(("report", rest)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return rewrite(rest);
    }
    let options = Options::parse(args)?;
    let plan = options.plan()?;
    let out = options.out()?;
    let shell = project::shell()?;
    if options.install {
        tools::install(&shell)?;
    }
    network::check(&shell)?;
    let ftpq = match &options.ftpq {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => project::build_release(&shell)?,
    };
    let memory = Scratch::new(Some(Path::new("/dev/shm")), false)?;
    machine::check_room(memory.path(), &sizes(&plan))?;
    let wanlab = network::wanlab(options.wanlab.clone());
    let emulator = network::emulator(&shell, wanlab.as_deref());
    let disk = machine::disk();
    let system = disk.as_ref().ok().map(|(_, system)| (*system).to_owned());
    let machine = machine::describe(emulator.clone().ok(), system);
    let session = machine::session(&shell, args, machine, &ftpq);
    let mut bench = Bench { file: report::results_file(&out), results: Results::default() };
    fs::create_dir_all(&out)?;
    bench.begin(session, options.partial())?;

    let folders = folders(memory.path(), ftpq)?;
    services::make_keys(&shell, &folders.state)?;
    let congestion = Congestion::allow()?;
    for group in plan.chunk_by(same_place) {
        let Some(first) = group.first() else { continue };
        let on_disk = matches!(first.work, Work::Tree { durable: true, .. });
        let place = match (network::possible(first.row.net, &emulator), on_disk, &disk) {
            (Err(why), ..) => Err(why),
            (Ok(()), true, Err(why)) => Err(why.to_string()),
            (Ok(()), true, Ok((folder, _))) => Ok(Some(Scratch::new(Some(folder), false)?)),
            (Ok(()), false, _) => Ok(None),
        };
        let scratch = match place {
            Ok(scratch) => scratch,
            Err(why) => {
                bench.leave_out(group, &why)?;
                continue;
            }
        };
        let folders = scratch.as_ref().map_or(Ok(folders.clone()), |scratch| elsewhere(&folders, scratch.path()))?;
        let network = Network::up(&shell, first.row.net, wanlab.as_deref())?;
        let services = Services::new(&network, folders.clone())?;
        Runner::new(&network, services, folders, &congestion).rows(group, &mut bench)?;
        drop(network);
        scratch.map_or(Ok(()), Scratch::close)?;
    }
    drop(congestion);
    memory.close()?;
    bench.tell(&out)
}

/// The results so far, and the file that they go to after each run.
struct Bench {
    file: PathBuf,
    results: Results,
}

impl Bench {
    /// A part of the rows joins what is known of the others, if that comes from the same machine.
    fn begin(&mut self, session: Session, partial: bool) -> Result<()> {
        if partial {
            self.results = Results::load(&self.file)?;
        }
        if self.results.sessions().any(|earlier| !earlier.machine.is_like(&session.machine)) {
            bail!("{} holds results of another machine or kernel: say `--out FOLDER`", self.file.display());
        }
        self.results.0.push(Line::Session(session));
        Ok(())
    }

    fn add(&mut self, line: Line) -> Result<()> {
        self.results.0.push(line);
        self.results.save(&self.file)
    }

    fn leave_out(&mut self, rows: &[Planned], why: &str) -> Result<()> {
        for Planned { row, .. } in rows {
            eprintln!("LEFT OUT: {}: {why}", row.id);
            self.results.forget(row.id);
            self.add(Line::Skip(Skip { row: row.id.into(), peer: None, why: why.into() }))?;
        }
        Ok(())
    }

    fn tell(&self, out: &Path) -> Result<ExitCode> {
        self.results.save(&self.file)?;
        let report = report::write(out)?;
        for missed in report::missed(&self.results) {
            println!("not met: {missed}");
        }
        println!("{}", report.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// `cargo xtask bench report [--out FOLDER]`.
fn rewrite(args: &[String]) -> Result<ExitCode> {
    let out = Options::parse(args)?.out()?;
    if !report::results_file(&out).is_file() {
        bail!("{} holds no results: run `cargo xtask bench` first", out.display());
    }
    println!("{}", report::write(&out)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Whether two rows can share a network and its servers.
fn same_place(a: &Planned, b: &Planned) -> bool {
    let durable = |planned: &Planned| matches!(planned.work, Work::Tree { durable: true, .. });
    a.row.net == b.row.net && durable(a) == durable(b)
}

/// The sizes of all files, in MiB.
fn sizes(plan: &[Planned]) -> Vec<u64> {
    let sizes = plan.iter().flat_map(|planned| match planned.work {
        Work::File { mib, lossy, .. } => vec![mib, lossy],
        // The other one of the two goes to the target, too.
        Work::Share { mib } => vec![mib, mib + 1],
        Work::Tree { .. } | Work::Connect => vec![],
    });
    sizes.collect::<BTreeSet<u64>>().into_iter().collect()
}

fn folders(memory: &Path, ftpq: PathBuf) -> Result<Folders> {
    let served = memory.join("served");
    let folders = Folders { ftpq, state: memory.join("state"), documents: served.join(DOCUMENTS), served };
    for folder in [&folders.state, &folders.documents, &folders.target()] {
        fs::create_dir_all(folder)?;
    }
    Ok(folders)
}

/// The same with its target somewhere else.
fn elsewhere(folders: &Folders, place: &Path) -> Result<Folders> {
    let folders = Folders { served: place.into(), ..folders.clone() };
    fs::create_dir(place.join(TARGET))?;
    Ok(folders)
}
