//! Listings that are too long, too deep, or too wide.

use ciborium::cbor;

use super::{
    super::Torture,
    Evil,
    server::{Asked, Done, EvilServer, entry, link, page_of, sized},
    terminal,
};
use crate::support::Key;

#[test]
fn t14_folders_without_end() {
    Evil::new("a folder that lists itself", |asked| {
        Box::pin(async move {
            match asked.is("LIST") {
                true => asked.list(vec![entry("tree", "folder")]).await,
                false => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree")
    .ends(23, ["the path is deeper than 256 folders", "got 0 files"])
    .leaves(nested("tree", 256))
    .asked("get -p -r tree")
    .ends(23, ["the path is deeper than 256 folders", "got 0 files"])
    .leaves(nested("tree", 256))
    .asked("ls -R tree")
    .ends(1, ["tree: the path is deeper than 256 folders"])
    .run();

    // Each folder holds two. What is listed ahead counts, too: there is room for that beside the way down.
    Evil::new("a tree without end", |asked| {
        Box::pin(async move {
            match asked.is("LIST") {
                true => asked.list(vec![entry("tree", "folder"), entry("b", "folder")]).await,
                false => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree --max-names 1200")
    .ends(1, ["*: the path is deeper than 256 folders", "more than 1200 names (--max-names allows more)"])
    .leaves(["tree/*"])
    .asked("get -p -L -r tree --max-names 1200")
    .ends(1, ["*: the path is deeper than 256 folders", "more than 1200 names (--max-names allows more)"])
    .leaves(["tree/*"])
    .asked("ls -R tree --max-names 300")
    .ends(1, ["more than 300 names (--max-names allows more)"])
    .run();
}

/// A folder in itself, so often.
fn nested(name: &str, depth: usize) -> Vec<&'static str> {
    (1..=depth).map(|depth| &*Box::leak(format!("{name}/").repeat(depth).into_boxed_str())).collect()
}

#[test]
fn t14_listings_without_end() {
    Evil::new("a listing without end", |asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/tree-files") => endless(asked, 100, "file").await,
                (true, "/tree-others") => endless(asked, 100, "other").await,
                (true, "/tree-same") => same(asked).await,
                (true, "/tree-empty") => empty(asked).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("ls tree-files --max-names 30000")
    .ends(1, ["/tree-files: the server lists more than 30000 names (--max-names allows more)"])
    .asked("ls --json tree-files --max-names 3000")
    .ends(1, ["more than 3000 names"])
    .asked("get -r tree-others --max-names 3000")
    .ends(1, ["*: special file, left out", "more than 3000 names"])
    .leaves(["tree-others/"])
    .asked("get -r tree-same --max-names 30000")
    .ends(1, ["more than 30000 names"])
    .leaves(["tree-same/", "tree-same/file"])
    .asked("ls tree-empty")
    .ends(1, ["/tree-empty: the server does not follow the protocol: an empty page came out of turn"])
    .asked("get -r tree-empty")
    .ends(23, ["an empty page came out of turn", "got 0 files"])
    .leaves(["tree-empty/"])
    .run();
}

/// What a client must keep in memory of a listing is bounded by bytes.
#[test]
fn t14_listings_that_fill_memory() {
    Evil::new("a listing that fills memory", |asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/tree-long") => endless(asked, 250, "folder").await,
                (true, "/tree-links") => long_links(asked).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree-long")
    .ends(1, ["/tree-long: holds more folders than can be kept in mind"])
    .leaves(["tree-long/*"])
    .asked("ls -R tree-long")
    .ends(1, ["/tree-long: holds more folders than can be kept in mind"])
    .asked("ls tree-links")
    .run();
}

/// The shorter the names, the more there can be. That takes its time.
#[test]
fn t14_short_names_that_fill_memory() {
    if !Torture::of("t14").long {
        return;
    }
    Evil::new("short names that fill memory", |asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/tree-short") => endless(asked, 8, "folder").await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -p -r tree-short")
    .ends(1, ["/tree-short: holds more folders than can be kept in mind"])
    .leaves(["tree-short/*"])
    .asked("ls -R tree-short")
    .ends(1, ["/tree-short: holds more folders than can be kept in mind"])
    .run();
}

/// Files that are said to be empty, and then are not: what they hold in memory must be counted all the same.
#[test]
fn t14_sizes_that_are_no_sizes() {
    const LARGE: u64 = 1 << 30;
    Evil::that_lets_wait("files that are larger than was said", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("LIST", "/tree") => {
                    asked.list((0..64).map(|index| sized(format!("{index}"), "file", 0)).collect()).await
                }
                ("LIST", "/tree-sum") => {
                    asked.list((0..9).map(|index| sized(format!("{index}"), "other", u64::MAX)).collect()).await
                }
                ("DWLD", _) => {
                    asked.head(super::server::with(super::server::file(LARGE), "sparse", true)).await?;
                    asked.reply(cbor!({}).unwrap()).await
                }
                ("READ", _) => {
                    asked.head(cbor!({}).unwrap()).await?;
                    // A block, and all of the next but a byte.
                    asked.raw(vec![7; (1 << 19) - 1]).await?;
                    asked.silence().await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get -r tree")
    .ends(5, ["made no progress in time"])
    .leaves(["tree/*"])
    .asked("get -r tree-sum")
    .ends(23, ["*special file", "got 0 files"])
    .leaves(["tree-sum/"])
    .run();
}

/// Whoever presses Tab goes on typing, whatever the server does.
#[test]
fn t14_names_that_a_prompt_offers() {
    let server = EvilServer::start(|asked| {
        Box::pin(async move {
            match (asked.is("LIST"), asked.path.as_str()) {
                (true, "/endless") => {
                    let mut asked = asked;
                    let entries: Vec<_> = (0..100).map(|index| entry(format!("{index}\n"), "file")).collect();
                    let page = super::server::frame(&cbor!({ "item" => { "entries" => entries } }).unwrap());
                    loop {
                        asked.raw(page.clone()).await?;
                    }
                }
                (true, "/silent") => asked.silence().await,
                (true, "/names") => {
                    let names = ["a-\u{202e}gpj.exe", "a-\u{1b}[2J", "a-\u{9b}31m", "a-\u{200b}", "a-good", "a-well"];
                    asked.list(names.iter().map(|name| entry(*name, "file")).collect()).await
                }
                _ => asked.honestly().await,
            }
        })
    });
    let world = super::world_of(&server);
    let mut shell = terminal(&world, &server);
    shell.expect("> ");
    shell.keys("stat /names/").press(Key::Tab).press(Key::Tab);
    shell.expect("a-good");
    shell.expect("a-well");
    shell.expect("> stat /names/a-");
    shell.press(Key::CtrlC).expect("> ");
    for folder in ["endless", "silent"] {
        shell.keys(&format!("stat /{folder}/")).press(Key::Tab).keys("x").press(Key::Enter);
        shell.expect(&format!("path   /{folder}/x"));
        shell.expect("> ");
    }
    let text = shell.text();
    assert!(!text.contains(['\u{202e}', '\u{9b}', '\u{200b}']), "{text:?}");
    assert!(!shell.raw().windows(4).any(|bytes| bytes == b"\x1b[2J"), "{text:?}");
    shell.press(Key::CtrlD);
    assert_eq!(shell.exit_code(), 0);
}

/// New names for ever, `length` bytes each.
async fn endless(mut asked: Asked, length: usize, kind: &str) -> Done {
    let (mut page, places) = page_of(128, length, kind);
    for first in (0..).step_by(places.len()) {
        for (number, place) in places.iter().enumerate() {
            page[*place..place + length].copy_from_slice(format!("{:0>length$}", first + number).as_bytes());
        }
        asked.raw(page.clone()).await?;
    }
    Ok(())
}

/// The same names for ever.
async fn same(mut asked: Asked) -> Done {
    loop {
        asked.item(cbor!({ "entries" => [entry("file", "file"), entry("file", "file")] }).unwrap()).await?;
    }
}

/// No names for ever.
async fn empty(mut asked: Asked) -> Done {
    loop {
        asked.item(cbor!({ "entries" => [] }).unwrap()).await?;
    }
}

/// As many names as a client sorts, each with the longest target.
async fn long_links(mut asked: Asked) -> Done {
    let target = "t".repeat(4095);
    let entries: Vec<_> = (0..14).map(|index| link(&format!("{index}"), &target)).collect();
    let page = super::server::frame(&cbor!({ "item" => { "entries" => entries } }).unwrap());
    for _ in 0..700 {
        asked.raw(page.clone()).await?;
    }
    asked.reply(cbor!({ "path" => "/", "folder" => true, "count" => 0 }).unwrap()).await
}
