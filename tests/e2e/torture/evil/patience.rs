//! Servers that let a client wait. It must end by itself; how soon, its own options say.

use std::time::Duration;

use ciborium::cbor;
use ftpq_proto::Status;

use super::{
    Evil,
    server::{entry, file, frame, welcome},
};

#[test]
fn t14_silence() {
    Evil::that_lets_wait("no answer to CON", |asked| {
        Box::pin(async move {
            match asked.is("CON") {
                true => asked.silence().await,
                false => asked.honestly().await,
            }
        })
    })
    .asked("con")
    .ends(5, ["the server did not answer and was given up (try again)"])
    // The rest is answered all the same, before anybody misses CON.
    .asked("get file --timeout 30")
    .ends(0, ["got 1 file"])
    .leaves(["file"])
    .run();

    Evil::that_lets_wait("no answer to anything", |asked| Box::pin(async move { asked.silence().await }))
        .asked("con")
        .ends(5, ["the server did not answer and was given up (try again)"])
        .asked("ls")
        .ends(5, ["the server did not answer and was given up (try again)"])
        .asked("get -r tree")
        .ends(5, ["the server did not answer and was given up (try again)"])
        .asked("put small --retry-for 5")
        .ends(5, ["connecting again", "the server did not answer and was given up (try again)"])
        .run();
}

#[test]
fn t14_silence_after_the_welcome() {
    Evil::that_lets_wait("no answer to a command", |asked| {
        Box::pin(async move {
            match (asked.is("CON"), asked.path.as_str()) {
                (true, _) | (_, "/tree" | "/") if !asked.is("LIST") => asked.honestly().await,
                _ => asked.silence().await,
            }
        })
    })
    .asked("ls")
    .ends(5, ["/: the server made no progress in time"])
    .asked("stat file")
    .ends(5, ["/file: the server made no progress in time"])
    .asked("get file")
    .ends(5, ["/file: the server made no progress in time"])
    .asked("get -r tree")
    .ends(5, ["/tree: the server made no progress in time"])
    .leaves(["tree/"])
    .asked("put middling")
    .ends(5, ["the server made no progress in time"])
    .run();
}

#[test]
fn t14_trickles() {
    Evil::that_lets_wait("a trickle, and then nothing", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("LIST", "/tree") => {
                    for name in ["a", "b"] {
                        asked.item(cbor!({ "entries" => [entry(name, "file")] }).unwrap()).await?;
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                    asked.silence().await
                }
                ("DWLD", "/frame") => {
                    for byte in [0, 0, 0] {
                        asked.raw(vec![byte]).await?;
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                    asked.silence().await
                }
                ("DWLD", "/body") => {
                    asked.head(file(1_000_000)).await?;
                    asked.raw(vec![1; 300_000]).await?;
                    asked.silence().await
                }
                ("DWLD", "/trailer") => {
                    asked.head(file(9)).await?;
                    asked.raw(vec![1; 9]).await?;
                    asked.silence().await
                }
                ("UPLD", "/stopped") => {
                    asked.recv.stop(Status::NoSpace);
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.silence().await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("ls tree")
    .ends(5, ["/tree: the server made no progress in time"])
    .asked("get -r tree")
    .ends(5, ["/tree: the server made no progress in time"])
    .leaves(["tree/", "tree/a", "tree/b"])
    .asked("get frame")
    .ends(5, ["/frame: the server made no progress in time"])
    .asked("get body")
    .ends(5, ["/body: the server made no progress in time"])
    .asked("get body --retry-for 5")
    .ends(
        5,
        ["/body: the server made no progress in time: connecting again", "/body: the server made no progress in time"],
    )
    .asked("get trailer")
    .ends(5, ["/trailer: the server made no progress in time"])
    .asked("put middling --to /stopped")
    .ends(5, ["/stopped: the server made no progress in time"])
    .run();
}

/// This server grants two streams and 64 KiB, and never more.
#[test]
fn t14_no_room_for_more() {
    Evil::that_lets_wait("a window that is never opened", |mut asked| {
        Box::pin(async move {
            match asked.verb.as_str() {
                "CON" => asked.reply(welcome()).await,
                "UPLD" => {
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.silence().await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("put middling --to /new")
    .ends(5, ["/new: the server made no progress in time"])
    .run();

    Evil::that_lets_wait("streams that are never over", |mut asked| {
        Box::pin(async move {
            let answer = match asked.verb.as_str() {
                "CON" => welcome(),
                "STAT" => cbor!({ "path" => "/", "entry" => entry("tree", "folder") }).unwrap(),
                _ => return asked.honestly().await,
            };
            asked.raw(frame(&cbor!({ "reply" => { "ok" => answer } }).unwrap())).await?;
            asked.silence().await
        })
    })
    .asked("get -r tree --timeout 10")
    .ends(5, ["/tree: the server made no progress in time"])
    .leaves(["tree/"])
    .run();
}

/// A server that is gone before anything is done, whenever it is come back to.
#[test]
fn t14_connections_that_do_not_last() {
    Evil::that_lets_wait("connections that do not last", |asked| {
        Box::pin(async move {
            let status = match asked.path.as_str() {
                "/unavailable" => Some(Status::Unavailable),
                "/refused" => Some(Status::NotAuthorised),
                "/unknown" => Some(Status::Other(u32::MAX)),
                "/goodbye" => None,
                _ => return asked.honestly().await,
            };
            asked.connection.close(status, "");
            Ok(())
        })
    })
    .asked("get unavailable")
    .ends(5, ["closed by the other side: unavailable (try again)"])
    .asked("get unavailable --retry-for 3")
    .ends(
        5,
        [
            "closed by the other side: unavailable: connecting again",
            "closed by the other side: unavailable (try again)",
        ],
    )
    .asked("get goodbye --retry-for 3")
    // Its last word may get lost. What it is asked then, it answers as if it had been restarted.
    .ends(5, [": connecting again", "*: connecting again", " (try again)"])
    .asked("get refused --retry-for 3")
    .ends(4, ["closed by the other side: not-authorised"])
    .asked("get unknown --retry-for 3")
    .ends(1, ["closed by the other side: status 4294967295"])
    .run();
}
