//! The project's chores, run as `cargo xtask TASK`: one row of [`TASKS`] and one file each.
//!
//! What several tasks share: `project.rs` (where things are, how they are built), `files.rs` (making
//! and comparing what is transferred), `scratch.rs` (a folder that never stays behind) and
//! `server.rs` (a running `ftpq serve`).

// A chore talks to whoever started it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod certs;
mod demo;
mod e2e;
mod files;
mod fuzz;
mod project;
mod scratch;
mod server;
mod test;
mod tidy;
mod torture;

use std::process::ExitCode;

use anyhow::Result;

type Task = fn(&[String]) -> Result<ExitCode>;

/// Everything that `cargo xtask` can do.
const TASKS: &[(&str, Task, &str)] = &[
    ("certs", certs::run, "make keys for development under certs/"),
    ("demo", demo::run, "a visit to a server of its own, every byte compared  [--small] [--keep]"),
    ("e2e", e2e::run, "the real program, end to end  [arguments of cargo test]"),
    ("test", test::run, "all tests, counted on the last line  [arguments of cargo test]"),
    ("fuzz", fuzz::run, "bytes that nobody meant, for everything that reads some  [--seconds N] [TARGET]"),
    ("torture", torture::run, "faults at random moments, and a look at every byte  [--long] [CASE]"),
    ("tidy", tidy::run, "the architecture's rules, as far as a program can check them"),
    (
        "bench",
        bench::run,
        "beside scp, rsync, curl and others  [--quick] [--reps N] [--only ROWS] [--peers LIST] [--out FOLDER], or: report",
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        print_tasks();
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print_tasks();
        return ExitCode::SUCCESS;
    }
    match TASKS.iter().find(|(task, ..)| task == name) {
        Some((_, run, _)) => run(rest).unwrap_or_else(|error| {
            eprintln!("cargo xtask {name}: {error:#}");
            ExitCode::FAILURE
        }),
        None => {
            eprintln!("cargo xtask: no task {name:?}");
            print_tasks();
            ExitCode::from(2)
        }
    }
}

fn print_tasks() {
    eprintln!("usage: cargo xtask TASK");
    for (name, _, help) in TASKS {
        eprintln!("  {name:<7} {help}");
    }
}
