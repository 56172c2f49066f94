//! A server with as few rights as it needs: the sandbox, another user than root, and what it leaves
//! on disk and tells.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    thread,
};

use rustix::{
    process::{Gid, Signal, geteuid},
    thread::set_thread_groups,
};

use crate::support::{Program, Server, Terminal, World, all_names, holds, pattern};

/// User and group of nobody, where a test may become it; says so where it may not.
fn nobody(test: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find_map(|line| line.strip_prefix("nobody:"));
    let ids = line.map(|line| line.split(':').skip(1).take(2).map(|id| id.parse().unwrap()).collect::<Vec<u32>>());
    match ids.as_deref() {
        Some(&[uid, gid, ..]) if geteuid().is_root() => Some((uid, gid)),
        _ => {
            eprintln!("SKIPPED {test}: it must be run by root, on a machine with a user nobody");
            None
        }
    }
}

/// A world whose folders are nobody's.
fn world_of((uid, gid): (u32, u32)) -> World {
    let world = World::new();
    fs::set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
    for folder in [world.home(), world.served()] {
        chown(folder, Some(uid), Some(gid)).unwrap();
    }
    world
}

/// Starts a server with more groups than one, as root has them after a login.
fn serve_with_groups(program: Program) -> Server {
    let groups = [0, 1, 2].map(Gid::from_raw);
    // A child has the groups of the thread that starts it.
    let start = || {
        set_thread_groups(&groups).expect("root can");
        program.serve()
    };
    thread::scope(|scope| scope.spawn(start).join()).expect("it starts")
}

