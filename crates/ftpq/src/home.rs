//! Where ftpq keeps its own files.
//!
//! `FTPQ_HOME` puts all of them under one folder, for tests and for portable use; otherwise they lie
//! where XDG says, on macOS too.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use etcetera::BaseStrategy;
use ftpq_storage::own_file::replace;

/// The folders.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    data: PathBuf,
    state: PathBuf,
    config: PathBuf,
}

impl Home {
    /// Those of whoever runs this process.
    pub(crate) fn find() -> anyhow::Result<Self> {
        if let Some(home) = Self::named()? {
            return Ok(home);
        }
        let xdg = etcetera::base_strategy::Xdg::new().context("cannot find your home folder: set FTPQ_HOME")?;
        let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir());
        Ok(Self { data: xdg.data_dir().join("ftpq"), state: state.join("ftpq"), config: xdg.config_dir().join("ftpq") })
    }

    /// Those of another user, with this home folder: what the environment says of XDG's folders is
    /// about somebody else.
    pub(crate) fn of_user(folder: &Path) -> anyhow::Result<Self> {
        let below = |name: &str| folder.join(name).join("ftpq");
        if let Some(home) = Self::named()? {
            return Ok(home);
        }
        if !folder.is_dir() {
            bail!("there is no home folder {}: set FTPQ_HOME to a folder of this user's", folder.display());
        }
        Ok(Self { data: below(".local/share"), state: below(".local/state"), config: below(".config") })
    }

    /// The one folder that `FTPQ_HOME` names.
    fn named() -> anyhow::Result<Option<Self>> {
        let Some(home) = env::var_os("FTPQ_HOME").filter(|home| !home.is_empty()) else { return Ok(None) };
        let home = std::path::absolute(home)?;
        Ok(Some(Self { data: home.clone(), state: home.clone(), config: home }))
    }

    /// The folder with the keys, and with whom this user lets in and trusts.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// How the server that this user runs is set up.
    pub(crate) fn server_config(&self) -> PathBuf {
        self.config.join("server.toml")
    }

    /// This user's key as a client.
    pub(crate) fn client_identity(&self) -> PathBuf {
        self.data.join("identity/client.pem")
    }

    /// The key of the server that this user runs.
    pub(crate) fn server_identity(&self) -> PathBuf {
        self.data.join("identity/server.pem")
    }

    /// The key that this server will have next, if one is announced.
    pub(crate) fn next_server_identity(&self) -> PathBuf {
        self.data.join("identity/server-next.pem")
    }

    /// Whom that server lets in.
    pub(crate) fn authorized_clients(&self) -> PathBuf {
        self.data.join("authorized_clients")
    }

    /// The keys of the servers that this client knows.
    pub(crate) fn known_servers(&self) -> PathBuf {
        self.data.join("known_servers")
    }

    /// The current server, and the folder on each.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.join("state.json")
    }

    /// The port on which this user's server listens, if it ever did.
    pub(crate) fn serving(&self) -> Option<u16> {
        fs::read_to_string(self.state.join("port")).ok()?.trim().parse().ok()
    }

    /// Remembers that port.
    pub(crate) fn set_serving(&self, port: u16) -> io::Result<()> {
        replace(&self.state.join("port"), format!("{port}\n").as_bytes())
    }

    /// What was learnt of the paths to servers.
    pub(crate) fn paths(&self) -> PathBuf {
        self.state.join("paths")
    }

    /// What was typed at the prompt.
    pub(crate) fn history(&self) -> PathBuf {
        self.state.join("history")
    }
}
