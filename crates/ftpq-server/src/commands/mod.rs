//! ftpq's own verbs, one file each: struct, spec, handler, in this order.

mod attr;
mod begin;
mod cd;
mod commit;
mod con;
mod dwld;
mod link;
mod list;
mod mkdir;
mod mv;
mod prove;
mod read;
mod rm;
mod stat;
mod upld;
mod write;

use ftpq_handler::{Context, RegisterError, Registry};
use ftpq_proto::Digest;

/// The table of contents: a new verb of ftpq's own is one file and one line here.
pub(crate) fn register_all(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.register(con::Con)?;
    registry.register(list::List)?;
    registry.register(cd::Cd)?;
    registry.register(upld::Upld)?;
    registry.register(dwld::Dwld)?;
    registry.register(begin::Begin)?;
    registry.register(write::Write)?;
    registry.register(prove::Prove)?;
    registry.register(commit::Commit)?;
    registry.register(read::Read)?;
    registry.register(stat::Stat)?;
    registry.register(mkdir::Mkdir)?;
    registry.register(mv::Mv)?;
    registry.register(rm::Rm)?;
    registry.register(link::Link)?;
    registry.register(attr::Attr)?;
    Ok(())
}

/// Whose a large upload is: it is kept for this user's key, whatever the user's name.
fn owner(cx: &Context) -> Digest {
    Digest::from(*cx.user().key.as_bytes())
}