#[test]
fn a_server_started_by_root_goes_on_as_another_user() {
    let Some((uid, gid)) = nobody("a_server_started_by_root_goes_on_as_another_user") else { return };
    let world = world_of((uid, gid));
    let audit = world.path("audit.jsonl");
    let server = serve_with_groups(world.server_program().args(["--user", "nobody", "--audit"]).arg(&audit));
    assert!(server.screen.contains("user         nobody\n"), "{}", server.screen);
    let status = server.process.status();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![uid.to_string(); 4]);
    assert_eq!(field("Gid:"), vec![gid.to_string(); 4]);
    assert_eq!(field("Groups:"), [gid.to_string()]);
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(capabilities), ["0000000000000000"], "{capabilities}");
    }

    // A first start as that user: its keys, its list, its files.
    let client = |args: &[&str]| world.client().args(args).env("FTPQ_SERVER", server.name()).run().ok();
    fs::write(world.work().join("small"), pattern(3000)).unwrap();
    fs::write(world.work().join("large"), pattern(20 << 20)).unwrap();
    client(&["put", "small", "large"]);
    client(&["put", "-f", "small"]);
    client(&["mkdir", "-p", "a/b"]);
    holds(world.served().join("large"), 20 << 20);
    for path in ["served/small", "served/large", "served/a/b", "home/identity/server.pem", "home/authorized_clients"] {
        let meta = fs::metadata(world.path(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{path}");
    }
    let clients = fs::read_to_string(world.authorized_clients()).unwrap();
    assert!(clients.contains(" name=nobody "), "{clients}");
    // The audit log is root's: the server cannot rewrite it.
    assert_eq!(fs::metadata(&audit).unwrap().uid(), 0);
    assert!(fs::read_to_string(&audit).unwrap().contains("\"verb\":\"UPLD\""));
    assert_eq!(server.stop(Signal::TERM), 0);
}

#[test]
fn a_folder_that_the_user_may_not_read_is_an_error() {
    let Some(ids) = nobody("a_folder_that_the_user_may_not_read_is_an_error") else { return };
    let world = world_of(ids);
    let serve = || world.server_program().args(["--user", "nobody"]).run();
    fs::set_permissions(world.served(), Permissions::from_mode(0o700)).unwrap();
    chown(world.served(), Some(0), Some(0)).unwrap();
    let denied = format!("as nobody: cannot serve {}: permission denied", world.served().display());
    serve().fails(1, &denied);
    chown(world.served(), Some(ids.0), Some(ids.1)).unwrap();
    chown(world.home(), Some(0), Some(0)).unwrap();
    serve().fails(1, "as nobody: identity ");
    // Without FTPQ_HOME, its own files lie in that user's home folder, which nobody has not.
    world.server_program().args(["--user", "nobody"]).env("FTPQ_HOME", "").run().fails(1, "set FTPQ_HOME");
}

#[test]
fn a_user_that_cannot_be_become_is_an_error() {
    let Some((uid, _)) = nobody("a_user_that_cannot_be_become_is_an_error") else { return };
    let world = World::new();
    let serve = |name: &str| world.server_program().args(["--user", name]);
    serve("no-such-user\u{1b}[2J").run().fails(2, "this machine has no user no-such-user\\u{1b}[2J");
    serve("root").run().fails(2, "root is root");
    fs::set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
    let program = world.path("ftpq");
    fs::copy(Program::path(), &program).unwrap();
    serve("daemon").user(&program, uid).run().fails(1, "only root can become daemon");
    assert!(all_names(&world.home()).is_empty());
}

#[test]
fn the_start_screen_says_as_whom_it_runs_and_in_what() {
    let world = World::serving();
    let screen = &world.server().screen;
    let user = screen.lines().find_map(|line| line.trim().strip_prefix("user ")).expect("a user");
    assert_eq!(user.contains("--user NAME gives that up"), geteuid().is_root(), "{user}");
    let sandbox = screen.lines().find_map(|line| line.trim().strip_prefix("sandbox ")).expect("a sandbox").trim();
    let served = fs::canonicalize(world.served()).unwrap();
    let all = format!("{} and its own state", served.display());
    let landlock = sandbox.starts_with("Landlock (ABI ") && sandbox.contains(&all);
    let no_landlock = sandbox.starts_with("none: ") && !sandbox.contains("failed") && !sandbox.contains("thread");
    assert!(landlock || no_landlock, "{sandbox}");
    let field = world.server().process.status();
    let no_new = field.lines().find_map(|line| line.strip_prefix("NoNewPrivs:")).expect("Linux says so").trim();
    assert_eq!(no_new == "1", landlock, "{sandbox}");

    let open = World::new();
    let server = open.server_program().arg("--no-sandbox").serve();
    assert!(server.screen.contains("sandbox      none: it was switched off"), "{}", server.screen);
}

/// What the server reads of its own accord shows where it can reach.
#[test]
fn a_server_in_its_sandbox_reads_nothing_outside() {
    for (args, confined) in [(&[][..], true), (&["--no-sandbox"], false)] {
        let world = World::new();
        let server = world.server_program().args(args).serve();
        if confined && !server.screen.contains("Landlock (ABI ") {
            eprintln!("SKIPPED a_server_in_its_sandbox_reads_nothing_outside: {}", server.screen);
            continue;
        }
        let ls = || world.client().args(["ls"]).env("FTPQ_SERVER", server.name()).run();
        ls().ok();
        // A list elsewhere that lets nobody in: read, it would count. Unread, the last good one does.
        fs::write(world.path("elsewhere"), "# nobody at all\n").unwrap();
        fs::remove_file(world.authorized_clients()).unwrap();
        symlink(world.path("elsewhere"), world.authorized_clients()).unwrap();
        if confined {
            ls().ok();
        } else {
            ls().fails(4, "does not know your key");
        }
        // A list in its own folder counts at once, however it came there.
        fs::write(world.home().join("new"), "# nobody\n").unwrap();
        fs::rename(world.home().join("new"), world.authorized_clients()).unwrap();
        ls().fails(4, "does not know your key");
    }
}

#[test]
fn a_list_of_clients_elsewhere_is_followed_as_it_changes() {
    let world = World::new();
    let folder = world.path("lists");
    fs::create_dir(&folder).unwrap();
    let list = folder.join("clients");
    let own = format!("{} name=me rights=list\n", world.key_of(&world.home()));
    fs::write(&list, &own).unwrap();
    let server = world.server_program().arg("--authorized-clients").arg(&list).serve();
    let ls = || world.client().args(["ls"]).env("FTPQ_SERVER", server.name()).run();
    ls().ok();
    for (text, known) in [("# nobody\n", false), (own.as_str(), true)] {
        fs::write(folder.join("new"), text).unwrap();
        fs::rename(folder.join("new"), &list).unwrap();
        if known { drop(ls().ok()) } else { drop(ls().fails(4, "does not know your key")) }
    }
}

/// Keys, lists, and what was typed are nobody else's business: in one folder for all, or in those of
/// XDG, which ftpq makes.
#[test]
fn what_ftpq_keeps_is_private() {
    let world = World::new();
    let one = world.path("new/home");
    keep_everything(&world, &|program| program.env("FTPQ_HOME", &one));
    let mut terminal = Terminal::start(&world, &one, ["shell"]);
    terminal.expect("> ");
    terminal.line("bye");
    assert_eq!(terminal.exit_code(), 0);
    let names = ["client.pem", "server.pem", "authorized_clients", "known_servers", "state.json", "history"];
    assert_private(&one, &names);

    let person = world.path("person");
    fs::create_dir(&person).unwrap();
    keep_everything(&world, &|program| program.env("FTPQ_HOME", "").env("HOME", &person));
    assert_private(&person.join(".local/share/ftpq"), &names[..4]);
    assert_private(&person.join(".local/state/ftpq"), &names[4..5]);
}

/// Uses ftpq until it has kept all that it keeps, in the home that `own` sets.
fn keep_everything(world: &World, own: &dyn Fn(Program) -> Program) {
    let server = own(world.server_program()).arg("--audit").arg(world.path("audit.jsonl")).serve();
    let client = |args: &[&str]| own(world.client()).args(args).run().ok();
    fs::write(world.work().join("file"), "x").unwrap();
    client(&["con", &server.name()]);
    client(&["put", "-f", "file"]);
    client(&["mkdir", "-p", "folder"]);
    client(&["cd", "folder"]);
    // Somebody else's server: its key is remembered.
    let other = World::serving();
    let key = client(&["key"]).stdout.trim().to_owned();
    other.set_clients(&format!("{key} name=x rights=list\n"));
    client(&["ls", "--accept-new", "-s", &other.server().name()]);
    assert_private(&world.path("audit.jsonl"), &[]);
}

/// Nothing at `place`, or below it, is open to others, and these are among it.
fn assert_private(place: &Path, names: &[&str]) {
    let mut rest = vec![place.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = rest.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.mode() & 0o777, wanted, "{} has mode {:o}", path.display(), meta.mode());
        if meta.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
        found.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in names {
        assert!(found.iter().any(|found| found == name), "{name} in {found:?}");
    }
}
