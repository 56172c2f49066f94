//! `ftpq con TICKET`: two that know nothing of each other but the ticket.
//!
//! The server here is made for these tests: it tells what came to it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use ciborium::Value;
use ftpq_proto::{
    Rights, Status, TicketSecret, VERSION,
    codec::from_value,
    commands::con::{self, Limits},
    message::{Failed, Reply, Request, Response},
};
use ftpq_transport::{Fingerprint, Identity, Listener, Ticket};
use tokio::sync::oneshot;

use crate::support::{Program, Terminal, World};

/// A server that lets in whoever brings its ticket, and then that key without one. Dropped, it stops.
struct TicketServer {
    address: SocketAddr,
    key: Fingerprint,
    secret: TicketSecret,
    /// The ticket of each CON that came.
    cons: Arc<Mutex<Vec<Option<TicketSecret>>>>,
    /// Connections that were begun.
    attempts: Arc<Mutex<u32>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TicketServer {
    fn start() -> Self {
        let identity = Identity::generate().unwrap();
        let (key, secret) = (identity.fingerprint(), Ticket::generate_secret().unwrap());
        let (cons, attempts) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<u32>>::default());
        let (stop, stopped) = oneshot::channel();
        let (listens, address) = mpsc::channel();
        let thread = thread::spawn({
            let (cons, attempts) = (cons.clone(), attempts.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity).unwrap();
                    listens.send(listener.local_addr()).unwrap();
                    tokio::select! {
                        () = serve(listener, secret, cons, attempts) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        let address = address.recv().unwrap();
        Self { address, key, secret, cons, attempts, stop: Some(stop), thread: Some(thread) }
    }

    fn name(&self) -> String {
        self.address.to_string()
    }

    fn ticket(&self) -> Ticket {
        Ticket::new(&self.name(), self.key, self.secret).unwrap()
    }

    fn cons(&self) -> Vec<Option<TicketSecret>> {
        self.cons.lock().unwrap().clone()
    }
}

impl Drop for TicketServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(thread::JoinHandle::join);
    }
}

async fn serve(
    listener: Listener,
    secret: TicketSecret,
    cons: Arc<Mutex<Vec<Option<TicketSecret>>>>,
    attempts: Arc<Mutex<u32>>,
) {
    let known = Arc::<Mutex<Vec<Fingerprint>>>::default();
    while let Some(incoming) = listener.accept().await {
        *attempts.lock().unwrap() += 1;
        let (known, cons) = (known.clone(), cons.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.accept(Duration::from_secs(10)).await else { return };
            while let Ok((mut send, mut recv)) = connection.accept().await {
                let request: Request = recv.frame(Duration::from_secs(30)).await.unwrap();
                assert_eq!(request.verb, con::VERB);
                let args: con::Args = from_value(&request.args).unwrap();
                cons.lock().unwrap().push(args.ticket);
                if args.ticket == Some(secret) {
                    known.lock().unwrap().push(connection.peer());
                }
                let reply = if known.lock().unwrap().contains(&connection.peer()) {
                    Reply::Ok(Value::serialized(&welcome(connection.peer())).unwrap())
                } else {
                    Reply::Error(Failed { status: Status::BadTicket, message: "no such ticket".into() })
                };
                send.frame(&Response::Reply(reply)).await.unwrap();
                send.finish();
            }
        });
    }
}

fn welcome(peer: Fingerprint) -> con::Welcome {
    con::Welcome {
        version: VERSION,
        agent: "test/1".into(),
        features: Vec::new(),
        verbs: Vec::new(),
        user: "guest".into(),
        key: peer.to_string(),
        rights: Rights::NONE,
        limits: Limits { bytes: Some(5 << 30), files: Some(1000), rate: Some(1 << 20), expires: Some(1_800_000_000) },
        successor: None,
        ports: Vec::new(),
    }
}

