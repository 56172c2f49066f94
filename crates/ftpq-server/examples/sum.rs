//! A verb of one's own: SUM computes the BLAKE3 of a file where the file is, on the server.
//!
//! ```text
//! cargo run -p ftpq-server --example sum -- ROOT LISTEN_ADDR AUTHORIZED_CLIENTS_FILE [IDENTITY_FILE]
//! ```
//! Serves the folder ROOT until Ctrl-C or the end of its input, with the verbs of ftpq and this one.

use std::{
    io::{self, Write},
    path::Path,
    thread,
};

use anyhow::Context as _;
use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{Digest, RemotePath, UserPath};
use ftpq_server::{Access, Server};
use ftpq_storage::LocalFs;
use ftpq_transport::{Identity, Listener};
use serde::{Deserialize, Serialize};
use tokio::{signal, sync::oneshot};

struct Sum;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: UserPath,
}

#[derive(Serialize)]
struct Reply {
    path: RemotePath,
    length: u64,
    digest: Digest,
}

impl Handler for Sum {
    type Args = Args;
    type Reply = Reply;

    fn spec(&self) -> Spec {
        Spec::new("SUM", Right::Read, "compute the BLAKE3 of a file").repeatable()
    }

    async fn handle(&self, cx: &Context, args: Args, _: &mut Exchange) -> Result<Reply, Failure> {
        let path = cx.resolve(&args.path)?;
        let mut file = cx.storage().open(&path).await?;
        let length = file.info().size;
        while file.next_block().await?.is_some() {}
        // A storage hashes what it reads, and fails if the file changed meanwhile.
        let digest = file.finish().await?;
        Ok(Reply { path, length, digest })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [root, address, clients, identity @ ..] = args.as_slice() else {
        anyhow::bail!("usage: sum ROOT LISTEN_ADDR AUTHORIZED_CLIENTS_FILE [IDENTITY_FILE]");
    };
    let identity = match identity {
        [file, ..] => Identity::load_or_create(Path::new(file))?,
        [] => Identity::generate()?,
    };
    let files = LocalFs::open(Path::new(root)).with_context(|| format!("cannot serve {root}"))?;
    let access = Access::open(Path::new(clients)).with_context(|| format!("cannot read {clients}"))?;
    let server = Server::builder(files, access).with(Sum).build()?;
    let listener = Listener::bind(address.parse()?, &identity)?;
    writeln!(io::stdout(), "listening on {} {}", listener.local_addr(), identity.fingerprint())?;
    server.serve(vec![listener], end()).await;
    Ok(())
}

/// Ctrl-C, or the end of this program's input.
async fn end() {
    let (closed, input) = oneshot::channel();
    thread::spawn(move || closed.send(io::copy(&mut io::stdin(), &mut io::sink())));
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = input => {}
    }
}
