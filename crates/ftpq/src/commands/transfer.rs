//! What `put` and `get` share: options, the copying itself, and how it is reported.

use std::{path::Path, sync::Arc, time::Duration};

use ftpq_client::{
    Connections,
    copy::{Copy, CopyError, EXTENTS_PER_CONNECTION, Options, Side, Summary, Waited},
    verdict::{Direction, Here},
};
use ftpq_proto::{RemotePath, Status};
use ftpq_storage::{LocalFs, Storage};

use super::several::Several;
use crate::{
    client::Client,
    exit::{self, Ended},
    progress::{Bars, Prefix},
    trial::Trial,
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TransferArgs {
    /// Take folders with all they hold; links in them stay links, if they lead to something in them
    #[arg(short, long)]
    recursive: bool,
    /// Keep modification times and permission bits, of folders too
    #[arg(short, long)]
    preserve: bool,
    /// Take what links lead to, instead of the links; never anything outside
    #[arg(short = 'L', long)]
    copy_links: bool,
    /// Replace files that exist
    #[arg(short, long, conflicts_with = "no_clobber")]
    force: bool,
    /// Leave files alone that exist
    #[arg(long)]
    no_clobber: bool,
    /// Files in flight at the most, and parts of each large file being sent
    #[arg(short = 'j', long, default_value_t = 512, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    parallel: u32,
    /// Connections to spread over; where absent 1, and more for large files where a core is the limit and others are
    /// free on both sides
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    connections: Option<u8>,
    /// Begin large files anew instead of going on with what an interrupted run has left
    #[arg(long)]
    no_resume: bool,
    /// Seconds without progress after which an interrupted transfer is given up; 0 gives up at once
    #[arg(long, default_value_t = 600, value_name = "SECONDS", env = "FTPQ_RETRY_FOR")]
    retry_for: u64,
}

/// One thing to copy.
pub(crate) struct Job {
    pub(crate) from: Arc<dyn Storage>,
    pub(crate) source: RemotePath,
    pub(crate) is_folder: bool,
    pub(crate) to: Arc<dyn Storage>,
    pub(crate) target: RemotePath,
    /// Make missing folders above the target.
    pub(crate) parents: bool,
    pub(crate) prefix: Prefix,
}

impl Job {
    /// Whether both are files that can be copied side by side. Those of one folder have names of their own:
    /// of others, the last one to be named stays.
    fn goes_with(&self, other: &Job) -> bool {
        let same = Arc::ptr_eq(&self.from, &other.from) && Arc::ptr_eq(&self.to, &other.to);
        let same = same && self.source.parent() == other.source.parent();
        let files = !self.is_folder && !other.is_folder;
        same && files && self.parents == other.parents && self.prefix == other.prefix
    }
}

impl TransferArgs {
    /// Whether folders may be copied.
    pub(crate) fn recursive(&self) -> bool {
        self.recursive
    }

    /// Whether `error` is that a file is there which is to be left alone.
    pub(crate) fn leaves_alone(&self, error: &CopyError) -> bool {
        self.no_clobber && error.side == Side::Target && error.status() == Status::Exists
    }

    /// How many connections to spread over.
    pub(crate) fn connections(&self) -> Connections {
        self.connections.map_or(Connections::AsNeeded, |count| Connections::UpTo(count.into()))
    }

    /// Whether links are followed.
    pub(crate) fn follows_links(&self) -> bool {
        self.copy_links
    }

    /// How long to try again after an interruption.
    pub(crate) fn retry_for(&self) -> Duration {
        Duration::from_secs(self.retry_for)
    }

    /// Copies all `jobs`, those of `several` that did not fail before, showing how it goes. Returns the exit code.
    pub(crate) async fn run(
        &self,
        direction: Direction,
        jobs: Vec<Job>,
        several: &Several,
        client: &Client,
    ) -> anyhow::Result<u8> {
        let (bars, trial) = (Arc::new(Bars::new(client.global.quiet)), Trial::begin(client).await);
        let (mut all, mut waited) = (Summary { failed: several.failed(), ..Summary::default() }, Waited::default());
        let alone = several.is_one();
        let mut ended = |copied| match copied {
            Ok(one) => {
                add(&mut all, one);
                Ok(())
            }
            Err(error) if alone || CopyError::is_fatal(&error) => {
                bars.abandon();
                let code = exit::code_of_copy(&error);
                let message = bars.describe(&error) + hint(&error);
                Err(Ended::with(code, message))
            }
            Err(error) => {
                all.failed += 1;
                bars.report(&error);
                Ok(())
            }
        };
        for jobs in jobs.chunk_by(Job::goes_with) {
            waited += self.copy(jobs, &bars, &mut ended).await?;
        }
        bars.finish(done(direction), &all);
        trial.end(client, direction, Here::Disk, &all, waited).await;
        Ok(if all.failed + all.skipped > 0 { exit::PARTIAL } else { exit::OK })
    }

    /// How to copy; `parents` makes missing folders above the target.
    pub(crate) fn options(&self, parents: bool) -> Options {
        Options {
            overwrite: self.force,
            preserve: self.preserve,
            follow_links: self.copy_links,
            keep_existing: self.no_clobber,
            parents,
            parallel: self.parallel,
            extents: EXTENTS_PER_CONNECTION,
            resume: !self.no_resume,
            retry_for: self.retry_for(),
        }
    }

    /// Copies jobs that go together: a folder alone, or files. Returns what they waited for.
    async fn copy(
        &self,
        jobs: &[Job],
        bars: &Arc<Bars>,
        ended: &mut impl FnMut(Result<Summary, CopyError>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Waited> {
        let Some(first) = jobs.first() else { return Ok(Waited::default()) };
        bars.set_prefix(first.prefix.clone());
        let copy = Copy::new(first.from.clone(), first.to.clone(), self.options(first.parents), bars.clone());
        match jobs {
            [job] if job.is_folder => ended(copy.tree(&job.source, &job.target).await)?,
            [job] => ended(copy.file(&job.source, &job.target).await)?,
            jobs => {
                let paths = jobs.iter().map(|job| (job.source.clone(), job.target.clone()));
                copy.files(paths.collect(), ended).await?;
            }
        }
        Ok(copy.waited())
    }
}

/// What was done, for the line after the bars.
pub(super) fn done(direction: Direction) -> &'static str {
    match direction {
        Direction::Upload => "put",
        Direction::Download => "got",
    }
}

/// What to do about a status, in the options of `put` and `get`.
pub(super) fn hint(error: &CopyError) -> &'static str {
    match error.status() {
        Status::Exists => " (-f replaces it)",
        // Whoever may not list the target could not know.
        Status::IsFolder if error.side == Side::Target => " (end it with / to put things there)",
        Status::IsFolder => " (-r takes folders)",
        Status::Changed => " (run it again when it rests)",
        Status::Unavailable => " (try again)",
        _ => "",
    }
}

/// A folder of this machine as one side of a copy.
pub(crate) fn local(folder: &Path) -> anyhow::Result<Arc<dyn Storage>> {
    let storage = LocalFs::open(folder).map_err(|problem| {
        Ended::with(exit::code_of_status(problem.status()), format!("{}: {problem}", shown(folder)))
    })?;
    Ok(Arc::new(storage))
}

/// A local folder as it stands before the paths in it.
pub(super) fn before_paths(folder: &Path) -> String {
    shown(folder).trim_end_matches('/').to_owned()
}

/// A local path, fit for a terminal.
pub(crate) fn shown(path: &Path) -> String {
    ftpq_proto::Escaped::new(path.as_os_str().as_encoded_bytes()).to_string()
}

fn add(all: &mut Summary, one: Summary) {
    all.files += one.files;
    all.bytes += one.bytes;
    all.resumed += one.resumed;
    all.folders += one.folders;
    all.links += one.links;
    all.skipped += one.skipped;
    all.kept += one.kept;
    all.failed += one.failed;
}
