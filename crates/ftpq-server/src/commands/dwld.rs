//! DWLD: one file to the client. See `ftpq_proto::commands::dwld`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::dwld::{Args, File, Sent, VERB};

/// The handler of DWLD.
pub(crate) struct Dwld;

impl Handler for Dwld {
    type Args = Args;
    type Reply = Sent;

    fn spec(&self) -> Spec {
        Spec::new(VERB, "download a file").needs(Right::Read).repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Sent, Failure> {
        let path = cx.resolve(&args.path)?;
        let reader = cx.storage().open(&path).await?;
        let info = reader.info();
        let head = File { path, size: info.size, mtime: info.mtime, mode: info.mode };
        let digest = exchange.send_file(&head, reader).await?;
        Ok(Sent { length: info.size, digest })
    }
}
