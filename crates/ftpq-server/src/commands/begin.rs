//! BEGIN: an upload by extents. See `ftpq_proto::commands::begin`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{
    Holes,
    commands::begin::{Args, Begun, Held, VERB},
};
use ftpq_storage::LargeFile;

use super::{cut, extent, owner};

/// The handler of BEGIN.
pub(crate) struct Begin;

impl Handler for Begin {
    type Args = Args;
    type Reply = Begun;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "begin a large upload, or go on with it").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Begun, Failure> {
        let path = cx.resolve(&args.path)?;
        let extents = cut(&path, args.size, args.extent)?;
        let Args { fresh, apart, sparse, overwrite, same, parents, first, .. } = args;
        let file = LargeFile { extents, owner: owner(cx), fresh, apart, sparse, overwrite, same, parents };
        // A turn for this alone: the first extent may take as long as its client likes.
        let turn = cx.costly_turn().await?;
        let staging = cx.storage().begin(&path, file).await?;
        drop(turn);
        let Some(staging) = staging else { return Ok(Begun { upload: None, written: None }) };
        let (mut from, mut holds_first) = (0, false);
        // A page at a time: there may be thousands of extents, and a client that does not read.
        loop {
            let extents = staging.held(from);
            let Some(last) = extents.last() else { break };
            from = last.index + 1;
            holds_first |= extents.iter().any(|held| held.index == 0);
            exchange.item(Held { extents }).await?;
        }
        let begun = Begun { upload: Some(staging.id()), written: None };
        if !first || holds_first {
            return Ok(begun);
        }
        let length = extent(&path, extents, 0)?.length;
        let mut upload = staging.write(0, Holes::NONE).await?;
        let expected = exchange.receive_file(Some(&begun), Some(length), &mut *upload).await?;
        Ok(Begun { written: Some(upload.commit(expected).await?), ..begun })
    }
}
