//! The controller on simulated links: see `sim/mod.rs`. `cargo run --release -p ftpq-congestion --example table`
//! prints the same beside other controllers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod one_flow;
mod returns;
mod sim;
mod two_flows;
