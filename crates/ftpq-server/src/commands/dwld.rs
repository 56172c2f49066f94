//! DWLD: one file to the client. See `ftpq_proto::commands::dwld`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{
    Holes, RemotePath,
    commands::dwld::{Args, Ended, File, Large, Sent, VERB},
    limits::WHOLE_MAX,
};
use ftpq_storage::{FileInfo, Opened};

use crate::hollow;

/// The handler of DWLD.
pub(crate) struct Dwld;

impl Handler for Dwld {
    type Args = Args;
    type Reply = Ended;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Read, "download a file").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Ended, Failure> {
        let path = cx.resolve(&args.path)?;
        let up_to = args.up_to.unwrap_or(u64::MAX);
        let opened = if args.sparse {
            cx.storage().open_up_to(&path, up_to.min(WHOLE_MAX)).await?
        } else {
            whole(cx, &path, up_to).await?
        };
        // Holes cost the client nothing and the server a digest: those of what should go by extents travel as zeros.
        let opened = match opened {
            Opened::Large(info) if info.size <= up_to => whole(cx, &path, up_to).await?,
            opened => opened,
        };
        match opened {
            Opened::Whole(reader) => {
                let info = reader.info();
                let head = head(path, info, reader.holes().clone());
                let digest = exchange.send_file(&head, hollow::reading(cx, reader)).await?;
                Ok(Ended::Sent(Sent { length: info.size, digest }))
            }
            Opened::Large(info) => {
                exchange.head(&head(path, info, Holes::NONE)).await?;
                Ok(Ended::Large(Large {}))
            }
        }
    }
}

/// All of a file with its holes, if it is no larger.
async fn whole(cx: &Context, path: &RemotePath, up_to: u64) -> Result<Opened, Failure> {
    Ok(match cx.storage().open(path).await? {
        reader if reader.info().size > up_to => Opened::Large(reader.info()),
        reader => Opened::Whole(reader),
    })
}

fn head(path: RemotePath, info: FileInfo, holes: Holes) -> File {
    let FileInfo { size, version, sparse, mtime, mode } = info;
    File { path, size, version, sparse, holes, mtime, mode }
}
