//! LINK: makes a symbolic link. See `ftpq_proto::commands::link`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::link::{Args, Linked, VERB};
use ftpq_storage::NewLink;

/// The handler of LINK.
pub(crate) struct Link;

impl Handler for Link {
    type Args = Args;
    type Reply = Linked;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "make a symbolic link")
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Linked, Failure> {
        let path = cx.resolve(&args.path)?;
        let Args { target, overwrite, accept_same, parents, mtime, .. } = args;
        cx.storage().make_link(&path, &target, NewLink { overwrite, accept_same, parents, mtime }).await?;
        Ok(Linked { path })
    }
}
