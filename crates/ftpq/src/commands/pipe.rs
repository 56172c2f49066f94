//! Standard input and output as one side of a transfer: `put -`, `get --to -`.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    sync::Arc,
};

use async_trait::async_trait;
use ftpq_client::{
    copy::{Input, Output, Pipe, PipeError, Summary},
    verdict::{Direction, Here},
};
use ftpq_proto::RemotePath;
use ftpq_storage::{BLOCK, Bytes, Storage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::spawn_blocking;

use super::transfer::{TransferArgs, done, hint};
use crate::{
    client::Client,
    exit::{self, Ended},
    progress::Bars,
    trial::Trial,
};

/// Uploads standard input to the file `target`.
pub(crate) async fn upload(
    to: Arc<dyn Storage>,
    target: &RemotePath,
    parents: bool,
    transfer: &TransferArgs,
    client: &Client,
) -> anyhow::Result<u8> {
    let (bars, trial) = (Arc::new(Bars::new(client.global.quiet)), Trial::begin(client).await);
    let pipe = Pipe::new(to, transfer.options(parents), bars.clone());
    let copied = pipe.take_in(&mut Standard, target).await;
    let summary = end(copied, Direction::Upload, &bars, transfer)?;
    if let Some(all) = summary {
        trial.end(client, Direction::Upload, Here::Pipe, &all, pipe.waited()).await;
    }
    Ok(exit::OK)
}

/// Writes the files of `sources` to standard output, one after the other. What was written cannot be taken back,
/// so the exit code is the only word on whether it was whole: unlike a listing, it fails where whoever
/// reads has had enough.
pub(crate) async fn download(
    sources: Vec<(Arc<dyn Storage>, RemotePath)>,
    transfer: &TransferArgs,
    client: &Client,
) -> anyhow::Result<u8> {
    for (from, source) in sources {
        let quiet = client.global.quiet || io::IsTerminal::is_terminal(&io::stdout());
        let (bars, trial) = (Arc::new(Bars::new(quiet)), Trial::begin(client).await);
        let pipe = Pipe::new(from, transfer.options(false), bars.clone());
        let copied = pipe.put_out(&source, &mut Standard).await;
        let summary = end(copied, Direction::Download, &bars, transfer)?;
        if let Some(all) = summary.filter(|_| !quiet) {
            trial.end(client, Direction::Download, Here::Pipe, &all, pipe.waited()).await;
        }
    }
    Ok(exit::OK)
}

/// What was copied; `None` where a file was there that is to be left alone.
fn end(
    copied: Result<Summary, PipeError>,
    direction: Direction,
    bars: &Bars,
    transfer: &TransferArgs,
) -> anyhow::Result<Option<Summary>> {
    let pipe = match direction {
        Direction::Upload => "standard input",
        Direction::Download => "standard output",
    };
    match copied {
        Ok(summary) => {
            bars.finish(done(direction), &summary);
            Ok(Some(summary))
        }
        Err(error) => {
            bars.abandon();
            Err(match error {
                PipeError::Copy(error) if transfer.leaves_alone(&error) => return Ok(None),
                PipeError::Copy(error) => {
                    let message = bars.describe(&error) + hint(&error);
                    Ended::with(exit::code_of_status(error.status()), message)
                }
                PipeError::Pipe(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Ended::with(exit::FAILED, format!("{pipe} was closed before the end"))
                }
                PipeError::Pipe(error) => Ended::with(exit::FAILED, format!("{pipe}: {error}")),
            })
        }
    }
}

/// Standard input and output. Both may wait for whoever is at the other end: the connection must not.
struct Standard;

#[async_trait]
impl Input for Standard {
    async fn next_block(&mut self) -> io::Result<Option<Bytes>> {
        spawn_blocking(|| {
            let block = read_what_is_there(&mut io::stdin().lock())?;
            Ok(if block.is_empty() { None } else { Some(block.into()) })
        })
        .await?
    }
}

/// What can be had without waiting, but for the first of it: whoever writes it may take its time, and what is
/// there must not wait for that.
fn read_what_is_there(input: &mut (impl Read + AsFd)) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    loop {
        let before = block.len();
        let most = (BLOCK - before).min(PIPE) as u64;
        block.resize(before + most as usize, 0);
        let read = match input.read(block.get_mut(before..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                block.truncate(before);
                continue;
            }
            read => read?,
        };
        block.truncate(before + read);
        if read == 0 || block.len() == BLOCK || !is_readable(input) {
            return Ok(block);
        }
    }
}

/// Whether a read would return at once.
fn is_readable(input: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(input, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// What a pipe holds, mostly.
const PIPE: usize = 64 * 1024;

#[async_trait]
impl Output for Standard {
    async fn write(&mut self, block: Bytes) -> io::Result<()> {
        spawn_blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(&block)?;
            out.flush()
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for more than that would leave the server waiting.
    #[test]
    fn what_is_written_to_a_pipe_does_not_wait_for_what_follows() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"a").unwrap();
        assert_eq!(read_what_is_there(&mut reader).unwrap(), b"a");
        let more = std::thread::spawn(move || writer.write_all(&vec![7; BLOCK + 1]).unwrap());
        let mut read = Vec::new();
        loop {
            let block = read_what_is_there(&mut reader).unwrap();
            assert!(block.len() <= BLOCK);
            if block.is_empty() {
                break;
            }
            read.extend(block);
        }
        more.join().unwrap();
        assert_eq!(read, vec![7; BLOCK + 1]);
    }
}
