//! The words of each verb: its name, arguments, parts, head and reply. One file a verb; a verb has
//! the same file name in every crate that deals with it.
//!
//! Arguments refuse unknown fields; replies allow them, so that a newer server can say more.

pub mod attr;
pub mod begin;
pub mod cd;
pub mod commit;
pub mod con;
pub mod dwld;
pub mod link;
pub mod list;
pub mod mkdir;
pub mod mv;
pub mod prove;
pub mod read;
pub mod rm;
pub mod stat;
pub mod upld;
pub mod write;
