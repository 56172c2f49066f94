//! ftpq: the program. The only crate that parses arguments, prints, asks, and handles signals.
//!
//! `main` → [`cli`] (what was typed) → one file of [`commands`] → `ftpq-client` or `ftpq-server`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // this crate is the one that prints

mod cli;
mod client;
mod commands;
mod exit;
mod global;
mod home;
mod interrupt;
mod output;
mod progress;
mod rotation;
mod shell;
mod state;
mod target;
mod trial;

use std::{io, process::ExitCode, time::Duration};

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    client::Client,
    home::Home,
    interrupt::unless_interrupted,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::report_typed(&error),
    };
    start_logging(cli.global.verbose);
    keep_freed_memory();
    // One thread drives the connections and nothing else; a runtime of two would cost a third of the speed.
    // Where there are the processors, further connections have threads and runtimes of their own. Files are read,
    // written and hashed on blocking threads.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::from(error)),
    };
    let result = runtime.block_on(run(cli));
    // A thread that waits for the keyboard must not keep the program alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::report(&error),
    }
}

/// Has glibc keep what is freed for the next block of a file instead of giving it back to the kernel, page by page:
/// that was a sixth of the time of a download over loopback. Freeing so large a piece raises the thresholds
/// for it (mallopt(3), "dynamic mmap threshold"); to set them takes `unsafe`. No page of it is touched.
fn keep_freed_memory() {
    /// Just below the largest that counts.
    const LARGEST: usize = 31 * 1024 * 1024;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST)));
}

/// Runs one command; a signal ends it.
async fn run(cli: Cli) -> anyhow::Result<u8> {
    let home = Home::find()?;
    let command = match cli.command {
        Command::Serve(args) => return commands::serve::run(home, &cli.global, args).await.map(|()| exit::OK),
        Command::Invite(args) => return commands::invite::run(&home, &cli.global, args).map(|()| exit::OK),
        Command::Clients(args) => return commands::clients::run(&home, args).map(|()| exit::OK),
        Command::Completions(args) => return args.run().map(|()| exit::OK),
        Command::Key(args) => return commands::key::run(&home, &cli.global, args).map(|()| exit::OK),
        Command::Servers(args) => return commands::servers::run(&home, &cli.global, args).map(|()| exit::OK),
        Command::Shell(args) => {
            let mut client = Client::new(home, cli.global)?;
            return shell::run(&mut client, args).await;
        }
        Command::Client(command) => command,
    };
    let mut client = Client::new(home, cli.global)?;
    let meaning = command.interrupted();
    let work = async {
        let result = commands::run(&mut client, command).await;
        client.settle().await;
        result
    };
    let result = unless_interrupted(work, || meaning).await;
    client.close().await;
    result
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "off",
        1 => "ftpq=info,ftpq_client=info,ftpq_server=info,ftpq_transport=info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    // A log that cannot be written must stop nothing: by default, that panics.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_env_filter(filter).with_writer(io::stderr).without_time().init();
}
