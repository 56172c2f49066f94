//! What happens on a server, told to whoever wants to know.

use std::{net::SocketAddr, time::Duration};

use ftpq_handler::Failure;
use ftpq_proto::RemotePath;
use ftpq_transport::{Closed, Fingerprint};

use crate::{access::RejectedLine, penalties::Network};

/// Is told what happens, on the thread where it happens: it must not block for long.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// Nobody wants to know.
impl Observer for () {
    fn event(&self, _: Event<'_>) {}
}

/// Who is there is told.
impl<O: Observer> Observer for Option<O> {
    fn event(&self, event: Event<'_>) {
        if let Some(observer) = self {
            observer.event(event);
        }
    }
}

/// Both are told, one after the other.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn event(&self, event: Event<'_>) {
        self.0.event(event);
        self.1.event(event);
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A handshake failed or a connection was cut before anybody was known.
    HandshakeFailed {
        /// Where from.
        remote: SocketAddr,
        /// Why.
        why: &'a Closed,
    },
    /// A key that is not in the list wanted something.
    NotAuthorised {
        /// Where from.
        remote: SocketAddr,
        /// Which key.
        key: Fingerprint,
        /// What it was told.
        why: &'a Failure,
    },
    /// A key that may no longer do what it might was cut off.
    Revoked {
        /// The name that it had in the list.
        user: &'a str,
        /// Which key.
        key: Fingerprint,
        /// Where from.
        remote: SocketAddr,
        /// What has changed.
        why: &'static str,
    },
    /// A ticket was spent.
    TicketSpent {
        /// The name that came with it.
        user: &'a str,
        /// The key that is let in for it.
        key: Fingerprint,
        /// Where from.
        remote: SocketAddr,
    },
    /// A network is kept out for a while.
    KeptOut {
        /// Which.
        network: Network,
        /// For how long, if nothing more happens.
        time: Duration,
    },
    /// A line of the list of authorised clients counts for nothing.
    AccessLineRejected(&'a RejectedLine),
    /// A command ended.
    Command {
        /// The name in the list of authorised clients.
        user: &'a str,
        /// The key in that list.
        key: Fingerprint,
        /// Where from.
        remote: SocketAddr,
        /// As the client wrote it: escape it before it is shown.
        verb: &'a str,
        /// The path it was about, if any.
        path: Option<&'a RemotePath>,
        /// Bytes of body, either way.
        bytes: u64,
        /// From the request to the reply.
        elapsed: Duration,
        /// How it ended.
        outcome: Result<(), &'a Failure>,
    },
}
