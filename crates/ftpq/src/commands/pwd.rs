//! `ftpq pwd`: the current server and folder, without asking the server.

use std::io::{self, Write};

use crate::client::Client;

pub(crate) fn run(client: &Client) -> anyhow::Result<()> {
    let server = client.server(None)?;
    Ok(writeln!(io::stdout(), "{server}:{}", client.state.folder(&server))?)
}
