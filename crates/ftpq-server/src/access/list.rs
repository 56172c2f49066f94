//! The list of authorised clients as text: one line a client or an open invitation.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ftpq_handler::{Limits, User};
use ftpq_proto::{Escaped, RemotePath, Right, Rights, TicketSecret, UserPath};
use ftpq_transport::Fingerprint;
use ipnet::IpNet;
use jiff::Timestamp;

use super::ticket::TicketHash;
use crate::{pace::RATE_MIN, units::parse_bytes};

/// What one client may do, where, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is, what it may do, and how much of it.
    pub user: User,
    /// All that it sees.
    pub root: RemotePath,
    /// The networks that it may come from; from anywhere where there are none.
    pub from: Vec<IpNet>,
}

/// A line that counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// From 1.
    pub number: usize,
    /// What is wrong with it.
    pub why: String,
}

/// An invitation that nobody has used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// What its secret hashes to.
    pub hash: TicketHash,
    /// From when on it is good for nothing.
    pub until: Timestamp,
    /// What whoever uses it may do. Its options stand behind those two.
    pub offer: Offer,
}

/// The options of a line: all but whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How the log calls the client.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
    /// How much of it.
    pub limits: Limits,
    /// All that it sees.
    pub root: RemotePath,
    /// The networks that it may come from.
    pub from: Vec<IpNet>,
}

/// What a text of such lines says.
#[derive(Debug, Default)]
pub struct List {
    grants: HashMap<Fingerprint, Arc<Grant>>,
    invitations: Vec<Invitation>,
    rejected: Vec<RejectedLine>,
}

/// A line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing but white space and comments.
    Empty,
    /// A client.
    Client(Grant),
    /// An invitation.
    Invitation(Invitation),
}

impl List {
    /// Takes `text` line by line: one that is wrong counts for nothing and is kept as rejected.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            if let Err(why) = parse_line(line).and_then(|line| list.add(line)) {
                list.rejected.push(RejectedLine { number: index + 1, why });
            }
        }
        list
    }

    /// The clients, in no order.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.grants.values()
    }

    /// What `key` was granted.
    pub fn grant(&self, key: Fingerprint) -> Option<&Arc<Grant>> {
        self.grants.get(&key)
    }

    /// The invitations, as they stand in the text.
    pub fn invitations(&self) -> &[Invitation] {
        &self.invitations
    }

    /// The lines that count for nothing.
    pub fn rejected(&self) -> &[RejectedLine] {
        &self.rejected
    }

    fn add(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Empty => {}
            Line::Client(grant) if self.grants.contains_key(&grant.user.key) => {
                return Err("the key stands in a line before".into());
            }
            Line::Client(grant) => drop(self.grants.insert(grant.user.key, Arc::new(grant))),
            Line::Invitation(invitation) if self.invitations.iter().any(|other| other.hash == invitation.hash) => {
                return Err("the ticket stands in a line before".into());
            }
            Line::Invitation(invitation) => self.invitations.push(invitation),
        }
        Ok(())
    }
}

impl Grant {
    /// Whether it counts at `now` for a client at `address`, and if not, why.
    pub fn holds(&self, address: IpAddr, now: Timestamp) -> Result<(), &'static str> {
        if self.user.limits.expires.is_some_and(|expires| expires <= now.as_second()) {
            return Err("what this key was granted has expired");
        }
        if !comes_from(&self.from, address) {
            return Err("this key is not let in from this address");
        }
        Ok(())
    }
}

impl Offer {
    /// The same for somebody with this key.
    pub fn to(self, key: Fingerprint) -> Grant {
        let Self { name, rights, limits, root, from } = self;
        Grant { user: User { name, key, rights, limits }, root, from }
    }

    /// Whether it is open to a client at `address`.
    pub fn is_open_to(&self, address: IpAddr) -> bool {
        comes_from(&self.from, address)
    }
}

impl std::fmt::Display for Offer {
    /// As it stands in a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "name={} rights={}", self.name, self.rights)?;
        if !self.root.is_root() {
            // What cannot be written in a line cannot be an offer: `check` says so first.
            write!(f, " root={}", String::from_utf8_lossy(UserPath::from(&self.root).as_bytes()))?;
        }
        let Limits { bytes, files, rate, expires } = self.limits;
        bytes.map_or(Ok(()), |bytes| write!(f, " quota={bytes}"))?;
        files.map_or(Ok(()), |files| write!(f, " files={files}"))?;
        rate.map_or(Ok(()), |rate| write!(f, " rate={rate}"))?;
        if !self.from.is_empty() {
            let networks: Vec<_> = self.from.iter().map(ToString::to_string).collect();
            write!(f, " from={}", networks.join(","))?;
        }
        match expires.and_then(|expires| Timestamp::from_second(expires).ok()) {
            Some(expires) => write!(f, " expires={expires}"),
            None => Ok(()),
        }
    }
}

/// Takes one line apart; what is wrong with it otherwise.
pub fn parse_line(line: &str) -> Result<Line, String> {
    let mut words = without_comment(line).split_ascii_whitespace();
    let Some(whose) = words.next() else { return Ok(Line::Empty) };
    let options: Vec<&str> = words.collect();
    match whose.strip_prefix(TicketHash::PREFIX) {
        None => {
            let key = whose.parse::<Fingerprint>().map_err(|error| error.to_string())?;
            let (offer, until) = parse_options(&options)?;
            if until.is_some() {
                return Err("until= is for tickets: a client has expires=".into());
            }
            Ok(Line::Client(offer.to(key)))
        }
        Some(hash) => {
            let hash = hash.parse()?;
            let (offer, until) = parse_options(&options)?;
            let until = until.ok_or("until= is missing")?;
            Ok(Line::Invitation(Invitation { hash, until, offer }))
        }
    }
}

