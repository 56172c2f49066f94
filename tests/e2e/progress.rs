//! Bars, where somebody looks.

use std::fs;

use rustix::process::Signal;

use crate::support::{Run, Terminal, World, solid, until};

#[test]
fn a_terminal_shows_bars_and_then_one_summary_line() {
    let world = World::serving();
    solid(&world.work().join("big.bin"), 256 << 20);
    let server = world.server().name();
    for (command, done) in [("put", "put"), ("get", "got")] {
        let args = [command, "-f", "-s", &server, "big.bin"];
        let mut terminal = Terminal::start(&world, &world.home(), args);
        // The file's own bar, and all files' together.
        terminal.expect("big.bin");
        terminal.expect("total");
        terminal.expect("256.00 MiB");
        terminal.expect(&format!("{done} 1 file, 256.00 MiB in "));
        terminal.expect("/s), verified\n");
        assert_eq!(terminal.exit_code(), 0);
        assert!(terminal.raw().contains(&0x1b), "bars are drawn in place");
        // They are gone in the end: the last line stands alone.
        let text = terminal.text();
        assert!(text.trim_end().ends_with("verified"), "{text:?}");
    }
}

#[test]
fn quiet_shows_nothing_at_a_terminal_either() {
    let world = World::serving();
    solid(&world.work().join("big.bin"), 64 << 20);
    let mut terminal = Terminal::start(&world, &world.home(), ["put", "-q", "-s", &world.server().name(), "big.bin"]);
    assert_eq!(terminal.exit_code(), 0);
    assert_eq!(terminal.text(), "");
    assert_eq!(fs::metadata(world.served().join("big.bin")).unwrap().len(), 64 << 20);
}

/// Who waits must be told that the program does, too.
#[test]
fn a_server_that_does_not_answer_is_spoken_of() {
    let world = World::serving();
    solid(&world.work().join("big.bin"), 256 << 20);
    let mut terminal = Terminal::start(&world, &world.home(), ["put", "-s", &world.server().name(), "big.bin"]);
    until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
    world.signal_server(Signal::STOP);
    terminal.expect("nothing moved for ");
    world.signal_server(Signal::CONT);
    terminal.expect("put 1 file, 256.00 MiB in ");
    assert_eq!(terminal.exit_code(), 0);
}

/// Once, and last.
#[test]
fn verbose_says_what_limited_a_transfer() {
    let world = World::serving();
    solid(&world.work().join("big.bin"), 20 << 20);
    let transfers: [&[&str]; 4] = [
        &["put", "-f", "big.bin"],
        &["get", "-f", "big.bin"],
        &["put", "-f", "-", "--to", "piped"],
        &["get", "big.bin", "--to", "-"],
    ];
    let limits = |run: &Run| run.stderr.lines().filter(|line| line.contains("limited")).count();
    for args in transfers {
        let run = |options: &[&str]| world.client().args(args).args(options).input("piped").run().ok();
        let verbose = run(&["-v"]);
        assert_eq!(limits(&verbose), 1, "{args:?}: {}", verbose.stderr);
        let lines: Vec<_> = verbose.stderr.lines().collect();
        let at = lines.iter().position(|line| line.ends_with(", verified")).expect("a summary");
        assert!(lines[at + 1].contains("limited"), "{args:?}: {lines:?}");
        for options in [&[][..], &["-q"], &["-q", "-v"]] {
            assert_eq!(limits(&run(options)), 0, "{args:?} {options:?}");
        }
    }
}
