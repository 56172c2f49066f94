//! What a handler knows of the command it runs.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ftpq_proto::{
    RemotePath, Right, Rights, Spec, Status, UserPath,
    commands::con::{Limits, Successor},
};
use ftpq_storage::Storage;
use ftpq_transport::Fingerprint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::Failure;

/// Who asks, from where, and for what: one for each command.
pub struct Context {
    user: Arc<User>,
    remote: SocketAddr,
    cwd: RemotePath,
    storage: Arc<dyn Storage>,
    service: Arc<Service>,
    costly: Arc<Semaphore>,
    subject: Mutex<Option<RemotePath>>,
}

/// Whom the server takes the client for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name in the server's list.
    pub name: String,
    /// The key that the client proved to hold.
    pub key: Fingerprint,
    /// What the user may do.
    pub rights: Rights,
    /// How much of it.
    pub limits: Limits,
}

/// The server as a whole.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name and release.
    pub agent: String,
    /// Its verbs, in the order of their names.
    pub verbs: Vec<Spec>,
    /// What it says of the key that it will have next.
    pub succession: Succession,
    /// Further ports at which it is met.
    pub ports: Vec<u16>,
}

/// What a server says of the key that it will have next: asked for at each CON. The default says nothing.
#[derive(Clone, Default)]
pub struct Succession(Option<Arc<dyn Fn() -> Option<Successor> + Send + Sync>>);

impl Succession {
    /// Says what `provider` returns.
    pub fn by(provider: impl Fn() -> Option<Successor> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(provider)))
    }

    /// What there is to say now.
    pub fn now(&self) -> Option<Successor> {
        self.0.as_ref().and_then(|provider| provider())
    }
}

impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Succession").finish_non_exhaustive()
    }
}

impl Context {
    /// For dispatchers. Costly commands of the user share the turns `costly`.
    pub fn new(
        user: Arc<User>,
        remote: SocketAddr,
        cwd: RemotePath,
        storage: Arc<dyn Storage>,
        service: Arc<Service>,
        costly: Arc<Semaphore>,
    ) -> Self {
        Self { user, remote, cwd, storage, service, costly, subject: Mutex::new(None) }
    }

    /// Who asks.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Where from.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// The files of this user, and no others. What the user's rights do not allow fails with
    /// [`Forbidden`](ftpq_storage::Problem::Forbidden), whatever the verb declares.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The server's own data.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Where `typed` leads from the client's folder. The first path that a command resolves is the
    /// one that the log names.
    pub fn resolve(&self, typed: &UserPath) -> Result<RemotePath, Failure> {
        let path =
            typed.resolve(&self.cwd).map_err(|error| Failure::new(Status::BadPath, format!("{typed}: {error}")))?;
        self.subject.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| path.clone());
        Ok(path)
    }

    /// Waits for a turn among the user's costly commands. For handlers that do more than what is costly: while they
    /// wait for something else they must hold none. The others say [`is_costly`](crate::Handler::is_costly).
    pub async fn costly_turn(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.costly.clone().acquire_owned().await.map_err(Failure::internal)
    }

    /// Fails unless the user has `right`, for what a command needs beyond its verb's own right and does not do
    /// through [`storage`](Self::storage), which asks by itself.
    pub fn require(&self, right: Right) -> Result<(), Failure> {
        if self.user.rights.contains(right) { Ok(()) } else { Err(Failure::forbidden(&self.user, right)) }
    }

    /// The path that the log names.
    pub fn subject(&self) -> Option<RemotePath> {
        self.subject.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
