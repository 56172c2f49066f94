//! One connection: from its handshake to its end.

use std::{
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex as StdMutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use ftpq_handler::{Failure, PIECE, Pace, User};
use ftpq_proto::{RemotePath, Status, message::Failed};
use ftpq_storage::{Storage, StorageError};
use ftpq_transport::{Closed, Connection, Incoming, tuning::Windows};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Denied, Grant},
    clients::Member,
    dispatch,
    gate::Pass,
    guard::Guard,
    limits::{COMMANDS, COMMANDS_UNSETTLED, PARTING, REQUEST, SETTLE},
    memory::LEAST,
    observer::Event,
    penalties::Offence,
    server::Shared,
};

/// A connection and what is known of it.
pub(crate) struct Session {
    pub(crate) server: Arc<Shared>,
    pub(crate) connection: Connection,
    /// Where its handshake went, so that its client was there. Where it is now may be forged: QUIC follows a
    /// client at once, and makes sure afterwards.
    pub(crate) origin: IpAddr,
    /// Its place at the gate.
    pass: StdMutex<Pass>,
    /// What its client was granted, and holds, once it is known.
    member: OnceLock<(Arc<Grant>, Member)>,
    /// Turns of its commands.
    turns: Arc<Semaphore>,
    allowed: StdMutex<Allowed>,
    /// Whether CON has been answered, and how.
    settled: watch::Sender<Option<Settled>>,
    /// Cancelled when the client may do nothing more.
    pub(crate) revoked: CancellationToken,
    /// The client's part of the storage, for as long as its root does not change.
    view: Mutex<Option<(RemotePath, Arc<dyn Storage>)>>,
}

/// How CON was answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Settled {
    Welcome,
    Refused(Failed),
}

/// What a connection has been allowed so far.
struct Allowed {
    /// Of its windows.
    send: u64,
    turns: usize,
}

impl Allowed {
    /// How many turns come with these; `None` if more was allowed meanwhile by a command on another thread.
    fn widen(&mut self, send: u64, turns: usize) -> Option<usize> {
        if send < self.send {
            return None;
        }
        let more = turns.saturating_sub(self.turns);
        *self = Self { send, turns: self.turns + more };
        Some(more)
    }
}

/// Takes a connection and serves its streams, each on its own.
pub(crate) async fn run(server: Arc<Shared>, incoming: Incoming, pass: Pass) {
    // One deadline from the first packet on: each step by itself could be drawn out.
    let deadline = Instant::now() + SETTLE;
    let (remote, is_proved) = (incoming.remote_address(), incoming.is_validated());
    let at_first = pass.windows();
    let connection = match incoming.granting(at_first).accept(SETTLE).await {
        Ok(connection) => connection,
        Err(why) => {
            server.tell(Event::HandshakeFailed { remote, why: &why });
            if !is_proved {
                // A first packet can end it, and be sent in anybody's name. Its place is not given up before its
                // time, or as many could come one after the other as fit on the wire.
                let _ = timeout_at(deadline, server.draining.cancelled()).await;
            } else if !matches!(why, Closed::TimedOut) {
                server.blame(remote.ip(), Offence::TurnedAway);
            }
            return;
        }
    };
    let session = Arc::new(Session {
        server,
        connection: connection.clone(),
        origin: remote.ip(),
        pass: StdMutex::new(pass),
        member: OnceLock::new(),
        turns: Arc::new(Semaphore::new(COMMANDS_UNSETTLED)),
        allowed: StdMutex::new(Allowed { send: 0, turns: COMMANDS_UNSETTLED }),
        settled: watch::Sender::new(None),
        revoked: CancellationToken::new(),
        view: Mutex::default(),
    });
    session.server.sessions.add(&session);
    let weak = Arc::downgrade(&session);
    connection.may_grow(move |from, to| weak.upgrade().is_some_and(|session| session.widen(from, to)));
    let tracker = session.server.commands.clone();
    let serve = {
        let session = session.clone();
        async move {
            for number in 0_u64.. {
                let Ok((mut send, mut recv)) = session.connection.accept().await else { break };
                let turn = session.turn(number < at_first.streams.into()).await;
                // What came in the same flight as CON gets its answer. Nothing else is read of somebody unknown: no
                // penalty is paid for it.
                let more = number >= Windows::UNSETTLED.streams.into();
                match (session.is_turned_away().filter(|_| more), turn) {
                    (None, Some(turn)) => drop(tracker.spawn(dispatch::run(session.clone(), turn, send, recv))),
                    (status, _) => {
                        let status = status.unwrap_or(Status::Unavailable);
                        recv.stop(status);
                        send.reset(status);
                    }
                }
            }
        }
    };
    let watchdog = async {
        match timeout_at(deadline, session.wait_settled()).await {
            Ok(Settled::Welcome) => {}
            Ok(Settled::Refused(failed)) => {
                // Time to read why; then whoever was refused must not hold a connection.
                let _ = timeout(PARTING, connection.closed()).await;
                connection.close(Some(failed.status), "CON was refused");
            }
            Err(_) => {
                session.blame(Offence::Stalled);
                connection.close(Some(Status::TimedOut), "CON did not come in time");
            }
        }
    };
    tokio::join!(serve, watchdog);
}

