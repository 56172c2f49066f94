//! One connection: from its handshake to its end.

use std::sync::Arc;

use ftpq_proto::{RemotePath, Status};
use ftpq_storage::{Storage, StorageError};
use ftpq_transport::{Connection, Incoming};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use crate::{access::Grant, dispatch, limits::SETTLE, observer::Event, server::Shared};

/// A connection and what is known of it.
pub(crate) struct Session {
    pub(crate) server: Arc<Shared>,
    pub(crate) connection: Connection,
    /// Whether CON has been answered, and how.
    settled: watch::Sender<Option<Settled>>,
    /// The client's part of the storage, for as long as its root does not change.
    view: Mutex<Option<(RemotePath, Arc<dyn Storage>)>>,
}

/// How CON was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Welcome,
    Refused(Status),
}

/// Takes a connection and serves its streams, each on its own.
pub(crate) async fn run(server: Arc<Shared>, incoming: Incoming) {
    let remote = incoming.remote_address();
    let connection = match incoming.accept().await {
        Ok(connection) => connection,
        Err(why) => return server.observer.event(Event::HandshakeFailed { remote, why: &why }),
    };
    let session = Arc::new(Session {
        server,
        connection: connection.clone(),
        settled: watch::Sender::new(None),
        view: Mutex::default(),
    });
    let tracker = session.server.commands.clone();
    let serve = {
        let session = session.clone();
        async move {
            while let Ok((send, recv)) = session.connection.accept().await {
                tracker.spawn(dispatch::run(session.clone(), send, recv));
            }
        }
    };
    let watchdog = async {
        if timeout(SETTLE, session.wait_settled()).await.is_err() {
            connection.close(Some(Status::TimedOut), "CON did not come in time");
        }
    };
    tokio::join!(serve, watchdog);
}

impl Session {
    /// CON was answered: the other streams may go on.
    pub(crate) fn settle(&self, how: Settled) {
        if how == Settled::Welcome {
            self.connection.settle();
        }
        // The first answer counts; a second CON changes nothing.
        self.settled.send_if_modified(|settled| settled.replace(settled.unwrap_or(how)).is_none());
    }

    /// Waits until CON was answered or the connection is gone.
    pub(crate) async fn wait_settled(&self) -> Settled {
        let mut settled = self.settled.subscribe();
        tokio::select! {
            settled = settled.wait_for(Option::is_some) => {
                settled.ok().and_then(|settled| *settled).unwrap_or(Settled::Refused(Status::Cancelled))
            }
            _ = self.connection.closed() => Settled::Refused(Status::Cancelled),
        }
    }

    /// The storage as `grant` lets it be seen.
    pub(crate) async fn view(&self, grant: &Grant) -> Result<Arc<dyn Storage>, StorageError> {
        if grant.root.is_root() {
            return Ok(self.server.storage.clone());
        }
        let mut view = self.view.lock().await;
        match &*view {
            Some((root, storage)) if *root == grant.root => Ok(storage.clone()),
            _ => {
                let storage = self.server.storage.subtree(&grant.root).await?;
                *view = Some((grant.root.clone(), storage.clone()));
                Ok(storage)
            }
        }
    }
}