fn secret_of(ticket: &Ticket) -> String {
    ticket.to_string().split_once('.').unwrap().1.rsplit('.').next().unwrap().to_owned()
}

/// ftpq with nothing in its environment that names a server.
fn program(world: &World) -> Program {
    world.home_program()
}

#[test]
fn a_ticket_makes_both_sides_known() {
    let (world, server) = (World::new(), TicketServer::start());
    let ticket = server.ticket();
    let con = program(&world).args(["con", &ticket.to_string()]).run().ok().stdout;
    for line in [
        format!("server   {} (test/1, protocol 1)", server.name()),
        format!("key      {}", server.key),
        format!("you      guest ({})", world.key_of(&world.home())),
        "limits   5.00 GiB, 1000 files, 1.00 MiB/s each way, until 2027-01-15 08:00".into(),
    ] {
        assert!(con.lines().any(|it| it == line), "{line}: {con}");
    }
    let known = program(&world).arg("servers").run().ok();
    assert_eq!(known.lines(), [format!("{}  {}", server.name(), server.key)]);
    // It is the current one, and the ticket was for once.
    let json = &program(&world).args(["con", "--json"]).run().ok().json()[0];
    assert_eq!(json["server"], server.name());
    let limits =
        serde_json::json!({ "bytes": 5u64 << 30, "files": 1000, "rate": 1 << 20, "expires": "2027-01-15T08:00:00Z" });
    assert_eq!((&json["limits"], &json["next_server_key"]), (&limits, &serde_json::Value::Null));
    assert_eq!(server.cons(), [Some(server.secret), None]);
}

#[test]
fn a_ticket_can_be_read_from_standard_input() {
    let (world, server) = (World::new(), TicketServer::start());
    program(&world).args(["con", "-"]).run().fails(2, "holds no ticket");
    program(&world).args(["con", "-"]).input("somewhere\n").run().fails(2, "not a ticket");
    program(&world).args(["con", "-"]).input("x".repeat(1 << 20)).run().fails(2, "not a ticket");
    program(&world).args(["con", "-"]).input(format!("  {}\r\nrest", server.ticket())).run().ok();
    assert_eq!(server.cons(), [Some(server.secret)]);
}

/// Nobody but the server that the ticket names may see its secret.
#[test]
fn nothing_is_sent_to_a_server_with_another_key() {
    let (world, server) = (World::new(), TicketServer::start());
    let other = Identity::generate().unwrap().fingerprint();
    let ticket = Ticket { key: other, ..server.ticket() };
    for options in [&[][..], &["--accept-new"]] {
        let line =
            program(&world).args(["con", &ticket.to_string()]).args(options).run().fails(4, "is not the server of");
        assert!(line.contains(&other.to_string()) && line.contains(&server.key.to_string()), "{line}");
        assert!(!line.contains(&secret_of(&ticket)), "{line}");
    }
    assert_eq!((server.cons(), world.home().join("known_servers").exists()), (vec![], false));
    assert_eq!(*server.attempts.lock().unwrap(), 2);
}

#[test]
fn a_ticket_that_contradicts_what_is_known_is_not_used() {
    let (world, server) = (World::new(), TicketServer::start());
    let other = Identity::generate().unwrap().fingerprint();
    let line = format!("{} {other}\n", server.name());
    fs::write(world.home().join("known_servers"), &line).unwrap();
    let con = || program(&world).args(["con", &server.ticket().to_string()]);
    let told = con().run().fails(4, "nothing was sent");
    assert!(told.contains(&other.to_string()) && told.contains(&server.key.to_string()), "{told}");
    assert!(told.contains(&format!("ftpq servers remove {}", server.name())), "{told}");
    assert_eq!(*server.attempts.lock().unwrap(), 0);
    assert_eq!(fs::read_to_string(world.home().join("known_servers")).unwrap(), line);
    // Unless that is the key that was announced.
    fs::write(world.home().join("known_servers"), format!("{} {other} next={}\n", server.name(), server.key)).unwrap();
    con().run().ok();
    let known = program(&world).arg("servers").run().ok();
    assert_eq!(known.lines(), [format!("{}  {}", server.name(), server.key)]);
}

