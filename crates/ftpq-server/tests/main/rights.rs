//! Who may do what, and where: rights, keys, subtrees, links.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ciborium::Value;
use ftpq_client::{CallError, Remote, Session};
use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Rights, Spec};
use ftpq_proto::{RemotePath, Status, VERSION, commands::con, limits::EXTENT_MIN};
use ftpq_storage::{NewFile, Storage, StorageError};
use ftpq_transport::Identity;

use crate::support::{Raw, Seen, TestServer, args, con_with, get, names, on_disk, put, remote, status};

/// A command, and all the rights that it takes.
struct Case {
    verb: &'static str,
    args: Value,
    needs: &'static [Right],
}

fn cases() -> Vec<Case> {
    let case = |verb, needs, args| Case { verb, args, needs };
    let path = |path: &str| ("path", Value::from(path));
    let eager = || [("size", 0.into()), ("eager", true.into())];
    let upload = |at, overwrite: bool| {
        let [size, eager] = eager();
        args([path(at), size, eager, ("overwrite", overwrite.into())])
    };
    let link = |at, overwrite: bool| args([path(at), ("target", "g".into()), ("overwrite", overwrite.into())]);
    let id = || Value::Bytes(vec![0x17; 32]);
    let cut = || [("size", 20_000_000.into()), ("extent", EXTENT_MIN.into())];
    let begin = |at, overwrite: bool| {
        let [size, extent] = cut();
        args([path(at), size, extent, ("sparse", true.into()), ("overwrite", overwrite.into())])
    };
    let read = || {
        let [size, extent] = cut();
        args([path("/f"), ("version", id()), size, extent, ("index", 0.into())])
    };
    vec![
        case("LIST", &[Right::List], args([path("/folder")])),
        case("LIST", &[Right::List], args([path("/f")])),
        case("CD", &[Right::List], args([path("/folder")])),
        case("STAT", &[Right::List], args([path("/f")])),
        case("DWLD", &[Right::Read], args([path("/f")])),
        case("UPLD", &[Right::Write], upload("/new", false)),
        case("UPLD", &[Right::Write, Right::Delete], upload("/f", true)),
        case("BEGIN", &[Right::Write], begin("/new", false)),
        case("BEGIN", &[Right::Write, Right::Delete], begin("/f", true)),
        case("WRITE", &[Right::Write], args([path("/f"), ("upload", id()), ("index", 0.into())])),
        case("PROVE", &[Right::Write], args([path("/f"), ("upload", id()), ("index", 0.into()), ("digest", id())])),
        case("COMMIT", &[Right::Write], args([path("/f"), ("upload", id()), ("digest", id())])),
        case("READ", &[Right::Read], read()),
        case("MKDIR", &[Right::Write], args([path("/made")])),
        case("MKDIR", &[Right::Write], args([path("/folder"), ("parents", true.into())])),
        case("LINK", &[Right::Write], link("/new-link", false)),
        case("LINK", &[Right::Write, Right::Delete], link("/f", true)),
        case("ATTR", &[Right::Write], args([path("/folder"), ("mode", 0o700.into())])),
        case("ATTR", &[Right::Write], args([path("/folder"), ("mode", 0o775.into())])),
        case("ATTR", &[Right::Write, Right::Delete], args([path("/"), ("mode", 0o700.into())])),
        case("ATTR", &[Right::Write, Right::Delete], args([path("/folder"), ("mode", 0o500.into())])),
        case("ATTR", &[Right::Write, Right::Delete], args([path("/folder"), ("mode", 0o777.into())])),
        case("MV", &[Right::Write, Right::Delete], args([("from", "/f".into()), ("to", "/moved".into())])),
        case("RM", &[Right::Delete], args([path("/g")])),
        case("RM", &[Right::Delete], args([path("/folder"), ("recursive", true.into())])),
    ]
}

