//! The bytes of every message, as frames. A change of `golden.txt` is a change of the wire: whoever
//! means it runs `FTPQ_BLESS=1 cargo test -p ftpq-proto --test golden`, which writes the file anew.

#![allow(clippy::unwrap_used)] // samples that cannot be made are failures

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path};

use ciborium::Value;
use ftpq_proto::{
    Digest, Entry, Hole, Holes, Kind, LinkTarget, Name, RemotePath, Right, Rights, Spec, Status, TicketSecret,
    Timestamp, UploadId, UserPath, VERSION, Version,
    codec::{self, PREFIX_LEN},
    commands::{attr, begin, cd, commit, con, dwld, link, list, mkdir, mv, prove, read, rm, stat, upld, write},
    message::{Failed, Reply, Request, Response, Trailer},
};
use serde::{Serialize, de::DeserializeOwned};

#[test]
fn every_message_has_the_bytes_in_the_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt");
    let samples = samples();
    if std::env::var_os("FTPQ_BLESS").is_some() {
        let lines = samples.iter().map(|sample| format!("{}: {}\n", sample.name, hex(&sample.frame)));
        fs::write(&file, lines.collect::<String>()).unwrap();
    }
    let text = fs::read_to_string(&file).unwrap();
    let mut golden = BTreeMap::new();
    for line in text.lines() {
        let (name, hex) = line.split_once(": ").unwrap_or_else(|| panic!("not a name and its bytes: {line}"));
        assert!(golden.insert(name, hex).is_none(), "{name} stands in two lines");
    }
    for Sample { name, frame, check } in &samples {
        let expected = golden.remove(name.as_str()).unwrap_or_else(|| panic!("{name} has no line in golden.txt"));
        assert_eq!(hex(frame), expected, "the bytes of {name} have changed");
        check(body(&unhex(expected)));
    }
    assert!(golden.is_empty(), "lines without a sample: {:?}", golden.keys());
}

#[test]
fn a_download_ends_with_one_of_its_two_replies_and_nothing_around_it() {
    let sent = dwld::Sent { length: 5, digest: digest() };
    assert_eq!(codec::encode(&dwld::Ended::Sent(sent.clone())).unwrap(), codec::encode(&sent).unwrap());
    let large = dwld::Large {};
    assert_eq!(codec::encode(&dwld::Ended::Large(large)).unwrap(), codec::encode(&large).unwrap());
}

/// A message, its frame, and how to see that the frame still means the same.
struct Sample {
    name: String,
    frame: Vec<u8>,
    check: Check,
}

/// Decodes a body and compares it with the sample's value.
type Check = Box<dyn Fn(&[u8])>;

trait Message: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static {}
impl<T: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static> Message for T {}

fn samples() -> Vec<Sample> {
    let mut samples = verbs();
    samples.extend(extents());
    samples.push(message("trailer", Trailer { digest: digest() }));
    samples.push(refusal("refusal", Status::NotFound, "/å: no such file or folder"));
    for &status in Status::ALL {
        samples.push(refusal(&format!("status-{}-{}", status.code(), status.name()), status, ""));
    }
    samples.push(refusal("status-without-a-name", Status::from(399), ""));
    samples
}

