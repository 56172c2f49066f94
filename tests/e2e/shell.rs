//! `ftpq shell`: at a terminal, as a person uses it, and in batches.

use std::fs;

use crate::support::{Key, Terminal, World, all_names, holds, pattern, solid, until, visible_names};

const PROMPT: &str = "ftpq 127.0.0.1:/> ";

/// A server with `/alpha.bin` and `/folder/inside`, and `local.bin` here.
fn furnished() -> World {
    let world = World::serving();
    fs::write(world.served().join("alpha.bin"), pattern(5000)).unwrap();
    fs::create_dir(world.served().join("folder")).unwrap();
    fs::write(world.served().join("folder/inside"), pattern(10)).unwrap();
    fs::write(world.work().join("local.bin"), pattern(3000)).unwrap();
    world
}

/// The shell on the world's server, at its first prompt.
fn shell(world: &World) -> Terminal {
    let mut terminal = Terminal::start(world, &world.home(), ["shell", &world.server().name()]);
    terminal.expect(&format!("Connected to {} as tester.", world.server().name()));
    terminal.expect(PROMPT);
    terminal
}

#[test]
fn the_opening_screen_names_the_five_commands() {
    let world = furnished();
    let terminal = shell(&world);
    let screen = terminal.text();
    for word in ["CON host", "LIST [path]", "CD path", "UPLD file", "DWLD file", "help, bye"] {
        assert!(screen.contains(word), "{word}: {screen}");
    }
}

#[test]
fn the_five_commands_work_in_any_case() {
    let world = furnished();
    let mut terminal = shell(&world);
    terminal.line("LIST").expect("alpha.bin");
    terminal.expect("folder/");
    terminal.expect(PROMPT);
    terminal.line("Cd folder").expect("\n/folder\n");
    terminal.expect("ftpq 127.0.0.1:/folder> ");
    terminal.line("list").expect("\ninside\n");
    terminal.expect("ftpq 127.0.0.1:/folder> ");
    terminal.line("CD ..").expect("\n/\n");
    terminal.expect(PROMPT);
    terminal.line("UPLD local.bin").expect("put 1 file, 2.93 KiB in ");
    terminal.expect(PROMPT);
    terminal.line("dwld alpha.bin").expect("got 1 file, 4.88 KiB in ");
    terminal.expect(PROMPT);
    terminal.line(&format!("CON {}", world.server().name())).expect("rights   list,read,write,delete,admin");
    terminal.expect(PROMPT);
    terminal.line("bye");
    assert_eq!(terminal.exit_code(), 0);
    holds(world.served().join("local.bin"), 3000);
    holds(world.work().join("alpha.bin"), 5000);
}

#[test]
fn tab_completes_commands_and_names_on_both_sides() {
    let world = furnished();
    fs::write(world.served().join("with space"), pattern(7)).unwrap();
    let mut terminal = shell(&world);
    terminal.keys("DW").press(Key::Tab).expect("DWLD ");
    terminal.keys("al").press(Key::Tab).expect("alpha.bin");
    terminal.press(Key::Enter).expect("got 1 file");
    terminal.expect(PROMPT);
    terminal.keys("get with").press(Key::Tab).expect("with\\ space");
    terminal.press(Key::Enter).expect("got 1 file");
    terminal.expect(PROMPT);
    terminal.keys("put lo").press(Key::Tab).expect("local.bin");
    terminal.press(Key::Enter).expect("put 1 file");
    terminal.expect(PROMPT);
    terminal.keys("LIST fo").press(Key::Tab).expect("folder/");
    terminal.keys("in").press(Key::Tab).expect("folder/inside");
    terminal.press(Key::Enter).expect("\ninside\n");
    terminal.expect(PROMPT);
    assert_eq!(all_names(&world.work()), ["alpha.bin", "local.bin", "with space"]);
}

