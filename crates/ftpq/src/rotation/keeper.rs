//! A running server's key: announces the next one, and exchanges it when the files say so.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use ftpq_proto::commands::con::Successor;
use ftpq_transport::{Identity, Listener};
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use super::{Pending, Rotation, Stamp, local};
use crate::output::say;

/// Looks after the key of a running server.
pub(crate) struct Keeper {
    rotation: Rotation,
    listeners: Vec<Listener>,
    state: Mutex<State>,
}

struct State {
    identity: Identity,
    /// The files as last read.
    current: Option<Stamp>,
    next: Option<Stamp>,
    pending: Option<Pending>,
    /// What is said of the next key.
    said: Option<Successor>,
    /// The last that was said before the exchange, and since when it is no more: for whoever came
    /// with the former key just before.
    farewell: Option<(Successor, Instant)>,
    /// Not before then is an exchange tried that failed.
    again: Timestamp,
    /// What was last complained of.
    complaint: String,
}

impl Keeper {
    /// Looks after `identity`, which the files of `rotation` hold and `listeners` have: from now on before
    /// each connection that they take, and now and then.
    pub(crate) fn start(rotation: Rotation, identity: Identity, listeners: &[Listener]) -> Arc<Self> {
        let state = State {
            identity,
            current: None,
            next: None,
            pending: None,
            said: None,
            farewell: None,
            again: Timestamp::MIN,
            complaint: String::new(),
        };
        let keeper = Arc::new(Self { rotation, listeners: listeners.to_vec(), state: Mutex::new(state) });
        keeper.look();
        let weak = Arc::downgrade(&keeper);
        for listener in listeners {
            let weak = weak.clone();
            listener.before_each(move || weak.upgrade().iter().for_each(|keeper| keeper.look()));
        }
        tokio::spawn(now_and_then(weak));
        keeper
    }

    /// What to say of the next key.
    pub(crate) fn say(&self) -> Option<Successor> {
        self.look();
        let state = self.state();
        let farewell = state.farewell.as_ref().filter(|(_, since)| since.elapsed() < FAREWELL);
        state.said.clone().or_else(|| farewell.map(|(said, _)| said.clone()))
    }

    /// The line of the start screen on the next key, if there is one.
    pub(crate) fn screen_line(&self) -> Option<String> {
        let state = self.state();
        let pending = state.pending.as_ref()?;
        Some(format!("  next key     {} from {}", pending.next, local(pending.takes_over)))
    }

    /// Does what the files and the time ask for.
    fn look(&self) {
        let mut state = self.state();
        let now = Timestamp::now();
        if state.pending.as_ref().is_some_and(|pending| pending.takes_over.max(state.again) <= now)
            && let Err(error) = self.rotation.take_over_when_due(now)
        {
            state.complain(format!("the next key cannot take over: {error:#}"));
            state.again = now.saturating_add(RETRY).unwrap_or(Timestamp::MAX);
        }
        // The next one first: an exchange between the two looks then shows in the second.
        let next = Stamp::of(&self.rotation.next_file());
        let current = Stamp::of(&self.rotation.file);
        let changed = (state.current, state.next) != (current, next);
        if changed {
            state.complaint.clear();
        }
        if state.current != current {
            state.current = current;
            self.exchange(&mut state);
        }
        if changed {
            state.next = next;
            self.announce(&mut state);
        }
    }

    /// The key in the file is another one.
    fn exchange(&self, state: &mut State) {
        let identity = match Identity::load(&self.rotation.file) {
            Ok(identity) => identity,
            Err(error) => return state.complain(format!("the server goes on with the key that it has: {error}")),
        };
        let (key, former) = (identity.fingerprint(), state.identity.fingerprint());
        if key == former {
            return;
        }
        for listener in &self.listeners {
            if let Err(error) = listener.change_identity(&identity) {
                return state.complain(format!("the server goes on with the key that it has: {error}"));
            }
        }
        state.farewell = state.said.take().filter(|said| said.key == key.to_string()).zip(Some(Instant::now()));
        state.identity = identity;
        say(format_args!("ftpq: the server's key is now {key}; it was {former}, kept beside it"));
    }

    /// What there is to say of the next key is another thing.
    fn announce(&self, state: &mut State) {
        let announced = self.rotation.pending().and_then(|pending| {
            let Some(pending) = pending else { return Ok(None) };
            let until = pending.takes_over.saturating_add(CLOCKS_DIFFER)?.as_second();
            let said = state.identity.announce(pending.next, until)?;
            Ok(Some((pending, said)))
        });
        let announced = announced.unwrap_or_else(|error| {
            state.complain(format!("no next key is announced: {error:#}"));
            None
        });
        (state.pending, state.said) = announced.unzip();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Says it once, not at each look.
    fn complain(&mut self, complaint: String) {
        if self.complaint != complaint {
            say(format_args!("ftpq: {complaint}"));
            self.complaint = complaint;
        }
    }
}

/// For a server to which nobody comes.
async fn now_and_then(keeper: Weak<Keeper>) {
    loop {
        sleep(LOOK).await;
        let Some(keeper) = keeper.upgrade() else { return };
        keeper.look();
    }
}

/// How often a server looks to which nobody comes: often enough for its log.
const LOOK: Duration = Duration::from_secs(30);

/// How soon an exchange that failed is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(60);

/// How long a client may take from its handshake to the answer to its CON, twice.
const FAREWELL: Duration = Duration::from_secs(40);

/// For how long after the exchange what was said counts, for clients whose clocks are wrong.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(24);
