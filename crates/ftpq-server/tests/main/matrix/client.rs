//! A client that sends what no honest one would, and tells what came back in the model's words.

use blake3::hazmat::HasherExt;
use ciborium::Value;
use ftpq_client::Session;
use ftpq_proto::{
    Digest, Entry, RemotePath, Status, UploadId, Version,
    commands::{begin, con, dwld, list, prove, rm, stat, upld, write},
    limits::EXTENT_MIN,
    message::{Reply, Request, Response, Trailer},
};
use ftpq_storage::{Bytes, join};
use ftpq_transport::{RecvError, SendError};

use super::model::{Answer, BIG, Order, Shown, TAIL, Typed, UPLOADED, Upload};
use crate::support::{PATIENCE, Raw, digest};

/// One client, and what it has begun and seen.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) version: Version,
    /// Of [`Upload::New`] and [`Upload::Replacing`].
    pub(super) begun: [UploadId; 2],
}

impl Order {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Order::Con => "CON",
            Order::List => "LIST",
            Order::Cd => "CD",
            Order::Stat => "STAT",
            Order::Dwld | Order::DwldUpTo => "DWLD",
            Order::Upld { .. } | Order::UpldSame(_) => "UPLD",
            Order::Begin { .. } => "BEGIN",
            Order::Write(_) => "WRITE",
            Order::Prove(_) => "PROVE",
            Order::Commit(_) => "COMMIT",
            Order::Read | Order::ReadDigest => "READ",
            Order::Mkdir { .. } => "MKDIR",
            Order::Link { .. } => "LINK",
            Order::Attr(_) => "ATTR",
            Order::MvFrom | Order::MvFile { .. } | Order::MvFolder { .. } => "MV",
            Order::Rm { .. } => "RM",
        }
    }

    /// What follows the request at once, and its digest.
    fn body(self) -> Option<(&'static [u8], Digest)> {
        match self {
            Order::Upld { .. } => Some((UPLOADED, digest(UPLOADED))),
            Order::UpldSame(contents) => Some((contents, digest(contents))),
            Order::Write(_) => Some((TAIL, tail_digest())),
            _ => None,
        }
    }
}

impl Client {
    /// Does it, if the server lets it.
    pub(super) async fn carry_out(&self, order: Order, typed: &Typed) -> Result<Answer, Status> {
        let mut raw = Raw::open(self.session.connection()).await;
        let (verb, cwd) = (order.verb().into(), typed.cwd.parse().unwrap());
        match raw.send.frame(&Request { verb, cwd, args: self.args(order, typed) }).await {
            // Whoever was refused is not listened to any more.
            Err(SendError::Stopped(status)) => return Err(status),
            sent => sent.unwrap(),
        }
        if let Some((body, digest)) = order.body() {
            // A server that has refused already takes no more.
            let _ = raw.send.block(Bytes::from_static(body)).await;
            let _ = raw.send.frame(&Trailer { digest }).await;
        }
        raw.send.finish();
        let mut items = Vec::new();
        loop {
            let response = match raw.recv.frame(PATIENCE).await {
                Err(RecvError::Reset(status)) => return Err(status),
                response => response.unwrap(),
            };
            match response {
                Response::Item(item) => items.push(item),
                Response::Head(head) => return body(&mut raw, order, &head).await,
                Response::Reply(Reply::Ok(reply)) => return Ok(answer(order, items, &reply)),
                Response::Reply(Reply::Error(failed)) => return Err(failed.status),
            }
        }
    }

    /// Begins the uploads that other orders go on with: all of them are there, and not published.
    pub(super) async fn begin_uploads(&mut self) {
        for (at, (path, overwrite)) in [("/new", false), ("/f", true)].into_iter().enumerate() {
            let typed = Typed { cwd: "/", path: path.into() };
            let args = self.args(Order::Begin { overwrite, parents: false }, &typed);
            let begun: begin::Begun = self.session.call(begin::VERB, &RemotePath::root(), &args).await.unwrap();
            self.begun[at] = begun.upload.unwrap();
            self.write(path, self.begun[at], 0, &[(0, EXTENT_MIN)], b"", head_digest()).await;
            self.write(path, self.begun[at], 1, &[], TAIL, tail_digest()).await;
        }
    }

