//! LIST: the names in a folder, page by page. See `ftpq_proto::commands::list`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::commands::list::{Args, Listed, Page, VERB};

/// The handler of LIST.
pub(crate) struct List;

impl Handler for List {
    type Args = Args;
    type Reply = Listed;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::List, "show a folder").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, exchange: &mut Exchange) -> Result<Listed, Failure> {
        let path = cx.resolve(&args.path)?;
        let mut listing = match cx.storage().list(&path).await {
            Ok(listing) => listing,
            Err(error) if error.status() == Status::NotFolder => {
                let entry = cx.storage().stat(&path).await?;
                exchange.item(Page { entries: vec![entry] }).await?;
                return Ok(Listed { path, folder: false, count: 1 });
            }
            Err(error) => return Err(error.into()),
        };
        let mut count = 0;
        while let Some(entries) = listing.next_page().await? {
            count += entries.len() as u64;
            exchange.item(Page { entries }).await?;
        }
        Ok(Listed { path, folder: true, count })
    }
}
