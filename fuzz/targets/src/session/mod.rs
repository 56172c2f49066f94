//! A server and two clients of it: one that may do everything below a folder, and one that nobody knows.
//! The input says what they do, in real QUIC streams; the server runs as long as the process.
//!
//! An input is a sequence of steps. The first byte of each chooses the client (its highest bit: the unknown
//! one) and what it does ([`STEPS`]); the next ones say how.

mod answers;
mod client;
mod requests;
mod steps;
mod world;

use std::sync::{Mutex, PoisonError};

use client::Client;
use steps::STEPS;
use world::World;

use crate::Input;

/// Does what the input says, then looks whether the server is well and has kept to its folder.
pub fn session(data: &[u8]) {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let world = world.get_or_insert_with(World::start);
    world.clear();
    world.runtime.block_on(play(world, Input::new(data)));
    world.assert_well();
}

/// Stops the server, if one runs, and removes its folder.
pub fn stop_session() {
    drop(WORLD.lock().unwrap_or_else(PoisonError::into_inner).take());
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// More steps than these say nothing new, and take time.
const STEPS_MAX: usize = 32;

async fn play(world: &World, mut input: Input<'_>) {
    let mut member = Client::new(world, &world.member, true);
    let mut stranger = Client::new(world, &world.stranger, false);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let choice = input.byte();
        let client = if choice & 0x80 == 0 { &mut member } else { &mut stranger };
        let (_, step) = STEPS[usize::from(choice & 0x7f) % STEPS.len()];
        step(client, &mut input).await;
    }
    member.leave().await;
    stranger.leave().await;
    world.assert_alive().await;
}
