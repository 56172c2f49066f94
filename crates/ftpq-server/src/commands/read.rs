//! READ: one extent of a file to the client. See `ftpq_proto::commands::read`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::read::{Args, Part, Sent, VERB};
use ftpq_storage::Pinned;

use super::{cut, extent};
use crate::hollow;

/// The handler of READ.
pub(crate) struct Read;

impl Handler for Read {
    type Args = Args;
    type Reply = Sent;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Read, "download a part of a large file").repeatable()
    }

    fn is_costly(&self, args: &Args) -> bool {
        args.digest_only
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Sent, Failure> {
        let path = cx.resolve(&args.path)?;
        let extents = cut(&path, args.size, args.extent)?;
        extent(&path, extents, args.index)?;
        let file = Pinned { path, version: args.version, extents };
        let digest = if args.digest_only {
            cx.storage().extent_digest(&file, args.index).await?
        } else {
            let reader = cx.storage().open_extent(&file, args.index).await?;
            let head = Part { holes: reader.holes().clone() };
            exchange.send_file(&head, hollow::reading(cx, reader)).await?
        };
        Ok(Sent { digest })
    }
}
