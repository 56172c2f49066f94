//! Where ftpq keeps its own files.
//!
//! `FTPQ_HOME` puts all of them under one folder, for tests and for portable use; otherwise they lie
//! where XDG says, on macOS too.

use std::{env, fs, io, path::PathBuf};

use anyhow::Context;
use etcetera::BaseStrategy;
use ftpq_storage::own_file::replace;

/// The folders.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    data: PathBuf,
    state: PathBuf,
}

impl Home {
    pub(crate) fn find() -> anyhow::Result<Self> {
        if let Some(home) = env::var_os("FTPQ_HOME").filter(|home| !home.is_empty()) {
            let home = std::path::absolute(home)?;
            return Ok(Self { data: home.clone(), state: home });
        }
        let xdg = etcetera::base_strategy::Xdg::new().context("cannot find your home folder: set FTPQ_HOME")?;
        let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir());
        Ok(Self { data: xdg.data_dir().join("ftpq"), state: state.join("ftpq") })
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

    /// What was typed at the prompt.
    pub(crate) fn history(&self) -> PathBuf {
        self.state.join("history")
    }
}