/// What each verb says, in the order in which it says it.
fn verbs() -> Vec<Sample> {
    vec![
        request(
            "con.request",
            con::VERB,
            con::Args {
                versions: vec![VERSION, 2],
                agent: "ftpq/0.1.0".into(),
                features: vec!["extents".into()],
                ticket: None,
            },
        ),
        request(
            "con.request-with-ticket",
            con::VERB,
            con::Args {
                versions: vec![VERSION],
                agent: "ftpq/0.1.0".into(),
                features: vec![],
                ticket: Some(TicketSecret::from([0x5a; 16])),
            },
        ),
        reply(
            "con.reply",
            con::Welcome {
                version: VERSION,
                agent: "ftpq/0.1.0".into(),
                features: vec!["extents".into()],
                verbs: vec![
                    Spec::for_everyone("CON", "connect").repeatable().priority(1),
                    Spec::new("acme.thumb", Right::Read, "make a thumbnail").priority(-1),
                ],
                user: "alice".into(),
                key: "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".into(),
                rights: Rights::ALL,
                limits: con::Limits::default(),
                successor: None,
                ports: vec![],
            },
        ),
        reply(
            "con.reply-with-limits-and-successor",
            con::Welcome {
                version: VERSION,
                agent: "ftpq/0.1.0".into(),
                features: vec![],
                verbs: vec![],
                user: "alice".into(),
                key: "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".into(),
                rights: Rights::ALL,
                limits: con::Limits { bytes: Some(1 << 30), files: Some(1000), rate: Some(1 << 20), expires: Some(-1) },
                successor: Some(con::Successor {
                    key: "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".into(),
                    until: 1 << 32,
                    signature: "MEUCIQD".into(),
                }),
                ports: vec![],
            },
        ),
        reply(
            "con.reply-with-ports",
            con::Welcome {
                version: VERSION,
                agent: "ftpq/0.1.0".into(),
                features: vec![],
                verbs: vec![],
                user: "alice".into(),
                key: "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".into(),
                rights: Rights::ALL,
                limits: con::Limits::default(),
                successor: None,
                ports: vec![4434, 65_535],
            },
        ),
        request("list.request", list::VERB, list::Args { path: UserPath::default() }),
        item("list.item", list::Page { entries: entries() }),
        reply("list.reply", list::Listed { path: path("/"), folder: true, count: 5 }),
        request("cd.request", cd::VERB, cd::Args { path: typed("../b") }),
        reply("cd.reply", cd::Folder { path: path("/b") }),
        request("upld.request", upld::VERB, upload()),
        request(
            "upld.request-with-every-option",
            upld::VERB,
            upld::Args {
                size: Some(u64::MAX),
                holes: holes(),
                overwrite: true,
                accept_same: true,
                parents: true,
                eager: true,
                mode: Some(0o755),
                mtime: Timestamp::new(1_700_000_000, 999_999_999),
                ..upload()
            },
        ),
        request("upld.request-of-unknown-size", upld::VERB, upld::Args { size: None, ..upload() }),
        head("upld.head", upld::Go {}),
        reply("upld.reply", upld::Committed { path: path("/a/f"), length: 5, digest: digest() }),
        request("dwld.request", dwld::VERB, dwld::Args { path: typed("f"), up_to: None, sparse: false }),
        request(
            "dwld.request-with-every-option",
            dwld::VERB,
            dwld::Args { path: typed("f"), up_to: Some(16 * 1024 * 1024), sparse: true },
        ),
        head("dwld.head", file()),
        head("dwld.head-of-a-sparse-file", dwld::File { sparse: true, holes: holes(), ..file() }),
        reply("dwld.reply", dwld::Sent { length: 5, digest: digest() }),
        reply("dwld.reply-large", dwld::Large {}),
        request("stat.request", stat::VERB, stat::Args { path: typed("/") }),
        reply(
            "stat.reply",
            stat::Found {
                path: path("/"),
                entry: Entry { name: None, kind: Kind::Folder, size: 0, mtime: mtime(), mode: 0o1777, target: None },
            },
        ),
        request("mkdir.request", mkdir::VERB, mkdir::Args { path: typed("x/y"), parents: true }),
        reply("mkdir.reply", mkdir::Made { path: path("/a/x/y") }),
        request("rm.request", rm::VERB, rm::Args { path: typed("x"), recursive: true }),
        reply("rm.reply", rm::Removed { path: path("/a/x"), count: 7 }),
        request("mv.request", mv::VERB, mv::Args { from: typed("f"), to: typed("/g"), overwrite: true }),
        reply("mv.reply", mv::Moved { from: path("/a/f"), to: path("/g") }),
        request("link.request", link::VERB, to_link()),
        request(
            "link.request-with-every-option",
            link::VERB,
            link::Args {
                target: LinkTarget::new(b"../caf\xe9").unwrap(),
                overwrite: true,
                accept_same: true,
                parents: true,
                mtime: Some(mtime()),
                ..to_link()
            },
        ),
        reply("link.reply", link::Linked { path: path("/a/l") }),
        request("attr.request", attr::VERB, attr::Args { path: typed("x"), mode: None, mtime: None }),
        request(
            "attr.request-with-every-option",
            attr::VERB,
            attr::Args { path: typed("x"), mode: Some(0o750), mtime: Some(mtime()) },
        ),
        reply("attr.reply", attr::Set { path: path("/a/x") }),
        not_utf8_request(),
        reply("cd.reply-not-utf8", cd::Folder { path: not_utf8() }),
    ]
}

