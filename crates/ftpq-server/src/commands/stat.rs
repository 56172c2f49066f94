//! STAT: what `ls -l` shows of one path. See `ftpq_proto::commands::stat`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::commands::stat::{Args, Found, VERB};

/// The handler of STAT.
pub(crate) struct Stat;

impl Handler for Stat {
    type Args = Args;
    type Reply = Found;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::List, "describe a file or folder").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Found, Failure> {
        let path = cx.resolve(&args.path)?;
        let entry = cx.storage().stat(&path).await?;
        Ok(Found { path, entry })
    }
}
