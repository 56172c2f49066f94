//! Every verb × every set of rights × every kind of path, compared with a model of what should happen: what
//! the client is told, what it is shown, and what is on disk afterwards.

mod client;
mod disk;
mod model;
mod world;

use std::collections::BTreeSet;

use ftpq_handler::{Right, Rights};
use ftpq_proto::Status;
use tokio::task::JoinSet;

use self::{
    disk::PLANTED,
    model::{Folder, Node, Order, TARGET, Typed, Upload, WAY_OUT},
    world::{Seen, World},
};
use crate::support::TestServer;

const MINE: &[u8] = b"alice's own";
const SECRET: &[u8] = b"nobody's business";

const ORDERS: [Order; 32] = [
    Order::Con,
    Order::List,
    Order::Cd,
    Order::Stat,
    Order::Dwld,
    Order::DwldUpTo,
    Order::Upld { overwrite: false, parents: false },
    Order::Upld { overwrite: true, parents: false },
    Order::Upld { overwrite: false, parents: true },
    Order::UpldSame(MINE),
    // Nobody learns whether this is what stands behind a link.
    Order::UpldSame(SECRET),
    Order::Begin { overwrite: false, parents: false },
    Order::Begin { overwrite: true, parents: false },
    Order::Begin { overwrite: false, parents: true },
    Order::Write(Upload::Unknown),
    Order::Prove(Upload::Unknown),
    Order::Commit(Upload::Unknown),
    Order::Read,
    Order::ReadDigest,
    Order::Mkdir { parents: false },
    Order::Mkdir { parents: true },
    Order::Link { target: TARGET, overwrite: false },
    Order::Link { target: TARGET, overwrite: true },
    Order::Link { target: WAY_OUT, overwrite: true },
    Order::Attr(0o700),
    Order::Attr(0o777),
    Order::MvFrom,
    Order::MvFile { overwrite: false },
    Order::MvFile { overwrite: true },
    Order::MvFolder { overwrite: true },
    Order::Rm { recursive: false },
    Order::Rm { recursive: true },
];

/// Those that go on with what was begun.
const GOING_ON: [Order; 6] = [
    Order::Write(Upload::New),
    Order::Write(Upload::Replacing),
    Order::Prove(Upload::New),
    Order::Prove(Upload::Replacing),
    Order::Commit(Upload::New),
    Order::Commit(Upload::Replacing),
];

/// What the user is shown.
fn tree(outside: &str) -> Folder {
    let file = || Node::File(MINE.into());
    let link = |target: &str| Node::Link(target.into());
    Folder::of([
        ("f", file()),
        ("large", Node::Large(model::BIG)),
        ("d", Node::Folder(Folder::of([("in", file()), ("sub", Node::Folder(Folder::of([])))]))),
        ("empty", Node::Folder(Folder::of([]))),
        ("kept", Node::Folder(Folder::of([(PLANTED, file())]))),
        (PLANTED, file()),
        ("fifo", Node::Fifo),
        ("in-link", link("d")),
        ("in-file-link", link("f")),
        ("out-link", link(outside)),
        ("out-file-link", link(&format!("{outside}/f"))),
        ("bob-link", link("../bob")),
        ("bob-file-link", link("../bob/f")),
        ("up", link("..")),
        ("dangling", link("new")),
        ("loop", link("loop")),
        ("magic", link("/proc/self/cwd")),
    ])
}

/// What nobody may come near: of another user, and of nobody.
fn secret() -> Folder {
    let file = || Node::File(SECRET.into());
    Folder::of([("f", file()), ("d", Node::Folder(Folder::of([("in", file())]))), ("large", Node::Large(model::BIG))])
}

