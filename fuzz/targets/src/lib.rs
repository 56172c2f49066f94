//! Everything that a peer or a file can feed ftpq, as functions of bytes that panic where a promise is
//! broken. cargo-fuzz runs them (`fuzz/fuzz_targets`), and so do the tests of this crate, on any
//! toolchain.
//!
//! A target asserts more than that nothing panics: what was decoded and said again means the same, what
//! was parsed keeps its limits, what is shown cannot drive a terminal, and independent models agree.

// A target that has found something panics: that is how it says so.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

mod extents;
mod input;
mod messages;
mod paths;
mod session;
mod text;
mod texts;

pub use extents::extents;
pub use input::Input;
pub use messages::{frame, messages};
pub use paths::{link_target, path};
pub use session::{session, stop_session};
pub use text::escape;
pub use texts::{authorized_clients, config, known_servers, ticket};

/// A target: takes any bytes, and panics if they break a promise.
pub type Target = fn(&[u8]);

/// All of them by name. `fuzz/fuzz_targets/NAME.rs` runs one, `fuzz/corpus/NAME/` is where it begins.
pub const TARGETS: &[(&str, Target)] = &[
    ("authorized_clients", authorized_clients),
    ("config", config),
    ("escape", escape),
    ("extents", extents),
    ("frame", frame),
    ("known_servers", known_servers),
    ("link_target", link_target),
    ("messages", messages),
    ("path", path),
    ("session", session),
    ("ticket", ticket),
];
