//! One connection: from its handshake to its end.

use std::sync::Arc;

use ftpq_handler::User;
use ftpq_proto::{RemotePath, Status, message::Failed};
use ftpq_storage::{Storage, StorageError};
use ftpq_transport::{Connection, Incoming};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use crate::{access::Grant, dispatch, guard::Guard, limits::SETTLE, observer::Event, server::Shared};

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
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Settled {
    Welcome,
    Refused(Failed),
}

/// Takes a connection and serves its streams, each on its own.
pub(crate) async fn run(server: Arc<Shared>, incoming: Incoming) {
    let remote = incoming.remote_address();
    let connection = match incoming.accept().await {
        Ok(connection) => connection,
        Err(why) => return server.tell(Event::HandshakeFailed { remote, why: &why }),
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
        match timeout(SETTLE, session.wait_settled()).await {
            Ok(Settled::Welcome) => {}
            Ok(Settled::Refused(failed)) => {
                // Time to read why; then whoever was refused must not hold a connection.
                let _ = timeout(SETTLE, connection.closed()).await;
                connection.close(Some(failed.status), "CON was refused");
            }
            Err(_) => connection.close(Some(Status::TimedOut), "CON did not come in time"),
        }
    };
    tokio::join!(serve, watchdog);
}

impl Session {
    /// CON was answered: the other streams may go on. The first answer counts; returns whether this
    /// is it.
    pub(crate) fn settle(&self, how: Settled) -> bool {
        let welcome = how == Settled::Welcome;
        let first = self.settled.send_if_modified(|settled| {
            let first = settled.is_none();
            settled.get_or_insert(how);
            first
        });
        if first && welcome {
            self.connection.settle();
        }
        first
    }

    /// Waits until CON was answered or the connection is gone.
    pub(crate) async fn wait_settled(&self) -> Settled {
        let gone = || Settled::Refused(Failed { status: Status::Cancelled, message: "the connection is gone".into() });
        let mut settled = self.settled.subscribe();
        tokio::select! {
            settled = settled.wait_for(Option::is_some) => {
                settled.ok().and_then(|settled| settled.clone()).unwrap_or_else(gone)
            }
            _ = self.connection.closed() => gone(),
        }
    }

    /// The storage as `grant` lets it be seen, and as `user` may use it.
    pub(crate) async fn view(&self, grant: &Grant, user: &Arc<User>) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(Arc::new(Guard::new(user.clone(), self.part(grant).await?)))
    }

    async fn part(&self, grant: &Grant) -> Result<Arc<dyn Storage>, StorageError> {
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
