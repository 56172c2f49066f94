//! BEGIN: an upload by extents. See `ftpq_proto::commands::begin`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{
    commands::begin::{Args, Begun, Held, VERB},
    limits::HELD_PAGE_MAX,
};
use ftpq_storage::LargeFile;

use super::{cut, owner};

/// The handler of BEGIN.
pub(crate) struct Begin;

impl Handler for Begin {
    type Args = Args;
    type Reply = Begun;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "begin a large upload, or go on with it").repeatable()
    }

    fn is_costly(&self, _: &Args) -> bool {
        true
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Begun, Failure> {
        let path = cx.resolve(&args.path)?;
        let extents = cut(&path, args.size, args.extent)?;
        let Args { fresh, apart, sparse, overwrite, same, parents, .. } = args;
        let file = LargeFile { extents, owner: owner(cx), fresh, apart, sparse, overwrite, same, parents };
        let Some(staging) = cx.storage().begin(&path, file).await? else { return Ok(Begun { upload: None }) };
        for page in staging.held().chunks(HELD_PAGE_MAX) {
            exchange.item(Held { extents: page.to_vec() }).await?;
        }
        Ok(Begun { upload: Some(staging.id()) })
    }
}
