//! Frames that are none, and words that were chosen for whoever reads them.

use ciborium::{Value, cbor};
use ftpq_proto::{
    Status,
    limits::{FRAME_MAX, TEXT_MAX},
};

use super::{
    Evil,
    server::{BODY, entry, frame, welcome, with},
};

/// All that could be mistaken for something else, in one text.
const EVIL: &str = "\u{1b}[31m\u{9b}2J\u{202e}\u{200b}\u{7}two\nftpq: lines\r";
const ESCAPED: &str = "\\u{1b}[31m\\u{9b}2J\\u{202e}\\u{200b}\\u{7}two\\nftpq: lines\\r";

#[test]
fn t14_frames_that_are_none() {
    const FRAMES: [(&str, &[u8]); 7] = [
        ("large", b"\xff\xff\xff\xff"),
        ("larger", b"\x00\x01\x00\x01"),
        ("nonsense", b"\x00\x00\x00\x04\xff\xff\xff\xff"),
        ("trailing", b"\x00\x00\x00\x02\x00\x00"),
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("count", b"\x00\x00\x00\x05\x9a\xff\xff\xff\xff"),
        ("bytes", b"\x00\x00\x00\x09\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ];
    let frames = Evil::new("frames that are none", |mut asked| {
        Box::pin(async move {
            let name = asked.path.trim_start_matches('/').to_owned();
            match (asked.verb.as_str(), FRAMES.iter().find(|(frame, _)| *frame == name)) {
                ("CON", _) => asked.honestly().await,
                (_, Some((_, bytes))) => {
                    asked.raw(*bytes).await?;
                    asked.raw(vec![0; FRAME_MAX * 2]).await
                }
                (_, None) if name == "deep" => {
                    let deep = [&[0xa1, 0x64][..], b"item", &[0x81; 40_000], &[0]].concat();
                    asked.raw([&(deep.len() as u32).to_be_bytes()[..], &deep].concat()).await
                }
                // A word that is none, where one of a few is expected.
                (_, None) if name == "word" => {
                    let long = EVIL.repeat(50);
                    asked.raw(frame(&cbor!({ long => 1 }).unwrap())).await
                }
                ("LIST", None) if name == "kind" => asked.list(vec![entry("x", EVIL)]).await,
                ("STAT", None) if name == "status" => {
                    let failed = cbor!({ "status" => EVIL, "message" => "x" }).unwrap();
                    asked.raw(frame(&cbor!({ "reply" => { "error" => failed } }).unwrap())).await
                }
                ("STAT", None) if name == "missing" => {
                    asked.raw(frame(&cbor!({ "reply" => { "error" => { "status" => 1 } } }).unwrap())).await
                }
                ("STAT", None) if name == "both" => {
                    asked.raw(frame(&cbor!({ "item" => 1, "head" => 2 }).unwrap())).await
                }
                _ => asked.honestly().await,
            }
        })
    });
    const NOT: &str = "the server does not follow the protocol: ";
    let mut frames = frames;
    for asked in ["stat large", "stat larger", "stat text", "get large", "ls larger", "put small --to /text"] {
        frames = frames.asked(asked).ends(1, ["the server does not follow the protocol: a frame of"]);
    }
    for asked in ["stat nonsense", "stat trailing", "stat count", "stat bytes", "ls count", "get bytes", "stat status"]
    {
        frames = frames.asked(asked).ends(1, [NOT]);
    }
    frames = frames.asked("stat deep").ends(1, ["nested too deeply"]).asked("get deep").ends(1, ["nested too deeply"]);
    frames = frames.asked("stat word").ends(1, [ESCAPED]).asked("get word").ends(1, [ESCAPED]);
    frames = frames.asked("get -r word").ends(1, [ESCAPED]).asked("put small --to /word").ends(1, [ESCAPED]);
    frames = frames.asked("ls kind").ends(1, [ESCAPED]).asked("ls -R kind").ends(1, [ESCAPED]);
    frames.asked("stat missing").ends(1, [NOT]).asked("stat both").ends(1, [NOT]).run();
}

#[test]
fn t14_errors_that_drive_a_terminal() {
    Evil::new("errors that drive a terminal", |mut asked| {
        Box::pin(async move {
            match (asked.verb.as_str(), asked.path.as_str()) {
                ("CON", _) => asked.honestly().await,
                (_, "/long") => asked.refuse(Status::Internal, &"\u{202e}".repeat(TEXT_MAX / 3)).await,
                (_, "/too-long") => asked.refuse(Status::Internal, &"x".repeat(TEXT_MAX + 1)).await,
                (_, "/tree") if asked.is("STAT") => asked.honestly().await,
                (_, "/good") => asked.honestly().await,
                (_, "/closed") => {
                    asked.connection.close(Some(Status::Internal), &EVIL.repeat(3000));
                    Ok(())
                }
                (_, "/goodbye") => {
                    asked.connection.close(None, EVIL);
                    Ok(())
                }
                _ => asked.refuse(Status::Internal, EVIL).await,
            }
        })
    })
    .asked("stat x")
    .ends(1, [ESCAPED])
    .asked("ls x")
    .ends(1, [ESCAPED])
    .asked("cd x")
    .ends(1, [ESCAPED])
    .asked("get x")
    .ends(1, [ESCAPED])
    .asked("get --to - x")
    .ends(1, [ESCAPED])
    .asked("get -r tree")
    .ends(23, [ESCAPED, "got 0 files"])
    .leaves(["tree/"])
    .asked("put small")
    .ends(1, [ESCAPED])
    .asked("put -r sent --to /x")
    .ends(1, [ESCAPED])
    .asked("mkdir x")
    .ends(1, [ESCAPED])
    .asked("rm x")
    .ends(1, [ESCAPED])
    .asked("mv x y")
    .ends(1, [ESCAPED])
    .asked("call x.y")
    .ends(1, [ESCAPED])
    .asked("get x good y")
    .ends(23, [ESCAPED, ESCAPED, "got 1 file"])
    .leaves(["good"])
    .asked("stat long")
    .ends(1, ["\\u{202e}\\u{202e}"])
    .asked("stat too-long")
    .ends(1, ["text too long"])
    .asked("stat closed")
    .ends(1, [ESCAPED])
    .asked("get closed")
    .ends(1, [ESCAPED])
    .asked("stat goodbye")
    .ends(5, ["the connection was closed"])
    .asked("get goodbye")
    .ends(5, ["the connection was closed"])
    .typed("-stat x\n-ls x\n-get x\nstat good")
    .ends(0, [ESCAPED, ESCAPED, ESCAPED])
    .run();
}

#[test]
fn t14_a_welcome_to_be_wary_of() {
    Evil::new("a welcome to be wary of", |mut asked| {
        Box::pin(async move {
            match asked.is("CON") {
                true => {
                    asked.connection.settle(ftpq_transport::tuning::Windows::FULL);
                    let verb = cbor!({ "verb" => EVIL, "summary" => EVIL, "right" => EVIL, "repeatable" => false, "priority" => 0 });
                    let mut evil = welcome();
                    for name in ["agent", "user", "key"] {
                        evil = with(evil, name, EVIL);
                    }
                    for (name, values) in [("features", vec![EVIL.into()]), ("verbs", vec![verb.unwrap()]), ("rights", vec![EVIL.into()])] {
                        evil = with(evil, name, values);
                    }
                    asked.reply(evil).await
                }
                false => asked.honestly().await,
            }
        })
    })
    .asked("con")
    .asked("con --json")
    .typed("con\ncon --json\nls")
    .run();

    Evil::new("a welcome without end", |mut asked| {
        Box::pin(async move {
            match asked.is("CON") {
                true => {
                    asked.connection.settle(ftpq_transport::tuning::Windows::FULL);
                    let verb = cbor!({ "verb" => "X", "summary" => "", "right" => Value::Null, "repeatable" => false, "priority" => 0 });
                    asked.reply(with(welcome(), "verbs", vec![verb.unwrap(); 1000])).await
                }
                false => asked.honestly().await,
            }
        })
    })
    .asked("con")
    .ends(1, ["more than 128 elements"])
    .asked("get file")
    .ends(0, ["got 1 file"])
    .leaves(["file"])
    .run();

    Evil::new("no welcome", |mut asked| {
        Box::pin(async move {
            match asked.is("CON") {
                true => asked.refuse(Status::NotAuthorised, EVIL).await,
                false => asked.refuse(Status::NotAuthorised, EVIL).await,
            }
        })
    })
    .asked("con")
    .ends(4, [ESCAPED])
    .asked("get -r tree")
    .ends(4, [ESCAPED])
    .asked("get file")
    .ends(4, [ESCAPED])
    .run();
}

/// What a server's word is taken for: where one is, and what a verb of its own says.
#[test]
fn t14_words_that_are_printed() {
    Evil::new("words that are printed", |mut asked| {
        Box::pin(async move {
            match asked.verb.as_str() {
                "CD" => asked.reply(cbor!({ "path" => format!("/{}", EVIL) }).unwrap()).await,
                "X" => {
                    asked.item(cbor!({ EVIL => [EVIL, Value::Bytes(vec![0x1b])] }).unwrap()).await?;
                    asked.reply(EVIL.into()).await
                }
                _ => asked.honestly().await,
            }
        })
    })
    .asked("cd x")
    .typed("cd x\npwd\nls")
    .asked("call X")
    .run();

    // Whatever a server opens, nobody listens.
    Evil::new("streams towards the client", |asked| {
        Box::pin(async move {
            let connection = asked.connection.clone();
            if asked.is("CON") {
                tokio::spawn(async move {
                    while let Ok((mut send, _recv)) = connection.open().await {
                        let _ = send.block(BODY.into()).await;
                    }
                });
            }
            asked.honestly().await
        })
    })
    .asked("get file")
    .ends(0, ["got 1 file"])
    .leaves(["file"])
    .asked("ls")
    .prints([])
    .run();
}
