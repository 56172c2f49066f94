//! `ftpq call`: any verb that the server offers, plugins' included. Items and the reply come out as
//! JSON, one a line; bytes in them as hexadecimal text.

use anyhow::Context;
use ciborium::Value;

use crate::{client::Client, exit::Ended, output};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Verb, as `ftpq con` shows it
    verb: String,
    /// Arguments as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<()> {
    let json: serde_json::Value =
        serde_json::from_str(&args.args).map_err(|error| Ended::usage(format!("--args is not JSON: {error}")))?;
    let cbor = Value::serialized(&json).context("--args has no CBOR form")?;
    let server = client.server(None)?;
    let cwd = client.state.folder(&server);
    let session = client.session(&server).await?;
    let print = |value: &Value| output::json_line(&output::cbor_to_json(value));
    let mut printed = Ok(());
    let reply = session
        .call_items(&args.verb, &cwd, &cbor, |item| {
            if printed.is_ok() {
                printed = print(&item);
            }
        })
        .await?;
    printed?;
    Ok(print(&reply)?)
}
