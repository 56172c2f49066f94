//! A hostile server, and the real client.
//!
//! Each [`Evil`] is one behaviour: what the server does ([`server`]), what is asked of the client, and how
//! that must end. Whatever the server does, [`look`] looks at the same things: the client ends by itself,
//! with the exit code and the lines that are expected and nothing that a terminal would obey, in little
//! memory; on disk there is what is expected, and nothing else has changed anywhere.

mod bodies;
mod listings;
mod look;
mod names;
mod patience;
mod server;
mod talk;
mod uploads;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use self::{
    look::{Everything, Look},
    server::{Act, EvilServer},
};
use crate::support::{Terminal, World, pattern, sparse};

/// One behaviour of a server.
struct Evil {
    name: &'static str,
    act: Act,
    trials: Vec<Trial>,
    /// What is asked is asked at once, of clients that wait for nothing long.
    waits: bool,
}

/// What is asked of the client, and how that ends.
#[derive(Default)]
struct Trial {
    asked: &'static str,
    input: &'static str,
    code: i32,
    /// What each line on standard error says.
    says: Vec<&'static str>,
    /// The lines on standard output, if they are looked at.
    prints: Option<Vec<&'static str>>,
    /// What is new on disk.
    leaves: Vec<&'static str>,
}

impl Evil {
    fn new(name: &'static str, act: Act) -> Self {
        Self { name, act, trials: Vec::new(), waits: false }
    }

    /// One whose clients must wait, to no end.
    fn that_lets_wait(name: &'static str, act: Act) -> Self {
        Self { waits: true, ..Self::new(name, act) }
    }

    /// The client is asked this, and succeeds, unless something else is said.
    fn asked(mut self, asked: &'static str) -> Self {
        self.trials.push(Trial { asked, ..Trial::default() });
        self
    }

    /// The client is a shell that reads this.
    fn typed(self, input: &'static str) -> Self {
        let mut evil = self.asked("shell -b -");
        evil.last().input = input;
        evil
    }

    /// It ends with this code and one line for each of these, in any order. With a star in front, as many
    /// lines as there are.
    fn ends(mut self, code: i32, says: impl Into<Vec<&'static str>>) -> Self {
        let says = says.into();
        let last = self.last();
        (last.code, last.says) = (code, says);
        self
    }

    fn prints(mut self, lines: impl Into<Vec<&'static str>>) -> Self {
        self.last().prints = Some(lines.into());
        self
    }

    /// These are new in the client's folder: folders end in `/`, links show their target.
    fn leaves(mut self, leaves: impl Into<Vec<&'static str>>) -> Self {
        self.last().leaves = leaves.into();
        self
    }

    fn last(&mut self) -> &mut Trial {
        self.trials.last_mut().expect("something is asked first")
    }

    fn run(self) {
        let server = EvilServer::start(self.act);
        let at_once = if self.waits { self.trials.len() } else { 1 };
        let patience = self.waits.then_some([("FTPQ_PATIENCE", "4"), ("FTPQ_TIMEOUT", "3")]);
        // One that fails says so itself; the others run all the same.
        let fails = |trial: &Trial| catch_unwind(AssertUnwindSafe(|| trial.run(self.name, &server, patience))).is_err();
        let mut failed = Vec::new();
        for trials in self.trials.chunks(at_once) {
            thread::scope(|scope| {
                let running: Vec<_> = trials.iter().map(|trial| (trial, scope.spawn(|| fails(trial)))).collect();
                let ended = running.into_iter().map(|(trial, thread)| (trial.asked, thread.join().unwrap()));
                failed.extend(ended.filter_map(|(asked, fails)| fails.then_some(asked)));
            });
        }
        assert!(failed.is_empty(), "{}: {failed:?} failed", self.name);
    }
}

impl Trial {
    fn run(&self, name: &str, server: &EvilServer, patience: Option<[(&str, &str); 2]>) {
        let world = world_of(server);
        let before = Everything::of(&world);
        let program = world.home_program().args(self.asked.split(' ')).input(self.input);
        // What is interrupted is given up, unless something else is asked for.
        let program = program.env("FTPQ_SERVER", server.address.to_string()).env("FTPQ_RETRY_FOR", "0");
        let program = patience.into_iter().flatten().fold(program, |program, (name, value)| program.env(name, value));
        let look = Look::at(&format!("{name}: {}", self.asked), program.spawn());
        look.ends(self.code, &self.says);
        if let Some(prints) = &self.prints {
            look.prints(prints);
        }
        look.leaves(&before, &Everything::of(&world), &self.leaves);
    }
}

/// A client that knows this server, with things to send, and things that nobody may touch.
fn world_of(server: &EvilServer) -> World {
    let world = World::new();
    fs::write(world.home().join("known_servers"), format!("{} {}\n", server.address, server.key)).unwrap();
    let work = world.work();
    fs::write(work.join("small"), pattern(1000)).unwrap();
    fs::write(work.join("middling"), pattern(1_000_000)).unwrap();
    sparse(&work.join("large"), 20 << 20);
    fs::write(work.join("full"), pattern(20 << 20)).unwrap();
    fs::create_dir(work.join("sent")).unwrap();
    fs::write(work.join("sent/file"), pattern(10)).unwrap();
    for folder in [world.path("outside"), world.served(), work] {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("canary"), "nobody may touch this").unwrap();
    }
    world
}

/// A person at the prompt of a client that knows this server.
fn terminal(world: &World, server: &EvilServer) -> Terminal {
    Terminal::start(world, &world.home(), ["-s", &server.address.to_string(), "shell"])
}
