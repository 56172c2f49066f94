//! What a person or a file says: tickets, lists of keys, the server's configuration.

use std::{collections::HashSet, fmt::Display};

use ftpq_client::known_servers;
use ftpq_proto::UserPath;
use ftpq_server::{
    Config, ConfigError,
    access::{Line, List, parse_line},
};
use ftpq_transport::{Fingerprint, Ticket};

use crate::text::assert_printable;

/// A ticket as somebody pasted it. There is one way to write each, and no error says what was pasted.
pub fn ticket(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<Fingerprint>() {
        assert_eq!(key.to_string(), text);
    }
    let ticket = match text.parse::<Ticket>() {
        Ok(ticket) => ticket,
        Err(error) => return assert_sentence(&error),
    };
    assert_eq!(ticket.to_string(), text, "two ways to write one ticket");
    assert!(text.is_ascii() && Ticket::resembles(text), "{text}");
    assert_printable(text);
    assert!(format!("{ticket:?}").ends_with("secret: TicketSecret(…) }"), "the secret is shown: {ticket:?}");
    assert_eq!(Ticket::new(&ticket.server, ticket.key, ticket.secret).as_ref(), Ok(&ticket));
    let port = ticket.server.rsplit(']').next().and_then(|rest| rest.split_once(':')).map(|(_, port)| port);
    let plain = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
    assert!(port.is_none_or(plain), "{port:?} is no port");
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        assert_ne!(text[..end].parse().as_ref(), Ok(&ticket), "a part is taken for the whole");
    }
}

/// A list of authorised clients. What is granted is what a line says, and comes out again as it went in;
/// a line counts for something, or is rejected, or says nothing.
pub fn authorized_clients(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let list = List::parse(text);
    let lines: Vec<&str> = text.lines().collect();
    let meant = lines.iter().filter(|line| parse_line(line) != Ok(Line::Empty)).count();
    assert_eq!(list.grants().count() + list.invitations().len() + list.rejected().len(), meant);
    let words: HashSet<&str> = text.split_ascii_whitespace().collect();
    for grant in list.grants() {
        assert_eq!(parse_line(&grant.to_line()), Ok(Line::Client((**grant).clone())), "{}", grant.to_line());
        // Whole words, since what is cut off might be the restriction.
        let root = UserPath::from(&grant.root);
        let root = format!("root={}", std::str::from_utf8(root.as_bytes()).expect("a root that was text"));
        assert!(grant.root.is_root() || words.contains(root.as_str()), "nobody has written {root}");
        for word in [grant.user.key.to_string(), format!("name={}", grant.user.name)] {
            assert!(words.contains(word.as_str()), "nobody has written {word}");
        }
    }
    for invitation in list.invitations() {
        assert_eq!(parse_line(&invitation.to_line()), Ok(Line::Invitation(invitation.clone())));
    }
    for rejected in list.rejected() {
        assert_sentence(&rejected.why);
        assert!((1..=lines.len()).contains(&rejected.number));
        // Every other line counts without it: what is wrong in one opens no other.
        let line = lines[rejected.number - 1];
        assert!(parse_line(line) != Ok(Line::Empty), "an empty line is rejected");
    }
    // The file that ftpq itself would write says the same.
    let written: String = list.grants().map(|grant| grant.to_line() + "\n").collect();
    let again = List::parse(&written);
    assert!(again.rejected().is_empty() && again.grants().count() == list.grants().count());
    assert!(list.grants().all(|grant| again.grant(grant.user.key) == Some(grant)));
}

/// A client's list of known servers: taken whole, or not at all for a line that is named.
pub fn known_servers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.lines().collect();
    let known = match known_servers::parse(text) {
        Ok(known) => known,
        Err(number) => {
            assert!((1..=lines.len()).contains(&number), "line {number} of {}", lines.len());
            assert!(known_servers::parse(&lines[..number - 1].join("\n")).is_ok(), "a line before {number} is bad");
            return;
        }
    };
    let mut written = String::new();
    for (server, keys) in &known {
        assert!(!server.is_empty() && !server.contains(|c: char| c.is_ascii_whitespace() || c == '#'), "{server:?}");
        assert!(keys.keys().all(|key| text.contains(&key.to_string())), "a key that nobody has written");
        let next = keys.next.map(|next| format!(" next={next}")).unwrap_or_default();
        written += &format!("{server} {}{next}\n", keys.key);
    }
    assert_eq!(known_servers::parse(&written), Ok(known));
}

/// A server's configuration: what was read is written and read again as the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text) {
        Ok(config) => {
            assert!(text.len() <= Config::MAX_LEN);
            assert!(config.keep_unfinished.is_none_or(|days| Config::KEEP_DAYS.contains(&days)));
            // There is no number that large in TOML.
            let memory = config.limits.memory.filter(|&memory| memory > i64::MAX as u64);
            let mut written = config.clone();
            written.limits.memory = written.limits.memory.filter(|_| memory.is_none());
            let again = Config::parse(&toml::to_string(&written).expect("what was read is written"));
            assert_eq!(again, Ok(written));
        }
        Err(error) => {
            assert_sentence(&error);
            if let ConfigError::Line { number, .. } = error {
                assert!((1..=1 + text.matches('\n').count()).contains(&number), "line {number}");
            }
        }
    }
}

/// One line that can be shown.
fn assert_sentence(error: &impl Display) {
    let shown = error.to_string();
    assert!(!shown.is_empty(), "no word of what is wrong");
    assert_printable(&shown);
}