    async fn write(
        &self,
        path: &str,
        upload: UploadId,
        index: u32,
        holes: &[(u64, u64)],
        body: &'static [u8],
        digest: Digest,
    ) {
        let holes = Value::serialized(holes).unwrap();
        let args = map(vec![
            ("path", path.into()),
            ("upload", serialized(&upload)),
            ("index", index.into()),
            ("holes", holes),
        ]);
        let mut raw = Raw::request(self.session.connection(), write::VERB, args).await;
        raw.bytes(body).await;
        raw.send.frame(&Trailer { digest }).await.unwrap();
        raw.send.finish();
        raw.reply::<write::Written>().await;
    }

    fn args(&self, order: Order, typed: &Typed) -> Value {
        let path = ("path", bytes(&typed.path));
        let upload = |upload| {
            let id = match upload {
                Upload::New => self.begun[0],
                Upload::Replacing => self.begun[1],
                Upload::Unknown => [0x17; 32].into(),
            };
            ("upload", serialized(&id))
        };
        let to = |from: &str, overwrite: bool| {
            vec![("from", from.into()), ("to", bytes(&typed.path)), ("overwrite", overwrite.into())]
        };
        let cut = || [("size", BIG.into()), ("extent", EXTENT_MIN.into())];
        let read = |digest_only: bool| {
            let mut args = vec![path.clone(), ("version", serialized(&self.version)), ("index", 1.into())];
            args.extend(cut());
            args.push(("digest_only", digest_only.into()));
            args
        };
        map(match order {
            Order::Con => return serialized(&crate::support::con_with(&[ftpq_proto::VERSION])),
            Order::List | Order::Cd | Order::Stat | Order::Dwld => vec![path],
            Order::DwldUpTo => vec![path, ("up_to", 1000.into()), ("sparse", true.into())],
            Order::Upld { overwrite, parents } => vec![
                path,
                ("size", (UPLOADED.len() as u64).into()),
                ("eager", true.into()),
                ("overwrite", overwrite.into()),
                ("parents", parents.into()),
            ],
            Order::UpldSame(contents) => {
                vec![
                    path,
                    ("size", (contents.len() as u64).into()),
                    ("eager", true.into()),
                    ("accept_same", true.into()),
                ]
            }
            Order::Begin { overwrite, parents } => {
                let mut args = vec![path, ("sparse", true.into())];
                args.extend(cut());
                args.extend([("overwrite", overwrite.into()), ("parents", parents.into())]);
                args
            }
            Order::Write(begun) => vec![path, upload(begun), ("index", 1.into())],
            Order::Prove(begun) => {
                vec![path, upload(begun), ("index", 1.into()), ("digest", serialized(&tail_digest()))]
            }
            Order::Commit(begun) => vec![path, upload(begun), ("digest", serialized(&big_digest()))],
            Order::Read => read(false),
            Order::ReadDigest => read(true),
            Order::Mkdir { parents } => vec![path, ("parents", parents.into())],
            Order::Link { target, overwrite } => {
                vec![path, ("target", bytes(target)), ("overwrite", overwrite.into())]
            }
            Order::Attr(mode) => vec![path, ("mode", mode.into())],
            Order::MvFrom => vec![("from", bytes(&typed.path)), ("to", "/moved".into())],
            Order::MvFile { overwrite } => to("/f", overwrite),
            Order::MvFolder { overwrite } => to("/d", overwrite),
            Order::Rm { recursive } => vec![path, ("recursive", recursive.into())],
        })
    }
}

