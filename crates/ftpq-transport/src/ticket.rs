//! A ticket: one line of text that says where a server is, which key it has, and the secret that
//! lets one client in, once.
//!
//! ```text
//! ftpq://HOST:PORT/#KEY.SECRET
//! ```
//! KEY is the server's fingerprint, SECRET the 128 random bits of a [`TicketSecret`], both in base64url
//! without padding. There is one way of writing each ticket, so that what is read is what was given out.

use std::{fmt, io, net::Ipv6Addr, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ftpq_proto::TicketSecret;

use crate::fingerprint::Fingerprint;

/// A server, its key, and a secret. `Debug` does not show the secret; [`Display`](fmt::Display), which
/// is for the one who gets the ticket, does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// `HOST` or `HOST:PORT`; an IPv6 address stands in brackets.
    pub server: String,
    /// The key that the server has.
    pub key: Fingerprint,
    /// What lets a client in.
    pub secret: TicketSecret,
}

impl Ticket {
    /// Bytes of a ticket at most: names of hosts are short.
    pub const LEN_MAX: usize = 1024;

    /// A ticket for `server` (`HOST` or `HOST:PORT`), if that can stand in one.
    pub fn new(server: &str, key: Fingerprint, secret: TicketSecret) -> Result<Self, ParseTicketError> {
        if !is_server(server) {
            return Err(ParseTicketError::Server);
        }
        Ok(Self { server: server.into(), key, secret })
    }

    /// A secret that nobody can guess, from the system's source of randomness.
    pub fn generate_secret() -> io::Result<TicketSecret> {
        let mut bytes = [0; ftpq_proto::ticket::LEN];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(bytes.into())
    }

    /// Whether `text` may hold a ticket's secret, whole or with a slip in it: then it must not be shown,
    /// logged or remembered.
    pub fn resembles(text: &str) -> bool {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let keys = text.split(SCHEME).skip(1).filter_map(|rest| rest.split_once('#')?.1.split_once('.'));
        keys.into_iter().any(|(key, _)| key.len() >= KEY_LEN / 2 && key.bytes().all(letter))
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, secret) =
            (URL_SAFE_NO_PAD.encode(self.key.as_bytes()), URL_SAFE_NO_PAD.encode(self.secret.as_bytes()));
        write!(f, "{SCHEME}{}/#{key}.{secret}", self.server)
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::LEN_MAX {
            return Err(ParseTicketError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(ParseTicketError::Form)?;
        let (server, rest) = rest.split_once("/#").ok_or(ParseTicketError::Form)?;
        let (key, secret) = rest.split_once('.').ok_or(ParseTicketError::Form)?;
        let key: [u8; 32] = decode(key).ok_or(ParseTicketError::Key)?;
        let secret: [u8; ftpq_proto::ticket::LEN] = decode(secret).ok_or(ParseTicketError::Secret)?;
        Self::new(server, Fingerprint::from(key), secret.into())
    }
}

/// Why a text is no ticket. Never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTicketError {
    /// More than a ticket can have.
    #[error("not a ticket: it has more than {} bytes", Ticket::LEN_MAX)]
    TooLong,
    /// Its parts are not there.
    #[error("not a ticket: one looks like ftpq://HOST:PORT/#KEY.SECRET")]
    Form,
    /// Its server is none.
    #[error("not a ticket: its server is not HOST or HOST:PORT")]
    Server,
    /// Its key is none.
    #[error("not a whole ticket: between # and . it has {KEY_LEN} letters, digits, - and _")]
    Key,
    /// Its secret is none.
    #[error("not a whole ticket: after the . it has {SECRET_LEN} letters, digits, - and _")]
    Secret,
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Whether `text` is `HOST` or `HOST:PORT`, as a name, an IPv4 address, or an IPv6 address in brackets.
fn is_server(text: &str) -> bool {
    let (host_is_good, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else { return false };
            (is_v6(address), rest)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            (!host.is_empty() && host.len() <= HOST_MAX && !host.starts_with('-') && host.bytes().all(known), port)
        }
    };
    host_is_good && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// An IPv6 address, with a zone (`%eth0`) or without.
fn is_v6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let zone_is_good = zone.is_none_or(|zone| !zone.is_empty() && zone.len() <= ZONE_MAX && zone.bytes().all(plain));
    address.parse::<Ipv6Addr>().is_ok() && zone_is_good
}

