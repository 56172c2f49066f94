//! COMMIT: publishes an upload by extents. See `ftpq_proto::commands::commit`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::commit::{Args, Committed, VERB};
use ftpq_storage::Publish;

use super::owner;

/// The handler of COMMIT.
pub(crate) struct Commit;

impl Handler for Commit {
    type Args = Args;
    type Reply = Committed;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "finish a large upload")
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Committed, Failure> {
        let path = cx.resolve(&args.path)?;
        let staging = cx.storage().staging(&path, owner(cx), args.upload).await?;
        staging.settle().await;
        // Not before: what it waits for may need a turn of its own.
        let _turn = cx.costly_turn().await?;
        let Args { digest, mode, mtime, .. } = args;
        let digest = staging.commit(Publish { digest, mode, mtime }).await?;
        Ok(Committed { path, length: staging.extents().size(), digest })
    }
}
