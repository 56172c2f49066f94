//! Tickets, from `ftpq invite` to the line that they become.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::{Value, cbor};
use ftpq_proto::{
    Status, TicketSecret,
    message::{Reply, Response},
};
use ftpq_transport::{ConnectError, Connector, Identity, Ticket};
use serde_json::json;

use crate::support::{Key, Program, Run, Terminal, World, pattern, until};

/// Its rights, its folder and its limits are those that the ticket was made with.
#[test]
fn a_ticket_lets_one_client_in_with_what_it_was_given() {
    let world = World::serving();
    fs::create_dir(world.served().join("bob")).unwrap();
    fs::write(world.served().join("secret"), "x").unwrap();
    let options = "--rights list,read,write --root /bob --quota 1G --files 10 --rate 1M --from 127.0.0.0/8";
    let args: Vec<_> = options.split(' ').chain(["--expires", "2100-01-01", "--valid", "1h", "bob"]).collect();
    let run = invite(&world, &args).run().ok();
    let [line] = run.lines()[..] else { panic!("{}", run.stdout) };
    let ticket: Ticket = line.parse().unwrap();
    assert_eq!(
        (ticket.server.as_str(), ticket.key.to_string()),
        (world.server().name().as_str(), world.server().key.clone())
    );
    assert!(run.stderr.starts_with("For bob: list,read,write in /bob. Good once, until "), "{}", run.stderr);
    assert!(run.stderr.contains(" UTC.\nWhoever has it comes in: "), "{}", run.stderr);
    let invited = world.home_program().args(["clients", "list", "--json"]).run().ok().json();
    assert_eq!((&invited[1]["name"], &invited[1]["key"]), (&json!("bob"), &json!(null)));

    let before = fs::read_to_string(world.authorized_clients()).unwrap();
    let home = world.stranger();
    spend(&home, &ticket).unwrap();
    let key = world.key_of(&home);
    let expected = format!(
        "{key} name=bob rights=list,read,write root=/bob quota=1073741824 files=10 rate=1048576 from=127.0.0.0/8 \
         expires=2100-01-01T00:00:00Z"
    );
    let after = fs::read_to_string(world.authorized_clients()).unwrap();
    let open = before.lines().find(|line| line.starts_with("ticket:")).unwrap();
    assert_eq!(after, before.replace(open, &expected));
    world.server().log.wait_for(&format!("let in for a ticket, with the key {key}"));

    // From now on it is a client as any other.
    let client = |args: &[&str]| world.client_of(&home).arg("--accept-new").args(args).run();
    fs::write(world.work().join("file"), pattern(1000)).unwrap();
    client(&["put", "file"]).ok();
    assert_eq!(client(&["ls", "/"]).ok().lines(), ["file"]);
    client(&["rm", "file"]).fails(4, "bob may not delete here");
    client(&["get", "/../secret"]).fails(3, "/secret");
    let con = client(&["con"]).ok().stdout;
    assert!(con.contains("you      bob") && con.contains("rights   list,read,write\n"), "{con}");
    // It was good once.
    assert_eq!(spend(&world.path("other"), &ticket), Err(Status::BadTicket));
    client(&["ls"]).ok();
}

