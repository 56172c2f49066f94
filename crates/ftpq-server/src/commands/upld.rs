//! UPLD: one file from the client, published whole or not at all. See `ftpq_proto::commands::upld`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::{
    commands::upld::{Args, Committed, Go, VERB},
    limits::EAGER_BODY_MAX,
};
use ftpq_storage::NewFile;

/// The handler of UPLD.
pub(crate) struct Upld;

impl Handler for Upld {
    type Args = Args;
    type Reply = Committed;

    fn spec(&self) -> Spec {
        Spec::new(VERB, "upload a file").needs(Right::Write)
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Committed, Failure> {
        let path = cx.resolve(&args.path)?;
        if args.overwrite {
            cx.require(Right::Delete)?;
        }
        if args.eager && args.size > EAGER_BODY_MAX {
            let message = format!("only {EAGER_BODY_MAX} bytes may be sent unasked");
            return Err(Failure::new(Status::TooLarge, message));
        }
        let Args { size, overwrite, accept_same, parents, mode, mtime, .. } = args;
        let mut upload =
            cx.storage().create(&path, NewFile { size, overwrite, accept_same, parents, mode, mtime }).await?;
        let go = (!args.eager).then_some(&Go {});
        let expected = exchange.receive_file(go, size, &mut *upload).await?;
        let digest = upload.commit(expected).await?;
        Ok(Committed { path, length: size, digest })
    }
}