#[tokio::test]
async fn without_the_right_a_command_is_forbidden_and_changes_nothing() {
    let server = server_with_files().await;
    let before = server.on_disk();
    for lacked in Right::ALL {
        let rights = Right::ALL.into_iter().filter(|&right| right != lacked).fold(Rights::NONE, Rights::with);
        let session = server.user(&format!("name=a rights={rights}")).await;
        for Case { verb, args, .. } in cases().iter().filter(|case| case.needs.contains(&lacked)) {
            let error = run(&session, verb, args).await.unwrap_err();
            assert_eq!(error.status(), Status::Forbidden, "{verb} without the right to {lacked}: {error}");
            assert!(error.to_string().contains(lacked.as_str()), "{error}");
            assert_eq!(server.on_disk(), before, "{verb} without the right to {lacked}");
        }
    }
}

#[tokio::test]
async fn with_exactly_the_rights_that_it_needs_a_command_runs() {
    let server = server_with_files().await;
    for Case { verb, args, needs } in cases() {
        let rights = needs.iter().copied().fold(Rights::NONE, Rights::with);
        let session = server.user(&format!("name=a rights={rights}")).await;
        match run(&session, verb, &args).await {
            Ok(_) => {}
            // Only a request was sent, and only a reply is waited for.
            Err(CallError::Unexpected("a body")) => assert_eq!(verb, "DWLD"),
            // No such upload was begun, and the file is at another version.
            Err(error) => match (verb, error.status()) {
                ("UPLD", Status::Truncated) | ("READ", Status::Changed) => {}
                ("WRITE" | "PROVE" | "COMMIT", Status::NoUpload) => {}
                (verb, status) => panic!("{verb}: {status}: {error}"),
            },
        }
    }
}

#[tokio::test]
async fn the_rights_of_every_verb_are_tested() {
    let server = TestServer::start().await;
    let welcome = server.user("name=a rights=list").await.welcome().await.unwrap();
    let tested: BTreeSet<_> = cases().iter().map(|case| case.verb).collect();
    let verbs = welcome.verbs.iter().map(|spec| spec.verb.as_str()).filter(|&verb| verb != con::VERB);
    assert_eq!(tested, verbs.collect());
    for spec in &welcome.verbs {
        let all_need =
            |right| cases().iter().filter(|case| case.verb == spec.verb).all(|case| case.needs.contains(&right));
        assert!(spec.right.is_none_or(all_need), "{} announces a right that it does not need", spec.verb);
    }
}

#[tokio::test]
async fn who_may_only_write_can_neither_list_nor_read_nor_replace() {
    let server = server_with_files().await;
    let files = server.files("write").await;
    put(&files, "drop/new", b"x", NewFile { parents: true, ..NewFile::default() }).await.unwrap();
    assert_eq!(fs::read(server.path("drop/new")).unwrap(), b"x");
    assert_eq!(status(names(&files, "/").await), Status::Forbidden);
    assert_eq!(status(get(&files, "drop/new").await), Status::Forbidden);
    assert_eq!(status(files.stat(&remote("drop/new")).await), Status::Forbidden);
    assert_eq!(status(put(&files, "drop/new", b"y", NewFile::default()).await), Status::Exists);
    let overwrite = NewFile { overwrite: true, ..NewFile::default() };
    assert_eq!(status(put(&files, "drop/new", b"y", overwrite).await), Status::Forbidden);
    assert_eq!(fs::read(server.path("drop/new")).unwrap(), b"x");
}

