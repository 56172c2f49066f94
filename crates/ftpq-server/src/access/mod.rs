//! Who may come in: the list of authorised clients.
//!
//! One line a client: its key's fingerprint, then options. `#` begins a comment, at the start of a
//! line or after white space.
//!
//! ```text
//! SHA256:1Zr… name=alice rights=list,read,write,delete quota=10G
//! SHA256:9fq… name=backup rights=write root=/backup from=10.0.0.0/8 expires=2027-01-01
//! ticket:4Hn… until=2026-11-22T12:10:00Z name=bob rights=list,read
//! ```
//!
//! | option | meaning |
//! |---|---|
//! | `name` | how the log calls the client; required |
//! | `rights` | some of list, read, write, delete, admin; required |
//! | `root` | the folder that is all the client sees, as `/FOLDER/FOLDER` from the served one; all of it where absent |
//! | `quota` | bytes that may lie below the root, with K, M, G or T for 1,024 and its powers |
//! | `files` | files, folders and links that may lie there |
//! | `rate` | bytes a second of all the client's transfers together, each way |
//! | `from` | networks that it may come from |
//! | `expires` | the day or moment from which it is let in no more |
//! | `until` | of a ticket: the moment from which it is good for nothing; required there |
//!
//! A line with anything else in it is refused as a whole and reported: an option that this version
//! does not know may be a restriction. A ticket's line becomes the line of the client that spends it.
//! Changes count at once, those that are made in place after a moment: for connections that are open, within
//! [`WATCH`](crate::limits::WATCH) of that.

mod file;
mod list;
mod ticket;

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use ftpq_handler::User;
use ftpq_proto::TicketSecret;
use ftpq_transport::Fingerprint;
use jiff::Timestamp;

use file::Version;
pub use file::{AccessFile, EditError};
pub use list::{
    Grant, Invitation, Line, List, Offer, RejectedLine, parse_line, parse_name, parse_networks, parse_rate, parse_root,
    parse_time,
};
pub use ticket::TicketHash;

/// The list, kept up to date with its file.
#[derive(Debug)]
pub struct Access {
    file: AccessFile,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// What the file was when it was last read and taken, and that text.
    version: Option<Version>,
    text: String,
    /// A version that is so young is no proof that nothing has changed: two changes may have the same time.
    young: bool,
    /// Since when the file has been another, and not taken yet: it may be half written.
    waiting: Option<SystemTime>,
    /// How often it was read anew.
    generation: u64,
    list: List,
    /// Those that nobody was told of yet.
    rejected: Vec<RejectedLine>,
}

/// Why a client may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Its key is in no line.
    Unknown,
    /// Its line does not count, now or for where it comes from.
    Restricted(&'static str),
    /// Its ticket is spent, too old, or was never given out.
    BadTicket,
}

impl Access {
    /// The list in `file`. A missing file authorises nobody.
    pub fn open(file: &Path) -> io::Result<Self> {
        let access = Self { file: AccessFile::new(file), current: Mutex::default() };
        access.lock().take(access.file.version()?, access.file.read()?, SystemTime::now());
        Ok(access)
    }

    /// What `key` may do now, coming from `address`.
    pub fn grant(&self, key: Fingerprint, address: IpAddr) -> Result<Arc<Grant>, Denied> {
        let mut current = self.lock();
        self.refresh_or_warn(&mut current);
        let grant = current.list.grant(key).ok_or(Denied::Unknown)?;
        grant.holds(address, Timestamp::now()).map_err(Denied::Restricted)?;
        Ok(grant.clone())
    }

    /// Spends the ticket with this secret on `key`: its line becomes the key's, and only then the key is
    /// let in. Of several that try, one wins. Waits for the disk.
    pub fn redeem(
        &self,
        secret: &TicketSecret,
        key: Fingerprint,
        address: IpAddr,
    ) -> Result<Result<Arc<Grant>, Denied>, EditError> {
        let hash = TicketHash::of(secret);
        // Who only guesses must not make the disk work.
        if !self.knows_ticket(hash) {
            return Ok(Err(Denied::BadTicket));
        }
        let spent = self.file.edit(|lines| {
            let good = |line: &String| match parse_line(line) {
                Ok(Line::Invitation(invitation)) => {
                    let Invitation { hash: its, until, offer } = invitation;
                    (its == hash && until > Timestamp::now() && offer.is_open_to(address)).then_some(offer)
                }
                _ => None,
            };
            let (at, offer) = lines.iter().enumerate().find_map(|(at, line)| Some((at, good(line)?)))?;
            let line = offer.to(key).to_line();
            let others = |line: &String| !matches!(parse_line(line), Ok(Line::Client(grant)) if grant.user.key == key);
            // What the key was granted before did not let it in.
            *lines = lines
                .iter()
                .enumerate()
                .filter(|(_, line)| others(line))
                .map(|(number, before)| if number == at { &line } else { before })
                .cloned()
                .collect();
            Some(())
        })?;
        if spent.is_none() {
            return Ok(Err(Denied::BadTicket));
        }
        self.refresh_own();
        Ok(self.grant(key, address))
    }

