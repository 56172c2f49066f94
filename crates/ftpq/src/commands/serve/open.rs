//! What a server works with: its folder, its key, its list of clients. All of it is opened, or made,
//! by the user as whom the server runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use ftpq_handler::{Limits, User};
use ftpq_proto::Rights;
use ftpq_server::Access;
use ftpq_storage::{LocalFs, Problem};
use ftpq_transport::Identity;

use super::{settings::Settings, user::Account};
use crate::{
    commands::shown,
    exit::{self, Ended},
    global::Global,
    home::Home,
    rotation::Rotation,
};

/// What a server works with.
pub(super) struct Opened {
    /// The served folder.
    pub(super) root: PathBuf,
    pub(super) storage: LocalFs,
    pub(super) rotation: Rotation,
    pub(super) identity: Identity,
    /// The file with the list of authorised clients.
    pub(super) clients: PathBuf,
    pub(super) access: Access,
    /// Where the server's own files lie.
    pub(super) home: Home,
}

impl Opened {
    /// Opens everything for the server that `settings` describe. Its own files lie in `home`, or, if
    /// this process has become `account`, where that user's lie.
    pub(super) fn open(
        settings: &Settings,
        global: &Global,
        home: Home,
        account: Option<&Account>,
    ) -> anyhow::Result<Self> {
        let Some(account) = account else {
            return Self::all(settings, global, home, &env::var("USER").unwrap_or_default());
        };
        let open = || Self::all(settings, global, Home::of_user(account.home())?, account.name());
        open().with_context(|| format!("as {}", account.name()))
    }

    fn all(settings: &Settings, global: &Global, home: Home, owner: &str) -> anyhow::Result<Self> {
        let root = find_root(settings.root.as_deref())?;
        let storage = LocalFs::open(&root).map_err(|problem| cannot_serve(&root, problem))?;
        let rotation = Rotation::of(&home, global);
        let identity = rotation.load(jiff::Timestamp::now())?;
        let clients = settings.authorized_clients.clone().unwrap_or_else(|| home.authorized_clients());
        let access = open_access(&home, &clients, owner)?;
        let storage = storage.keep_unfinished(settings.keep_unfinished);
        Ok(Self { root, storage, rotation, identity, clients, access, home })
    }
}

/// The folder to serve. The default one is made; one that was named must be there.
fn find_root(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let root = match named {
        Some(root) => root.to_owned(),
        None => {
            let root = env::current_dir()?.join("Arquivos");
            fs::create_dir_all(&root).with_context(|| format!("cannot make {}", shown(&root)))?;
            root
        }
    };
    let real = fs::canonicalize(&root).map_err(|error| cannot_serve(&root, error.into()))?;
    if real.is_dir() { Ok(real) } else { Err(Ended::usage(format!("cannot serve {}: not a folder", shown(&root)))) }
}

fn cannot_serve(root: &Path, problem: Problem) -> anyhow::Error {
    Ended::with(exit::code_of_status(problem.status()), format!("cannot serve {}: {problem}", shown(root)))
}

/// The list of authorised clients. At the first start it is made, with the user who starts the
/// server in it: whoever can start a server can read its files anyway.
fn open_access(home: &Home, file: &Path, owner: &str) -> anyhow::Result<Access> {
    let first_start = !file.exists();
    let access = Access::open(file).with_context(|| shown(file))?;
    if first_start {
        let own = Identity::load_or_create(&home.client_identity())?;
        let plain = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
        let name = Some(owner.to_owned()).filter(plain).unwrap_or_else(|| "owner".into());
        let user = User { name, key: own.fingerprint(), rights: Rights::ALL, limits: Limits::default() };
        access.authorise(&user).with_context(|| format!("cannot write {}", shown(file)))?;
    }
    Ok(access)
}