#[tokio::test]
async fn an_unknown_key_is_told_its_fingerprint_and_nothing_runs() {
    let runs = Arc::new(AtomicUsize::new(0));
    let server = TestServer::start_with(|builder| builder.with(Count(runs.clone()))).await;
    fs::write(server.path("f"), b"secret").unwrap();
    let stranger = Identity::generate().unwrap();
    let key = stranger.fingerprint();
    let session = server.session(&stranger).await;
    let refused = session.welcome().await.unwrap_err();
    assert_eq!(refused.status(), Status::NotAuthorised);
    assert!(refused.to_string().contains(&key.to_string()), "{refused}");
    // Each on a connection of its own, before CON.
    for (verb, args) in [("LIST", args([])), ("COUNT", Value::Null), ("NOSUCH", Value::Null), ("CON", Value::Null)] {
        let connection = server.connect(&stranger).await;
        let mut first = Raw::request(&connection, verb, args).await;
        let mut con = Raw::request(&connection, con::VERB, con_with(&[VERSION])).await;
        for failed in [first.refusal().await, con.refusal().await] {
            assert_eq!(failed.status, Status::NotAuthorised, "{verb}");
            assert!(failed.message.contains(&key.to_string()), "{verb}: {}", failed.message);
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    assert_eq!(server.seen(), vec![Seen::NotAuthorised(key); 5]);
}

#[tokio::test]
async fn a_known_key_runs_what_needs_no_right() {
    let runs = Arc::new(AtomicUsize::new(0));
    let server = TestServer::start_with(|builder| builder.with(Count(runs.clone()))).await;
    let session = server.user("name=a rights=list").await;
    run(&session, "COUNT", &Value::Null).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_key_that_is_removed_is_out_with_its_next_command() {
    let server = server_with_files().await;
    let session = server.user("name=a rights=list,read").await;
    let files = Remote::over(session.clone());
    files.stat(&remote("f")).await.unwrap();
    server.authorise_nobody();
    assert_eq!(status(files.stat(&remote("f")).await), Status::NotAuthorised);
    assert_eq!(status(get(&files, "f").await), Status::NotAuthorised);
}

#[tokio::test]
async fn rights_that_are_taken_away_are_gone_with_the_next_command() {
    let server = server_with_files().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=list,read");
    let files = Remote::over(server.session(&identity).await);
    get(&files, "f").await.unwrap();
    let files = Remote::over(server.change(&identity, "name=a rights=list root=/folder").await);
    assert_eq!(status(get(&files, "f").await), Status::Forbidden);
    assert_eq!(names(&files, "/").await.unwrap(), ["in"]);
}

#[tokio::test]
async fn a_user_with_a_root_sees_nothing_else() {
    let server = server_with_files().await;
    fs::create_dir(server.path("alice")).unwrap();
    fs::write(server.path("alice/mine"), b"mine").unwrap();
    symlink("..", server.path("alice/up")).unwrap();
    let session = server.user("name=alice root=/alice rights=list,read,write,delete").await;
    let files = Remote::over(session.clone());
    assert_eq!(names(&files, "/").await.unwrap(), ["mine", "up"]);
    assert_eq!(get(&files, "mine").await.unwrap(), b"mine");
    assert_eq!(status(get(&files, "f").await), Status::NotFound);
    // `..` from everywhere ends at what the user takes for the root.
    for typed in ["/../f", "../../f", "mine/../../f", "/alice/f"] {
        let failed = run(&session, "STAT", &args([("path", typed.into())])).await;
        assert_eq!(status(failed), Status::NotFound, "{typed}");
    }
    assert_eq!(status(get(&files, "up/f").await), Status::NotRegular);
    run(&session, "MKDIR", &args([("path", "/../../made".into())])).await.unwrap();
    run(&session, "MV", &args([("from", "mine".into()), ("to", "../moved".into())])).await.unwrap();
    put(&files, "new", b"new", NewFile::default()).await.unwrap();
    for inside in ["made", "moved", "new"] {
        assert!(server.path("alice").join(inside).exists(), "{inside}");
        assert!(!server.path(inside).exists() && !server.outside(inside).exists(), "{inside}");
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_opened_shows_nothing() {
    let server = server_with_files().await;
    fs::create_dir(server.outside("beside")).unwrap();
    fs::write(server.outside("beside/secret"), b"secret").unwrap();
    symlink(server.outside("beside"), server.path("link")).unwrap();
    for (root, expected) in [("/missing", Status::NotFound), ("/link", Status::NotFolder), ("/f", Status::NotFolder)] {
        let session = server.user(&format!("name=a root={root} rights=list,read")).await;
        assert_eq!(session.welcome().await.unwrap_err().status(), expected, "{root}");
        let files = Remote::over(session);
        assert_eq!(status(names(&files, "/").await), expected, "{root}");
        assert_eq!(status(get(&files, "secret").await), expected, "{root}");
    }
}

#[tokio::test]
async fn links_out_of_the_served_folder_lead_nowhere() {
    let server = server_with_files().await;
    fs::create_dir_all(server.outside("beside/sub")).unwrap();
    fs::write(server.outside("beside/secret"), b"secret").unwrap();
    symlink(server.outside("beside"), server.path("out")).unwrap();
    symlink(server.outside("beside/secret"), server.path("out-file")).unwrap();
    symlink("../beside", server.path("out-relative")).unwrap();
    let session = server.user("name=a rights=list,read,write,delete").await;
    let files = Remote::over(session.clone());
    let before = on_disk(&server.outside("beside"));

    // A link is no file, and where a folder is due no folder.
    fn refused<T>(result: Result<T, StorageError>) -> bool {
        matches!(status(result), Status::NotRegular | Status::NotFolder)
    }
    let overwrite = NewFile { overwrite: true, parents: true, ..NewFile::default() };
    assert!(refused(get(&files, "out-file").await));
    for out in ["out", "out-relative"] {
        let below = |name: &str| format!("{out}/{name}");
        assert!(refused(get(&files, &below("secret")).await));
        assert!(refused(names(&files, &below("sub")).await));
        for (name, size) in [("new", 1), ("new", 1_000_000), ("secret", 1)] {
            assert!(refused(put(&files, &below(name), &vec![0; size], overwrite.clone()).await));
        }
        assert!(refused(files.stat(&remote(&below("secret"))).await));
        assert!(refused(files.make_folder(&remote(&below("made")), false).await));
        assert!(refused(files.make_folder(&remote(&below("made/deep")), true).await));
        assert!(refused(files.remove(&remote(&below("secret")), false).await));
        assert!(refused(files.remove(&remote(&below("sub")), true).await));
        assert!(refused(files.rename(&remote("f"), &remote(&below("f")), true).await));
        assert!(refused(files.rename(&remote(&below("secret")), &remote("mine"), false).await));
        assert_eq!(status(run(&session, "CD", &args([("path", out.into())])).await), Status::NotFolder);
        // Listed, it is itself.
        assert_eq!(names(&files, out).await.unwrap(), [out]);
    }
    // What replaces or removes a link touches the link alone.
    put(&files, "out-file", b"new", overwrite).await.unwrap();
    assert!(server.path("out-file").symlink_metadata().unwrap().is_file());
    files.remove(&remote("out"), true).await.unwrap();
    assert!(!server.path("out").exists());
    assert_eq!(on_disk(&server.outside("beside")), before);
}

/// `/f`, `/g` and `/folder/in`.
async fn server_with_files() -> TestServer {
    let server = TestServer::start().await;
    fs::write(server.path("f"), b"contents").unwrap();
    fs::write(server.path("g"), b"more").unwrap();
    fs::create_dir(server.path("folder")).unwrap();
    fs::write(server.path("folder/in"), b"inside").unwrap();
    server
}

async fn run(session: &Session, verb: &str, args: &Value) -> Result<Value, CallError> {
    session.call_items(verb, &RemotePath::root(), args, drop).await
}

/// Counts how often it is run.
struct Count(Arc<AtomicUsize>);

impl Handler for Count {
    type Args = ();
    type Reply = ();

    fn spec(&self) -> Spec {
        Spec::for_everyone("COUNT", "count")
    }

    async fn handle(&self, _: &Context, (): (), _: &mut Exchange) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
