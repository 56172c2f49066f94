//! What limited a transfer, said after it with `-v`.

use std::time::{Duration, Instant};

use ftpq_client::{
    copy::{Summary, Waited},
    verdict::{Direction, Evidence, Here, Verdict, Wire, thread_time},
};

use crate::{client::Client, output};

/// What was so when a transfer began.
pub(crate) struct Trial {
    began: Instant,
    /// How long this thread, which drives the connections, had been at work.
    worked: Duration,
    wires: Vec<Wire>,
}

impl Trial {
    pub(crate) fn begin(client: &Client) -> Self {
        Self { began: Instant::now(), worked: thread_time(), wires: client.wires() }
    }

    /// Says what limited the transfer, to whoever wants to know.
    pub(crate) fn end(self, client: &Client, direction: Direction, here: Here, all: &Summary, waited: Waited) {
        if client.global.verbose == 0 || client.global.quiet {
            return;
        }
        // No server was met meanwhile, so that each connection, or the one that replaced it, has its place.
        let befores = self.wires.iter().copied().chain(std::iter::repeat(Wire::default()));
        let since = |(now, before): (Wire, Wire)| Wire { counters: now.counters.since(&before.counters), ..now };
        let evidence = Evidence {
            direction,
            here,
            took: self.began.elapsed(),
            busy: thread_time().saturating_sub(self.worked),
            bytes: all.bytes.saturating_sub(all.resumed),
            waited,
            wires: client.wires().into_iter().zip(befores).map(since).collect(),
        };
        tracing::debug!(?evidence, "what was counted");
        output::say(Verdict::of(&evidence));
    }
}