#[test]
fn of_those_who_bring_the_same_ticket_one_is_let_in() {
    let world = World::serving();
    for (round, count) in [2, 8, 2, 8].into_iter().enumerate() {
        let name = format!("guest-{round}");
        let ticket = ticket(&world, &[&name]);
        let before = fs::read_to_string(world.authorized_clients()).unwrap();
        let start = Barrier::new(count);
        let homes: Vec<_> = (0..count).map(|number| world.path(format!("{round}-{number}"))).collect();
        let results: Vec<_> = thread::scope(|scope| {
            let bring = |home: &PathBuf| {
                // Keys are made before they start.
                identity(home);
                start.wait();
                spend(home, &ticket)
            };
            let all: Vec<_> = homes.iter().map(|home| scope.spawn(move || bring(home))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let winners: Vec<_> =
            homes.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(home, _)| home).collect();
        let [winner] = winners[..] else { panic!("{results:?}") };
        assert!(results.iter().filter(|result| **result == Err(Status::BadTicket)).count() == count - 1, "{results:?}");
        // The list has one line more, and one ticket less.
        let after = fs::read_to_string(world.authorized_clients()).unwrap();
        let open = before.lines().find(|line| line.starts_with("ticket:")).unwrap();
        let line = format!("{} name={name} rights=list,read,write", identity(winner).fingerprint());
        assert_eq!(after, before.replace(open, &line));
        for home in &homes {
            let run = world.client_of(home).args(["ls", "--accept-new"]).run();
            run.ends(if home == winner { 0 } else { 4 });
        }
    }
}

#[test]
fn a_ticket_ends_with_its_time() {
    let world = World::serving();
    let run = invite(&world, &["--valid", "1s", "--json", "bob"]).run().ok();
    let object = run.json().remove(0);
    let ticket: Ticket = object["ticket"].as_str().unwrap().parse().unwrap();
    let ends: jiff::Timestamp = object["until"].as_str().unwrap().parse().unwrap();
    until("its time is over", || jiff::Timestamp::now() > ends);
    assert_eq!(spend(&world.stranger(), &ticket), Err(Status::BadTicket));
    // The next invitation takes it out of the list.
    invite(&world, &["carol"]).run().ok();
    let list = fs::read_to_string(world.authorized_clients()).unwrap();
    assert!(!list.contains("bob") && list.contains("carol"), "{list}");
}

#[test]
fn a_ticket_outlives_the_server() {
    let mut world = World::serving();
    let [first, second] = ["bob", "carol"].map(|name| ticket(&world, &[name]));
    world.restart();
    assert!(world.server().screen.contains("1 in ") && world.server().screen.contains(", and 2 invited"));
    spend(&world.stranger(), &first).unwrap();
    world.crash_and_restart();
    world.client_of(&world.stranger()).args(["ls", "--accept-new"]).run().ok();
    assert_eq!(spend(&world.path("other"), &first), Err(Status::BadTicket));
    spend(&world.path("third"), &second).unwrap();
}

#[test]
fn a_ticket_can_be_taken_back() {
    let world = World::serving();
    let ticket = ticket(&world, &["bob"]);
    let run = world.home_program().args(["clients", "remove", "bob"]).run().ok();
    assert!(run.stderr.starts_with("removed bob ") && run.stderr.contains("invited until "), "{}", run.stderr);
    assert_eq!(spend(&world.stranger(), &ticket), Err(Status::BadTicket));
}

/// Nor does it count for anything else than it was made for.
#[test]
fn a_wrong_secret_spends_nothing() {
    let world = World::serving();
    let ticket = ticket(&world, &["bob"]);
    let before = fs::read_to_string(world.authorized_clients()).unwrap();
    let mut secret = *ticket.secret.as_bytes();
    secret[7] ^= 1;
    let wrong = Ticket { secret: TicketSecret::from(secret), ..ticket.clone() };
    assert_eq!(spend(&world.stranger(), &wrong), Err(Status::BadTicket));
    // Nor the hash, which stands in the list.
    let hash = before.lines().find_map(|line| line.strip_prefix("ticket:")).unwrap();
    let hash = URL_SAFE_NO_PAD.decode(hash.split(' ').next().unwrap()).unwrap();
    let half = Ticket { secret: TicketSecret::from(<[u8; 16]>::try_from(&hash[..16]).unwrap()), ..ticket.clone() };
    assert_eq!(spend(&world.stranger(), &half), Err(Status::BadTicket));
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), before);
    spend(&world.stranger(), &ticket).unwrap();
}

/// Who is in already may keep the ticket for somebody else.
#[test]
fn a_key_that_is_let_in_anyway_spends_nothing() {
    let world = World::serving();
    let ticket = ticket(&world, &["bob"]);
    let before = fs::read_to_string(world.authorized_clients()).unwrap();
    spend(&world.home(), &ticket).unwrap();
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), before);
    spend(&world.stranger(), &ticket).unwrap();
}

#[test]
fn a_ticket_goes_to_no_other_server() {
    let mut world = World::serving();
    let ticket = ticket(&world, &["bob"]);
    let (other, served, clients) = (world.path("other.pem"), world.served(), world.authorized_clients());
    world.replace_server(|program, address| {
        identity_in(&other);
        let program = program.arg("serve").arg(served).arg("--identity").arg(other);
        program.arg("--authorized-clients").arg(clients).args(["--listen", &address]).serve()
    });
    assert!(matches!(try_spend(&world.stranger(), &ticket), Err(ConnectError::Untrusted { .. })));
    let line = world.server().log.wait_for("handshake failed");
    assert!(line.contains("127.0.0.1"), "{line}");
    // That is all that came of it.
    let log = world.server().log.so_far();
    assert!(log.iter().all(|line| line.contains("handshake failed")), "{log:#?}");
}

