//! `cargo xtask demo`: a visit to a server of its own, as a user would make it, with every byte that
//! went there and back compared. `--small` moves less, `--keep` leaves the files behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    files::{Amount, compare_files, compare_trees, gather, write_random},
    project,
    scratch::{Scratch, check_interrupted},
    server::Server,
};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let (mut big, mut most, mut keep) = (1024 * MIB, Amount { files: 60_000, bytes: 1024 * MIB }, false);
    for arg in args {
        match arg.as_str() {
            "--small" => (big, most.files) = (64 * MIB, LEAST_FILES),
            "--keep" => keep = true,
            other => project::refuse(other)?,
        }
    }
    let shell = project::shell()?;
    let ftpq = project::build_release(&shell)?;
    let scratch = Scratch::new(None, keep)?;
    shell.set_var("FTPQ_HOME", scratch.path().join("home"));
    let visit = Visit { shell, ftpq, folder: scratch.path() };
    visit.run(big, most)?;
    scratch.close()?;
    Ok(ExitCode::SUCCESS)
}

/// So many files show what a tree costs, and few machines lack them.
const LEAST_FILES: u64 = 2_000;

const MIB: u64 = 1024 * 1024;

struct Visit<'a> {
    shell: Shell,
    ftpq: PathBuf,
    folder: &'a Path,
}

/// One line of the closing table.
struct Row {
    what: &'static str,
    amount: Amount,
    time: Duration,
}

impl Visit<'_> {
    fn run(&self, big: u64, most: Amount) -> Result<()> {
        let (here, back) = (self.folder.join("here"), self.folder.join("back"));
        for folder in [&here, &back, &self.folder.join("served")] {
            fs::create_dir(folder)?;
        }
        println!("Making a file of {} MiB and a folder of real files.", big / MIB);
        write_random(&here.join("big.bin"), big, "ftpq demo")?;
        let source = gather(&here.join("tree"), LEAST_FILES, most)?;
        println!("The folder's files: {source}.\n");

        self.shell.change_dir(self.folder);
        println!("$ ftpq serve served --listen 127.0.0.1:0 &");
        let server = Server::start(&self.shell, &self.ftpq, "served", &self.folder.join("server.log"), true)?;
        self.shell.change_dir(&here);
        self.ftpq(&["con", &server.address.to_string()])?;
        self.ftpq(&["mkdir", "demo"])?;
        self.ftpq(&["cd", "demo"])?;
        let put_big = self.ftpq(&["put", "big.bin"])?;
        let put_tree = self.ftpq(&["put", "-r", "tree"])?;
        self.ftpq(&["ls", "-l"])?;
        self.ftpq(&["cd", "tree"])?;
        self.ftpq(&["pwd"])?;
        self.ftpq(&["cd", ".."])?;
        self.shell.change_dir(&back);
        println!("\n$ cd ../back");
        let get_tree = self.ftpq(&["get", "-r", "tree"])?;
        let get_big = self.ftpq(&["get", "big.bin"])?;

        println!("\nComparing every byte with the originals.");
        let start = Instant::now();
        let served = self.folder.join("served/demo");
        let mut compared = Vec::new();
        for copy in [&served, &back] {
            compared.push(compare_files(&here.join("big.bin"), &copy.join("big.bin"))?);
            compared.push(compare_trees(&here.join("tree"), &copy.join("tree"))?);
        }
        let row = |what, amount: Option<&Amount>, time| Row { what, amount: amount.copied().unwrap_or_default(), time };
        let (file, tree) = (compared.first(), compared.get(1));
        print_table(&[
            row("put big.bin", file, put_big),
            row("put -r tree", tree, put_tree),
            row("get -r tree", tree, get_tree),
            row("get big.bin", file, get_big),
            row("compared, all the same", Some(&compared.iter().copied().sum()), start.elapsed()),
        ]);
        server.stop()?;
        println!("\nThe server stopped when asked to.");
        Ok(())
    }

    /// Runs one command as typed, on this terminal; how long it took.
    fn ftpq(&self, args: &[&str]) -> Result<Duration> {
        check_interrupted()?;
        println!("\n$ ftpq {}", args.join(" "));
        let ftpq = &self.ftpq;
        let start = Instant::now();
        cmd!(self.shell, "{ftpq} {args...}").quiet().run()?;
        Ok(start.elapsed())
    }
}

fn print_table(rows: &[Row]) {
    println!("\n{:<24}{:>9}{:>12}{:>10}{:>10}", "", "files", "MB", "seconds", "MB/s");
    for Row { what, amount, time } in rows {
        let (megabytes, seconds) = (amount.bytes as f64 / 1e6, time.as_secs_f64());
        let speed = megabytes / seconds;
        println!("{what:<24}{:>9}{megabytes:>12.1}{seconds:>10.2}{speed:>10.0}", amount.files);
    }
}
