//! A server whose limits a test chooses, as a process of its own:
//! `limited-server ROOT CLIENTS_FILE IDENTITY_FILE MEMORY`. It says where it is as `ftpq serve` does, and serves
//! until it is killed.

use std::{future::pending, io::Write, net::Ipv4Addr, path::Path};

use ftpq_server::{Access, Limits, Server};
use ftpq_storage::LocalFs;
use ftpq_transport::{Identity, Listener};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [root, clients, identity, memory] = args.as_slice() else { return Err("four arguments".into()) };
    let (files, access) = (LocalFs::open(Path::new(root))?, Access::open(Path::new(clients))?);
    let identity = Identity::load_or_create(Path::new(identity))?;
    let limits = Limits { memory: memory.parse()?, ..Limits::default() };
    let server = Server::builder(files, access).limits(limits).build()?;
    // As in ftpq: one thread, and those that block.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity)?;
        let mut out = std::io::stdout();
        writeln!(out, "  listening    {}\n  key          {}", listener.local_addr(), identity.fingerprint())?;
        writeln!(out, "  elsewhere")?;
        server.serve(vec![listener], pending()).await;
        Ok(())
    })
}