#[test]
fn the_arrow_up_repeats_what_was_typed() {
    let world = furnished();
    let mut terminal = shell(&world);
    terminal.line("!echo $((20 + 3))").expect("\n23\n");
    terminal.expect(PROMPT);
    terminal.press(Key::Up).press(Key::Enter).expect("\n23\n");
    terminal.expect(PROMPT);
    terminal.line("bye");
    assert_eq!(terminal.exit_code(), 0);
    // The next shell remembers, and nobody else reads along.
    let mut terminal = shell(&world);
    terminal.press(Key::Up).press(Key::Up).press(Key::Enter).expect("\n23\n");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(world.home().join("history")).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn ctrl_c_on_a_line_gives_a_new_prompt() {
    let world = furnished();
    let mut terminal = shell(&world);
    terminal.press(Key::CtrlC).expect(PROMPT);
    terminal.keys("rm alpha.bi").expect("alpha.bi");
    terminal.press(Key::CtrlC).expect(PROMPT);
    terminal.line("LIST").expect("alpha.bin");
    terminal.expect(PROMPT);
    terminal.press(Key::CtrlD);
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn ctrl_c_during_a_transfer_gives_a_new_prompt_and_leaves_nothing() {
    let world = furnished();
    solid(&world.work().join("big"), 600 << 20);
    let mut terminal = shell(&world);
    terminal.line("UPLD big");
    until("the upload is under way", || world.server().process.bytes_written() > 16 << 20);
    terminal.press(Key::CtrlC).expect("interrupted");
    terminal.expect(PROMPT);
    terminal.line("LIST").expect("alpha.bin");
    terminal.expect(PROMPT);
    assert_eq!(visible_names(&world.served()), ["alpha.bin", "folder"]);
}

#[test]
fn an_error_leaves_the_prompt() {
    let world = furnished();
    let mut terminal = shell(&world);
    for (line, error) in [
        ("CD nowhere", "ftpq: /nowhere: no such file or folder"),
        ("UPLD nothing", "ftpq: nothing: no such file or folder"),
        ("fly", "ftpq: unrecognized subcommand 'fly'"),
        ("LIST 'a", "ftpq: a quote is not closed"),
        ("DWLD", "ftpq: "),
        ("lcd /nowhere", "ftpq: /nowhere: "),
    ] {
        terminal.line(line).expect(error);
        terminal.expect(PROMPT);
    }
    terminal.line("LIST").expect("alpha.bin");
}

#[test]
fn this_machines_side_is_at_hand_too() {
    let world = furnished();
    fs::create_dir(world.work().join("sub")).unwrap();
    fs::write(world.work().join("sub/below"), pattern(3)).unwrap();
    let mut terminal = shell(&world);
    terminal.line("lls").expect("local.bin");
    terminal.expect(PROMPT);
    terminal.line("lcd sub").expect(PROMPT);
    terminal.line("lpwd").expect("/work/sub\n");
    terminal.expect(PROMPT);
    terminal.line("put below").expect("put 1 file");
    terminal.expect(PROMPT);
    terminal.line("!ls").expect("\nbelow\n");
    terminal.expect(PROMPT);
    terminal.line("help").expect("LIST [path]");
    terminal.expect("lcd, lls, lpwd, !command");
    terminal.expect(PROMPT);
    terminal.line("ls --help").expect("Usage");
    terminal.expect(PROMPT);
}

/// A person sees the fingerprint and decides; no is the default.
#[test]
fn an_unknown_server_is_asked_about_at_a_terminal() {
    let world = furnished();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let mut terminal = Terminal::start(&world, &world.stranger(), ["shell"]);
    terminal.expect("Not connected yet: CON host");
    terminal.expect("ftpq> ");
    let con = format!("CON {}", world.server().name());
    for answer in ["n", ""] {
        terminal.line(&con).expect(&world.server().key);
        terminal.expect("[y/N] ");
        terminal.line(answer).expect("was not trusted");
        terminal.expect("ftpq> ");
    }
    assert!(!world.stranger().join("known_servers").exists());
    terminal.line(&con).expect("[y/N] ");
    terminal.line("y").expect("you      guest");
    terminal.expect(PROMPT);
    terminal.line("LIST").expect("alpha.bin");
    // From now on nobody is asked.
    let mut terminal = Terminal::start(&world, &world.stranger(), ["ls", "-s", &world.server().name()]);
    assert!(!terminal.expect("alpha.bin").contains("[y/N]"));
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn a_one_shot_command_asks_at_a_terminal_too() {
    let world = furnished();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let mut terminal = Terminal::start(&world, &world.stranger(), ["con", &world.server().name()]);
    terminal.expect("[y/N] ");
    terminal.line("no").expect("was not trusted");
    assert_eq!(terminal.exit_code(), 4);
    let mut terminal = Terminal::start(&world, &world.stranger(), ["con", &world.server().name()]);
    terminal.expect("[y/N] ");
    terminal.line("yes").expect("you      guest");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn ctrl_c_at_the_question_ends_a_one_shot_command() {
    let world = furnished();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let mut terminal = Terminal::start(&world, &world.stranger(), ["con", &world.server().name()]);
    terminal.expect("[y/N] ");
    terminal.press(Key::CtrlC);
    assert_eq!(terminal.exit_code(), 130);
    assert!(!world.stranger().join("known_servers").exists());
}

/// Nothing that waited for an answer takes what is typed next.
#[test]
fn ctrl_c_at_the_question_goes_back_to_the_prompt() {
    let world = furnished();
    world.authorise(&world.stranger(), "name=guest rights=list");
    let mut terminal = Terminal::start(&world, &world.stranger(), ["shell"]);
    terminal.expect("ftpq> ");
    let con = format!("CON {}", world.server().name());
    for _ in 0..3 {
        terminal.line(&con).expect("[y/N] ");
        terminal.press(Key::CtrlC).expect("interrupted");
        terminal.expect("ftpq> ");
    }
    assert!(!world.stranger().join("known_servers").exists());
    terminal.line(&con).expect("[y/N] ");
    terminal.line("y").expect("you      guest");
    terminal.expect(PROMPT);
    terminal.line("bye");
    assert_eq!(terminal.exit_code(), 0);
}

/// A server that says goodbye and comes back is connected to again, without a word.
#[test]
fn the_shell_outlives_its_server() {
    let mut world = furnished();
    let mut terminal = shell(&world);
    terminal.line("LIST").expect("alpha.bin");
    terminal.expect(PROMPT);
    world.restart();
    terminal.line("LIST").expect("alpha.bin");
    terminal.expect(PROMPT);
}

#[test]
fn a_batch_runs_line_by_line() {
    let world = furnished();
    let batch = "# comes and goes\n\nUPLD local.bin --to folder\nCD folder\nls\nDWLD local.bin --to back.bin\n  bye\nrm local.bin\n";
    fs::write(world.work().join("batch"), batch).unwrap();
    let run = world.ftpq(["shell", "-b", "batch"]).ok();
    assert_eq!(run.lines(), ["/folder", "inside", "local.bin"]);
    holds(world.work().join("back.bin"), 3000);
    assert!(world.served().join("folder/local.bin").exists());
}

#[test]
fn a_batch_stops_at_the_first_failure_with_its_code() {
    let world = furnished();
    fs::write(world.work().join("batch"), "pwd\nCD nowhere\nrm alpha.bin\n").unwrap();
    let line = world.ftpq(["shell", "-b", "batch"]).fails(3, "line 2: ");
    assert!(line.contains("/nowhere"), "{line}");
    fs::write(world.work().join("batch"), "put local.bin\nput local.bin\nrm alpha.bin\n").unwrap();
    let run = world.ftpq(["shell", "-b", "batch"]).ends(1);
    assert!(run.stderr.contains("exists already"), "{}", run.stderr);
    fs::write(world.work().join("batch"), "fly\nrm alpha.bin\n").unwrap();
    world.ftpq(["shell", "-b", "batch"]).fails(2, "fly");
    assert!(world.served().join("alpha.bin").exists());
    world.ftpq(["shell", "-b", "missing"]).fails(1, "missing");
}

#[test]
fn a_dash_in_a_batch_lets_a_line_fail() {
    let world = furnished();
    fs::write(world.work().join("batch"), "-rm nothing\n-fly\n-!exit 3\nrm alpha.bin\n").unwrap();
    let run = world.ftpq(["shell", "-b", "batch"]).ok();
    assert!(run.stderr.contains("/nothing: no such file or folder"), "{}", run.stderr);
    assert!(!world.served().join("alpha.bin").exists());
}

#[test]
fn commands_come_from_standard_input_where_that_is_no_terminal() {
    let world = furnished();
    for program in [world.client().arg("shell"), world.client().args(["shell", "-b", "-"])] {
        let run = program.input("LIST\nCD folder\nCD /\n").run().ok();
        assert_eq!(run.lines(), ["alpha.bin", "folder/", "/folder", "/"]);
        assert_eq!(run.stderr, "");
    }
    world.client().arg("shell").input("cd nowhere\nrm alpha.bin\n").run().fails(3, "/nowhere");
    assert!(world.served().join("alpha.bin").exists());
}
