//! Standard input and output as one side of a transfer: `put -`, `get --to -`.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use async_trait::async_trait;
use ftpq_client::copy::{Input, Output, Pipe, PipeError, Summary};
use ftpq_proto::RemotePath;
use ftpq_storage::{BLOCK, Bytes, Storage};
use tokio::task::spawn_blocking;

use super::transfer::{TransferArgs, hint};
use crate::{
    exit::{self, Ended},
    global::Global,
    progress::Bars,
};

/// Uploads standard input to the file `target`.
pub(crate) async fn upload(
    to: Arc<dyn Storage>,
    target: &RemotePath,
    parents: bool,
    transfer: &TransferArgs,
    global: &Global,
) -> anyhow::Result<u8> {
    let bars = Arc::new(Bars::new(global.quiet));
    let pipe = Pipe::new(to, transfer.options(parents), bars.clone());
    let done = pipe.take_in(&mut Standard, target).await;
    end(done, "put", "standard input", &bars, transfer)
}

/// Writes the files of `sources` to standard output, one after the other. What was written cannot be taken back,
/// so the exit code is the only word on whether it was whole: unlike a listing, it fails where whoever
/// reads has had enough.
pub(crate) async fn download(
    sources: Vec<(Arc<dyn Storage>, RemotePath)>,
    transfer: &TransferArgs,
    global: &Global,
) -> anyhow::Result<u8> {
    for (from, source) in sources {
        let bars = Arc::new(Bars::new(global.quiet || io::IsTerminal::is_terminal(&io::stdout())));
        let pipe = Pipe::new(from, transfer.options(false), bars.clone());
        let done = pipe.put_out(&source, &mut Standard).await;
        end(done, "got", "standard output", &bars, transfer)?;
    }
    Ok(exit::OK)
}

fn end(
    done: Result<Summary, PipeError>,
    word: &str,
    pipe: &str,
    bars: &Bars,
    transfer: &TransferArgs,
) -> anyhow::Result<u8> {
    match done {
        Ok(summary) => {
            bars.finish(word, &summary);
            Ok(exit::OK)
        }
        Err(error) => {
            bars.abandon();
            Err(match error {
                PipeError::Copy(error) if transfer.leaves_alone(&error) => return Ok(exit::OK),
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
            let mut block = Vec::with_capacity(BLOCK);
            io::stdin().lock().take(BLOCK as u64).read_to_end(&mut block)?;
            Ok(if block.is_empty() { None } else { Some(block.into()) })
        })
        .await?
    }
}

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
