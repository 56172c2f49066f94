//! `cargo xtask certs`: a server's key, a client's key, and a list of authorised clients that holds
//! the latter. Keys that exist are kept; the list is made anew from them.

use std::{fs, process::ExitCode};

use anyhow::Result;
use ftpq_transport::Identity;

use crate::project;

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    if let Some(argument) = args.first() {
        project::refuse(argument)?;
    }
    let folder = project::root()?.join("certs");
    let server = Identity::load_or_create(&folder.join("server.pem"))?.fingerprint();
    let client = Identity::load_or_create(&folder.join("client.pem"))?.fingerprint();
    fs::write(
        folder.join("authorized_clients"),
        format!(
            "# For development only. Made by `cargo xtask certs`.\n{client} name=developer rights=list,read,write,delete\n"
        ),
    )?;

    println!("certs/server.pem  {server}");
    println!("certs/client.pem  {client}");
    println!();
    println!("ftpq serve --identity certs/server.pem --authorized-clients certs/authorized_clients");
    println!("ftpq ls -s localhost -i certs/client.pem --accept-new");
    Ok(ExitCode::SUCCESS)
}