    /// Looks at the file again. Returns a number that is another one whenever the list has changed.
    pub fn generation(&self) -> u64 {
        let mut current = self.lock();
        self.refresh_or_warn(&mut current);
        current.generation
    }

    /// The lines that count for nothing, each told once after each change of the file.
    pub fn newly_rejected(&self) -> Vec<RejectedLine> {
        std::mem::take(&mut self.lock().rejected)
    }

    /// How many clients are authorised, and how many invitations are open.
    pub fn count(&self) -> (usize, usize) {
        let current = self.lock();
        let now = Timestamp::now();
        let open = current.list.invitations().iter().filter(|invitation| invitation.until > now).count();
        (current.list.grants().count(), open)
    }

    /// Adds a line for `user`, unless its key is in the list.
    pub fn authorise(&self, user: &User) -> Result<(), EditError> {
        let grant = Grant { user: user.clone(), root: Default::default(), from: Vec::new() };
        self.file.add_client(&grant)?;
        self.refresh_own();
        Ok(())
    }

    fn knows_ticket(&self, hash: TicketHash) -> bool {
        let mut current = self.lock();
        self.refresh_or_warn(&mut current);
        current.list.invitations().iter().any(|invitation| invitation.hash == hash)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh_or_warn(&self, current: &mut Current) {
        self.warn(self.refresh(current, SystemTime::now()));
    }

    /// After a change of one's own, which is whole.
    fn refresh_own(&self) {
        let mut current = self.lock();
        let read = self.file.version().and_then(|version| Ok((version, self.file.read()?)));
        self.warn(read.map(|(version, text)| current.take(version, text, SystemTime::now())));
    }

    fn warn(&self, refreshed: io::Result<()>) {
        if let Err(error) = refreshed {
            // The last good list holds: a disk error must neither lock everybody out nor let anybody in.
            tracing::warn!(%error, file = %self.file.path().display(), "cannot read the list of authorised clients");
        }
    }

    /// Looks at the file again. What may be half written is not taken: cut between two lines it would cut off those
    /// who come behind, and cut within one it could grant more than the whole line does.
    fn refresh(&self, current: &mut Current, now: SystemTime) -> io::Result<()> {
        let version = self.file.version()?;
        if version == current.version && !current.young {
            current.waiting = None;
            return Ok(());
        }
        let text = self.file.read()?;
        let since = *current.waiting.get_or_insert(now);
        if text == current.text || is_whole(&text, version, current.version) || is_final(&text, version, since, now) {
            current.take(version, text, now);
        }
        Ok(())
    }
}

impl Current {
    fn take(&mut self, version: Option<Version>, text: String, now: SystemTime) {
        self.young = version.is_some_and(|version| version.age(now) < YOUNG);
        (self.version, self.waiting) = (version, None);
        if self.generation == 0 || text != self.text {
            self.list = List::parse(&text);
            self.rejected = self.list.rejected().to_vec();
            self.text = text;
            self.generation += 1;
        }
    }
}

/// Whether another file has taken the place of the one before, as ftpq does it: it was written before. An editor that
/// makes a new one there and writes it then begins with nothing.
fn is_whole(text: &str, version: Option<Version>, before: Option<Version>) -> bool {
    let file = |version: Version| version.file();
    text.ends_with('\n') && version.map(file) != before.map(file)
}

/// Whether nobody seems to be writing any more.
fn is_final(text: &str, version: Option<Version>, since: SystemTime, now: SystemTime) -> bool {
    let waited = now.duration_since(since).unwrap_or(YOUNG);
    let age = version.map_or(waited, |version| version.age(now));
    // Whoever goes on writing must not keep a key in that was removed.
    waited >= UNFINISHED || age >= if text.ends_with('\n') { UNSETTLED } else { UNFINISHED }
}

/// For so long after a change, more of it may come.
const UNSETTLED: Duration = Duration::from_millis(100);

/// The same where the list is empty, or its last line has no end: as long as a removed key may stay in.
const UNFINISHED: Duration = Duration::from_millis(500);

/// After so long, another change has another time, on any file system.
const YOUNG: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
