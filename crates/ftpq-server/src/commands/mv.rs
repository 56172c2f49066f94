//! MV: renames or moves a file or folder. See `ftpq_proto::commands::mv`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::{
    Kind, RemotePath,
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
        // Something goes away under its old name.
        cx.require(Right::Delete)?;
        let from = cx.resolve(&args.from)?;
        let to = target(cx, &from, cx.resolve(&args.to)?).await?;
        cx.storage().rename(&from, &to, args.overwrite).await?;
        Ok(Moved { from, to })
    }
}

/// An existing folder takes `from` in under its old name.
async fn target(cx: &Context, from: &RemotePath, to: RemotePath) -> Result<RemotePath, Failure> {
    match cx.storage().stat(&to).await {
        Ok(entry) if entry.kind == Kind::Folder => match from.name() {
            Some(name) => Ok(to.join(&name)?),
            None => Ok(to),
        },
        Ok(_) => Ok(to),
        Err(error) if error.status() == Status::NotFound => Ok(to),
        Err(error) => Err(error.into()),
    }
}
