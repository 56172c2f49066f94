//! What lies below one root, as a bound that holds at every moment: never less than what is there.
//!
//! It is exact when it was just counted, and only grows from then on: by what is reserved before anything is
//! written, and stays when that has become a file. What is removed only makes it stale. When something does not
//! fit a bound that is stale, or old, it is counted again, and that decides.
//!
//! Uploads go on while it is counted. What was published meanwhile may have been seen or not, so it is added;
//! what was moved may have been missed, so moving and counting exclude each other (`still`).

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ftpq_handler::Limits;
use ftpq_proto::RemotePath;
use ftpq_storage::{Problem, Storage, Usage};
use futures_util::FutureExt;
use tokio::{
    sync::{RwLock, watch},
    time::{Instant, sleep_until},
};

use crate::units::about;

/// The account of one root.
pub(super) struct Ledger {
    pub(super) root: RemotePath,
    state: Mutex<State>,
    /// Held alone by whoever counts or moves something, shared by whoever relies on what stands where.
    pub(super) still: Arc<RwLock<()>>,
    ends: watch::Sender<Ended>,
}

/// What a user may have below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    bytes: Option<u64>,
    entries: Option<u64>,
}

struct State {
    /// What is counted.
    storage: Arc<dyn Storage>,
    /// What there is at the most, without what is reserved. Means nothing until it is `known`.
    used: Usage,
    known: bool,
    /// What may yet be written.
    reserved: Usage,
    /// What may be getting its name at this moment, though it is in `used` already.
    publishing: Usage,
    /// Less may be there than `used` says.
    stale: bool,
    count: Count,
}

/// How counting is getting on.
#[derive(Default)]
struct Count {
    /// How many were begun, and how many ended.
    begun: u64,
    ended: u64,
    /// Something counts, or is about to.
    running: bool,
    /// Somebody needs one that begins later than the one that is under way.
    again: bool,
    /// Added to `used`, or published, while one was under way: it may have seen it or not.
    since: Usage,
    /// Something has come that no account was kept of: what is under way is good for nothing.
    void: bool,
    /// When the last good one began.
    at: Option<Instant>,
    /// When the last one ended, and how long it took.
    last: Option<(Instant, Duration)>,
}

/// The end of a count.
#[derive(Clone, Copy, Default)]
struct Ended {
    number: u64,
    failed: bool,
}

/// Why nothing was reserved.
enum Refusal {
    /// It has to be counted first.
    Unknown,
    /// It does not fit. A count might say otherwise, if `doubtful`.
    Over { text: String, doubtful: bool },
}

impl Quota {
    /// What `limits` say; `None` if they say nothing.
    pub(super) fn of(limits: &Limits) -> Option<Self> {
        let Limits { bytes, files, .. } = *limits;
        (bytes.is_some() || files.is_some()).then_some(Self { bytes, entries: files })
    }

    /// Why `more` does not fit, where so much is taken. What takes nothing always fits.
    fn refuses(&self, taken: Usage, more: Usage) -> Option<String> {
        let over = |limit: Option<u64>, taken: u64, more: u64| {
            limit.filter(|limit| more > 0 && taken.saturating_add(more) > *limit)
        };
        if let Some(limit) = over(self.bytes, taken.bytes, more.bytes) {
            let [limit, taken, more] = [limit, taken.bytes, more.bytes].map(about);
            return Some(format!("{taken} of {limit} are taken, and {more} more do not fit"));
        }
        let limit = over(self.entries, taken.entries, more.entries)?;
        let (taken, more) = (taken.entries, more.entries);
        Some(format!("{taken} of {limit} files, folders and links are taken, and {more} more do not fit"))
    }
}

impl Ledger {
    /// The account of `storage`, which is below `root`.
    pub(super) fn new(root: RemotePath, storage: Arc<dyn Storage>) -> Self {
        let state = State {
            storage,
            used: Usage::default(),
            known: false,
            reserved: Usage::default(),
            publishing: Usage::default(),
            stale: false,
            count: Count::default(),
        };
        Self { root, state: Mutex::new(state), still: Arc::default(), ends: watch::Sender::default() }
    }

    /// Counts `storage` from now on: the root may have become another folder.
    pub(super) fn set_storage(&self, storage: Arc<dyn Storage>) {
        self.lock().storage = storage;
    }

    /// Reserves `more` if it fits `quota`: then nobody else can. Counts first where that may decide.
    pub(super) async fn reserve(self: &Arc<Self>, quota: &Quota, more: Usage) -> Result<(), Problem> {
        let mut asked = false;
        loop {
            match self.try_reserve(quota, more) {
                Ok(()) => return Ok(()),
                Err(Refusal::Unknown) => self.counted(false).await?,
                Err(Refusal::Over { text, doubtful }) => {
                    if asked || !doubtful || self.counted(true).await.is_err() {
                        return Err(Problem::OverQuota(text));
                    }
                    asked = true;
                }
            }
        }
    }

    /// Reserves `more` for one whose quota is another's affair.
    pub(super) fn note(&self, more: Usage) {
        let mut state = self.lock();
        state.reserved = state.reserved.plus(more);
    }

    /// How many counts have ended: [`settle`](Self::settle) wants to know.
    pub(super) fn counts(&self) -> u64 {
        self.lock().count.ended
    }

    /// What was `reserved` when so many `counts` had ended is so no more; so much of it `stays`, or less if that is
    /// not `exact`. Both at once: nobody else can have what stays.
    pub(super) fn settle(&self, reserved: Usage, stays: Usage, exact: bool, counts: u64) {
        let mut state = self.lock();
        state.reserved = state.reserved.minus(reserved);
        if stays != Usage::default() {
            state.used = state.used.plus(stays);
            state.count.since = state.count.since.plus(stays);
            // A count that ended in between may have seen it already.
            state.stale |= !exact || state.count.ended != counts;
        }
    }

