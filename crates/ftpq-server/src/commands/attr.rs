//! ATTR: sets the mode and time of a folder. See `ftpq_proto::commands::attr`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::attr::{Args, Set, VERB};
use ftpq_storage::Attributes;

/// The handler of ATTR.
pub(crate) struct Attr;

impl Handler for Attr {
    type Args = Args;
    type Reply = Set;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "set mode and time of a folder")
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Set, Failure> {
        let path = cx.resolve(&args.path)?;
        cx.storage().set_attributes(&path, Attributes { mode: args.mode, mtime: args.mtime }).await?;
        Ok(Set { path })
    }
}
