//! What every test stands on.

mod files;
mod flood;
pub(crate) mod hostile;
mod hosts;
mod initials;
mod lines;
mod process;
mod program;
mod random;
mod raw;
mod relay;
mod server;
mod terminal;
mod world;

pub(crate) use files::{
    FullDisk, all_names, assert_same_tree, fifo, holds, odd_names, pattern, solid, sparse, tree, visible_names,
};
pub(crate) use flood::{Flood, Sources};
pub(crate) use hostile::{Hostile, Key as HostileKey, Place, request, response};
pub(crate) use hosts::{Host, Hosts, Traffic};
pub(crate) use initials::{INITIAL_LEN, Initial};
pub(crate) use lines::Lines;
pub(crate) use process::{PATIENCE, Process, as_soon_as, until};
pub(crate) use program::{Program, Run, Running};
pub(crate) use random::Random;
pub(crate) use raw::RawClient;
pub(crate) use relay::{Relay, Weather};
pub(crate) use server::{Server, SumServer};
pub(crate) use terminal::{Key, Terminal};
pub(crate) use world::World;
