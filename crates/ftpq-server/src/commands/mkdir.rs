//! MKDIR: makes a folder. See `ftpq_proto::commands::mkdir`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::mkdir::{Args, Made, VERB};

/// The handler of MKDIR.
pub(crate) struct Mkdir;

impl Handler for Mkdir {
    type Args = Args;
    type Reply = Made;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "make a folder")
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Made, Failure> {
        let path = cx.resolve(&args.path)?;
        cx.storage().make_folder(&path, args.parents).await?;
        Ok(Made { path })
    }
}
