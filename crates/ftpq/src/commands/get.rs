//! `ftpq get`: downloads files and folders.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use ftpq_client::{
    copy::{Followed, LeftOut, follow},
    verdict::Direction,
};
use ftpq_proto::{Kind, Name, RemotePath};
use ftpq_storage::Storage;

use super::{
    pipe,
    several::Several,
    transfer::{Job, TransferArgs, before_paths, local, shown},
};
use crate::{
    client::Client,
    exit::{self, Ended},
    progress::Prefix,
    target::Target,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Remote files and folders
    #[arg(required = true, value_name = "REMOTE")]
    remotes: Vec<OsString>,
    /// Where to: an existing folder, a path ending in /, a new name, or - for standard output
    #[arg(long, value_name = "LOCAL", default_value = ".")]
    to: PathBuf,
    #[command(flatten)]
    transfer: TransferArgs,
}

impl Args {
    /// Whether it goes to standard output.
    pub(super) fn is_pipe(&self) -> bool {
        self.to.as_os_str() == "-"
    }
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<u8> {
    if args.is_pipe() {
        if args.transfer.recursive() {
            return Err(Ended::usage("standard output (--to -) takes files, not folders"));
        }
        let mut sources = Vec::new();
        for remote in &args.remotes {
            let (server, source) = client.locate(&Target::parse(remote, client.global.port)?)?;
            let from = client.storage_over(&server, args.transfer.connections()).await?;
            let source = if args.transfer.follows_links() { followed(&from, source).await? } else { source };
            sources.push((from, source));
        }
        return pipe::download(sources, &args.transfer, client).await;
    }
    let place = Place::find(&args.to, args.remotes.len())?;
    let to = local(&place.folder)?;
    let (mut jobs, mut servers, mut several) = (Vec::new(), HashMap::new(), Several::new(args.remotes.len()));
    for remote in &args.remotes {
        let (server, source) = client.locate(&Target::parse(remote, client.global.port)?)?;
        let from = match servers.get(&server) {
            Some(from) => Arc::clone(from),
            None => client.storage_over(&server, args.transfer.connections()).await?,
        };
        servers.insert(server, from.clone());
        let name = source.name();
        let Some((source, is_folder)) = several.one(find(&from, source, &args.transfer).await)? else { continue };
        let target = place.of(name, is_folder)?;
        let prefix = Prefix { source: String::new(), target: before_paths(&place.folder) };
        jobs.push(Job { from, source, is_folder, to: to.clone(), target, parents: false, prefix });
    }
    args.transfer.run(Direction::Download, jobs, &several, client).await
}

/// Where to copy from, and whether that is a folder.
async fn find(
    from: &Arc<dyn Storage>,
    source: RemotePath,
    transfer: &TransferArgs,
) -> anyhow::Result<(RemotePath, bool)> {
    let source = if transfer.follows_links() { followed(from, source).await? } else { source };
    // Without -r the server's answer to DWLD says that it is a folder: a round trip less.
    let is_folder = transfer.recursive() && from.stat(&source).await?.kind == Kind::Folder;
    Ok((source, is_folder))
}

/// What a link that was named leads to. The copy keeps the link's name.
async fn followed(from: &Arc<dyn Storage>, source: RemotePath) -> anyhow::Result<RemotePath> {
    let left_out = |why: LeftOut| Err(Ended::with(exit::FAILED, format!("{source}: {why}")));
    match follow(&**from, &source).await? {
        Followed::To(path, _) => Ok(path),
        Followed::Out => left_out(LeftOut::LeadsOut),
        Followed::Loop => left_out(LeftOut::Loop),
    }
}

/// Where things go on this machine.
struct Place {
    /// An open folder: nothing is written outside it.
    folder: PathBuf,
    /// The one thing's new name in it; otherwise things keep theirs.
    name: Option<Name>,
}

impl Place {
    fn find(to: &Path, sources: usize) -> anyhow::Result<Self> {
        if to.as_os_str().as_bytes().ends_with(b"/") {
            fs::create_dir_all(to).with_context(|| shown(to))?;
        }
        if to.is_dir() {
            return Ok(Self { folder: to.into(), name: None });
        }
        if sources > 1 {
            return Err(Ended::usage(format!("{}: not a folder, and several things cannot have one name", shown(to))));
        }
        let name = to.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        let name = name.ok_or_else(|| Ended::usage(format!("{}: not a name for a file", shown(to))))?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { folder: folder.into(), name: Some(name) })
    }

    fn of(&self, source: Option<Name>, is_folder: bool) -> anyhow::Result<RemotePath> {
        let root = RemotePath::root();
        match self.name.clone().or(source) {
            Some(name) => Ok(root.join(&name)?),
            // The server's root has no name: what is in it goes right here.
            None if is_folder => Ok(root),
            None => Err(Ended::with(exit::FAILED, "/: is a folder (-r takes folders)")),
        }
    }
}
