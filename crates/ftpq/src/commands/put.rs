//! `ftpq put`: uploads files and folders.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ftpq_client::verdict::Direction;
use ftpq_proto::{Kind, Name, RemotePath, Status, UserPath};
use ftpq_storage::Storage;
use ftpq_transport::Ticket;

use super::{
    pipe,
    several::Several,
    transfer::{Job, TransferArgs, before_paths, local, shown},
};
use crate::{
    client::Client,
    exit::{self, Ended, MISPLACED_TICKET},
    progress::Prefix,
    target::Target,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Local files and folders, or - for standard input; the last may be the target: HOST:PATH, :PATH or ftpq://…
    #[arg(required = true, value_name = "LOCAL")]
    locals: Vec<OsString>,
    /// Where to: an existing folder, a path ending in /, or a new name
    #[arg(long, value_name = "REMOTE")]
    to: Option<OsString>,
    #[command(flatten)]
    transfer: TransferArgs,
}

impl Args {
    /// Whether standard input is what is sent.
    pub(super) fn is_pipe(&self) -> bool {
        self.locals.iter().any(|local| local == "-")
    }
}

pub(crate) async fn run(client: &mut Client, mut args: Args) -> anyhow::Result<u8> {
    let target = target_of(client, &mut args)?;
    if args.is_pipe() {
        return standard_input(client, &args, &target).await;
    }
    let (mut sources, mut several) = (Vec::new(), Several::new(args.locals.len()));
    for local in &args.locals {
        sources.extend(several.one(Source::find(local, &args.transfer))?);
    }
    if sources.is_empty() {
        return Ok(several.code());
    }
    let server = client.server(target.server.as_ref())?;
    let folder = client.state.folder(&server);
    let to = client.storage_over(&server, args.transfer.connections()).await?;
    let target = Place::find(&to, &folder, &target.path, args.locals.len()).await?;
    let mut folders = HashMap::new();
    let jobs = sources.into_iter().map(|source| source.job(&mut folders, &to, &target));
    let jobs = jobs.collect::<anyhow::Result<_>>()?;
    args.transfer.run(Direction::Upload, jobs, &several, client).await
}

/// `put - --to FILE`.
async fn standard_input(client: &mut Client, args: &Args, target: &Target) -> anyhow::Result<u8> {
    if args.locals.len() > 1 || args.transfer.recursive() {
        return Err(Ended::usage("standard input (-) is one file, put alone"));
    }
    let (server, path) = client.locate(target)?;
    if path.is_root() || target.path.names_a_folder() || target.path == UserPath::default() {
        return Err(Ended::usage("standard input has no name: give it one with --to FILE"));
    }
    let to = client.storage_over(&server, args.transfer.connections()).await?;
    pipe::upload(to, &path, false, &args.transfer, client).await
}

/// `--to`, or the last argument where that is a remote path, or the current folder.
fn target_of(client: &Client, args: &mut Args) -> anyhow::Result<Target> {
    let port = client.global.port;
    if let Some(to) = &args.to {
        return Target::parse(to, port);
    }
    if let Some(last) = args.locals.last()
        && let Some(target) = Target::parse_remote(last, port)?
    {
        args.locals.pop();
        if args.locals.is_empty() {
            return Err(Ended::usage("put what? Name a local file before the target"));
        }
        return Ok(target);
    }
    Ok(Target { server: None, path: UserPath::default() })
}

/// Something local to upload.
struct Source {
    /// The folder to read from: a folder itself, or the one that holds a file.
    folder: PathBuf,
    /// The file in it.
    file: Option<Name>,
    /// As it was named: a link keeps its own name. `.` has none.
    name: Option<Name>,
    is_folder: bool,
}

impl Source {
    fn find(local: &OsString, transfer: &TransferArgs) -> anyhow::Result<Self> {
        if Ticket::resembles(&local.to_string_lossy()) {
            return Err(Ended::usage(MISPLACED_TICKET));
        }
        let path = Path::new(local);
        let failed = |error: std::io::Error| {
            let problem = ftpq_storage::Problem::from(error);
            Ended::with(exit::code_of_status(problem.status()), format!("{}: {problem}", shown(path)))
        };
        // What is named on the command line may be a link; below it, links are not followed.
        let is_folder = fs::metadata(path).map_err(failed)?.is_dir();
        if is_folder && !transfer.recursive() {
            return Err(Ended::with(exit::FAILED, format!("{}: is a folder (-r takes folders)", shown(path))));
        }
        let real = fs::canonicalize(path).map_err(failed)?;
        let named = path.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        if is_folder {
            return Ok(Self { folder: real, file: None, name: named, is_folder });
        }
        let folder = real.parent().unwrap_or(Path::new("/")).into();
        let file = real.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        Ok(Self { folder, file, name: named, is_folder })
    }

    /// Each folder is opened once, however much of it is put.
    fn job(
        self,
        folders: &mut HashMap<PathBuf, Arc<dyn Storage>>,
        to: &Arc<dyn Storage>,
        target: &Place,
    ) -> anyhow::Result<Job> {
        let source = self.file.as_ref().map_or(Ok(RemotePath::root()), |file| RemotePath::root().join(file))?;
        let from = match folders.get(&self.folder) {
            Some(from) => from.clone(),
            None => folders.entry(self.folder.clone()).or_insert(local(&self.folder)?).clone(),
        };
        Ok(Job {
            from,
            source,
            is_folder: self.is_folder,
            to: to.clone(),
            target: target.of(self.name.as_ref())?,
            parents: target.parents,
            prefix: Prefix { source: before_paths(&self.folder), target: String::new() },
        })
    }
}

/// Where things go on the server.
struct Place {
    path: RemotePath,
    /// Things keep their names in it; otherwise it is the one thing's new name.
    is_folder: bool,
    parents: bool,
}

impl Place {
    async fn find(to: &Arc<dyn Storage>, cwd: &RemotePath, typed: &UserPath, sources: usize) -> anyhow::Result<Self> {
        let path = typed.resolve(cwd).map_err(|error| Ended::usage(format!("{typed}: {error}")))?;
        if typed.names_a_folder() {
            return Ok(Self { path, is_folder: true, parents: true });
        }
        let kind = match to.stat(&path).await {
            Ok(entry) => Some(entry.kind),
            Err(error) if error.status() == Status::NotFound => None,
            // A drop box takes files without showing what is there.
            Err(error) if error.status() == Status::Forbidden && sources == 1 => None,
            Err(error) if error.status() == Status::Forbidden => {
                return Err(Ended::usage(format!(
                    "{path}: several things need a folder: end it with / to put them there"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        if sources > 1 && kind != Some(Kind::Folder) {
            return Err(Ended::usage(format!("{path}: not a folder, and several things cannot have one name")));
        }
        Ok(Self { path, is_folder: kind == Some(Kind::Folder), parents: false })
    }

    fn of(&self, name: Option<&Name>) -> anyhow::Result<RemotePath> {
        match name {
            Some(name) if self.is_folder => Ok(self.path.join(name)?),
            _ => Ok(self.path.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many files of it are named: each folder takes a file handle.
    #[test]
    fn a_folder_is_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str| Source {
            folder: folder.path().into(),
            file: Name::new(name).ok(),
            name: Name::new(name).ok(),
            is_folder: false,
        };
        let place = Place { path: RemotePath::root(), is_folder: true, parents: false };
        let (to, mut folders) = (local(folder.path()).unwrap(), HashMap::new());
        let [one, other] = ["a", "b"].map(|name| source(name).job(&mut folders, &to, &place).unwrap());
        assert!(Arc::ptr_eq(&one.from, &other.from));
    }
}
