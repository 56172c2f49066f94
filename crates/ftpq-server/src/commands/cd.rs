//! CD: resolves a path and checks that it is a folder. See `ftpq_proto::commands::cd`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec, Status};
use ftpq_proto::{
    Kind,
    commands::cd::{Args, Folder, VERB},
};

/// The handler of CD.
pub(crate) struct Cd;

impl Handler for Cd {
    type Args = Args;
    type Reply = Folder;

    fn spec(&self) -> Spec {
        Spec::new(VERB, Right::List, "go to a folder").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Folder, Failure> {
        let path = cx.resolve(&args.path)?;
        match cx.storage().stat(&path).await?.kind {
            Kind::Folder => Ok(Folder { path }),
            _ => Err(Failure::new(Status::NotFolder, format!("{path}: not a folder"))),
        }
    }
}
