//! ftpq's own verbs, one file each: struct, spec, handler, in this order.

mod attr;
mod cd;
mod con;
mod dwld;
mod link;
mod list;
mod mkdir;
mod mv;
mod rm;
mod stat;
mod upld;

use ftpq_handler::{RegisterError, Registry};

/// The table of contents: a new verb of ftpq's own is one file and one line here.
pub(crate) fn register_all(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.register(con::Con)?;
    registry.register(list::List)?;
    registry.register(cd::Cd)?;
    registry.register(upld::Upld)?;
    registry.register(dwld::Dwld)?;
    registry.register(stat::Stat)?;
    registry.register(mkdir::Mkdir)?;
    registry.register(mv::Mv)?;
    registry.register(rm::Rm)?;
    registry.register(link::Link)?;
    registry.register(attr::Attr)?;
    Ok(())
}
