//! MV: renames or moves a file or folder. See `ftpq_proto::commands::mv`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::{
    RemotePath,
    commands::mv::{Args, Moved, VERB},
};

/// The handler of MV.
pub(crate) struct Mv;

impl Handler for Mv {
    type Args = Args;
    type Reply = Moved;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "rename or move a file or folder")
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Moved, Failure> {
        // Something goes away under its old name; nor is the target looked at for whoever may not do that.
        cx.require(Right::Delete)?;
        let from = cx.resolve(&args.from)?;
        let to = target(cx, &from, cx.resolve(&args.to)?).await?;
        cx.storage().rename(&from, &to, args.overwrite).await?;
        Ok(Moved { from, to })
    }
}

/// An existing folder takes `from` in under its old name. That `to` is one is seen by opening it, as whoever
/// may move things need not have the right to list them.
async fn target(cx: &Context, from: &RemotePath, to: RemotePath) -> Result<RemotePath, Failure> {
    match (cx.storage().subtree(&to).await, from.name()) {
        (Ok(_), Some(name)) => Ok(to.join(&name)?),
        (Ok(_), None) => Ok(to),
        (Err(error), _) => match error.status() {
            Status::NotFound | Status::NotFolder | Status::NotRegular => Ok(to),
            _ => Err(error.into()),
        },
    }
}
