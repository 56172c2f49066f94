//! UPLD: one file from the client, published whole or not at all. See `ftpq_proto::commands::upld`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::{
    commands::upld::{Args, Committed, Go, VERB},
    limits::{EAGER_BODY_MAX, WHOLE_MAX},
};
use ftpq_storage::NewFile;

use crate::hollow;

/// The handler of UPLD.
pub(crate) struct Upld;

impl Handler for Upld {
    type Args = Args;
    type Reply = Committed;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "upload a file")
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Committed, Failure> {
        let path = cx.resolve(&args.path)?;
        let data = match args.size {
            Some(size) => Some(args.holes.data_in(size).ok_or_else(|| bad_size("holes beyond the end of the file"))?),
            None => None,
        };
        if args.eager && data.is_none_or(|data| data > EAGER_BODY_MAX) {
            return Err(bad_size("more than may be sent unasked"));
        }
        // Holes cost the client nothing and the server a digest.
        if !args.holes.is_empty() && args.size.is_none_or(|size| size > WHOLE_MAX) {
            return Err(bad_size("holes in a file that must go by extents"));
        }
        let Args { size, holes, overwrite, accept_same, parents, mode, mtime, eager, .. } = args;
        let file = NewFile { size, holes: holes.clone(), overwrite, accept_same, parents, mode, mtime };
        let mut upload = hollow::writing(cx, &holes, cx.storage().create(&path, file).await?);
        let expected = exchange.receive_file((!eager).then_some(&Go {}), data, &mut *upload).await?;
        let digest = upload.commit(expected).await?;
        let length = size.unwrap_or_else(|| exchange.bytes());
        Ok(Committed { path, length, digest })
    }
}

fn bad_size(what: &str) -> Failure {
    Failure::new(Status::TooLarge, format!("the size makes no sense: {what}"))
}