/// The options of a line, and until when a ticket is good.
fn parse_options(words: &[&str]) -> Result<(Offer, Option<Timestamp>), String> {
    let (mut name, mut rights, mut root, mut from, mut until) = (None, None, None, None, None);
    let (mut bytes, mut files, mut rate, mut expires) = (None, None, None, None);
    for word in words {
        let (option, value) = word.split_once('=').ok_or_else(|| format!("{} is no option", Escaped::new(word)))?;
        let again = match option {
            "name" => name.replace(parse_name(value)?).is_some(),
            "rights" => rights.replace(value.parse::<Rights>().map_err(|error| error.to_string())?).is_some(),
            "root" => root.replace(parse_root(value)?).is_some(),
            "quota" => bytes.replace(parse_bytes(value).map_err(|error| error.to_string())?).is_some(),
            "files" => files.replace(parse_count(value)?).is_some(),
            "rate" => rate.replace(parse_rate(value)?).is_some(),
            "from" => from.replace(parse_networks(value)?).is_some(),
            "expires" => expires.replace(parse_time(value)?.as_second()).is_some(),
            "until" => until.replace(parse_time(value)?).is_some(),
            _ => return Err(format!("unknown option {}", Escaped::new(word))),
        };
        if again {
            return Err(format!("{option} is given twice"));
        }
    }
    let offer = Offer {
        name: name.ok_or("name= is missing")?,
        rights: rights.ok_or("rights= is missing")?,
        limits: Limits { bytes, files, rate, expires },
        root: root.unwrap_or_default(),
        from: from.unwrap_or_default(),
    };
    Ok((offer, until))
}

/// A name for logs: anything that is a word.
pub fn parse_name(value: &str) -> Result<String, String> {
    let fits = !value.is_empty() && value.len() <= NAME_MAX && !value.contains(|c: char| c.is_whitespace());
    if fits { Ok(value.to_owned()) } else { Err(format!("a name has 1 to {NAME_MAX} bytes and no space")) }
}

/// A root as it must be written. Nothing is made of another spelling: what was meant might be less.
pub fn parse_root(value: &str) -> Result<RemotePath, String> {
    let root = value.parse::<RemotePath>().map_err(|error| error.to_string())?;
    if UserPath::from(&root).as_bytes() == value.as_bytes() {
        return Ok(root);
    }
    Err(format!("root={} is not written as /FOLDER/FOLDER", Escaped::new(value)))
}

/// Bytes a second; fewer than [`RATE_MIN`] would be taken for a stall.
pub fn parse_rate(value: &str) -> Result<u64, String> {
    let rate = parse_bytes(value).map_err(|error| error.to_string())?;
    if rate < RATE_MIN { Err(format!("a rate is {RATE_MIN} bytes a second or more")) } else { Ok(rate) }
}

/// Networks as `10.0.0.0/8,2001:db8::/32`, single addresses without the `/`.
pub fn parse_networks(value: &str) -> Result<Vec<IpNet>, String> {
    let network = |word: &str| {
        let address = word.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| word.parse::<IpNet>());
        let network = network.map_err(|_| format!("{} is no network: write 10.0.0.0/8", Escaped::new(word)))?;
        // What lies behind the prefix might be meant.
        if network.trunc() == network {
            Ok(network)
        } else {
            Err(format!("{network} is not the same as {}", network.trunc()))
        }
    };
    value.split(',').map(network).collect()
}

/// A day, which counts from its beginning in UTC, or a moment as in RFC 3339.
pub fn parse_time(value: &str) -> Result<Timestamp, String> {
    let day =
        || value.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp());
    let time = if value.len() == "2027-01-01".len() { day() } else { value.parse().ok() };
    time.ok_or_else(|| format!("{} is no time: write 2027-01-01 or 2027-01-01T12:00:00Z", Escaped::new(value)))
}

fn parse_count(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{} is no number of files", Escaped::new(value)))
}

/// `#` within a word belongs to it: `root=/shared#private` must not become `/shared`.
fn without_comment(line: &str) -> &str {
    let begins = |at: usize| line[..at].bytes().next_back().is_none_or(|before| before.is_ascii_whitespace());
    let comment = line.match_indices('#').map(|(at, _)| at).find(|&at| begins(at));
    comment.map_or(line, |at| &line[..at])
}

fn comes_from(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.is_empty() || networks.iter().any(|network| network.contains(&address))
}

/// Bytes of a client's name: it stands in every line of the log.
const NAME_MAX: usize = 64;

/// Everything that a line may say, for those who print it.
impl Grant {
    /// As it stands in the list.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.user.key, Offer::from(self.clone()))
    }

    /// Whether the client may do something of this kind.
    pub fn allows(&self, right: Right) -> bool {
        self.user.rights.contains(right)
    }
}

impl From<Grant> for Offer {
    fn from(grant: Grant) -> Self {
        let Grant { user: User { name, rights, limits, .. }, root, from } = grant;
        Self { name, rights, limits, root, from }
    }
}

impl Invitation {
    /// As it stands in the list.
    pub fn to_line(&self) -> String {
        format!("{}{} until={} {}", TicketHash::PREFIX, self.hash, self.until, self.offer)
    }

    /// For a secret that nobody has seen yet.
    pub fn new(secret: &TicketSecret, until: Timestamp, offer: Offer) -> Self {
        Self { hash: TicketHash::of(secret), until, offer }
    }
}
