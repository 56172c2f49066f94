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
        say(format_args!("ftpq: the server's key is now {key}; it was {former}"));
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

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr};

    use ftpq_transport::{Connection, Connector, Fingerprint};

    use super::*;

    /// A key that is served.
    fn served() -> (tempfile::TempDir, Rotation, Listener, Arc<Keeper>) {
        let folder = tempfile::tempdir().unwrap();
        let rotation = Rotation { file: folder.path().join("identity/server.pem"), make: true };
        let identity = rotation.load(Timestamp::now()).unwrap();
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).unwrap();
        let keeper = Keeper::start(rotation.clone(), identity, std::slice::from_ref(&listener));
        (folder, rotation, listener, keeper)
    }

    async fn connect(listener: &Listener, trust: &[Fingerprint]) -> (Connection, Connection) {
        let connector = Connector::new(Identity::generate().unwrap());
        let (address, trust) = (listener.local_addr(), trust.to_vec());
        let patience = Duration::from_secs(30);
        let connecting = tokio::spawn(async move { connector.connect(&[address], &trust, patience).await });
        let server = listener.accept().await.unwrap().accept(std::time::Duration::from_secs(10)).await.unwrap();
        (connecting.await.unwrap().unwrap(), server)
    }

    #[tokio::test]
    async fn what_is_announced_follows_the_files() {
        let (_folder, rotation, _listener, keeper) = served();
        let next = || keeper.say().map(|said| said.key);
        assert_eq!((next(), keeper.screen_line()), (None, None));
        let soon = Timestamp::now() + SignedDuration::from_hours(1);
        for _ in 0..2 {
            let begun = rotation.begin(soon).unwrap();
            assert_eq!(next(), Some(begun.next.to_string()));
            assert!(keeper.screen_line().unwrap().contains(&begun.next.to_string()));
            rotation.cancel().unwrap();
            assert_eq!((next(), keeper.screen_line()), (None, None));
        }
        fs::write(rotation.next_file(), "no key").unwrap();
        assert_eq!(next(), None);
    }

    /// A client that came with the former key, and whose CON is answered only after the exchange, must
    /// hear of the next one all the same: it would take silence for a withdrawal.
    #[tokio::test]
    async fn whoever_came_just_before_the_exchange_is_still_told() {
        let (_folder, rotation, listener, keeper) = served();
        let former = rotation.current().unwrap().fingerprint();
        let begun = rotation.begin(Timestamp::now() + SignedDuration::from_hours(1)).unwrap();
        assert!(keeper.say().is_some());
        let both = [former, begun.next];
        let (before, _server_before) = connect(&listener, &both).await;
        rotation.take_over().unwrap();
        let (after, _server_after) = connect(&listener, &both).await;
        assert_eq!((before.peer(), after.peer()), (former, begun.next));
        let said = keeper.say().unwrap();
        let now = Timestamp::now().as_second();
        assert_eq!(before.verify_successor(&said, now), Ok(Some(begun.next)));
        assert_eq!(after.verify_successor(&said, now), Ok(None));
        assert_eq!(keeper.screen_line(), None);
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_read_leaves_the_one_that_is_in_use() {
        let (_folder, rotation, listener, keeper) = served();
        let key = rotation.current().unwrap().fingerprint();
        let pem = fs::read_to_string(&rotation.file).unwrap();
        fs::write(&rotation.file, "no key").unwrap();
        let (client, _server) = connect(&listener, &[key]).await;
        assert_eq!((client.peer(), keeper.say()), (key, None));
        // A next one does not make it worse, and the complaint is said once.
        fs::write(&rotation.file, pem).unwrap();
        rotation.begin(Timestamp::UNIX_EPOCH).unwrap();
        fs::write(&rotation.file, "no key").unwrap();
        let (client, _server) = connect(&listener, &[key]).await;
        assert_eq!(client.peer(), key);
    }
}