#[test]
fn a_ticket_that_is_no_good_says_so_in_one_line() {
    let (world, server) = (World::new(), TicketServer::start());
    let ticket = Ticket { secret: Ticket::generate_secret().unwrap(), ..server.ticket() };
    let line =
        program(&world).args(["con", &ticket.to_string()]).run().fails(4, "does not take this ticket: it is spent");
    assert!(!line.contains(&secret_of(&ticket)), "{line}");
    assert!(!world.home().join("known_servers").exists() && !world.home().join("state.json").exists());
    let whole = ticket.to_string();
    for cut in [whole.len() - 1, whole.len() - 22, whole.len() - 30] {
        let line = program(&world).args(["con", &whole[..cut]]).run().fails(2, "not a ");
        assert!(!line.contains(&secret_of(&ticket)[..10]), "{line}");
    }
    assert_eq!(*server.attempts.lock().unwrap(), 1);
}

/// What was typed in the wrong place is neither repeated nor used up.
#[test]
fn a_ticket_in_the_wrong_place_is_not_shown() {
    let (world, server) = (World::new(), TicketServer::start());
    let ticket = server.ticket().to_string();
    fs::write(world.work().join("file"), "x").unwrap();
    let cases = [
        &["ls", "-s", &ticket][..],
        &["con", "-s", &ticket],
        &["ls", &ticket],
        &["put", "file", &ticket],
        &["put", "file", "--to", &ticket],
        &["put", &ticket, "file", "--to", "host:x"],
        &["get", &ticket],
        &["cd", &ticket],
        &["shell", &ticket],
        &["servers", "remove", &ticket],
        &["con", "host", &ticket],
        &[&ticket],
    ];
    for case in cases {
        let line = program(&world).args(case).run().fails(2, "ftpq con TICKET");
        assert!(!line.contains(&secret_of(&server.ticket())), "{line}");
    }
    program(&world).arg("ls").env("FTPQ_SERVER", &ticket).run().fails(2, "ftpq con TICKET");
    // Without its beginning it is no ticket, and not for everybody to read either.
    let rest = ticket.strip_prefix("ftpq://").unwrap();
    let line = program(&world).args(["con", rest]).run().fails(2, "not a server");
    assert!(!line.contains(&secret_of(&server.ticket())), "{line}");
    assert_eq!(*server.attempts.lock().unwrap(), 0);
}

#[test]
fn the_shell_takes_a_ticket_and_does_not_remember_it() {
    let (world, server) = (World::new(), TicketServer::start());
    let mut terminal = Terminal::start(&world, &world.home(), ["shell"]);
    terminal.expect("Not connected yet: CON host");
    terminal.expect("ftpq> ");
    terminal.line("!echo $((20 + 3))").expect("\n23\n");
    terminal.expect("ftpq> ");
    terminal.line(&format!("CON {}", server.ticket())).expect("you      guest");
    terminal.expect("ftpq 127.0.0.1:/> ");
    terminal.line("con -").expect("paste the ticket");
    terminal.line(&server.ticket().to_string()).expect("you      guest");
    terminal.expect("ftpq 127.0.0.1:/> ");
    terminal.line("!echo $((30 + 4))").expect("\n34\n");
    terminal.expect("ftpq 127.0.0.1:/> ");
    terminal.line("bye");
    assert_eq!(terminal.exit_code(), 0);
    let history = fs::read_to_string(world.home().join("history")).unwrap();
    assert!(history.contains("20 + 3") && history.contains("30 + 4") && !history.contains("ftpq://"), "{history}");
    assert_eq!(server.cons(), [Some(server.secret), Some(server.secret)]);
}
