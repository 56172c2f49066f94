//! `ftpq key`: this client's fingerprint, which a server's owner needs to let it in.

use std::io::{self, Write};

use ftpq_transport::Identity;

use crate::{global::Global, home::Home};

pub(crate) fn run(home: &Home, global: &Global) -> anyhow::Result<()> {
    let identity = match &global.identity {
        Some(file) => Identity::load(file)?,
        None => Identity::load_or_create(&home.client_identity())?,
    };
    Ok(writeln!(io::stdout(), "{}", identity.fingerprint())?)
}
