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

use ftpq_handler::{Context, Failure, RegisterError, Registry, Status};
use ftpq_proto::{Digest, Extent, Extents, RemotePath};

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

/// A cut into extents, as a client asks for it.
fn cut(path: &RemotePath, size: u64, length: u64) -> Result<Extents, Failure> {
    Extents::new(size, length)
        .ok_or_else(|| Failure::new(Status::TooLarge, format!("{path}: no such cut into extents")))
}

/// One extent of it.
fn extent(path: &RemotePath, extents: Extents, index: u32) -> Result<Extent, Failure> {
    extents.get(index).ok_or_else(|| Failure::new(Status::TooLarge, format!("{path}: no such extent")))
}
