//! `ftpq serve`: what it needs, what it says, and how it ends.

use std::{
    fs,
    net::UdpSocket,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use rustix::process::Signal;

use crate::support::{RawClient, World, all_names, holds, pattern, solid, until, visible_names};

/// The first thing that anybody does must work: one command there, one command here.
#[test]
fn serve_needs_no_set_up_at_all() {
    let world = World::new();
    let server = world.home_program().args(["serve", "-P", "0"]).serve();
    let root = world.work().join("Arquivos");
    assert!(root.is_dir());
    assert_eq!(mode(&world.home().join("identity/server.pem")), 0o600);
    assert_eq!(mode(&world.home().join("identity/client.pem")), 0o600);
    assert_eq!(mode(&world.home().join("identity")), 0o700);
    assert_eq!(mode(&world.authorized_clients()), 0o600);
    let clients = fs::read_to_string(world.authorized_clients()).unwrap();
    let own = format!("{} name=tester rights=list,read,write,delete,admin\n", world.key_of(&world.home()));
    assert_eq!(clients, own);

    // What the start screen says works, word for word.
    fs::write(root.join("file"), "x").unwrap();
    let hint = server.screen.lines().find_map(|line| line.trim().strip_prefix("from here")).expect("a hint");
    let words: Vec<_> = hint.split_whitespace().skip(1).collect();
    assert_eq!(words[..2], ["ls", "-s"], "{hint}");
    assert_eq!(world.home_program().args(words).run().ok().lines(), ["file"]);
}

#[test]
fn the_start_screen_says_what_is_served_where_and_for_whom() {
    let world = World::serving();
    let screen = &world.server().screen;
    let port = world.server().address.port();
    for text in [
        format!("serves {}", fs::canonicalize(world.served()).unwrap().display()),
        format!("127.0.0.1:{port} (UDP)"),
        world.server().key.clone(),
        "ATTR BEGIN CD COMMIT CON DWLD LINK LIST MKDIR MV PROVE READ RM STAT UPLD WRITE".into(),
        format!("1 in {}", world.authorized_clients().display()),
        format!("ftpq ls -s localhost:{port}"),
        "ftpq invite".into(),
    ] {
        assert!(screen.contains(&text), "{text:?} in {screen}");
    }
}

#[test]
fn serve_listens_on_as_many_addresses_as_it_is_told_to() {
    let world = World::new();
    let server = world.server_program().args(["--listen", "127.0.0.2:0"]).serve();
    let addresses = server.screen.lines().filter(|line| line.contains("listening"));
    let addresses: Vec<_> = addresses.map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(addresses.len(), 2, "{}", server.screen);
    for address in addresses {
        world.home_program().args(["ls", "-s", address]).run().ok();
    }
}

#[test]
fn the_log_has_one_line_for_each_command() {
    let world = World::serving();
    fs::write(world.work().join("file"), pattern(300_000)).unwrap();
    world.ftpq(["put", "file"]).ok();
    world.ftpq(["get", "file", "--to", "back"]).ok();
    world.ftpq(["rm", "nothing"]).fails(3, "/nothing");
    let log = &world.server().log;
    for words in [
        ["tester@127.0.0.1:", "  UPLD /file  292.97 KiB  ", " ms  ok"],
        ["tester@127.0.0.1:", "  DWLD /file  292.97 KiB  ", " ms  ok"],
        ["tester@127.0.0.1:", "  RM /nothing  0 B  ", "  not-found: /nothing: no such file or folder"],
        ["tester@127.0.0.1:", "  CON  0 B  ", " ms  ok"],
    ] {
        let line = log.wait_for(words[1]);
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line:?}");
    }
    assert_eq!(log.so_far().iter().filter(|line| line.contains("UPLD")).count(), 1);
}

/// A disk that is full of logs must not stop the files.
#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    for args in [&["-q"][..], &[], &["-vvv"]] {
        let world = World::new();
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let server = world.server_program().args(args).log_to(full).serve();
        fs::write(world.work().join("file"), pattern(300_000)).unwrap();
        let client = |args: &[&str]| world.client().args(args).env("FTPQ_SERVER", server.name()).run();
        client(&["put", "file"]).ok();
        holds(world.served().join("file"), 300_000);
        client(&["rm", "nothing"]).fails(3, "/nothing");
        world.set_clients("nonsense\n");
        client(&["ls"]).fails(4, "does not know your key");
        assert_eq!(server.stop(Signal::TERM), 0, "{args:?}");
    }
}

#[test]
fn a_start_screen_that_nobody_reads_stops_nothing() {
    let world = World::new();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let server = world.home_program().arg("serve").arg(world.served()).args(["--listen", &address]).spawn_unheard();
    // The client keeps asking until the server is there.
    until("its key is there", || world.authorized_clients().exists());
    world.client().args(["ls", "-s", &address]).run().ok();
    server.signal(Signal::TERM);
    server.wait().ends(0);
}