    /// Something may have become less.
    pub(super) fn freed(&self) {
        self.lock().stale = true;
    }

    /// Something may have become more, and nobody knows by how much.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.known = false;
        state.count.void = true;
    }

    /// What is in the account already may be getting its name from now on: a count might miss it.
    pub(super) fn begin_publishing(&self, what: Usage) {
        let mut state = self.lock();
        state.publishing = state.publishing.plus(what);
        state.count.since = state.count.since.plus(what);
    }

    /// It has got it, or not.
    pub(super) fn end_publishing(&self, what: Usage) {
        let mut state = self.lock();
        state.publishing = state.publishing.minus(what);
    }

    fn try_reserve(self: &Arc<Self>, quota: &Quota, more: Usage) -> Result<(), Refusal> {
        let mut state = self.lock();
        if !state.known {
            return Err(Refusal::Unknown);
        }
        if let Some(text) = quota.refuses(state.used.plus(state.reserved), more) {
            let doubtful = state.stale || state.count.is_older_than(DOUBTFUL);
            return Err(Refusal::Over { text, doubtful });
        }
        state.reserved = state.reserved.plus(more);
        // Other programs put things there, too.
        let took = state.count.last.map_or(Duration::ZERO, |(_, took)| took);
        if state.count.is_older_than(OLD.max(took * SHARE_OLD)) && !state.count.running {
            self.ask(&mut state, false);
        }
        Ok(())
    }

    /// Waits for the end of a count: of one that is under way, unless it must have begun later than now.
    async fn counted(self: &Arc<Self>, later: bool) -> Result<(), Problem> {
        let mut ends = self.ends.subscribe();
        let wanted = self.ask(&mut self.lock(), later);
        let ended = ends.wait_for(|ended| ended.number >= wanted).await.map(|ended| ended.failed);
        if ended.unwrap_or(true) { Err(Problem::Io(std::io::Error::other(NOT_COUNTED))) } else { Ok(()) }
    }

    /// Asks for a count. Returns its number.
    fn ask(self: &Arc<Self>, state: &mut State, later: bool) -> u64 {
        let count = &mut state.count;
        if !std::mem::replace(&mut count.running, true) {
            tokio::spawn(self.clone().run());
        }
        let is_under_way = count.begun > count.ended;
        count.again |= later && is_under_way;
        count.ended + if later && is_under_way { 2 } else { 1 }
    }

    /// Counts, until nobody asks for another.
    async fn run(self: Arc<Self>) {
        loop {
            let rest = self.lock().count.rest();
            if let Some(rest) = rest {
                sleep_until(rest).await;
            }
            let began = Instant::now();
            let storage = self.begin_count().await;
            let counted = AssertUnwindSafe(storage.0.usage()).catch_unwind().await;
            drop(storage);
            let counted = match counted {
                Ok(Ok(usage)) => Some(usage),
                Ok(Err(error)) => {
                    tracing::warn!(%error, root = %self.root, "cannot count what is there, for a quota");
                    None
                }
                Err(_) => {
                    tracing::error!(root = %self.root, "counting what is there has panicked");
                    None
                }
            };
            if !self.end_count(began, counted) {
                return;
            }
        }
    }

    /// Once nothing is being moved; nothing will be until what is returned is dropped.
    async fn begin_count(&self) -> (Arc<dyn Storage>, tokio::sync::OwnedRwLockWriteGuard<()>) {
        let still = self.still.clone().write_owned().await;
        let mut state = self.lock();
        state.stale = false;
        state.count.begun += 1;
        state.count.since = state.publishing;
        state.count.void = false;
        (state.storage.clone(), still)
    }

    /// Returns whether another is wanted.
    fn end_count(&self, began: Instant, counted: Option<Usage>) -> bool {
        let mut state = self.lock();
        let count = &mut state.count;
        let now = Instant::now();
        count.ended = count.begun;
        count.last = Some((now, now - began));
        let again = std::mem::take(&mut count.again);
        count.running = again;
        let (since, void, number) = (count.since, count.void, count.ended);
        if let Some(counted) = counted.filter(|_| !void) {
            count.at = Some(began);
            state.used = counted.plus(since);
            state.known = true;
        }
        // It may have seen what was added meanwhile.
        state.stale |= counted.is_none() || since != Usage::default();
        drop(state);
        self.ends.send_replace(Ended { number, failed: counted.is_none() });
        again
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is taken, reserved or not.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Usage {
        let state = self.lock();
        state.used.plus(state.reserved)
    }

    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        self.lock().known
    }
}

impl Count {
    fn is_older_than(&self, age: Duration) -> bool {
        self.at.is_none_or(|at| at.elapsed() > age)
    }

    /// When the next may begin: whoever frees and fills in turn must not keep a disk busy.
    fn rest(&self) -> Option<Instant> {
        let (ended, took) = self.last?;
        Some(ended + (took * SHARE).min(REST_MAX))
    }
}

/// After so long, something may have been removed by other programs.
const DOUBTFUL: Duration = Duration::from_secs(60);

/// After so long, enough may have been added by other programs to count it before it matters; at least
/// [`SHARE_OLD`] times what counting takes.
const OLD: Duration = Duration::from_secs(600);
const SHARE_OLD: u32 = 50;

/// Between two counts lies at least so many times what one takes, up to [`REST_MAX`].
const SHARE: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(60);

const NOT_COUNTED: &str = "what is there cannot be counted for the quota: tell the server's owner";
