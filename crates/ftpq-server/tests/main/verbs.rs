//! Each verb where it succeeds, and where it must not.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use ftpq_client::{CallError, Session};
use ftpq_proto::{
    Holes, Kind, LinkTarget, RemotePath, Rights, Status, Timestamp, VERSION,
    commands::{attr, cd, con, dwld, link, list, mv, rm, stat, upld},
    limits::{EAGER_BODY_MAX, LIST_PAGE_MAX},
    message::{Response, Trailer},
};
use ftpq_storage::{NewFile, Storage};
use ftpq_transport::Identity;

use crate::support::{
    ALL, PATIENCE, Raw, TestServer, args, con_with, digest, get, names, pattern, put, remote, status,
};

#[tokio::test]
async fn con_says_who_the_client_is_and_what_the_server_can() {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=alice rights=list,read");
    let welcome = server.session(&identity).await.welcome().await.unwrap();
    assert_eq!(welcome.version, VERSION);
    assert!(welcome.agent.starts_with("ftpq/"), "{}", welcome.agent);
    assert_eq!((welcome.user.as_str(), welcome.key.clone()), ("alice", identity.fingerprint().to_string()));
    assert_eq!(welcome.rights, "list,read".parse::<Rights>().unwrap());
    let verbs: Vec<_> = welcome.verbs.iter().map(|spec| spec.verb.as_str()).collect();
    let all = "ATTR BEGIN CD COMMIT CON DWLD LINK LIST MKDIR MV PROVE READ RM STAT UPLD WRITE";
    assert_eq!(verbs.join(" "), all);
}

#[tokio::test]
async fn a_large_folder_is_listed_page_by_page_and_every_name_once() {
    let server = TestServer::start().await;
    let expected: BTreeSet<_> = (0..1000).map(|i| format!("{i:04}")).collect();
    expected.iter().for_each(|name| fs::write(server.path(name), name).unwrap());
    let session = server.user("name=a rights=list").await;
    let mut pages = Vec::new();
    let list = list::Args { path: "".parse().unwrap() };
    let reply = session.call_items(list::VERB, &RemotePath::root(), &list, |page| pages.push(page)).await.unwrap();
    let pages: Vec<list::Page> = pages.iter().map(|page| page.deserialized().unwrap()).collect();
    assert!(pages.iter().all(|page| page.entries.len() <= LIST_PAGE_MAX));
    let entries: Vec<_> = pages.into_iter().flat_map(|page| page.entries).collect();
    assert!(entries.iter().all(|entry| entry.kind == Kind::File && entry.size == 4));
    let listed: Vec<_> = entries.into_iter().map(|entry| entry.name.unwrap().to_string()).collect();
    assert_eq!(listed.len(), 1000);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
    let reply: list::Listed = reply.deserialized().unwrap();
    assert_eq!(reply, list::Listed { path: RemotePath::root(), folder: true, count: 1000 });
}

#[tokio::test]
async fn the_listing_of_a_file_is_that_file() {
    let server = TestServer::start().await;
    fs::write(server.path("f"), b"abc").unwrap();
    let session = server.user("name=a rights=list").await;
    let mut items = Vec::new();
    let list = list::Args { path: "f".parse().unwrap() };
    let reply = session.call_items(list::VERB, &RemotePath::root(), &list, |item| items.push(item)).await.unwrap();
    assert!(!reply.deserialized::<list::Listed>().unwrap().folder);
    let [item] = items.as_slice() else { panic!("not one page: {items:?}") };
    let page: list::Page = item.deserialized().unwrap();
    assert_eq!((page.entries.len(), page.entries[0].size), (1, 3));
    assert_eq!(page.entries[0].name, remote("f").name());
}

#[tokio::test]
async fn an_empty_folder_is_listed_and_a_missing_one_is_not() {
    let server = TestServer::start().await;
    let files = server.files("list").await;
    assert_eq!(names(&files, "/").await.unwrap(), [""; 0]);
    assert_eq!(status(names(&files, "/missing").await), Status::NotFound);
}

