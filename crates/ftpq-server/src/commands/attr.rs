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
        // The root was there before the user came, and closing it closes all. Nor may who can only add things
        // close a folder to the server, or let everybody on its machine write there.
        let harmless = |mode: u32| mode & 0o700 == 0o700 && mode & 0o002 == 0;
        if path.is_root() || args.mode.is_some_and(|mode| !harmless(mode)) {
            cx.require(Right::Delete)?;
        }
        cx.storage().set_attributes(&path, Attributes { mode: args.mode, mtime: args.mtime }).await?;
        Ok(Set { path })
    }
}