/// What comes behind a head.
async fn body(raw: &mut Raw, order: Order, head: &Value) -> Result<Answer, Status> {
    let length = match order {
        Order::Dwld | Order::DwldUpTo => {
            let file: dwld::File = head.deserialized().unwrap();
            if order == Order::DwldUpTo && file.size > 1000 {
                raw.reply::<dwld::Large>().await;
                return Ok(Answer::TooLargeToSend);
            }
            file.size
        }
        Order::Read => TAIL.len() as u64,
        _ => panic!("{order:?}: a head came"),
    };
    let mut all = Vec::new();
    while all.len() < length as usize {
        let rest = (length as usize - all.len()).min(250_000);
        all.extend_from_slice(&raw.recv.block(rest).await.unwrap());
    }
    let trailer: Trailer = raw.recv.frame(PATIENCE).await.unwrap();
    assert_eq!(trailer.digest, if order == Order::Read { tail_digest() } else { digest(&all) });
    raw.reply::<Value>().await;
    Ok(Answer::Body(all))
}

/// A reply without a body.
fn answer(order: Order, items: Vec<Value>, reply: &Value) -> Answer {
    let at = |name| path(field(reply, name));
    match order {
        Order::Con => Answer::Welcome(reply.deserialized::<con::Welcome>().unwrap().rights),
        Order::List => {
            let pages = items.iter().map(|item| item.deserialized::<list::Page>().unwrap());
            let mut all: Vec<_> = pages.flat_map(|page| page.entries).map(shown).collect();
            all.sort_by(|one, other| one.name.cmp(&other.name));
            assert_eq!(reply.deserialized::<list::Listed>().unwrap().count, all.len() as u64);
            Answer::Shown(all)
        }
        Order::Stat => Answer::Shown(vec![shown(reply.deserialized::<stat::Found>().unwrap().entry)]),
        Order::Cd | Order::Mkdir { .. } | Order::Link { .. } | Order::Attr(_) => Answer::At(at("path")),
        Order::MvFrom | Order::MvFile { .. } | Order::MvFolder { .. } => Answer::Moved(at("from"), at("to")),
        Order::Rm { .. } => Answer::Removed(reply.deserialized::<rm::Removed>().unwrap().count),
        Order::Upld { .. } | Order::UpldSame(_) | Order::Commit(_) => {
            let committed: upld::Committed = reply.deserialized().unwrap();
            let sent = order.body().map_or(big_digest(), |(_, digest)| digest);
            assert_eq!(committed.digest, sent, "{order:?}");
            Answer::Committed { at: at("path"), length: committed.length }
        }
        Order::Begin { .. } => {
            assert!(reply.deserialized::<begin::Begun>().unwrap().upload.is_some());
            Answer::Begun
        }
        Order::Write(_) => Answer::Written,
        Order::Prove(_) => Answer::Proved(reply.deserialized::<prove::Proved>().unwrap().same),
        Order::ReadDigest => {
            assert_eq!(field(reply, "digest"), &serialized(&tail_digest()));
            Answer::TailDigest
        }
        Order::Dwld | Order::DwldUpTo | Order::Read => panic!("{order:?}: no head came"),
    }
}

fn shown(entry: Entry) -> Shown {
    let Entry { name, kind, size, target, .. } = entry;
    let name = name.map(|name| name.as_bytes().to_vec());
    Shown { name, kind, size, target: target.map(|target| target.as_bytes().to_vec()) }
}

fn field<'a>(reply: &'a Value, name: &str) -> &'a Value {
    let found = reply.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name));
    &found.unwrap_or_else(|| panic!("no {name} in {reply:?}")).1
}

fn path(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        text => text.as_text().unwrap().into(),
    }
}

/// As paths travel: as text where they are UTF-8.
fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.into(),
    }
}

fn map(fields: Vec<(&str, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn serialized(value: &impl serde::Serialize) -> Value {
    Value::serialized(value).unwrap()
}

/// Of the first extent of every large file.
fn head_digest() -> Digest {
    static DIGEST: std::sync::LazyLock<Digest> = std::sync::LazyLock::new(|| {
        blake3::Hasher::new().update(&vec![0; EXTENT_MIN as usize]).finalize_non_root().into()
    });
    *DIGEST
}

/// Of the second.
fn tail_digest() -> Digest {
    blake3::Hasher::new().set_input_offset(EXTENT_MIN).update(TAIL).finalize_non_root().into()
}

fn big_digest() -> Digest {
    join(&[head_digest(), tail_digest()]).unwrap()
}