#[tokio::test]
async fn cd_goes_to_folders_and_never_above_the_root() {
    let server = TestServer::start().await;
    fs::create_dir_all(server.path("a/b")).unwrap();
    fs::write(server.path("a/f"), b"").unwrap();
    let session = server.user("name=a rights=list").await;
    for (cwd, typed, to) in [
        ("/", "..", "/"),
        ("/", "a/b", "/a/b"),
        ("/a/b", "..", "/a"),
        ("/a", "../../../a/./b/", "/a/b"),
        ("/a", "", "/a"),
    ] {
        assert_eq!(go(&session, cwd, typed).await.unwrap(), remote(to), "{typed} from {cwd}");
    }
    assert_eq!(status(go(&session, "/a", "f").await), Status::NotFolder);
    assert_eq!(status(go(&session, "/a", "f/x").await), Status::NotFolder);
    assert_eq!(status(go(&session, "/a", "missing").await), Status::NotFound);
    assert_eq!(status(go(&session, "/a", &"n".repeat(256)).await), Status::BadPath);
}

#[tokio::test]
async fn files_of_every_size_are_uploaded_and_downloaded_as_they_are() {
    let server = TestServer::start().await;
    let files = server.files(ALL).await;
    let eager = EAGER_BODY_MAX as usize;
    for size in [0, 1, eager, eager + 1, 3_000_000] {
        let (name, bytes) = (format!("f{size}"), pattern(size));
        assert_eq!(put(&files, &name, &bytes, NewFile::default()).await.unwrap(), digest(&bytes));
        assert_eq!(fs::read(server.path(&name)).unwrap(), bytes);
        assert_eq!(get(&files, &name).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_upload_that_is_not_eager_is_told_to_go_whatever_its_size() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let mut raw = Raw::request(session.connection(), upld::VERB, upload("f", 5, false)).await;
    let Response::Head(go) = raw.response().await else { panic!("not a head") };
    go.deserialized::<upld::Go>().unwrap();
    raw.bytes(*b"hello").await;
    raw.send.frame(&Trailer { digest: digest(b"hello") }).await.unwrap();
    raw.send.finish();
    let committed: upld::Committed = raw.reply().await;
    assert_eq!(committed, upld::Committed { path: remote("f"), length: 5, digest: digest(b"hello") });
}

#[tokio::test]
async fn a_large_body_may_not_come_unasked() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=write").await;
    let mut raw = Raw::request(session.connection(), upld::VERB, upload("f", EAGER_BODY_MAX + 1, true)).await;
    assert_eq!(raw.refusal().await.status, Status::TooLarge);
    assert!(server.on_disk().is_empty());
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_when_asked() {
    let server = TestServer::start().await;
    let files = server.files("write,delete").await;
    let overwrite = NewFile { overwrite: true, ..NewFile::default() };
    for size in [10, 1_000_000] {
        fs::write(server.path("f"), b"old").unwrap();
        assert_eq!(status(put(&files, "f", &pattern(size), NewFile::default()).await), Status::Exists);
        assert_eq!(fs::read(server.path("f")).unwrap(), b"old");
        put(&files, "f", &pattern(size), overwrite.clone()).await.unwrap();
        assert_eq!(fs::read(server.path("f")).unwrap(), pattern(size));
    }
    assert_eq!(server.on_disk().len(), 1);
}

#[tokio::test]
async fn an_upload_keeps_mode_and_time_and_makes_folders_when_asked() {
    let server = TestServer::start().await;
    let files = server.files(ALL).await;
    assert_eq!(status(put(&files, "a/b/f", b"x", NewFile::default()).await), Status::NotFound);
    let mtime = Timestamp::new(1_234_567_890, 123_456_789);
    put(&files, "a/b/f", b"x", NewFile { parents: true, mode: Some(0o640), mtime, ..NewFile::default() })
        .await
        .unwrap();
    let entry = files.stat(&remote("a/b/f")).await.unwrap();
    assert_eq!((Some(entry.mtime), entry.mode), (mtime, 0o640));
    let info = files.open(&remote("a/b/f")).await.unwrap().info();
    assert_eq!((Some(info.mtime), info.mode, info.size), (mtime, 0o640, 1));
}

#[tokio::test]
async fn nothing_is_uploaded_where_no_file_can_stand() {
    let server = TestServer::start().await;
    fs::create_dir(server.path("folder")).unwrap();
    fs::write(server.path("file"), b"x").unwrap();
    let before = server.on_disk();
    let files = server.files(ALL).await;
    for (path, expected) in [
        ("/", Status::IsFolder),
        ("folder", Status::IsFolder),
        ("file/f", Status::NotFolder),
        (".ftpq-0123456789abcdef0123456789abcdef", Status::NameRefused),
        ("folder/.ftpq-0123456789abcdef0123456789abcdef", Status::NameRefused),
    ] {
        for size in [1, 1_000_000] {
            let overwrite = NewFile { overwrite: true, ..NewFile::default() };
            assert_eq!(status(put(&files, path, &pattern(size), overwrite).await), expected, "{path}");
        }
    }
    assert_eq!(server.on_disk(), before);
}

#[tokio::test]
async fn what_is_no_file_is_not_downloaded() {
    let server = TestServer::start().await;
    fs::create_dir(server.path("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(server.path("socket")).unwrap();
    let files = server.files("read").await;
    assert_eq!(status(get(&files, "missing").await), Status::NotFound);
    assert_eq!(status(get(&files, "folder").await), Status::IsFolder);
    assert_eq!(status(get(&files, "/").await), Status::IsFolder);
    assert_eq!(status(get(&files, "socket").await), Status::NotRegular);
}

#[tokio::test]
async fn a_download_says_first_what_comes_and_last_what_was_sent() {
    let server = TestServer::start().await;
    fs::write(server.path("f"), b"hello").unwrap();
    let session = server.user("name=a rights=read").await;
    let mut raw = Raw::request(session.connection(), dwld::VERB, args([("path", "f".into())])).await;
    let Response::Head(head) = raw.response().await else { panic!("not a head") };
    let head: dwld::File = head.deserialized().unwrap();
    assert_eq!((head.path, head.size), (remote("f"), 5));
    assert_eq!(raw.recv.block(5).await.unwrap(), b"hello".as_slice());
    let trailer: Trailer = raw.recv.frame(PATIENCE).await.unwrap();
    assert_eq!(trailer.digest, digest(b"hello"));
    assert_eq!(raw.reply::<dwld::Sent>().await, dwld::Sent { length: 5, digest: digest(b"hello") });
}

#[tokio::test]
async fn stat_describes_everything_and_follows_nothing() {
    let server = TestServer::start().await;
    fs::create_dir(server.path("folder")).unwrap();
    fs::write(server.path("f"), b"abc").unwrap();
    fs::set_permissions(server.path("f"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("f", server.path("link")).unwrap();
    let session = server.user("name=a rights=list").await;
    let stat = async |path: &str| {
        let args = stat::Args { path: path.parse().unwrap() };
        session.call::<_, stat::Found>(stat::VERB, &RemotePath::root(), &args).await
    };
    let found = stat("folder/../f").await.unwrap();
    assert_eq!((found.path, found.entry.name.clone()), (remote("f"), remote("f").name()));
    assert_eq!((found.entry.kind, found.entry.size, found.entry.mode), (Kind::File, 3, 0o751));
    assert_eq!(stat("folder").await.unwrap().entry.kind, Kind::Folder);
    let link = stat("link").await.unwrap().entry;
    assert_eq!((link.kind, link.target), (Kind::Link, LinkTarget::new("f").ok()));
    let root = stat("/").await.unwrap().entry;
    assert_eq!((root.name, root.kind), (None, Kind::Folder));
    assert_eq!(status(stat("missing").await), Status::NotFound);
    assert_eq!(status(stat("f/x").await), Status::NotFolder);
}

#[tokio::test]
async fn mkdir_makes_one_folder_or_all_that_are_missing() {
    let server = TestServer::start().await;
    fs::write(server.path("f"), b"").unwrap();
    let files = server.files("write").await;
    files.make_folder(&remote("a"), false).await.unwrap();
    assert_eq!(status(files.make_folder(&remote("a"), false).await), Status::Exists);
    assert_eq!(status(files.make_folder(&remote("x/y/z"), false).await), Status::NotFound);
    files.make_folder(&remote("x/y/z"), true).await.unwrap();
    files.make_folder(&remote("x/y/z"), true).await.unwrap();
    assert!(server.path("x/y/z").is_dir());
    assert_eq!(status(files.make_folder(&remote("f"), true).await), Status::NotFolder);
    assert_eq!(status(files.make_folder(&remote("f"), false).await), Status::Exists);
}

#[tokio::test]
async fn rm_removes_what_it_is_told_and_a_full_folder_only_with_all_that_it_holds() {
    let server = TestServer::start().await;
    fs::create_dir_all(server.path("full/deep")).unwrap();
    fs::write(server.path("full/deep/f"), b"").unwrap();
    fs::create_dir(server.path("empty")).unwrap();
    fs::write(server.path("f"), b"").unwrap();
    let session = server.user("name=a rights=delete").await;
    let remove = async |path: &str, recursive| {
        let args = rm::Args { path: path.parse().unwrap(), recursive };
        session.call::<_, rm::Removed>(rm::VERB, &RemotePath::root(), &args).await
    };
    assert_eq!(remove("f", false).await.unwrap(), rm::Removed { path: remote("f"), count: 1 });
    assert_eq!(remove("empty", false).await.unwrap().count, 1);
    assert_eq!(status(remove("full", false).await), Status::NotEmpty);
    assert!(server.path("full/deep/f").exists());
    assert_eq!(remove("full", true).await.unwrap().count, 3);
    assert_eq!(status(remove("full", true).await), Status::NotFound);
    assert_eq!(status(remove("/", true).await), Status::BadPath);
    assert!(server.on_disk().is_empty());
}

#[tokio::test]
async fn mv_renames_moves_into_folders_and_replaces_only_when_asked() {
    let server = TestServer::start().await;
    fs::create_dir_all(server.path("folder/sub")).unwrap();
    fs::write(server.path("f"), b"f").unwrap();
    fs::write(server.path("taken"), b"taken").unwrap();
    let session = server.user("name=a rights=write,delete").await;
    let rename = async |from: &str, to: &str, overwrite| {
        let args = mv::Args { from: from.parse().unwrap(), to: to.parse().unwrap(), overwrite };
        session.call::<_, mv::Moved>(mv::VERB, &RemotePath::root(), &args).await
    };
    assert_eq!(rename("f", "g", false).await.unwrap(), mv::Moved { from: remote("f"), to: remote("g") });
    assert_eq!(status(rename("g", "taken", false).await), Status::Exists);
    assert_eq!(fs::read(server.path("taken")).unwrap(), b"taken");
    assert_eq!(rename("g", "folder", false).await.unwrap().to, remote("folder/g"));
    rename("folder/g", "taken", true).await.unwrap();
    assert_eq!(fs::read(server.path("taken")).unwrap(), b"f");
    assert_eq!(status(rename("missing", "x", false).await), Status::NotFound);
    assert_eq!(status(rename("taken", "missing/x", false).await), Status::NotFound);
    assert_eq!(status(rename("folder", "folder/sub", false).await), Status::BadPath);
    assert_eq!(status(rename("/", "x", false).await), Status::BadPath);
    assert_eq!(status(rename("taken", ".ftpq-0123456789abcdef0123456789abcdef", false).await), Status::NameRefused);
}

#[tokio::test]
async fn link_makes_links_that_stay_inside_and_nothing_else() {
    let server = TestServer::start().await;
    fs::create_dir_all(server.path("alice/a")).unwrap();
    fs::write(server.outside("secret"), b"secret").unwrap();
    let session = server.user("name=alice root=/alice rights=write,delete").await;
    let mtime = Timestamp::new(1_234_567_890, 123_456_789);
    let make = async |path: &str, target: &str, overwrite| {
        let (path, target) = (path.parse().unwrap(), LinkTarget::new(target).unwrap());
        let args = link::Args { path, target, overwrite, accept_same: false, parents: true, mtime };
        session.call::<_, link::Linked>(link::VERB, &RemotePath::root(), &args).await
    };
    assert_eq!(make("b/../a/l", "../f", false).await.unwrap(), link::Linked { path: remote("a/l") });
    let meta = fs::symlink_metadata(server.path("alice/a/l")).unwrap();
    assert_eq!((meta.is_symlink(), meta.mtime(), meta.mtime_nsec()), (true, 1_234_567_890, 123_456_789));
    assert_eq!(fs::read_link(server.path("alice/a/l")).unwrap(), PathBuf::from("../f"));
    make("new/folder/l", "../../a/l", false).await.unwrap();
    // The served folder is wider than what alice sees.
    for (path, target) in [("l", ".."), ("a/l2", "../../secret"), ("l", "/etc/passwd"), ("l", "a/../../../secret")] {
        let refused = make(path, target, true).await.unwrap_err();
        assert_eq!(refused.status(), Status::BadPath, "{path} -> {target}");
        assert!(refused.to_string().contains("the link leads out of the tree"), "{refused}");
    }
    assert_eq!(status(make("a/l", "x", false).await), Status::Exists);
    make("a/l", "x", true).await.unwrap();
    assert_eq!(status(make("a", "x", true).await), Status::IsFolder);
    assert_eq!(status(make("a/l/m", "x", false).await), Status::NotFolder);
    assert_eq!(server.on_disk().len(), 6);
}

#[tokio::test]
async fn attr_sets_mode_and_time_of_folders_alone() {
    let server = TestServer::start().await;
    fs::create_dir(server.path("folder")).unwrap();
    fs::write(server.path("f"), b"").unwrap();
    symlink("folder", server.path("link")).unwrap();
    let session = server.user("name=a rights=write").await;
    let set = async |path: &str| {
        let mtime = Timestamp::new(1_234_567_890, 123_456_789);
        let args = attr::Args { path: path.parse().unwrap(), mode: Some(0o4710), mtime };
        session.call::<_, attr::Set>(attr::VERB, &RemotePath::root(), &args).await
    };
    assert_eq!(set("x/../folder").await.unwrap(), attr::Set { path: remote("folder") });
    let meta = fs::metadata(server.path("folder")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o710, 1_234_567_890, 123_456_789));
    assert_eq!(status(set("f").await), Status::NotFolder);
    assert_eq!(status(set("link").await), Status::NotFolder);
    assert_eq!(status(set("missing").await), Status::NotFound);
    assert_eq!(status(set("/").await), Status::Forbidden);
}

#[tokio::test]
async fn commands_of_one_connection_run_side_by_side() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=list,write").await;
    // An upload that waits for its body holds up nobody.
    let mut slow = Raw::request(session.connection(), upld::VERB, upload("slow", 5, true)).await;
    fs::write(server.path("f"), b"").unwrap();
    for _ in 0..600 {
        assert_eq!(go(&session, "/", "").await.unwrap(), RemotePath::root());
    }
    slow.bytes(*b"hello").await;
    slow.send.frame(&Trailer { digest: digest(b"hello") }).await.unwrap();
    slow.reply::<upld::Committed>().await;
}

#[tokio::test]
async fn a_second_con_is_answered_and_changes_nothing() {
    let server = TestServer::start().await;
    let session = server.user("name=a rights=list").await;
    session.welcome().await.unwrap();
    let failed = Raw::request(session.connection(), con::VERB, con_with(&[99])).await.refusal().await;
    assert_eq!(failed.status, Status::Version);
    go(&session, "/", "").await.unwrap();
    let welcome: con::Welcome = Raw::request(session.connection(), con::VERB, con_with(&[VERSION])).await.reply().await;
    assert_eq!(welcome, *session.welcome().await.unwrap());
}

async fn go(session: &Session, cwd: &str, typed: &str) -> Result<RemotePath, CallError> {
    let args = cd::Args { path: typed.parse().unwrap() };
    session.call::<_, cd::Folder>(cd::VERB, &remote(cwd), &args).await.map(|folder| folder.path)
}

fn upload(path: &str, size: u64, eager: bool) -> upld::Args {
    upld::Args {
        path: path.parse().unwrap(),
        size: Some(size),
        holes: Holes::NONE,
        overwrite: false,
        accept_same: false,
        parents: false,
        eager,
        mode: None,
        mtime: None,
    }
}
