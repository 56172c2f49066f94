//! `ftpq ls`: lists remote folders. Sorted by name as long as that takes little memory; a folder of
//! any size comes page by page.

use std::{
    ffi::OsString,
    io::{self, Write},
    sync::Arc,
};

use anyhow::Context;
use ftpq_client::limits;
use ftpq_proto::{Entry, Kind, Name, RemotePath};
use ftpq_storage::Storage;

use crate::{
    client::Client,
    exit::{self, Ended},
    output::{columns, entry_json, json_line, long_line, suffix},
    target::Target,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folders or files; the current folder where absent
    paths: Vec<OsString>,
    /// Show permissions, sizes and times
    #[arg(short)]
    long: bool,
    /// Show what is below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show names that begin with a dot
    #[arg(short, long)]
    all: bool,
    /// Print one JSON object a line, unsorted
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(client: &mut Client, mut args: Args) -> anyhow::Result<()> {
    if args.paths.is_empty() {
        args.paths.push(OsString::new());
    }
    let headings = args.paths.len() > 1 || args.recursive;
    for path in &args.paths {
        let (server, path) = client.locate(&Target::parse(path, client.global.port)?)?;
        let storage = client.storage(&server).await?;
        let (mut next, mut waiting) = (Some(path), Waiting::default());
        while let Some(folder) = next {
            if headings && !args.json {
                writeln!(io::stdout(), "{folder}:")?;
            }
            let below = list(&storage, &folder, &args, &mut waiting).await?;
            if headings && !args.json {
                writeln!(io::stdout())?;
            }
            waiting.open.push((folder, below));
            next = waiting.next()?;
        }
    }
    Ok(())
}

/// Folders that are still to be listed. What they take in memory is bounded: the server may be hostile.
#[derive(Default)]
struct Waiting {
    /// Each folder on the way down, with those in it that wait, the next last.
    open: Vec<(RemotePath, Vec<Name>)>,
    bytes: usize,
}

impl Waiting {
    /// Makes room for one more of the folders in `above`.
    fn add(&mut self, above: &RemotePath, name: &Name) -> anyhow::Result<()> {
        self.bytes += cost(name);
        if self.bytes <= limits::WAITING {
            return Ok(());
        }
        let message = format!("{above}: holds more folders than can be kept in mind: list them in parts");
        Err(Ended::with(exit::FAILED, message))
    }

    fn next(&mut self) -> anyhow::Result<Option<RemotePath>> {
        while let Some((folder, below)) = self.open.last_mut() {
            if let Some(name) = below.pop() {
                self.bytes -= cost(&name);
                return Ok(Some(below_of(folder, &name)?));
            }
            self.open.pop();
        }
        Ok(None)
    }
}

/// Bytes of a name, with those that keeping it takes.
fn cost(name: &Name) -> usize {
    name.as_bytes().len() + 3 * size_of::<Name>()
}

fn below_of(folder: &RemotePath, name: &Name) -> anyhow::Result<RemotePath> {
    folder.join(name).with_context(|| folder.to_string())
}

/// Lists one folder, or the one thing that `path` is. With -R, returns the folders in it, the first last.
async fn list(
    storage: &Arc<dyn Storage>,
    path: &RemotePath,
    args: &Args,
    waiting: &mut Waiting,
) -> anyhow::Result<Vec<Name>> {
    let mut listing = storage.list(path).await?;
    let (mut folders, mut shown, mut shown_bytes) = (Vec::new(), Vec::new(), 0);
    let mut sorting = !args.json;
    // Set when the listing is of `path` itself: the folder that it lies in.
    let mut lies_in = None;
    let mut page = listing.next_page().await?;
    while let Some(entries) = page {
        // Only the end of the listing tells.
        let next = if may_be_itself(path, &entries) { Some(listing.next_page().await?) } else { None };
        if listing.is_itself() {
            lies_in = Some(path.parent());
        }
        for entry in entries {
            let Some(name) = &entry.name else { continue };
            if !args.all && lies_in.is_none() && name.as_bytes().starts_with(b".") {
                continue;
            }
            if args.recursive && entry.kind == Kind::Folder {
                below_of(path, name)?;
                waiting.add(path, name)?;
                folders.push(name.clone());
            }
            shown_bytes += entry.page_bytes();
            shown.push(entry);
        }
        if shown_bytes > SORTED_MAX {
            sorting = false;
        }
        if !sorting {
            print(&mut shown, lies_in.as_ref().unwrap_or(path), args)?;
        }
        page = match next {
            Some(next) => next,
            None => listing.next_page().await?,
        };
    }
    folders.sort_by(|a, b| b.cmp(a));
    print(&mut shown, lies_in.as_ref().unwrap_or(path), args)?;
    Ok(folders)
}

/// Whether a page looks like what LIST answers about anything but a folder: its own entry, which is shown as
/// typed, hidden or not. A folder that holds nothing but a thing of its own name looks the same.
fn may_be_itself(path: &RemotePath, page: &[Entry]) -> bool {
    let [entry] = page else { return false };
    entry.name.is_some() && entry.name == path.name() && entry.kind != Kind::Folder
}

fn print(entries: &mut Vec<Entry>, folder: &RemotePath, args: &Args) -> anyhow::Result<()> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let name = |entry: &Entry| entry.name.as_ref().map(ToString::to_string).unwrap_or_default();
    if args.json {
        for entry in entries.drain(..) {
            let path = entry.name.as_ref().map_or(Ok(folder.clone()), |name| folder.join(name))?;
            json_line(&entry_json(&path.to_string(), &entry))?;
        }
    } else if args.long {
        let mut out = io::stdout().lock();
        for entry in entries.drain(..) {
            writeln!(out, "{}", long_line(&entry, &name(&entry)))?;
        }
    } else {
        let names: Vec<_> = entries.drain(..).map(|entry| name(&entry) + suffix(entry.kind)).collect();
        columns(&names)?;
    }
    Ok(())
}

/// Bytes of entries that are held back to be sorted: at least some thousands, mostly tens of thousands.
const SORTED_MAX: usize = 4 * 1024 * 1024;