/// Only who gets the ticket sees its secret.
#[test]
fn a_secret_stands_nowhere() {
    let mut world = World::new();
    let talkative = world.home_program().args(["-vvv", "serve"]).arg(world.served());
    world.start_program_at(talkative, "127.0.0.1:0".parse().unwrap());
    let [used, open] = ["bob", "carol"].map(|name| ticket(&world, &[name]));
    spend(&world.stranger(), &used).unwrap();
    assert_eq!(spend(&world.path("other"), &used), Err(Status::BadTicket));
    let log = world.server().log.clone();
    log.wait_for("let in for a ticket");
    let mut texts = vec![world.server().process.command_line(), world.server().screen.clone()];
    assert_eq!(world.stop_server(rustix::process::Signal::TERM), 0);
    texts.extend(log.so_far());
    assert!(texts.iter().any(|line| line.contains("TRACE")), "a log that says much");
    files_below(&world.path(""), &mut texts);
    assert!(texts.iter().any(|text| text.contains("ticket:")));
    for secret in [used.secret, open.secret] {
        let bytes = secret.as_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for form in [URL_SAFE_NO_PAD.encode(bytes), hex.to_uppercase(), hex, format!("{bytes:?}")] {
            let found = texts.iter().find(|text| text.contains(&form));
            assert!(found.is_none(), "{form} in {found:?}");
        }
    }
}

#[test]
fn invite_says_it_for_programs_and_for_cameras() {
    let world = World::serving();
    let object = invite(&world, &["--json", "--root", "/b", "bob"]).run().ok().json().remove(0);
    let ticket: Ticket = object["ticket"].as_str().unwrap().parse().unwrap();
    assert_eq!(ticket.key.to_string(), world.server().key);
    assert_eq!(
        (&object["schema"], &object["name"], &object["root"], &object["rights"]),
        (&json!(1), &json!("bob"), &json!("/b"), &json!(["list", "read", "write"]))
    );
    let run = invite(&world, &["--qr"]).run().ok();
    let (line, code) = run.stdout.split_once('\n').unwrap();
    line.parse::<Ticket>().unwrap();
    assert!(code.lines().count() > 15, "{code}");
    assert!(code.chars().all(|letter| " \u{2580}\u{2584}\u{2588}\n".contains(letter)), "{code}");
    // Where no name is given, and nobody can be asked.
    assert!(run.stderr.starts_with("For guest: "), "{}", run.stderr);
}

#[test]
fn invite_refuses_what_makes_no_sense() {
    let world = World::serving();
    let before = fs::read_to_string(world.authorized_clients()).unwrap();
    for args in [
        &["two words"][..],
        &["bob", "--rights", "everything"],
        &["bob", "--root", "photos"],
        &["bob", "--root", "/a b"],
        &["bob", "--quota", "1.5G"],
        &["bob", "--rate", "10"],
        &["bob", "--from", "10.0.0.1/8"],
        &["bob", "--expires", "soon"],
        &["bob", "--expires", "2020-01-01"],
        &["bob", "--valid", "0s"],
        &["bob", "--valid", "2000d"],
    ] {
        let run = invite(&world, args).run();
        assert!(run.code == 2 || run.code == 1, "{args:?}: {run:?}");
        assert_eq!(run.stdout, "", "{args:?}");
    }
    world.home_program().args(["invite", "bob", "--address", "no host"]).run().ends(2);
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), before);
}

/// Each question until its answer makes sense.
#[test]
fn invite_asks_a_person() {
    let world = World::serving();
    let mut terminal = Terminal::start(&world, &world.home(), ["invite", "--address", &world.server().name()]);
    terminal.expect("Name of the client [guest]: ");
    terminal.line("two words").expect("a name has 1 to 64 bytes and no space");
    terminal.expect("Name of the client [guest]: ");
    terminal.line("bob").expect("Rights [list,read,write]: ");
    terminal.line("much").expect("Rights [list,read,write]: ");
    terminal.line("list").expect("Folder that it sees [/]: ");
    terminal.line("photos").expect("is not");
    terminal.expect("Folder that it sees [/]: ");
    terminal.line("/photos").expect("Quota in bytes, as 10G [none]: ");
    terminal.line("5M").expect("The ticket is good for [10m]: ");
    terminal.line("1h");
    terminal.expect("ftpq://");
    terminal.expect("For bob: list in /photos. Good once, until ");
    assert_eq!(terminal.exit_code(), 0);
    let bob = world.home_program().args(["clients", "show", "bob"]).run().ok();
    assert!(bob.stdout.contains("rights   list\nroot     /photos\nquota    5M\n"), "{}", bob.stdout);
}

