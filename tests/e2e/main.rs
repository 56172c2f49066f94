//! The real program, end to end: its processes, its signals, its terminal, and files on real disks.
//!
//! Every test has a [`support::World`] of its own: a home, a folder to work in, a folder that is
//! served, and ports of the system's choice. Nothing is shared, so tests run side by side.

// Whatever a test needs and does not get is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// A test that cannot run here says so.
#![allow(clippy::print_stderr)]

mod audit;
mod clients;
mod commands;
mod config;
mod drop_box;
mod failures;
mod interrupts;
mod invitations;
mod limits;
mod memory;
mod privileges;
mod progress;
mod retry;
mod rotation;
mod serve;
mod servers;
mod shards;
mod shell;
mod support;
mod tickets;
mod torture;
mod transfers;
mod trees;
mod trust;
mod wire;
