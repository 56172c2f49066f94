//! Uploads that are not taken as they were sent. Whatever the server says, the client must not believe that a file
//! is there if it cannot be.

use ciborium::{Value, cbor};
use ftpq_proto::{Status, limits::HELD_PAGE_MAX};

use super::{
    Evil,
    server::{committed, digest_of, with},
};

#[test]
fn t14_uploads_that_became_something_else() {
    Evil::new("uploads that became something else", |mut asked| {
        Box::pin(async move {
            let other = Value::serialized(&digest_of(b"other").digest).unwrap();
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("UPLD", "/other") => {
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.take(1_000_000).await;
                    asked.reply(committed(1_000_000, other)).await
                }
                ("UPLD", "/small") => {
                    let digest = asked.take(1000).await;
                    asked.reply(committed(999, digest)).await
                }
                // Before anything was sent.
                ("UPLD", "/at-once") => asked.reply(committed(1_000_000, other)).await,
                ("UPLD", "/twice") => {
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.take(1_000_000).await;
                    Ok(())
                }
                ("UPLD", "/item") => asked.item(cbor!({}).unwrap()).await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("put middling --to /other")
    .ends(6, ["/other: the digest does not match"])
    .asked("put small")
    .ends(6, ["/small: 999 bytes instead of the announced 1000"])
    .asked("put middling --to /at-once")
    .ends(1, ["/at-once: the server does not follow the protocol: a reply without a body came out of turn"])
    .asked("put middling --to /twice")
    .ends(1, ["/twice: the server does not follow the protocol: a body came out of turn"])
    .asked("put middling --to /item")
    .ends(1, ["/item: the server does not follow the protocol: an item came out of turn"])
    .asked("put -r sent --to /tree/")
    .ends(23, ["this server does not know that", "put 1 file"])
    .asked("put middling")
    .ends(0, ["put 1 file"])
    .run();
}

#[test]
fn t14_uploads_that_nobody_wants() {
    Evil::new("uploads that nobody wants", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("UPLD", "/stopped") => {
                    asked.head(cbor!({}).unwrap()).await?;
                    asked.recv.stop(Status::Other(777));
                    Ok(())
                }
                ("UPLD", "/reset") => {
                    asked.send.reset(Status::Other(0));
                    Ok(())
                }
                ("UPLD", "/unknown") => asked.refuse(Status::Other(54_321), "no, \u{1b}[31mfor no reason").await,
                ("UPLD", "/class") => asked.refuse(Status::Other(299), "no").await,
                ("UPLD", "/later") => asked.refuse(Status::Unavailable, "later").await,
                ("UPLD", "/again") => asked.refuse(Status::NoUpload, "again").await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("put middling --to /stopped")
    .ends(1, ["the server gave up"])
    .asked("put middling --to /reset")
    .ends(1, ["/reset: the server broke off: status 0"])
    .asked("put middling --to /unknown")
    .ends(1, ["no, \\u{1b}[31mfor no reason"])
    .asked("put middling --to /class")
    .ends(4, ["no"])
    .asked("put middling --to /later")
    .ends(5, ["later (try again)"])
    .asked("put middling --to /later --retry-for 3")
    .ends(5, ["later: connecting again", "later (try again)"])
    .asked("put middling --to /again --retry-for 3")
    .ends(5, ["again: connecting again", "again"])
    .run();
}

#[test]
fn t14_extents_that_nobody_sent() {
    Evil::new("extents that nobody sent", |mut asked| {
        Box::pin(async move {
            let held = |index: u32| cbor!({ "index" => index }).unwrap();
            let begun = cbor!({ "upload" => Value::Bytes(vec![7; 32]) }).unwrap();
            let other = Value::serialized(&digest_of(b"other").digest).unwrap();
            match (asked.verb.as_str(), asked.path.as_str()) {
                // Of three.
                ("BEGIN", "/more") => {
                    for index in 0.. {
                        let page: Vec<_> = (0..HELD_PAGE_MAX as u32).map(|more| held(index + more)).collect();
                        asked.item(cbor!({ "extents" => page }).unwrap()).await?;
                    }
                    Ok(())
                }
                ("BEGIN", "/empty") => loop {
                    asked.item(cbor!({ "extents" => [] }).unwrap()).await?;
                },
                ("BEGIN", "/far") => {
                    asked.item(cbor!({ "extents" => [held(3), held(u32::MAX), held(9)] }).unwrap()).await?;
                    asked.honestly().await
                }
                // With digests that would be those of something else.
                ("BEGIN", "/seen") => {
                    let seen: Vec<_> = (0..3).map(|index| with(held(index), "digest", other.clone())).collect();
                    asked.item(cbor!({ "extents" => seen }).unwrap()).await?;
                    asked.honestly().await
                }
                ("BEGIN", "/there") => asked.reply(cbor!({}).unwrap()).await,
                ("BEGIN", "/head") => {
                    asked.begin();
                    asked.head(begun.clone()).await?;
                    asked.head(begun).await?;
                    asked.take(8 << 20).await;
                    Ok(())
                }
                // The first extent, which has come with it.
                ("BEGIN", "/first") => {
                    asked.begin();
                    asked.head(begun.clone()).await?;
                    asked.take(8 << 20).await;
                    asked.reply(with(begun, "written", other)).await
                }
                ("BEGIN", "/unwritten") => {
                    asked.begin();
                    asked.head(begun.clone()).await?;
                    asked.take(8 << 20).await;
                    asked.reply(begun).await
                }
                ("WRITE", "/written") => {
                    asked.take_extent().await;
                    asked.reply(cbor!({ "digest" => other }).unwrap()).await
                }
                // It may come before the extents that are wrong were answered.
                ("COMMIT", "/head" | "/first" | "/unwritten" | "/written") => asked.silence().await,
                ("COMMIT", "/committed") => asked.reply(committed(20 << 20, other)).await,
                ("COMMIT", "/shorter") => {
                    let digest = asked.digest();
                    asked.reply(committed(19 << 20, digest)).await
                }
                ("COMMIT", "/again") => asked.refuse(Status::NoUpload, "again").await,
                _ => asked.honestly().await,
            }
        })
    })
    .asked("put large --to /more")
    .ends(1, ["/more: the server does not follow the protocol: an extent that there is not came out of turn"])
    .asked("put large --to /empty")
    .ends(1, ["/empty: the server does not follow the protocol: an empty page came out of turn"])
    .asked("put large --to /far")
    .ends(0, ["put 1 file"])
    .asked("put large --to /seen")
    .ends(0, ["put 1 file"])
    .asked("put large --to /there")
    .ends(1, ["/there: the server does not follow the protocol: a file that is there already came out of turn"])
    .asked("put large --to /head")
    .ends(1, ["/head: the server does not follow the protocol: a body came out of turn"])
    .asked("put full --to /head")
    .ends(1, ["/head: the server does not follow the protocol: a body came out of turn"])
    .asked("put full --to /first")
    .ends(6, ["/first: the digest does not match"])
    .asked("put full --to /unwritten")
    .ends(1, ["/unwritten: the server does not follow the protocol: a reply without a digest came out of turn"])
    .asked("put large --to /written")
    .ends(6, ["/written: the digest does not match"])
    .asked("put large --to /committed")
    .ends(6, ["/committed: the digest does not match"])
    .asked("put large --to /shorter")
    .ends(6, ["/shorter: 19922944 bytes instead of the announced 20971520"])
    .asked("put large --to /again --retry-for 3")
    .ends(5, ["again: connecting again", "again"])
    .run();
}