fn paths(outside: &str) -> Vec<Typed> {
    let inside = "f ./f //f f/ d/in d d/ in-link empty kept large missing d/new new missing/new missing/deep/new";
    let around = "d/../f /missing/../f f/../f in-link/../f out-link/../f out-link/../new a/./../new .ftpq-x/../new";
    let root = "/ . .. ../.. /../../ d/.. out-link/..";
    let up = "../f ../../f /../new ../bob ../bob/f /../bob/f ../../outside/f /alice/f /bob/f /etc/passwd";
    let through = "f/below f/below/deeper fifo fifo/below in-file-link in-link/in in-link/sub/new in-link/new";
    let out = "out-link out-link/f out-link/d/in out-link/new out-link/d/new out-file-link out-file-link/below \
               bob-link bob-link/f bob-link/d/in bob-link/new bob-file-link up up/bob/f up/f up/new \
               out-link/large bob-link/large dangling dangling/below loop loop/below magic magic/f";
    let lists = [inside, around, root, up, through, out];
    let words = lists.iter().flat_map(|list| list.split_ascii_whitespace()).map(str::to_owned);
    let reserved = ["", "d/", "kept/"].map(|folder| format!("{folder}{PLANTED}"));
    let more = [format!("{PLANTED}/below"), format!("{PLANTED}/../f"), format!("{outside}/f"), String::new()];
    let raw: [&[u8]; 9] = [
        b"\0",
        b"f\0",
        b"d/\0/in",
        b"\xff\xfe",
        b"d/\xc0\xaf..",
        &[b'n'; 255],
        &[b'n'; 256],
        &b"./".repeat(2048)[..4095],
        &b"./".repeat(2048),
    ];
    let deep = b"n/".repeat(257);
    let from_root = words.chain(reserved).chain(more).map(String::into_bytes);
    let from_root = from_root.chain(raw.into_iter().map(<[u8]>::to_vec)).chain([deep]);
    let from_below = ["in", "../f", "../../f", "../../bob/f", "/d/in", "", "../in-link/in"];
    let from_below = from_below.map(|path| Typed { cwd: "/d", path: path.into() });
    let from_link = ["in", "..", "f"].map(|path| Typed { cwd: "/out-link", path: path.into() });
    from_root.map(|path| Typed { cwd: "/", path }).chain(from_below).chain(from_link).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_verb_with_every_right_on_every_kind_of_path() {
    every_order_was_tried(&all(every_set_of_rights(), Some("/alice"), &ORDERS, false).await, &ORDERS);
    let server = TestServer::start().await;
    let welcome = server.user("name=a rights=list").await.welcome().await.unwrap().clone();
    let verbs: BTreeSet<_> = welcome.verbs.iter().map(|spec| spec.verb.as_str()).collect();
    assert_eq!(ORDERS.iter().map(|order| order.verb()).collect::<BTreeSet<_>>(), verbs);
}

/// With the root of the server, too: the rights are the same, so not with all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_verb_on_every_kind_of_path_for_whoever_sees_all() {
    let one_at_a_time = Right::ALL.into_iter().map(|right| Rights::NONE.with(right));
    let some = one_at_a_time.chain([Rights::NONE, Rights::ALL]);
    every_order_was_tried(&all(some, None, &ORDERS, false).await, &ORDERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_verb_that_goes_on_with_an_upload_with_every_right_on_every_kind_of_path() {
    let seen = all(every_set_of_rights(), Some("/alice"), &GOING_ON, true).await;
    every_order_was_tried(&seen, &GOING_ON);
}

/// Every set of rights on a server of its own, side by side.
async fn all(
    sets: impl Iterator<Item = Rights>,
    root: Option<&'static str>,
    orders: &'static [Order],
    going_on: bool,
) -> Seen {
    let mut tasks = JoinSet::new();
    for rights in sets {
        tasks.spawn(async move { World::new(rights, root, going_on).await.run(orders).await });
    }
    let mut all = Seen::new();
    while let Some(seen) = tasks.join_next().await {
        for (key, count) in seen.unwrap() {
            *all.entry(key).or_default() += count;
        }
    }
    all
}

/// A test in which nothing ever succeeds, or nothing is ever refused, shows nothing.
fn every_order_was_tried(seen: &Seen, orders: &[Order]) {
    for order in orders {
        let times = |outcome| seen.get(&(format!("{order:?}"), outcome)).copied().unwrap_or_default();
        let succeeds = !matches!(order, Order::Link { target: WAY_OUT, .. })
            && !matches!(
                order,
                Order::Write(Upload::Unknown) | Order::Prove(Upload::Unknown) | Order::Commit(Upload::Unknown)
            );
        assert_eq!(times(Ok(())) > 0, succeeds, "{order:?}: {seen:?}");
        if *order != Order::Con {
            for status in [Status::Forbidden, Status::BadPath, Status::BadArguments] {
                assert!(times(Err(status.code())) > 0, "{order:?} was never {status:?}: {seen:?}");
            }
        }
        assert!(times(Err(Status::NotAuthorised.code())) > 0, "{order:?}");
    }
}

fn every_set_of_rights() -> impl Iterator<Item = Rights> {
    (0..1 << Right::ALL.len()).map(|set| {
        let is_in = |at: &usize| set & 1 << at != 0;
        (0..Right::ALL.len()).filter(is_in).map(|at| Right::ALL[at]).fold(Rights::NONE, Rights::with)
    })
}
