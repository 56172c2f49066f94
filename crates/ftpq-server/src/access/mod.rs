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
//! Changes count at once: for connections that are open, within [`WATCH`](crate::limits::WATCH).

mod file;
mod list;
mod ticket;

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    version: Option<Version>,
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
        access.refresh(&mut access.lock())?;
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
        self.refresh_or_warn(&mut self.lock());
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
        if let Err(error) = self.refresh(current) {
            // The last good list holds: a disk error must neither lock everybody out nor let anybody in.
            tracing::warn!(%error, file = %self.file.path().display(), "cannot read the list of authorised clients");
        }
    }

    fn refresh(&self, current: &mut Current) -> io::Result<()> {
        let version = self.file.version()?;
        if version == current.version {
            return Ok(());
        }
        let list = List::parse(&self.file.read()?);
        let rejected = list.rejected().to_vec();
        *current = Current { version, generation: current.generation + 1, list, rejected };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
