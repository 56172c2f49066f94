//! RM: removes a file, a link or a folder. See `ftpq_proto::commands::rm`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::rm::{Args, Removed, VERB};

/// The handler of RM.
pub(crate) struct Rm;

impl Handler for Rm {
    type Args = Args;
    type Reply = Removed;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Delete, "remove a file or folder")
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Removed, Failure> {
        let path = cx.resolve(&args.path)?;
        let count = cx.storage().remove(&path, args.recursive).await?;
        Ok(Removed { path, count })
    }
}