fn is_port(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain && text.parse::<u16>().is_ok()
}

const SCHEME: &str = "ftpq://";

/// What DNS allows.
const HOST_MAX: usize = 253;

/// More than the name of a network interface may have.
const ZONE_MAX: usize = 32;

/// Letters of a key: 32 bytes in base64url.
const KEY_LEN: usize = 43;

/// Letters of a secret: 16 bytes in base64url.
const SECRET_LEN: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const SECRET: &str = "-_Z6enp6enp6enp6enp6eg";

    fn ticket(server: &str) -> String {
        format!("ftpq://{server}/#{KEY}.{SECRET}")
    }

    #[test]
    fn a_ticket_is_read_as_it_was_written() {
        for server in
            ["h", "host.example:4433", "192.0.2.1:1", "[::1]", "[2001:db8::1]:65535", "[fe80::1%eth0]:4433", "a_b-c"]
        {
            let text = ticket(server);
            let parsed: Ticket = text.parse().unwrap();
            assert_eq!((parsed.server.as_str(), parsed.to_string()), (server, text));
        }
        let secret = Ticket::generate_secret().unwrap();
        let made = Ticket::new("host", Fingerprint::from([9; 32]), secret).unwrap();
        assert_eq!(made.to_string().parse(), Ok(made.clone()));
        assert_eq!((KEY.len(), SECRET.len()), (KEY_LEN, SECRET_LEN));
        assert_ne!(secret, Ticket::generate_secret().unwrap());
    }

    #[test]
    fn nothing_else_is_a_ticket() {
        let long = "h".repeat(HOST_MAX + 1);
        for server in [
            "", ":1", "h:", "h:0", "h:+1", "h:01", "h:65536", "a b", "me@h", "h/x", "::1", "[::1", "[h]", "[::1]x",
            "-h", &long,
        ] {
            assert_eq!(ticket(server).parse::<Ticket>(), Err(ParseTicketError::Server), "{server}");
        }
        let whole = ticket("h");
        assert_eq!(format!("{whole}{}", "A".repeat(Ticket::LEN_MAX)).parse::<Ticket>(), Err(ParseTicketError::TooLong));
        for (text, error) in [
            (String::new(), ParseTicketError::Form),
            (whole.replace("ftpq:", "http:"), ParseTicketError::Form),
            (whole.replace("/#", "#"), ParseTicketError::Form),
            (whole.replace('.', ""), ParseTicketError::Form),
            (whole.replace("AAEC", ""), ParseTicketError::Key),
            (whole.replace("Hh8", "Hh9"), ParseTicketError::Key), // bits that no byte has
            (format!(" {whole}"), ParseTicketError::Form),
            (format!("{whole}\n"), ParseTicketError::Secret),
            (format!("{whole}=="), ParseTicketError::Secret),
            (whole.replace("-_Z6", "+/Z6"), ParseTicketError::Secret),
            (whole.replace("eg", "eh"), ParseTicketError::Secret),
            (whole.replace("eg", ""), ParseTicketError::Secret),
        ] {
            assert_eq!(text.parse::<Ticket>(), Err(error), "{text}");
        }
    }

    #[test]
    fn nobody_sees_the_secret_by_accident() {
        let whole = ticket("host");
        let shown = format!("{:?}", whole.parse::<Ticket>().unwrap());
        assert!(!shown.contains(SECRET) && shown.contains("TicketSecret(…)"), "{shown}");
        let cut = whole.get(..whole.len() - 1).unwrap();
        let error = cut.parse::<Ticket>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET.get(..8).unwrap()));
        for text in [
            &whole,
            cut,
            &whole.replace("AAEC", ""),
            &format!("con {whole}"),
            &whole.replace("/#", "#"),
            &format!("ftpq://h and '{whole}'."),
        ] {
            assert!(Ticket::resembles(text), "{text}");
        }
        for text in ["ftpq://host/", "ftpq://host/a#b.c", "host:/#x.y", "ls", "#.", &format!("#{KEY}.{SECRET}")] {
            assert!(!Ticket::resembles(text), "{text}");
        }
    }
}