impl Session {
    /// What its client is granted, if it was in the right place and still is.
    pub(crate) fn grant(&self) -> Result<Arc<Grant>, Denied> {
        let (access, key) = (&self.server.access, self.connection.peer());
        let now = self.connection.remote_address().ip();
        if now != self.origin {
            access.grant(key, self.origin)?;
        }
        access.grant(key, now)
    }

    /// Gives the connection of somebody who was granted something what it needs, the first time.
    pub(crate) fn enter(&self, grant: &Arc<Grant>) -> Result<(), Failure> {
        if self.member.get().is_some() {
            return Ok(());
        }
        let member = self.server.clients.enter(grant.user.key);
        let message = "too many connections here at the moment: try again later, or with fewer";
        let member = member.ok_or_else(|| Failure::new(Status::Unavailable, message))?;
        // Another command was faster: then there is no need for this one's.
        let _ = self.member.set((grant.clone(), member));
        Ok(())
    }

    /// A turn for the next command; `None` if it must not wait for one. Before CON there may be more streams, and with
    /// no more than the least only a part of them is served: the others could fill the window with bodies that nobody
    /// reads, while those that are served wait for theirs.
    async fn turn(&self, before_con: bool) -> Option<OwnedSemaphorePermit> {
        let cramped = async {
            let known = self.wait_settled().await == Settled::Welcome;
            if !before_con || !known || self.grow() || self.member().is_some_and(Member::has_more) {
                pending().await
            }
        };
        tokio::select! {
            biased;
            turn = self.turns.clone().acquire_owned() => turn.ok(),
            () = cramped => None,
        }
    }

    /// Gives a connection that does something more than the least, while there is memory. Returns whether it did.
    pub(crate) fn grow(&self) -> bool {
        let windows = self.member().and_then(|member| member.grow(self.server.gate.memory()));
        windows.inspect(|windows| self.allow(*windows)).is_some()
    }

    /// Lets its client have these windows, as far as its rate leaves them, and commands that run at once.
    fn allow(&self, windows: Windows) {
        let covered = self.pass().cover(windows);
        let pace = self.member.get().and_then(|(grant, _)| self.server.paces.of(&grant.user));
        let (granted, turns) = granted(covered, pace.as_deref());
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(more) = allowed.widen(windows.send, turns) else { return };
        self.connection.settle(granted);
        self.turns.add_permits(more);
    }

    /// Takes the memory that larger windows need, if there is plenty. Who has a rate needs no more than that.
    fn widen(&self, from: Windows, to: Windows) -> bool {
        let Some((grant, member)) = self.member.get() else { return false };
        grant.user.limits.rate.is_none() && member.widen(from, to, self.server.gate.memory())
    }

    /// What is counted of its client, once it is known.
    pub(crate) fn member(&self) -> Option<&Member> {
        self.member.get().map(|(_, member)| member)
    }

    /// CON was answered: the other streams may go on. The first answer counts; returns whether this
    /// is it.
    pub(crate) fn settle(&self, how: Settled) -> bool {
        let welcome = how == Settled::Welcome;
        let first = self.settled.send_if_modified(|settled| {
            let first = settled.is_none();
            settled.get_or_insert(how);
            first
        });
        if first && welcome {
            self.pass().known();
            // Where there is plenty, the first command need not wait for it.
            if !(self.server.gate.memory().is_plenty() && self.grow()) {
                self.allow(LEAST);
            }
        }
        first
    }

