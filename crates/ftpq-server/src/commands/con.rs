//! CON: agrees on a version and tells the client who it is here. See `ftpq_proto::commands::con`.

use ftpq_handler::{Context, Exchange, Failure, Handler, Spec, Status};
use ftpq_proto::{
    VERSION,
    commands::con::{Args, VERB, Welcome},
};

/// The handler of CON.
pub(crate) struct Con;

impl Handler for Con {
    type Args = Args;
    type Reply = Welcome;

    fn spec(&self) -> Spec {
        // Nothing else can begin before it.
        Spec::for_everyone(VERB, "connect: versions, verbs, who you are and what you may do").repeatable().priority(1)
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Welcome, Failure> {
        if !args.versions.contains(&VERSION) {
            let message = format!("this server speaks version {VERSION}, the client {:?}", args.versions);
            return Err(Failure::new(Status::Version, message));
        }
        Ok(Welcome {
            version: VERSION,
            agent: cx.service().agent.clone(),
            features: Vec::new(),
            verbs: cx.service().verbs.clone(),
            user: cx.user().name.clone(),
            key: cx.user().key.to_string(),
            rights: cx.user().rights,
            limits: cx.user().limits,
            successor: cx.service().succession.now(),
            ports: cx.service().ports.clone(),
        })
    }
}
