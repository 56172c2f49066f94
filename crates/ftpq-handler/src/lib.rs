//! What a verb is: the contract between ftpq's server and its handlers. The verbs that come with
//! ftpq go through exactly this trait, and so does yours.
//!
//! A handler is one type with a name, typed arguments, a typed reply, and one `async fn`. Decoding
//! with limits, admission, rights, deadlines, logging and panic containment happen before and after
//! it, in the server's dispatcher. The handler never writes a status: it returns a reply or a
//! [`Failure`].
//!
//! ```
//! use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
//! use ftpq_proto::UserPath;
//! use serde::{Deserialize, Serialize};
//!
//! /// Tells how many bytes a file has.
//! struct Size;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Args {
//!     path: UserPath,
//! }
//!
//! #[derive(Serialize)]
//! struct Reply {
//!     bytes: u64,
//! }
//!
//! impl Handler for Size {
//!     type Args = Args;
//!     type Reply = Reply;
//!
//!     fn spec(&self) -> Spec {
//!         Spec::new("acme.size", Right::List, "how many bytes a file has").repeatable()
//!     }
//!
//!     async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Reply, Failure> {
//!         let path = cx.resolve(&args.path)?;
//!         let entry = cx.storage().stat(&path).await?;
//!         Ok(Reply { bytes: entry.size })
//!     }
//! }
//! ```

mod context;
mod exchange;
mod failure;
mod pace;
mod registry;
mod room;

use std::future::Future;

pub use context::{Context, Service, Succession, User};
pub use exchange::Exchange;
pub use failure::Failure;
pub use ftpq_proto::{Right, Rights, Spec, Status, commands::con::Limits};
pub use pace::{PIECE, Pace, RATE_MIN, Way};
pub use registry::{RegisterError, Registered, Registry};
pub use room::Room;
use serde::{Serialize, de::DeserializeOwned};

/// One verb of a server.
pub trait Handler: Send + Sync + 'static {
    /// What the client says it wants. Derive `Deserialize`, with `deny_unknown_fields`: an option
    /// that this handler does not know must not be ignored.
    type Args: DeserializeOwned + Send;

    /// What the client gets when all went well.
    type Reply: Serialize + Send;

    /// The verb's name, what it is for, which right it needs. Asked once, at registration.
    fn spec(&self) -> Spec;

    /// Whether this makes the server read or hash much for little that was sent. Of such commands one key
    /// has some at a time, and the others wait.
    fn is_costly(&self, _args: &Self::Args) -> bool {
        false
    }

    /// Does it. Each call has a stream of its own and runs beside all others.
    fn handle(
        &self,
        cx: &Context,
        args: Self::Args,
        exchange: &mut Exchange,
    ) -> impl Future<Output = Result<Self::Reply, Failure>> + Send;
}