    fn pass(&self) -> MutexGuard<'_, Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether CON was answered, in whichever way.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.borrow().is_some()
    }

    /// How, if whoever is there was refused and is nobody known.
    fn is_turned_away(&self) -> Option<Status> {
        match &*self.settled.borrow() {
            Some(Settled::Refused(failed)) if self.member().is_none() => Some(failed.status),
            _ => None,
        }
    }

    /// Waits until CON was answered or the connection is gone.
    pub(crate) async fn wait_settled(&self) -> Settled {
        let gone = || Settled::Refused(Failed { status: Status::Cancelled, message: "the connection is gone".into() });
        let mut settled = self.settled.subscribe();
        tokio::select! {
            settled = settled.wait_for(Option::is_some) => {
                settled.ok().and_then(|settled| settled.clone()).unwrap_or_else(gone)
            }
            _ = self.connection.closed() => gone(),
        }
    }

    /// Blames the client's network, unless the client is known.
    pub(crate) fn blame(&self, offence: Offence) {
        if self.member().is_none() {
            self.server.blame(self.origin, offence);
        }
    }

    /// Ends the connection, and what was begun on it, if what its client was granted is not what it is granted now.
    fn check(&self) {
        let Some((granted, _)) = self.member.get().filter(|_| !self.revoked.is_cancelled()) else { return };
        let (status, why) = match self.grant() {
            Ok(now) if now == *granted => return,
            // The client connects again by itself and goes on with what it may do now.
            Ok(_) => (Status::Unavailable, "what this key may do here has changed"),
            Err(Denied::Restricted(why)) => (Status::NotAuthorised, why),
            Err(_) => (Status::NotAuthorised, "this key is not let in any more"),
        };
        // Also what goes on when the connection is gone: it may wait for something, and have its effect later.
        self.revoked.cancel();
        if self.connection.close_reason().is_some() {
            return;
        }
        self.connection.close(Some(status), why);
        let (user, remote) = (&granted.user, self.connection.remote_address());
        self.server.tell(Event::Revoked { user: &user.name, key: user.key, remote, why });
    }

    /// The storage as `grant` lets it be seen, and as `user` may use it.
    pub(crate) async fn view(&self, grant: &Grant, user: &Arc<User>) -> Result<Arc<dyn Storage>, StorageError> {
        let part = self.server.quotas.limit(self.part(grant).await?, &grant.root, &user.limits);
        Ok(Arc::new(Guard::new(user.clone(), part)))
    }

    async fn part(&self, grant: &Grant) -> Result<Arc<dyn Storage>, StorageError> {
        if grant.root.is_root() {
            return Ok(self.server.storage.clone());
        }
        let mut view = self.view.lock().await;
        match &*view {
            Some((root, storage)) if *root == grant.root => Ok(storage.clone()),
            _ => {
                let storage = self.server.storage.subtree(&grant.root).await?;
                *view = Some((grant.root.clone(), storage.clone()));
                Ok(storage)
            }
        }
    }
}

/// What there is of `windows` for a client with this pace, and how many commands run at once. Where the window is small,
/// no stream waits for its turn: bodies that nobody reads could fill it, while those that are read wait for theirs. Into
/// the largest goes all that a client of ours buffers.
fn granted(windows: Windows, pace: Option<&Pace>) -> (Windows, usize) {
    let receive = pace.map_or(windows.receive, |pace| pace.window().min(windows.receive));
    let served = if receive < Windows::FULL.receive { COMMANDS as u32 } else { u32::MAX };
    // A request may come behind a piece of each other stream, and half of its time is spent on the way.
    let paced = pace.map_or(u64::MAX, |pace| pace.rate().saturating_mul(REQUEST.as_secs() / 2) / PIECE as u64);
    let streams = windows.streams.min(served).min(paced.try_into().unwrap_or(u32::MAX));
    // Before CON there may have been as many as in `windows`.
    (Windows { receive, streams, ..windows }, COMMANDS.min(windows.streams as usize))
}

/// The connections that there are, for who must look after all of them.
#[derive(Default)]
pub(crate) struct Sessions {
    list: StdMutex<Vec<Weak<Session>>>,
}

impl Sessions {
    fn add(&self, session: &Arc<Session>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(session));
    }

    /// Ends those whose clients may not do any more what they might.
    pub(crate) fn check(&self) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|session| session.strong_count() > 0);
        let sessions: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
        drop(list);
        sessions.iter().for_each(|session| session.check());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allowed_is_not_taken_back() {
        let mut allowed = Allowed { send: 0, turns: 2 };
        assert_eq!(allowed.widen(LEAST.send, 4), Some(2));
        assert_eq!(allowed.widen(Windows::FULL.send, 256), Some(252));
        assert_eq!(allowed.widen(LEAST.send, 4), None);
        assert_eq!(allowed.widen(Windows::FULL.send, 100), Some(0));
    }

    #[test]
    fn streams_wait_for_their_turn_only_where_the_window_is_large() {
        assert_eq!(granted(Windows::FULL, None), (Windows::FULL, COMMANDS));
        let slow = Pace::new(0);
        for windows in (1..9).map(|times| Windows::FULL.halved(times)).chain([LEAST, Windows::RETURNING]) {
            for pace in [None, Some(&slow)] {
                let (granted, turns) = granted(windows, pace);
                assert!(granted.streams as usize <= turns, "{windows:?}");
            }
        }
        assert_eq!(granted(Windows::RETURNING, Some(&slow)).1, Windows::RETURNING.streams as usize);
    }

    /// With more streams, a request would wait for so long that it is taken for trickled.
    #[test]
    fn a_slow_user_has_fewer_streams() {
        let streams = |rate| granted(Windows::FULL, Some(&Pace::new(rate))).0.streams;
        assert_eq!((streams(0), streams(1 << 20)), (10, 80));
        assert_eq!((streams(4 << 20), streams(1 << 30)), (COMMANDS as u32, Windows::FULL.streams));
    }
}
