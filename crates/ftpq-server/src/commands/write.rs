//! WRITE: one extent of an upload. See `ftpq_proto::commands::write`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::commands::{
    upld::Go,
    write::{Args, VERB, Written},
};

use super::{extent, owner};
use crate::hollow;

/// The handler of WRITE.
pub(crate) struct Write;

impl Handler for Write {
    type Args = Args;
    type Reply = Written;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::Write, "upload a part of a large file").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Written, Failure> {
        let path = cx.resolve(&args.path)?;
        let staging = cx.storage().staging(&path, owner(cx), args.upload).await?;
        let beyond = || Failure::new(Status::TooLarge, format!("{path}: holes beyond the end of the extent"));
        let extent = extent(&path, staging.extents(), args.index)?;
        let data = args.holes.data_in(extent.length).ok_or_else(beyond)?;
        let upload = staging.write(args.index, args.holes.clone()).await?;
        let mut upload = hollow::writing(cx, &args.holes, upload);
        let expected = exchange.receive_file(None::<&Go>, Some(data), &mut *upload).await?;
        Ok(Written { digest: upload.commit(expected).await? })
    }
}
