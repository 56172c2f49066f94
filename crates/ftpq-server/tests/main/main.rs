//! A server as its clients see it: in this process, on a port of the system's choice, with a real
//! client and real files.

// Whatever a test needs and does not get is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod cuts;
mod detour;
mod extents;
mod guard;
mod limits;
mod matrix;
mod memory;
mod returning;
mod rights;
mod service;
mod shards;
mod support;
mod trees;
mod verbs;
mod wire;
