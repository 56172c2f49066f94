//! Files that are not what was said of them.

use ciborium::{Value, cbor};
use ftpq_proto::{Status, limits::CHUNK_MAX};

use super::{
    Evil,
    server::{Asked, BODY, Done, digest_of, file, sent, with},
};

const MIB: u64 = 1 << 20;

#[test]
fn t14_bodies_that_are_not_as_long_as_was_said() {
    Evil::new("bodies that are not as long as was said", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("DWLD", "/short") => {
                    asked.file(1000).await?;
                    asked.raw(BODY).await?;
                    Ok(())
                }
                ("DWLD", "/short-with-trailer") => {
                    asked.file(100).await?;
                    asked.raw(BODY).await?;
                    asked.trailer(BODY).await?;
                    asked.reply(sent(BODY)).await
                }
                ("DWLD", "/long") => {
                    asked.file(BODY.len() as u64).await?;
                    asked.raw(BODY.repeat(1000)).await?;
                    asked.trailer(BODY).await?;
                    asked.reply(sent(BODY)).await
                }
                ("DWLD", "/endless") => {
                    asked.file(BODY.len() as u64).await?;
                    asked.raw(BODY).await?;
                    loop {
                        asked.raw(vec![0; CHUNK_MAX * 2]).await?;
                    }
                }
                ("DWLD", "/reset") => {
                    asked.file(1_000_000).await?;
                    asked.raw(vec![1; 100_000]).await?;
                    asked.send.reset(Status::Other(4_000_000_000));
                    Ok(())
                }
                ("DWLD", "/changed") => {
                    asked.file(1_000_000).await?;
                    asked.send.reset(Status::Changed);
                    Ok(())
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get short")
    .ends(6, ["/short: the server broke off: truncated"])
    .asked("get -f short --to small")
    .ends(6, ["/short: the server broke off: truncated"])
    .asked("get --to - short")
    .ends(6, ["/short: the server broke off: truncated"])
    .prints([])
    .asked("get short-with-trailer")
    .ends(1, ["/short-with-trailer: the server does not follow the protocol"])
    .asked("get long")
    .ends(1, ["/long: the server does not follow the protocol"])
    .asked("get endless")
    .ends(1, ["/endless: the server does not follow the protocol"])
    .asked("get reset")
    .ends(1, ["/reset: the server broke off: status 4000000000"])
    .asked("get changed")
    .ends(1, ["/changed: the server broke off: changed (run it again when it rests)"])
    .asked("get good")
    .ends(0, ["got 1 file"])
    .leaves(["good"])
    .run();
}

#[test]
fn t14_bodies_that_are_not_what_their_digest_says() {
    Evil::new("bodies that are not what their digest says", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("DWLD", "/other" | "/middling") => {
                    let body = vec![3; if asked.path == "/other" { 9 } else { 1_000_000 }];
                    asked.file(body.len() as u64).await?;
                    asked.raw(body).await?;
                    asked.trailer(BODY).await?;
                    asked.reply(sent(BODY)).await
                }
                // The trailer is right, the reply is not: nothing is left to be compared.
                ("DWLD", "/no-digest") => {
                    asked.file(9).await?;
                    asked.raw(BODY).await?;
                    asked.send.frame(&cbor!({ "digest" => Value::Bytes(vec![1; 31]) }).unwrap()).await?;
                    asked.reply(sent(BODY)).await
                }
                ("DWLD", "/refused-at-the-end") => {
                    asked.file(9).await?;
                    asked.raw(BODY).await?;
                    asked.trailer(BODY).await?;
                    asked.refuse(Status::Internal, "this did not go well").await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get other")
    .ends(6, ["./other: the digest does not match"])
    .asked("get -f middling")
    .ends(6, ["./middling: the digest does not match"])
    .asked("get --to - other")
    .ends(6, ["/other: the digest does not match"])
    .prints([])
    .asked("get no-digest")
    .ends(1, ["/no-digest: the server does not follow the protocol"])
    .asked("get refused-at-the-end")
    .ends(1, ["this did not go well"])
    .run();
}

#[test]
fn t14_holes_that_are_none() {
    /// In a file of 100 bytes, and why each is wrong.
    const HOLES: [(&str, &[[u64; 2]]); 6] = [
        ("beyond", &[[90, 20]]),
        ("far", &[[1, u64::MAX]]),
        ("empty", &[[5, 0]]),
        ("overlapping", &[[0, 10], [5, 10]]),
        ("touching", &[[0, 10], [10, 10]]),
        ("unsorted", &[[50, 10], [0, 10]]),
    ];
    let holes = Evil::new("holes that are none", |mut asked| {
        Box::pin(async move {
            let holes = HOLES.iter().find(|(name, _)| asked.path == format!("/{name}"));
            match (asked.verb.as_str(), holes) {
                ("DWLD", Some((_, holes))) => {
                    let holes: Vec<_> = holes.iter().map(|hole| Value::serialized(hole).unwrap()).collect();
                    asked.head(with(file(100), "holes", holes)).await?;
                    asked.raw(vec![1; 100]).await?;
                    asked.trailer(BODY).await?;
                    asked.reply(sent(BODY)).await
                }
                ("DWLD", None) if asked.path == "/many" => {
                    let holes: Vec<_> = (0..2000).map(|at| Value::serialized(&[at * 2, 1]).unwrap()).collect();
                    asked.head(with(file(5000), "holes", holes)).await
                }
                // Nothing but a hole, as it may be.
                ("DWLD", None) if asked.path == "/zeros" => {
                    asked.head(with(file(MIB), "holes", vec![Value::serialized(&[0, MIB]).unwrap()])).await?;
                    asked.trailer(&vec![0; MIB as usize]).await?;
                    asked.reply(sent(BODY)).await
                }
                _ => asked.honestly().await,
            }
        })
    });
    const NONE: &str = "the server does not follow the protocol: malformed message: not the holes of a file";
    let holes =
        holes.asked("get beyond").ends(1, ["/beyond: the server does not follow the protocol: a hole beyond the end"]);
    let holes = holes.asked("get far").ends(1, [NONE]).asked("get empty").ends(1, [NONE]);
    let holes = holes.asked("get overlapping").ends(1, [NONE]).asked("get touching").ends(1, [NONE]);
    let holes = holes.asked("get unsorted").ends(1, [NONE]).asked("get many").ends(1, ["more than 1024 elements"]);
    holes.asked("get zeros").ends(0, ["got 1 file"]).leaves(["zeros"]).run();
}

#[test]
fn t14_sizes_that_nothing_has() {
    Evil::new("sizes that nothing has", |mut asked| {
        Box::pin(async move {
            let size = match (asked.verb.as_str(), asked.path.as_str()) {
                ("DWLD", "/most") => u64::MAX,
                ("DWLD", "/more") => (1 << 44) + 1,
                // All that there may be, and none of it takes room.
                ("DWLD", "/sparse") => 1 << 44,
                ("READ", "/sparse") => {
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.raw(vec![0; 9]).await?;
                    return Ok(());
                }
                // A body comes all the same.
                ("DWLD", "/body") => {
                    asked.file(100 * MIB).await?;
                    loop {
                        asked.raw(vec![0xff; CHUNK_MAX]).await?;
                    }
                }
                _ => return asked.honestly().await,
            };
            asked.head(with(file(size), "sparse", true)).await?;
            asked.reply(cbor!({}).unwrap()).await
        })
    })
    .asked("get most")
    .ends(1, ["/most: larger than 16 TiB"])
    .asked("get more")
    .ends(1, ["/more: larger than 16 TiB"])
    .asked("get --to - most")
    .ends(1, ["/most: too large for a pipe"])
    .prints([])
    .asked("get body")
    .ends(1, ["/body: the server does not follow the protocol: a frame of"])
    .run();
}

#[test]
fn t14_extents_that_are_not_what_was_asked_for() {
    Evil::new("extents that are not what was asked for", |mut asked| {
        Box::pin(async move {
            match asked.verb.as_str() {
                "DWLD" => {
                    asked.head(with(file(20 * MIB), "sparse", true)).await?;
                    asked.reply(cbor!({}).unwrap()).await
                }
                "READ" if asked.path == "/version" => asked.refuse(Status::Changed, "/version: has changed").await,
                "READ" if asked.path == "/short" => {
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.raw(vec![0; 100]).await?;
                    Ok(())
                }
                "READ" if asked.path == "/hole" => {
                    let holes = vec![Value::serialized(&[0, 9 * MIB]).unwrap()];
                    asked.head(cbor!({ "holes" => holes }).unwrap()).await
                }
                // Zeros cost nothing to send. What they are said to be, they are not.
                "READ" => {
                    let length = asked.number("extent").unwrap();
                    let length = length.min(asked.number("size").unwrap() - length * asked.number("index").unwrap());
                    asked.head(cbor!({ "holes" => [[0, length]] }).unwrap()).await?;
                    asked.trailer(BODY).await?;
                    asked
                        .reply(cbor!({ "digest" => Value::serialized(&digest_of(BODY).digest).unwrap() }).unwrap())
                        .await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get version")
    .ends(1, ["/version: has changed (run it again when it rests)"])
    .leaves([".ftpq-KEPT"])
    .asked("get short")
    .ends(6, ["/short: the server broke off: truncated"])
    .leaves([".ftpq-KEPT"])
    .asked("get hole")
    .ends(1, ["/hole: the server does not follow the protocol: a hole beyond the end"])
    .leaves([".ftpq-KEPT"])
    .asked("get digest")
    .ends(6, ["./digest: the digest does not match"])
    .leaves([".ftpq-KEPT"])
    .asked("get --to - digest")
    .ends(6, ["/digest: the digest does not match"])
    .prints([])
    .run();
}

/// A pipe's parts are in memory until they are verified. Zeros take as much room there as anything else.
#[test]
fn t14_zeros_that_fill_memory() {
    Evil::that_lets_wait("zeros that fill memory", |mut asked| {
        Box::pin(async move {
            match asked.verb.as_str() {
                "DWLD" => {
                    asked.head(with(file(1 << 38), "sparse", true)).await?;
                    asked.reply(cbor!({}).unwrap()).await
                }
                "READ" => {
                    let length = asked.number("extent").unwrap();
                    asked.head(cbor!({ "holes" => [[1, length - 1]] }).unwrap()).await?;
                    asked.raw(vec![0]).await?;
                    asked.silence().await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get --to - zeros")
    .ends(5, ["/zeros: the server made no progress in time"])
    .prints([])
    .run();
}

/// What is said in another order than was agreed on.
#[test]
fn t14_answers_out_of_turn() {
    Evil::new("answers out of turn", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("DWLD", "/reply") => asked.reply(sent(BODY)).await,
                ("DWLD", "/item") => asked.item(cbor!({}).unwrap()).await,
                ("DWLD", "/heads") => two_heads(asked).await,
                ("DWLD", "/nothing") => Ok(()),
                ("LIST", "/tree-head") => asked.head(cbor!({}).unwrap()).await,
                ("LIST", "/tree-other") => asked.item(cbor!({ "names" => ["x"] }).unwrap()).await,
                ("STAT", "/item") => asked.item(cbor!({}).unwrap()).await,
                ("STAT", "/head") => asked.head(cbor!({}).unwrap()).await,
                ("STAT", "/other") => asked.reply(cbor!({ "x" => 1 }).unwrap()).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("get reply")
    .ends(1, ["/reply: the server does not follow the protocol: a reply without a body came out of turn"])
    .asked("get item")
    .ends(1, ["/item: the server does not follow the protocol: an item came out of turn"])
    .asked("get heads")
    .ends(1, ["/heads: the server does not follow the protocol"])
    .asked("get nothing")
    .ends(6, ["/nothing: the server broke off: truncated"])
    .asked("ls tree-head")
    .ends(1, ["/tree-head: the server does not follow the protocol: a body came out of turn"])
    .asked("ls tree-other")
    .ends(1, ["/tree-other: the server does not follow the protocol: malformed message: missing field"])
    .asked("get -r tree-head")
    .ends(23, ["/tree-head: the server does not follow the protocol: a body came out of turn", "got 0 files"])
    .leaves(["tree-head/"])
    .asked("stat item")
    .ends(1, ["/item: the server does not follow the protocol: an item came out of turn"])
    .asked("stat head")
    .ends(1, ["/head: the server does not follow the protocol: a body came out of turn"])
    .asked("stat other")
    .ends(1, ["/other: the server does not follow the protocol: malformed message: missing field"])
    .run();
}

async fn two_heads(mut asked: Asked) -> Done {
    asked.file(BODY.len() as u64).await?;
    asked.file(BODY.len() as u64).await?;
    asked.raw(BODY).await?;
    asked.trailer(BODY).await?;
    asked.reply(sent(BODY)).await
}
