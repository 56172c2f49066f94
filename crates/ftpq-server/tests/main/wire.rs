//! What a server answers to clients that do not keep to the protocol.

use ciborium::Value;
use ftpq_proto::{
    Status, VERSION, codec,
    commands::{con, stat},
    limits::{EXTENT_MIN, FRAME_MAX, HOLES_MAX, PATH_MAX},
};
use ftpq_transport::{Connection, Identity};

use crate::support::{Raw, Seen, TestServer, args, con_with};

#[tokio::test]
async fn an_unknown_verb_is_named() {
    let (_server, connection) = welcomed().await;
    let failed = Raw::request(&connection, "acme.fly\u{1b}[31m", Value::Null).await.refusal().await;
    assert_eq!(failed.status, Status::UnknownVerb);
    assert!(failed.message.contains("acme.fly\\u{1b}[31m"), "{}", failed.message);
}

#[tokio::test]
async fn arguments_that_are_not_those_of_the_verb_are_refused() {
    let (server, connection) = welcomed().await;
    let path = || ("path", Value::from("x"));
    let id = |len| ("upload", Value::Bytes(vec![0x17; len]));
    let holes = |pairs: &[(u64, u64)]| ("holes", Value::serialized(pairs).unwrap());
    let many: Vec<_> = (0..=HOLES_MAX as u64).map(|index| (2 * index, 1)).collect();
    for (verb, args) in [
        ("STAT", Value::Null),
        ("STAT", args([])),
        ("STAT", args([("path", 1.into())])),
        ("STAT", args([("path", "a\0b".into())])),
        ("STAT", args([("path", "a".repeat(PATH_MAX + 1).into())])),
        ("LIST", args([path(), ("sort", "size".into())])),
        ("RM", args([path(), ("recursive", "yes".into())])),
        ("UPLD", args([path(), ("size", (-1).into())])),
        ("DWLD", args([path(), ("from", 5.into())])),
        ("BEGIN", args([path(), ("size", 20_000_000.into())])),
        ("BEGIN", args([path(), ("size", (-1).into()), ("extent", EXTENT_MIN.into())])),
        ("BEGIN", args([path(), ("size", 20_000_000.into()), ("extent", EXTENT_MIN.into()), ("resume", true.into())])),
        ("WRITE", args([path(), id(31), ("index", 0.into())])),
        ("WRITE", args([path(), id(32), ("index", (1_u64 << 32).into())])),
        ("WRITE", args([path(), id(32), ("index", 0.into()), holes(&[(5, 5), (9, 5)])])),
        ("WRITE", args([path(), id(32), ("index", 0.into()), holes(&[(1, u64::MAX)])])),
        ("WRITE", args([path(), id(32), ("index", 0.into()), holes(&many)])),
        ("PROVE", args([path(), id(32), ("index", 0.into())])),
        ("COMMIT", args([path(), id(32)])),
        ("READ", args([path(), ("size", 20_000_000.into()), ("extent", EXTENT_MIN.into()), ("index", 0.into())])),
        ("CON", args([("versions", "1".into()), ("agent", "x".into())])),
    ] {
        let failed = Raw::request(&connection, verb, &args).await.refusal().await;
        assert_eq!(failed.status, Status::BadArguments, "{verb} {args:?}");
    }
    assert!(server.on_disk().is_empty());
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let (server, connection) = welcomed().await;
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes(), body].concat();
    let request = |cwd: &str| [("verb", "CD".into()), ("cwd", cwd.into()), ("args", args([("path", "".into())]))];
    let [verb, cwd, rest] = request("/");
    let surplus = args([verb, cwd, rest, ("token", "x".into())]);
    for (what, bytes, expected) in [
        ("a frame over the limit", (FRAME_MAX as u32 + 1).to_be_bytes().to_vec(), Status::TooLarge),
        ("a frame of 4 GiB", vec![0xff; 4], Status::TooLarge),
        ("an empty frame", frame(b""), Status::Malformed),
        ("garbage", frame(b"\xff\xfe\xfd"), Status::Malformed),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Status::TooLarge),
        ("another value", frame(b"\x01"), Status::Malformed),
        ("deep nesting", frame(&[0x81; 1000]), Status::Malformed),
        ("a folder that is not canonical", codec::encode(&args(request("/a/../b"))).unwrap(), Status::Malformed),
        ("a field that is not known", codec::encode(&surplus).unwrap(), Status::Malformed),
    ] {
        let mut raw = Raw::open(&connection).await;
        raw.bytes(bytes).await;
        assert_eq!(raw.refusal().await.status, expected, "{what}");
    }
    for (what, bytes) in [("nothing", &b""[..]), ("half a prefix", &[0, 0]), ("half a frame", &[0, 0, 0, 9, 0xa3])] {
        let mut raw = Raw::open(&connection).await;
        raw.bytes(bytes).await;
        raw.send.finish();
        assert_eq!(raw.refusal().await.status, Status::Truncated, "{what}");
    }
    // None of that was a command, and the connection is as good as before.
    let commands = server.seen();
    assert!(matches!(commands.as_slice(), [Seen::Command { verb, .. }] if verb == "CON"), "{commands:?}");
    let found: stat::Found = Raw::request(&connection, "STAT", args([("path", "/".into())])).await.reply().await;
    assert!(found.path.is_root());
}

#[tokio::test]
async fn without_a_common_version_every_command_is_refused() {
    let (server, connection) = known().await;
    // The client need not wait for the answer to CON: what it sends meanwhile is held.
    let mut early = Raw::request(&connection, "STAT", args([("path", "/".into())])).await;
    let mut hello = Raw::request(&connection, con::VERB, con_with(&[99])).await;
    assert_eq!(hello.refusal().await.status, Status::Version);
    assert_eq!(early.refusal().await.status, Status::Version);
    let mut late = Raw::request(&connection, "STAT", args([("path", "/".into())])).await;
    assert_eq!(late.refusal().await.status, Status::Version);
    let ended: Vec<_> = server.seen();
    let refused = |seen: &Seen| matches!(seen, Seen::Command { outcome: Err(Status::Version), .. });
    assert!(ended.len() == 3 && ended.iter().all(refused), "{ended:?}");
}

#[tokio::test]
async fn a_command_that_comes_before_con_is_held_and_then_runs() {
    let (_server, connection) = known().await;
    let mut early = Raw::request(&connection, "STAT", args([("path", "/".into())])).await;
    let welcome: con::Welcome = Raw::request(&connection, con::VERB, con_with(&[99, VERSION])).await.reply().await;
    assert_eq!(welcome.version, VERSION);
    assert!(early.reply::<stat::Found>().await.path.is_root());
}

/// A server and a client in its list, which has not said CON.
async fn known() -> (TestServer, Connection) {
    let server = TestServer::start().await;
    let identity = Identity::generate().unwrap();
    server.authorise(&identity, "name=a rights=list,read,write,delete");
    let connection = server.connect(&identity).await;
    (server, connection)
}

/// The same after CON.
async fn welcomed() -> (TestServer, Connection) {
    let (server, connection) = known().await;
    Raw::request(&connection, con::VERB, con_with(&[VERSION])).await.reply::<con::Welcome>().await;
    (server, connection)
}
