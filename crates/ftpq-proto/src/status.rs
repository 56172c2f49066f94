//! Status codes: one stable number for each way in which a command can end.
//!
//! The hundreds say whose fault it is and what to do: 1xx the request was wrong, 2xx the user may
//! not, 3xx the files are not as the request takes them to be, 4xx the contents did not survive the
//! way, 5xx the server cannot, 6xx somebody gave up. A number that is not in this list keeps its
//! class. The same numbers close streams and connections (QUIC application error codes).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal;)+) => {
        /// How a command ended, when it did not end well.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u32", into = "u32")]
        pub enum Status {
            $($(#[doc = $doc])+ $variant,)+
            /// A number that this version has no name for.
            Other(u32),
        }

        impl Status {
            /// Every status that has a name, in order.
            pub const ALL: &[Status] = &[$(Status::$variant,)+];

            /// The number on the wire.
            pub const fn code(self) -> u32 {
                match self {
                    $(Status::$variant => $code,)+
                    Status::Other(code) => code,
                }
            }

            /// The name in `docs/protocol.md`, in logs and in `--json` output.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Status::$variant => $name,)+
                    Status::Other(_) => "other",
                }
            }
        }

        impl From<u32> for Status {
            fn from(code: u32) -> Self {
                match code {
                    $($code => Status::$variant,)+
                    other => Status::Other(other),
                }
            }
        }
    };
}

statuses! {
    /// The bytes are no message of this protocol, or not the one expected here.
    Malformed = 100, "malformed";
    /// The server has no handler for this verb.
    UnknownVerb = 101, "unknown-verb";
    /// The arguments are not those of this verb.
    BadArguments = 102, "bad-arguments";
    /// A frame, count or declared size is over its limit.
    TooLarge = 103, "too-large";
    /// No common protocol version.
    Version = 104, "version";
    /// A path that is too long, too deep, or cannot be a path.
    BadPath = 105, "bad-path";

    /// The server does not know this client's key.
    NotAuthorised = 200, "not-authorised";
    /// The user is known but lacks the right.
    Forbidden = 201, "forbidden";
    /// The ticket is spent, too old, or was never given out.
    BadTicket = 202, "bad-ticket";

    /// Nothing has this name.
    NotFound = 300, "not-found";
    /// The name is taken, and replacing it was not asked for.
    Exists = 301, "exists";
    /// A folder where a file is meant.
    IsFolder = 302, "is-folder";
    /// Something else where a folder is meant.
    NotFolder = 303, "not-folder";
    /// A link, device, FIFO or socket where a file is meant.
    NotRegular = 304, "not-regular";
    /// A folder that still holds something.
    NotEmpty = 305, "not-empty";
    /// The source changed while it was being read.
    Changed = 306, "changed";
    /// A name that the file system cannot hold.
    NameRefused = 307, "name-refused";
    /// Another run of the same user has taken over what was kept of this upload.
    Superseded = 308, "superseded";
    /// No such upload has been begun, or it has ended: begin it again.
    NoUpload = 309, "no-upload";
    /// Parts of the upload are missing, and nobody is sending them.
    Incomplete = 310, "incomplete";

    /// The digest of what arrived is not the digest of what was sent.
    DigestMismatch = 400, "digest-mismatch";
    /// The body ended before its declared length.
    Truncated = 401, "truncated";

    /// A bug in the server.
    Internal = 500, "internal";
    /// The server's storage failed.
    Io = 501, "io";
    /// No space left.
    NoSpace = 502, "no-space";
    /// The operating system denies the server access.
    StorageDenied = 503, "storage-denied";
    /// The server is going away or is full: try again.
    Unavailable = 504, "unavailable";
    /// The peer made no progress for too long.
    TimedOut = 505, "timed-out";
    /// The storage cannot do this.
    Unsupported = 506, "unsupported";
    /// More than this user may have.
    OverQuota = 507, "over-quota";

    /// The side that sent or ran the command gave it up.
    Cancelled = 600, "cancelled";
}

impl Status {
    /// Whose fault it is and what to do about it.
    pub const fn class(self) -> Class {
        match self.code() / 100 {
            1 => Class::Request,
            2 => Class::Refused,
            3 => Class::Files,
            4 => Class::Integrity,
            6 => Class::Cancelled,
            _ => Class::Server,
        }
    }

    /// Whether trying again later, unchanged, may help.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Status::Unavailable | Status::TimedOut)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Other(code) => write!(f, "status {code}"),
            named => f.write_str(named.name()),
        }
    }
}

impl From<Status> for u32 {
    fn from(status: Status) -> u32 {
        status.code()
    }
}

/// The hundreds of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 1xx: the request itself is wrong.
    Request,
    /// 2xx: the user may not.
    Refused,
    /// 3xx: the files are not as the request takes them to be.
    Files,
    /// 4xx: the contents did not survive the way.
    Integrity,
    /// 5xx: the server cannot.
    Server,
    /// 6xx: somebody gave up.
    Cancelled,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_are_unique_and_survive_the_wire() {
        let codes: HashSet<_> = Status::ALL.iter().map(|status| status.code()).collect();
        assert_eq!(codes.len(), Status::ALL.len());
        for &status in Status::ALL {
            assert_eq!(Status::from(status.code()), status);
        }
        assert_eq!(Status::from(399).class(), Class::Files);
    }
}
