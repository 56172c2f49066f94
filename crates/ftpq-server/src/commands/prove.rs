//! PROVE: whether what is kept of an upload is what the client has. See `ftpq_proto::commands::prove`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::prove::{Args, Proved, VERB};

use super::{extent, owner};

/// The handler of PROVE.
pub(crate) struct Prove;

impl Handler for Prove {
    type Args = Args;
    type Reply = Proved;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "prove a part of a large upload").repeatable()
    }

    fn is_costly(&self, _: &Args) -> bool {
        true
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Proved, Failure> {
        let path = cx.resolve(&args.path)?;
        let staging = cx.storage().staging(&path, owner(cx), args.upload).await?;
        extent(&path, staging.extents(), args.index)?;
        Ok(Proved { same: staging.prove(args.index, args.digest).await? })
    }
}
