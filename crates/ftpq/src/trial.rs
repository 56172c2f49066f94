//! What limited a transfer, said after it with `-v`.

use std::time::{Duration, Instant};

use ftpq_client::{
    copy::{Summary, Waited},
    verdict::{Direction, Evidence, Here, Verdict, Wire},
};
use ftpq_transport::Work;

use crate::{client::Client, output};

/// What was so when a transfer began.
pub(crate) struct Trial {
    began: Instant,
    /// What the threads had done that drive the connections.
    worked: Vec<Work>,
    wires: Vec<Wire>,
}

impl Trial {
    pub(crate) async fn begin(client: &Client) -> Self {
        Self { began: Instant::now(), worked: client.work().await, wires: client.wires() }
    }

    /// Says what limited the transfer, to whoever wants to know.
    pub(crate) async fn end(self, client: &Client, direction: Direction, here: Here, all: &Summary, waited: Waited) {
        if client.global.verbose == 0 || client.global.quiet {
            return;
        }
        // No server was met meanwhile, so that each connection, or the one that replaced it, has its place.
        let befores = self.wires.iter().copied().chain(std::iter::repeat(Wire::default()));
        let since = |(now, before): (Wire, Wire)| Wire { counters: now.counters.since(&before.counters), ..now };
        let took = self.began.elapsed();
        let before =
            |thread| self.worked.iter().find(|work| work.thread == thread).map_or(Duration::ZERO, |work| work.busy);
        let busy = client.work().await.into_iter().map(|now| now.busy.saturating_sub(before(now.thread)));
        let evidence = Evidence {
            direction,
            here,
            took,
            busy: busy.max().unwrap_or_default(),
            bytes: all.bytes.saturating_sub(all.resumed),
            waited,
            wires: client.wires().into_iter().zip(befores).map(since).collect(),
        };
        tracing::trace!(?evidence, "what was counted");
        output::say(Verdict::of(&evidence));
    }
}
