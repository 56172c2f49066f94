//! Servers and remote paths as people type them.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt};

use ftpq_proto::{Escaped, UserPath};
use ftpq_transport::Ticket;

use crate::exit::{Ended, MISPLACED_TICKET};

/// A server: a host and a UDP port. Shown as it is kept in `known_servers`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerName {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl ServerName {
    /// `HOST`, `HOST:PORT`, `[::1]:PORT`, `user@HOST`, or `ftpq://HOST[:PORT][/]`. The user is not
    /// needed, since keys say who is who, and is left out.
    pub(crate) fn parse(text: &str, default_port: u16) -> anyhow::Result<Self> {
        if Ticket::resembles(text) {
            return Err(Ended::usage(MISPLACED_TICKET));
        }
        // What follows # may be of a ticket that lost its beginning.
        let shown = text.split_inclusive('#').next().unwrap_or_default();
        let bad = || Ended::usage(format!("{}: not a server: write HOST or HOST:PORT", Escaped::new(shown)));
        let address = text.strip_prefix("ftpq://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
                (host, rest.strip_prefix(':'))
            }
            // More than one colon: an IPv6 address without brackets, and without a port.
            None if address.matches(':').count() > 1 => (address, None),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(default_port), str::parse).map_err(|_| bad())?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/#".contains(c) || c.is_control()) {
            return Err(bad());
        }
        Ok(Self { host: host.to_lowercase(), port })
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A path, and the server it is on if that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) server: Option<ServerName>,
    pub(crate) path: UserPath,
}

impl Target {
    /// A path on some server: with none named, the current one.
    pub(crate) fn parse(text: &OsStr, default_port: u16) -> anyhow::Result<Self> {
        match Self::parse_remote(text, default_port)? {
            Some(target) => Ok(target),
            None => Ok(Self { server: None, path: path(text.as_bytes())? }),
        }
    }

    /// A path that says by its form that it is remote: `HOST:PATH`, `:PATH` or `ftpq://…`. As with
    /// scp, a colon after a slash is part of a local name: `./a:b`. So is one of Windows' drives: `C:\x`.
    pub(crate) fn parse_remote(text: &OsStr, default_port: u16) -> anyhow::Result<Option<Self>> {
        if Ticket::resembles(&text.to_string_lossy()) {
            return Err(Ended::usage(MISPLACED_TICKET));
        }
        let bytes = text.as_bytes();
        if let Some(url) = bytes.strip_prefix(b"ftpq://") {
            let end = url.iter().position(|&byte| byte == b'/').unwrap_or(url.len());
            let (server, rest) = url.split_at(end);
            let server = ServerName::parse(&String::from_utf8_lossy(server), default_port)?;
            let decoded: Vec<u8> = percent_encoding::percent_decode(rest).collect();
            return Ok(Some(Self { server: Some(server), path: path(&decoded)? }));
        }
        let bracket = bytes.starts_with(b"[").then(|| bytes.iter().position(|&byte| byte == b']')).flatten();
        let colon = bytes.iter().skip(bracket.unwrap_or(0)).position(|&byte| byte == b':');
        let Some(colon) = colon.map(|at| at + bracket.unwrap_or(0)) else { return Ok(None) };
        let (server, rest) = bytes.split_at(colon);
        let is_drive = matches!(server, [letter] if letter.is_ascii_alphabetic()) && rest.starts_with(b":\\");
        if server.contains(&b'/') || is_drive {
            return Ok(None);
        }
        let server = match server {
            b"" => None,
            name => Some(ServerName::parse(&String::from_utf8_lossy(name), default_port)?),
        };
        Ok(Some(Self { server, path: path(rest.get(1..).unwrap_or_default())? }))
    }
}

fn path(bytes: &[u8]) -> anyhow::Result<UserPath> {
    UserPath::new(bytes).map_err(|error| Ended::usage(format!("{}: {error}", Escaped::new(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Option<String> {
        ServerName::parse(text, 4433).ok().map(|name| name.to_string())
    }

    fn remote(text: &str) -> Option<(Option<String>, String)> {
        let target = Target::parse_remote(OsStr::new(text), 4433).unwrap()?;
        Some((target.server.map(|server| server.to_string()), target.path.to_string()))
    }

    #[test]
    fn servers_are_read_as_people_write_them() {
        for (text, name) in [
            ("host", "host:4433"),
            ("Host.Example:99", "host.example:99"),
            ("me@host", "host:4433"),
            ("[::1]:5", "[::1]:5"),
            ("::1", "[::1]:4433"),
            ("ftpq://h:1/", "h:1"),
        ] {
            assert_eq!(server(text).as_deref(), Some(name), "{text}");
        }
        for bad in ["", ":1", "h:x", "h:70000", "a b", "[::1", "h#x", "h:1/#x"] {
            assert_eq!(server(bad), None, "{bad}");
        }
    }

    #[test]
    fn remote_paths_look_as_they_do_for_scp() {
        let on = |server: &str, path: &str| Some((Some(server.to_owned()), path.to_owned()));
        assert_eq!(remote("host:a/b"), on("host:4433", "a/b"));
        assert_eq!(remote("[::1]:x"), on("[::1]:4433", "x"));
        assert_eq!(remote("ftpq://me@h:9/a%20b"), on("h:9", "/a b"));
        assert_eq!(remote(":x:y"), Some((None, "x:y".into())));
        for local in ["plain", "./a:b", "/x:y", "dir/a:b", "C:\\\\x"] {
            assert_eq!(remote(local), None, "{local}");
        }
    }
}