/// What was said already is what an empty answer takes.
#[test]
fn invite_forgets_nothing_that_was_typed_before_it_asks() {
    let world = World::serving();
    let args = ["invite", "--quota", "10G", "--valid", "2h", "--rights", "list", "--root", "/b", "--address", "a"];
    let mut terminal = Terminal::start(&world, &world.home(), args);
    for question in ["[guest]: ", "[list]: ", "[/b]: ", "[10G]: ", "[2h]: "] {
        terminal.expect(question);
        terminal.press(Key::Enter);
    }
    terminal.expect("Good once");
    assert_eq!(terminal.exit_code(), 0);
    let guest = world.home_program().args(["clients", "list", "--json"]).run().ok().json().remove(1);
    assert_eq!((&guest["quota"], &guest["root"]), (&json!(10_u64 << 30), &json!("/b")));
    let ends: jiff::Timestamp = guest["invited_until"].as_str().unwrap().parse().unwrap();
    assert!(ends > jiff::Timestamp::now() + Duration::from_secs(3600), "{ends}");
}

#[test]
fn invite_that_gets_no_answer_invites_nobody() {
    let world = World::serving();
    let before = fs::read_to_string(world.authorized_clients()).unwrap();
    let mut terminal = Terminal::start(&world, &world.home(), ["invite"]);
    terminal.expect("Name of the client [guest]: ");
    terminal.line("bob").expect("Rights");
    terminal.press(Key::CtrlD);
    terminal.expect("no answer: nobody was invited");
    assert_eq!(terminal.exit_code(), 2);
    assert_eq!(fs::read_to_string(world.authorized_clients()).unwrap(), before);
}

/// `ftpq invite`, about to be run, for the world's server.
fn invite(world: &World, args: &[&str]) -> Program {
    world.home_program().arg("invite").args(args).args(["--address", &world.server().name()])
}

fn ticket(world: &World, args: &[&str]) -> Ticket {
    let run: Run = invite(world, args).run().ok();
    run.lines()[0].parse().unwrap()
}

/// Brings `ticket` to the server that it names, with the key in `home`, as `ftpq con TICKET` does.
fn spend(home: &Path, ticket: &Ticket) -> Result<(), Status> {
    try_spend(home, ticket).expect("the server is there")
}

fn try_spend(home: &Path, ticket: &Ticket) -> Result<Result<(), Status>, ConnectError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server: SocketAddr = ticket.server.parse().unwrap();
        let connector = Connector::new(identity(home));
        let connection = connector.connect(&[server], &[ticket.key], Duration::from_secs(30)).await?;
        let (mut send, mut recv) = connection.open().await.unwrap();
        let secret = Value::Bytes(ticket.secret.as_bytes().to_vec());
        let args = cbor!({ "versions" => [1], "agent" => "raw", "ticket" => secret }).unwrap();
        send.frame(&cbor!({ "verb" => "CON", "cwd" => "/", "args" => args }).unwrap()).await.unwrap();
        send.finish();
        let answer = recv.frame::<Response>(Duration::from_secs(30)).await.unwrap();
        connection.goodbye().await;
        match answer {
            Response::Reply(Reply::Ok(_)) => Ok(Ok(())),
            Response::Reply(Reply::Error(failed)) => Ok(Err(failed.status)),
            other => panic!("{other:?}"),
        }
    })
}

fn identity(home: &Path) -> Identity {
    identity_in(&home.join("identity/client.pem"))
}

fn identity_in(file: &Path) -> Identity {
    Identity::load_or_create(file).unwrap()
}

/// What all files hold, and what they are called.
fn files_below(folder: &Path, texts: &mut Vec<String>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        texts.push(path.to_string_lossy().into_owned());
        if path.is_dir() {
            files_below(&path, texts);
        } else {
            texts.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
        }
    }
}
