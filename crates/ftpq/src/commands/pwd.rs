//! `ftpq pwd`: the current server and folder, without asking the server.

use crate::client::Client;

pub(crate) fn run(client: &Client) -> anyhow::Result<()> {
    let server = client.server(None)?;
    println!("{server}:{}", client.state.folder(&server));
    Ok(())
}