/// What the verbs of large files say, in the order of a transfer.
fn extents() -> Vec<Sample> {
    let commit = || commit::Args { path: typed("f"), upload: upload_id(), digest: digest(), mode: None, mtime: None };
    let write = || write::Args { path: typed("f"), upload: upload_id(), index: 1, holes: Holes::NONE };
    vec![
        request("begin.request", begin::VERB, begin()),
        request(
            "begin.request-with-every-option",
            begin::VERB,
            begin::Args {
                size: 1 << 44,
                extent: 1 << 30,
                fresh: true,
                apart: Some([0xa5; 32].into()),
                sparse: true,
                overwrite: true,
                same: Some(digest()),
                parents: true,
                first: true,
                ..begin()
            },
        ),
        item("begin.item-without-extents", begin::Held { extents: vec![] }),
        item(
            "begin.item",
            begin::Held {
                extents: vec![
                    begin::HeldExtent { index: 0, digest: None },
                    begin::HeldExtent { index: u32::MAX, digest: Some(digest()) },
                ],
            },
        ),
        head("begin.head", begin::Begun { upload: Some(upload_id()), written: None }),
        reply("begin.reply", begin::Begun { upload: Some(upload_id()), written: None }),
        reply("begin.reply-with-the-first-extent", begin::Begun { upload: Some(upload_id()), written: Some(digest()) }),
        reply("begin.reply-there-already", begin::Begun { upload: None, written: None }),
        request("write.request", write::VERB, write()),
        request("write.request-with-holes", write::VERB, write::Args { holes: holes(), ..write() }),
        reply("write.reply", write::Written { digest: digest() }),
        request(
            "prove.request",
            prove::VERB,
            prove::Args { path: typed("f"), upload: upload_id(), index: 16 * 1024 - 1, digest: digest() },
        ),
        reply("prove.reply", prove::Proved { same: true }),
        reply("prove.reply-not-the-same", prove::Proved { same: false }),
        request("commit.request", commit::VERB, commit()),
        request(
            "commit.request-with-every-option",
            commit::VERB,
            commit::Args { mode: Some(0o600), mtime: Some(mtime()), ..commit() },
        ),
        reply("commit.reply", commit::Committed { path: path("/a/f"), length: 1 << 44, digest: digest() }),
        request("read.request", read::VERB, read()),
        request("read.request-digest-only", read::VERB, read::Args { digest_only: true, ..read() }),
        head("read.head", read::Part { holes: Holes::NONE }),
        head("read.head-with-holes", read::Part { holes: holes() }),
        reply("read.reply", read::Sent { digest: digest() }),
    ]
}

fn begin() -> begin::Args {
    begin::Args {
        path: typed("f"),
        size: 20_000_000,
        extent: 8 * 1024 * 1024,
        fresh: false,
        apart: None,
        sparse: false,
        overwrite: false,
        same: None,
        parents: false,
        first: false,
    }
}

fn read() -> read::Args {
    let (size, extent) = (20_000_000, 8 * 1024 * 1024);
    read::Args { path: typed("f"), version: version(), size, extent, index: 2, digest_only: false }
}

fn file() -> dwld::File {
    dwld::File {
        path: path("/a/f"),
        size: 5,
        version: version(),
        sparse: false,
        holes: Holes::NONE,
        mtime: mtime(),
        mode: 0o644,
    }
}

/// One at the start, one that reaches as far as a number can.
fn holes() -> Holes {
    let last = Hole { offset: u64::MAX - 4096, length: 4096 };
    Holes::new(vec![Hole { offset: 0, length: 1 }, last]).unwrap()
}

fn upload_id() -> UploadId {
    [0x17; 32].into()
}

fn version() -> Version {
    Digest::from([0x2e; 32]).into()
}

fn upload() -> upld::Args {
    upld::Args {
        path: typed("f"),
        size: Some(5),
        holes: Holes::NONE,
        overwrite: false,
        accept_same: false,
        parents: false,
        eager: false,
        mode: None,
        mtime: None,
    }
}