/// Whoever reads the log must be able to believe it.
#[test]
fn a_hostile_name_cannot_forge_a_line_of_the_log() {
    let world = World::serving();
    let forged = "\n2026-01-01 00:00:00  root@10.0.0.1:1  RM /everything  0 B  0 ms  ok\r\u{1b}[2J\u{202e}";
    world.ftpq(["rm", &format!("./x{forged}")]).fails(3, "\\n2026-01-01");
    world.ftpq(["call", "NO\n2026-01-01 00:00:00  root  RM /all  ok\r\u{1b}[2J\u{202e}"]).fails(1, "no verb NO");
    world.server().log.wait_for("unknown-verb");
    let line = world.server().log.wait_for("  RM /x");
    assert!(line.contains("\\n2026-01-01 00:00:00  root@") && line.contains("\\u{1b}[2J\\u{202e}"), "{line:?}");
    let all = world.server().log.so_far();
    assert!(!all.iter().any(|line| line.contains(['\u{1b}', '\r', '\u{202e}'])), "{all:?}");
    assert!(!all.iter().any(|line| line.starts_with("2026-01-01")), "{all:?}");
}

#[test]
fn both_signals_stop_it_with_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut world = World::serving();
        world.ftpq(["ls"]).ok();
        assert_eq!(world.stop_server(signal), 0, "{signal:?}");
    }
}

/// A client that is connected does not keep a server from stopping.
#[test]
fn an_idle_client_does_not_keep_it() {
    let mut world = World::serving();
    let client = RawClient::connect(&world);
    client.con();
    assert_eq!(world.stop_server(Signal::TERM), 0);
}

/// Whichever comes first, the end of the upload or of the server: the whole file or none.
#[test]
fn sigterm_during_an_upload_leaves_the_whole_file_or_none() {
    let mut world = World::serving();
    let size = 400 << 20;
    solid(&world.work().join("big"), size);
    let upload = world.client().args(["put", "--retry-for", "0", "big"]).spawn();
    until("the upload is under way", || world.server().process.bytes_written() > 32 << 20);
    let served = world.served();
    assert_eq!(world.stop_server(Signal::TERM), 0);
    let run = upload.wait();
    match run.code {
        0 => assert_eq!(fs::metadata(served.join("big")).unwrap().len(), size),
        _ => {
            run.fails(5, "try again");
            assert!(visible_names(&served).is_empty(), "{:?}", all_names(&served));
        }
    }
}

/// Somebody who never goes on must not keep the server: it waits a while, then leaves.
#[test]
fn an_upload_that_stands_still_is_cut_and_leaves_nothing() {
    let mut world = World::serving();
    let client = RawClient::connect(&world);
    client.con();
    let _halves = client.half_an_upload("half", 10_000_000, 2_000_000);
    let served = world.served();
    assert_eq!(world.stop_server(Signal::TERM), 0);
    assert!(all_names(&served).is_empty(), "{:?}", all_names(&served));
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut world = World::serving();
    let client = RawClient::connect(&world);
    client.con();
    let _halves = client.half_an_upload("half", 10_000_000, 2_000_000);
    let served = world.served();
    world.signal_server(Signal::TERM);
    world.server().log.wait_for("SIGTERM: finishing what runs");
    assert_eq!(world.stop_server(Signal::TERM), 1);
    assert!(all_names(&served).is_empty(), "{:?}", all_names(&served));
}

#[test]
fn a_second_start_keeps_the_key_and_the_list() {
    let mut world = World::serving();
    let key = world.server().key.clone();
    fs::write(world.authorized_clients(), "# nobody\n").unwrap();
    assert_eq!(world.stop_server(Signal::TERM), 0);
    world.start();
    assert_eq!(world.server().key, key);
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), "# nobody\n");
    world.ftpq(["ls"]).fails(4, "does not know your key");
}

/// The names that ftpq keeps for itself while a file is not whole.
#[test]
fn reserved_names_are_neither_shown_nor_taken() {
    let world = World::serving();
    let reserved = ".ftpq-0123456789abcdef0123456789abcdef";
    fs::write(world.served().join(reserved), "x").unwrap();
    assert_eq!(world.ftpq(["ls", "-a"]).ok().stdout, "");
    world.ftpq(["get", reserved]).fails(1, "reserved");
    fs::write(world.work().join("x"), "x").unwrap();
    world.ftpq(["put", "x", "--to", reserved]).fails(1, "reserved");
    assert_eq!(all_names(&world.served()), [reserved]);
}

/// Names on the server that no terminal and no other file system would like.
#[test]
fn the_root_may_have_any_name() {
    let world = World::new();
    let root = world.path(std::ffi::OsStr::from_bytes(b"odd \x1b[31m\n\xff"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    let server = world.home_program().arg("serve").arg(&root).args(["--listen", "127.0.0.1:0"]).serve();
    assert!(!server.screen.contains('\u{1b}'), "{:?}", server.screen);
    assert_eq!(world.home_program().args(["ls", "-s", &server.name()]).run().ok().lines(), ["file"]);
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).permissions().mode() & 0o777
}
