//! Handlers that declare less than they do: what their user may not do is not done all the same.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use ciborium::Value;
use ftpq_client::{CallError, Session};
use ftpq_handler::{Context, Exchange, Failure, Handler, Right, Spec};
use ftpq_proto::{Digest, Extents, LinkTarget, RemotePath, Status, limits::EXTENT_MIN};
use ftpq_storage::{Attributes, LargeFile, NewFile, NewLink, Opened, Pinned, Storage, StorageError};

use crate::support::{TestServer, put, remote};

/// Does what it is told to, of which it declares next to nothing.
struct Greedy(Spec);

/// What it can be told, and the right that is missing then.
const ORDERS: [(&str, Right); 17] = [
    ("open", Right::Read),
    ("open_up_to", Right::Read),
    ("open_extent", Right::Read),
    ("extent_digest", Right::Read),
    ("create", Right::Write),
    ("replace", Right::Write),
    ("begin", Right::Write),
    ("staging", Right::Write),
    ("make_folder", Right::Write),
    ("make_folder with parents", Right::Write),
    ("make_link", Right::Write),
    ("set_attributes", Right::Write),
    ("remove", Right::Delete),
    ("remove all", Right::Delete),
    ("rename", Right::Write),
    ("remove below", Right::Delete),
    ("read below", Right::Read),
];

impl Handler for Greedy {
    type Args = String;
    type Reply = Option<Vec<u8>>;

    fn spec(&self) -> Spec {
        self.0.clone()
    }

    async fn handle(&self, cx: &Context, order: String, _: &mut Exchange) -> Result<Option<Vec<u8>>, Failure> {
        Ok(obey(cx.storage(), &order).await?)
    }
}

async fn obey(files: &dyn Storage, order: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let (f, new, folder) = (remote("f"), remote("new"), remote("folder"));
    let owner = Digest::from([7; 32]);
    let extents = Extents::of(2 * EXTENT_MIN).unwrap();
    let pinned = Pinned { path: f.clone(), version: Digest::from([7; 32]).into(), extents };
    match order {
        "stat" => drop(files.stat(&f).await?),
        "list" => drop(files.list(&folder).await?),
        "open" => return files.open(&f).await?.next_block().await.map(|block| block.map(Into::into)),
        "open_up_to" => match files.open_up_to(&f, 100).await? {
            Opened::Whole(mut reader) => return reader.next_block().await.map(|block| block.map(Into::into)),
            Opened::Large(_) => {}
        },
        "open_extent" => drop(files.open_extent(&pinned, 0).await?),
        "extent_digest" => drop(files.extent_digest(&pinned, 0).await?),
        "create" => drop(put(files, "new", b"new", NewFile::default()).await?),
        "replace" => drop(put(files, "f", b"new", NewFile { overwrite: true, ..NewFile::default() }).await?),
        "begin" => {
            let (fresh, sparse, overwrite, parents) = (false, true, false, false);
            let file = LargeFile { extents, owner, fresh, apart: None, sparse, overwrite, same: None, parents };
            drop(files.begin(&new, file).await?);
        }
        "staging" => drop(files.staging(&new, owner, [7; 32].into()).await?),
        "make_folder" => files.make_folder(&new, false).await?,
        "make_folder with parents" => files.make_folder(&remote("new/deep"), true).await?,
        "make_link" => files.make_link(&new, &LinkTarget::new(*b"f").unwrap(), NewLink::default()).await?,
        "set_attributes" => files.set_attributes(&folder, Attributes { mode: Some(0o700), mtime: None }).await?,
        "remove" => drop(files.remove(&f, false).await?),
        "remove all" => drop(files.remove(&folder, true).await?),
        "rename" => files.rename(&f, &new, false).await?,
        "remove below" => drop(files.subtree(&folder).await?.remove(&remote("in"), false).await?),
        "read below" => {
            return files.subtree(&folder).await?.open(&remote("in")).await?.next_block().await.map(|_| None);
        }
        "sweep" => drop(files.sweep(Duration::ZERO).await?),
        other => panic!("no such order: {other}"),
    }
    Ok(None)
}

#[tokio::test]
async fn a_handler_that_declares_too_little_gets_no_further_than_its_user() {
    let server = server().await;
    fs::set_permissions(server.path("folder"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = server.on_disk();
    // This one may list; the other may do nothing at all, and so may its handler.
    let lister = server.user("name=alice rights=list").await;
    let nobody = server.user("name=alice rights=admin").await;
    for (order, lacked) in ORDERS {
        for (session, verb) in [(&lister, "acme.list"), (&lister, "acme.any"), (&nobody, "acme.any")] {
            let error = run(session, verb, order).await.unwrap_err();
            assert_eq!(error.status(), Status::Forbidden, "{verb}: {order}: {error}");
            // Whoever has no right at all cannot even go to a folder.
            let lacked = if order.ends_with("below") && verb == "acme.any" && !may_list(session).await {
                Right::List
            } else {
                lacked
            };
            let text = format!("alice may not {lacked} here: ask the server's owner for the right to {lacked}");
            assert!(error.to_string().ends_with(&text), "{verb}: {order}: {error}");
            assert_eq!(server.on_disk(), before, "{verb}: {order}");
        }
    }
    let mode = fs::metadata(server.path("folder")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    for order in ["stat", "list"] {
        run(&lister, "acme.list", order).await.unwrap();
        assert_eq!(run(&nobody, "acme.any", order).await.unwrap_err().status(), Status::Forbidden);
    }
}

#[tokio::test]
async fn what_is_unfinished_is_removed_by_the_server_alone() {
    let server = server().await;
    let reserved = server.path(&format!(".ftpq-{}", "0".repeat(32)));
    fs::write(&reserved, b"unfinished").unwrap();
    let session = server.user("name=alice rights=list,read,write,delete,admin").await;
    assert_eq!(run(&session, "acme.any", "sweep").await.unwrap_err().status(), Status::Forbidden);
    assert_eq!(fs::read(reserved).unwrap(), b"unfinished");
}

/// The guard is no more than that: who may do it does it, through whatever handler.
#[tokio::test]
async fn with_all_rights_a_handler_does_what_it_likes() {
    let server = server().await;
    let session = server.user("name=alice rights=list,read,write,delete").await;
    for order in ["create", "replace", "remove", "remove below", "remove all", "make_folder"] {
        fs::remove_file(server.path("new")).ok();
        run(&session, "acme.any", order).await.unwrap();
    }
    assert!(!server.path("f").exists() && !server.path("folder").exists() && server.path("new").is_dir());
}

/// `/f` and `/folder/in`.
async fn server() -> TestServer {
    let server = TestServer::start_with(|builder| {
        let list = Greedy(Spec::new("acme.list", Right::List, "do as told"));
        builder.with(list).with(Greedy(Spec::for_everyone("acme.any", "do as told")))
    })
    .await;
    fs::write(server.path("f"), b"contents").unwrap();
    fs::create_dir(server.path("folder")).unwrap();
    fs::write(server.path("folder/in"), b"inside").unwrap();
    server
}

async fn run(session: &Session, verb: &str, order: &str) -> Result<Value, CallError> {
    session.call_items(verb, &RemotePath::root(), &order, drop).await
}

async fn may_list(session: &Session) -> bool {
    session.welcome().await.unwrap().rights.contains(Right::List)
}