fn to_link() -> link::Args {
    let target = LinkTarget::new("f").unwrap();
    link::Args { path: typed("l"), target, overwrite: false, accept_same: false, parents: false, mtime: None }
}

/// Each kind once, a link without a target, and names and a target that are not UTF-8.
fn entries() -> Vec<Entry> {
    let entry = |name: &[u8], kind, size| Entry {
        name: Name::new(name).ok(),
        kind,
        size,
        mtime: mtime(),
        mode: 0o640,
        target: None,
    };
    let link = |target: &[u8]| Entry { target: LinkTarget::new(target).ok(), ..entry(b"link", Kind::Link, 0) };
    vec![
        entry("Olá 🦀".as_bytes(), Kind::File, u64::MAX),
        entry(b"folder", Kind::Folder, 0),
        entry(b"link", Kind::Link, 0),
        entry(b"fifo", Kind::Other, 0),
        entry(b"caf\xe9", Kind::File, 0),
        link(b"../folder"),
        link(b"caf\xe9"),
    ]
}

/// Before 1970, and with nanoseconds.
fn mtime() -> Timestamp {
    Timestamp::new(-1, 1).unwrap()
}

fn digest() -> Digest {
    std::array::from_fn(|index| index as u8).into()
}

fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

fn typed(text: &str) -> UserPath {
    text.parse().unwrap()
}

fn not_utf8() -> RemotePath {
    path("/a").join(&Name::new(b"caf\xe9").unwrap()).unwrap()
}

fn not_utf8_request() -> Sample {
    request_from("cd.request-not-utf8", cd::VERB, not_utf8(), cd::Args { path: UserPath::new(b"\xff\xfe").unwrap() })
}

fn request<A: Message>(name: &str, verb: &'static str, args: A) -> Sample {
    request_from(name, verb, path("/a"), args)
}

fn request_from<A: Message>(name: &str, verb: &'static str, cwd: RemotePath, args: A) -> Sample {
    let frame = codec::encode(&Request { verb: verb.into(), cwd: cwd.clone(), args: args.clone() }).unwrap();
    let check = move |body: &[u8]| {
        let request: Request = codec::decode(body).unwrap();
        assert_eq!((request.verb.as_str(), &request.cwd), (verb, &cwd));
        assert_eq!(request.args.deserialized::<A>().unwrap(), args);
    };
    Sample { name: name.into(), frame, check: Box::new(check) }
}

fn item<T: Message>(name: &str, value: T) -> Sample {
    response(name, Response::Item, value)
}

fn head<T: Message>(name: &str, value: T) -> Sample {
    response(name, Response::Head, value)
}

fn reply<T: Message>(name: &str, value: T) -> Sample {
    response(name, |value| Response::Reply(Reply::Ok(value)), value)
}

fn refusal(name: &str, status: Status, text: &str) -> Sample {
    message(name, Response::Reply(Reply::Error(Failed { status, message: text.into() })))
}

fn response<T: Message>(name: &str, wrap: fn(Value) -> Response, value: T) -> Sample {
    let frame = codec::encode(&wrap(Value::serialized(&value).unwrap())).unwrap();
    let check = move |body: &[u8]| {
        let response: Response = codec::decode(body).unwrap();
        let (Response::Item(inner) | Response::Head(inner) | Response::Reply(Reply::Ok(inner))) = response.clone()
        else {
            panic!("not a part of an answer: {response:?}")
        };
        assert_eq!(inner.deserialized::<T>().unwrap(), value);
        assert_eq!(wrap(inner), response);
    };
    Sample { name: name.into(), frame, check: Box::new(check) }
}

fn message<T: Message>(name: &str, value: T) -> Sample {
    let frame = codec::encode(&value).unwrap();
    let check = move |body: &[u8]| assert_eq!(codec::decode::<T>(body).unwrap(), value);
    Sample { name: name.into(), frame, check: Box::new(check) }
}

/// What follows the prefix, which must say how much that is.
fn body(frame: &[u8]) -> &[u8] {
    let (prefix, body) = frame.split_first_chunk::<PREFIX_LEN>().unwrap();
    assert_eq!(codec::body_len(*prefix), Ok(body.len()));
    body
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}
