//! Names that a client must neither write nor show as they are.

use ciborium::{Value, cbor};
use ftpq_proto::Status;

use super::{
    Evil,
    server::{Asked, entry, link, sized, with},
};

/// What a name must not be: the whole listing counts for nothing then.
const NO_NAMES: [(&str, &str); 8] = [
    ("tree-up", ".."),
    ("tree-here", "."),
    ("tree-root", "/etc/passwd"),
    ("tree-out", "../outside/canary"),
    ("tree-below", "a/b"),
    ("tree-nothing", ""),
    ("tree-nul", "a\0b"),
    ("tree-text", "\u{1b}[2J/\n"),
];

#[test]
fn t14_names_that_are_none() {
    let no_names = Evil::new("names that are none", |asked| {
        Box::pin(async move {
            let name = NO_NAMES.iter().find(|(path, _)| asked.path == format!("/{path}"));
            match name {
                Some((_, name)) if asked.is("LIST") => {
                    asked.list(vec![entry("file", "file"), entry(*name, "file"), entry("more", "file")]).await
                }
                _ => asked.honestly().await,
            }
        })
    });
    const SAYS: &str = "the server does not follow the protocol: malformed message: ";
    let no_names = no_names
        .asked("get -r tree-up")
        .ends(23, ["/tree-up: the server does not follow the protocol", "got 0 files"])
        .leaves(["tree-up/"]);
    let no_names = no_names.asked("get -r tree-root").ends(23, [SAYS, "got 0 files"]).leaves(["tree-root/"]);
    let no_names = no_names.asked("get -r tree-out").ends(23, [SAYS, "got 0 files"]).leaves(["tree-out/"]);
    let no_names = no_names.asked("get -r tree-text").ends(23, [SAYS, "got 0 files"]).leaves(["tree-text/"]);
    let no_names = no_names.asked("ls tree-here").ends(1, [SAYS]).prints([]);
    let no_names = no_names.asked("ls -R tree-below").ends(1, [SAYS]);
    let no_names = no_names.asked("ls -l tree-nothing").ends(1, [SAYS]).prints([]);
    no_names.asked("ls --json tree-nul").ends(1, [SAYS]).prints([]).run();

    Evil::new("a name in a folder that has none", |asked| {
        Box::pin(async move {
            match asked.is("LIST") {
                true => asked.list(vec![with(entry("x", "file"), "name", Value::Null), entry("file", "file")]).await,
                false => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree")
    .ends(0, ["got 1 file"])
    .leaves(["tree/", "tree/file"])
    .asked("ls tree")
    .prints(["file"])
    .run();
}

#[test]
fn t14_names_of_ftpqs_own() {
    Evil::new("a name that is reserved", |asked| {
        Box::pin(async move {
            let reserved = ".ftpq-0123456789abcdef0123456789abcdef";
            match asked.is("LIST") && asked.path == "/tree" {
                true => asked.list(vec![entry(reserved, "file"), entry("file", "file")]).await,
                false => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree")
    .ends(23, ["reserved", "got 1 file"])
    .leaves(["tree/", "tree/file"])
    .run();
}

/// Everything that a terminal, or whoever reads a line, could be misled by.
const ESCAPES: [&str; 6] = [
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "two\nlines\r",
    "\u{202e}gpj.exe",
    "c1-\u{9b}31m",
    "zero\u{200b}\u{feff}",
    "\u{2028}\u{7f}",
];

#[test]
fn t14_names_that_drive_a_terminal() {
    Evil::new("names that drive a terminal", |asked| {
        Box::pin(async move {
            match asked.verb.as_str() {
                "LIST" if asked.path == "/tree" => {
                    let mut entries: Vec<_> = ESCAPES.iter().map(|name| entry(*name, "other")).collect();
                    entries.push(entry(Value::Bytes(b"\xff\x9b\x1b".to_vec()), "other"));
                    entries.extend(ESCAPES.iter().zip(0..).map(|(text, index)| link(&format!("link-{index}"), text)));
                    asked.list(entries).await
                }
                "STAT" if asked.path == "/link" => {
                    let mut asked = asked;
                    let entry = link("link", ESCAPES[0]);
                    asked.reply(cbor!({ "path" => "/", "entry" => entry }).unwrap()).await
                }
                "DWLD" => {
                    let mut asked = asked;
                    asked.refuse(Status::NotFound, &format!("{}: gone", ESCAPES.concat())).await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("ls tree")
    .asked("ls -a -l tree")
    .asked("ls -R tree")
    .asked("ls --json tree")
    .asked("stat link")
    .prints([
        "path   /link",
        "kind   link",
        "size   0 bytes",
        "mtime  2023-11-14 22:13",
        "mode   0755",
        "target \\u{1b}[2J\\u{1b}]0;x\\u{7}",
    ])
    .asked("stat --json link")
    .asked("get file")
    .ends(3, ["gone"])
    .asked("get --to - file")
    .ends(3, ["gone"])
    .asked("get -r tree")
    .ends(
        23,
        [
            "\\u{1b}[2J\\u{1b}]0;x\\u{7}: special file, left out",
            "two\\nlines\\r: special",
            "\\u{202e}gpj.exe: special",
            "c1-\\u{9b}31m: special",
            "zero\\u{200b}\\u{feff}: special",
            "\\u{2028}\\u{7f}: special",
            "\\xff\\x9b\\u{1b}: special",
            "got 0 files",
        ],
    )
    .leaves([
        "tree/",
        "tree/link-0 -> \u{1b}[2J\u{1b}]0;x\u{7}",
        "tree/link-1 -> two\nlines\r",
        "tree/link-2 -> \u{202e}gpj.exe",
        "tree/link-3 -> c1-\u{9b}31m",
        "tree/link-4 -> zero\u{200b}\u{feff}",
        "tree/link-5 -> \u{2028}\u{7f}",
    ])
    .run();
}

/// scp's CVE-2019-6111 and rsync's CVE-2024-12087: names that nobody asked for, and a link first, then files "in" it.
#[test]
fn t14_links_to_write_through() {
    Evil::new("a link, and a folder of the same name", |asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/tree-out") => asked.list(vec![link("a", "../../outside"), entry("a", "folder")]).await,
                (true, "/tree-absolute") => asked.list(vec![link("a", "/etc"), entry("file", "file")]).await,
                (true, "/tree-up") => asked.list(vec![link("a", "b/../../outside"), entry("file", "file")]).await,
                (true, "/tree-late") => asked.list(vec![entry("a", "folder"), link("a", "..")]).await,
                (true, "/tree-in") => {
                    asked.list(vec![link("a", "b"), entry("a", "folder"), entry("b", "folder")]).await
                }
                (true, path) if path.ends_with("/a") => asked.list(vec![entry("canary", "file")]).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -f -r tree-out")
    .ends(23, ["/tree-out/a: a link that leads out of the tree, left out", "got 0 files"])
    .leaves(["tree-out/"])
    .asked("get -f -r tree-absolute")
    .ends(23, ["/tree-absolute/a: a link that leads out of the tree, left out", "got 1 file"])
    .leaves(["tree-absolute/", "tree-absolute/file"])
    .asked("get -f -r tree-up")
    .ends(23, ["/tree-up/a: a link that leads out of the tree, left out", "got 1 file"])
    .leaves(["tree-up/", "tree-up/file"])
    .asked("get -f -r tree-late")
    .ends(0, ["got 1 file"])
    .leaves(["tree-late/", "tree-late/a/", "tree-late/a/canary"])
    .asked("get -f -r tree-in")
    .ends(0, ["got 0 files"])
    .leaves(["tree-in/", "tree-in/b/", "tree-in/a -> b"])
    .run();

    // The link is there already, and is one that may be there.
    Evil::new("a link in one go, a folder of the same name in the next", |asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/1/tree") => {
                    asked.list(vec![link("a", "b"), link("file", "b/file"), entry("b", "folder")]).await
                }
                (true, "/2/tree") => asked.list(vec![entry("a", "folder"), entry("file", "file")]).await,
                (true, "/2/tree/a") => asked.list(vec![entry("through", "file"), link("link", "file")]).await,
                _ => asked.honestly().await,
            }
        })
    })
    .typed("get -r /1/tree\nget -f -r /2/tree")
    .ends(
        23,
        ["got 0 files", "./tree/a: not a folder", "./tree/a/through: not a", "./tree/a/link: not a", "got 1 file"],
    )
    .leaves(["tree/", "tree/b/", "tree/a -> b", "tree/file"])
    .run();
}

#[test]
fn t14_links_without_end() {
    Evil::new("links without end", |asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("LIST", "/tree") => {
                    let links = [link("self", "self"), link("chain", "x"), link("out", "../../.."), link("up", "..")];
                    asked.list(links.to_vec()).await
                }
                ("STAT", "/tree/self") => found(asked, link("self", "self")).await,
                // Every name is a link to the next.
                ("STAT", path) if path.contains("/x") => {
                    let next = format!("{}x", path.rsplit('/').next().unwrap());
                    found(asked, link("x", &next)).await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -r -L tree")
    .ends(
        23,
        [
            "/tree/self: a loop of links, left out",
            "/tree/chain: a loop of links, left out",
            "/tree/out: a link that leads out of the tree, left out",
            "got 0 files",
        ],
    )
    .leaves(["tree/", "tree/up/"])
    .asked("get -L x")
    .ends(1, ["/x: a loop of links"])
    .run();
}

async fn found(mut asked: Asked, entry: Value) -> super::server::Done {
    asked.reply(cbor!({ "path" => "/", "entry" => entry }).unwrap()).await
}

#[test]
fn t14_names_twice() {
    Evil::new("names that come twice, and names that differ only in case", |mut asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/tree") => {
                    let first = vec![entry("a", "file"), entry("a", "file"), entry("b", "folder"), entry("b", "file")];
                    asked.item(cbor!({ "entries" => first }).unwrap()).await?;
                    asked.list(vec![entry("a", "file"), entry("A", "file"), entry("b", "folder")]).await
                }
                (true, "/tree/b") => asked.list(vec![entry("file", "file")]).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree")
    .ends(0, ["got 3 files"])
    .leaves(["tree/", "tree/a", "tree/A", "tree/b/", "tree/b/file"])
    .asked("ls tree")
    .prints(["A", "a", "a", "a", "b/", "b", "b/"])
    .run();
}

/// What is listed as one thing turns out to be another.
#[test]
fn t14_kinds_that_are_others() {
    Evil::new("kinds that are others", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("LIST", "/tree") => asked.list(vec![entry("file", "file"), entry("folder", "folder")]).await,
                ("LIST", "/tree/folder") => asked.refuse(Status::NotFolder, "/tree/folder: not a folder").await,
                ("DWLD", "/tree/file") => asked.refuse(Status::IsFolder, "/tree/file: is a folder").await,
                // What is asked for as a folder lists itself, as files do.
                ("LIST", "/tree-file") => asked.list(vec![entry("tree-file", "file")]).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree")
    .ends(23, ["/tree/folder: not a folder", "/tree/file: is a folder", "got 0 files"])
    .leaves(["tree/", "tree/folder/"])
    .asked("get -r tree-file")
    .ends(0, ["got 1 file"])
    .leaves(["tree-file/", "tree-file/tree-file"])
    .run();
}

/// Set-user-ID, times that no file can have, folders that their owner may not enter.
#[test]
fn t14_modes_and_times_of_its_own() {
    Evil::new("modes and times of its own", |mut asked| {
        Box::pin(async move {
            let time = |secs: i64, nanos: u32| cbor!({ "secs" => secs, "nanos" => nanos }).unwrap();
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("LIST", "/tree") => {
                    let closed = with(entry("closed", "folder"), "mode", 0);
                    let root = with(entry("root", "file"), "mode", 0o7777);
                    let early = with(entry("early", "folder"), "mtime", time(i64::MIN, 0));
                    asked.list(vec![closed, root, with(early, "mode", u32::MAX)]).await
                }
                ("LIST", "/tree/closed" | "/tree/early") => asked.list(vec![entry("in", "file")]).await,
                ("LIST", "/tree-late") => {
                    let late = with(entry("late", "file"), "mtime", time(i64::MAX, 999_999_999));
                    asked.list(vec![with(late, "mode", u32::MAX), sized("huge", "file", u64::MAX)]).await
                }
                ("LIST", "/tree-nanos") => {
                    asked.list(vec![with(entry("late", "file"), "mtime", time(0, 1_000_000_000))]).await
                }
                ("DWLD", path) => {
                    let secs = if path.ends_with("root") { i64::MAX } else { i64::MIN };
                    let head = with(super::server::file(9), "mode", 0o7777);
                    asked.head(with(head, "mtime", time(secs, 0))).await?;
                    asked.raw(super::server::BODY).await?;
                    asked.trailer(super::server::BODY).await?;
                    asked.reply(super::server::sent(super::server::BODY)).await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -p -r tree")
    .ends(0, ["got 3 files"])
    .leaves(["tree/", "tree/closed/", "tree/closed/in", "tree/early/", "tree/early/in", "tree/root"])
    .asked("get -p root")
    .ends(0, ["got 1 file"])
    .leaves(["root"])
    .asked("ls -l tree-late")
    .asked("ls --json tree-late")
    .asked("ls -l tree-nanos")
    .ends(1, ["malformed message: nanoseconds of a second or more"])
    .run();
}
