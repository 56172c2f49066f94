//! What comes in on a stream: frames, and the messages in them.

use std::fmt::Debug;

use ciborium::Value;
use ftpq_proto::{
    Digest, Entry, Extents, Holes, Rights, Spec, Status,
    codec::{self, PREFIX_LEN},
    commands::{attr, begin, cd, commit, con, dwld, link, list, mkdir, mv, prove, read, rm, stat, upld, write},
    limits::{FRAME_MAX, RECURSION_MAX, TEXT_MAX},
    message::{Failed, Request, Response, Trailer},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Input, Target, text::assert_printable};

/// A stream as a receiver reads it: prefix, body, prefix, body, for as long as they make sense.
pub fn frame(data: &[u8]) {
    let mut input = Input::new(data);
    while let Some((prefix, rest)) = input.rest().split_first_chunk::<PREFIX_LEN>() {
        let announced = u32::from_be_bytes(*prefix) as usize;
        let Ok(len) = codec::body_len(*prefix) else {
            assert!(announced > FRAME_MAX);
            return;
        };
        assert!(len == announced && len <= FRAME_MAX);
        input = Input::new(rest);
        let body = input.bytes(len);
        value(body);
        message::<Request>(body);
        message::<Response>(body);
        message::<Trailer>(body);
    }
}

/// One message, after a byte that chooses which.
pub fn messages(data: &[u8]) {
    let mut input = Input::new(data);
    let (_, check) = input.choose(MESSAGES);
    check(input.rest());
}

/// Every kind of message, by the byte that chooses it. New ones go to the end: the corpus counts.
const MESSAGES: &[(&str, Target)] = &[
    ("request", message::<Request>),
    ("response", message::<Response>),
    ("trailer", message::<Trailer>),
    ("failed", message::<Failed>),
    ("con.args", message::<con::Args>),
    ("con.reply", message::<con::Welcome>),
    ("list.args", message::<list::Args>),
    ("list.item", message::<list::Page>),
    ("list.reply", message::<list::Listed>),
    ("cd.args", message::<cd::Args>),
    ("cd.reply", message::<cd::Folder>),
    ("upld.args", message::<upld::Args>),
    ("upld.head", message::<upld::Go>),
    ("upld.reply", message::<upld::Committed>),
    ("dwld.args", message::<dwld::Args>),
    ("dwld.head", message::<dwld::File>),
    ("dwld.reply", message::<dwld::Sent>),
    ("dwld.reply-large", message::<dwld::Large>),
    ("begin.args", message::<begin::Args>),
    ("begin.item", message::<begin::Held>),
    ("begin.reply", message::<begin::Begun>),
    ("write.args", message::<write::Args>),
    ("write.reply", message::<write::Written>),
    ("prove.args", message::<prove::Args>),
    ("prove.reply", message::<prove::Proved>),
    ("commit.args", message::<commit::Args>),
    ("read.args", message::<read::Args>),
    ("read.head", message::<read::Part>),
    ("read.reply", message::<read::Sent>),
    ("stat.args", message::<stat::Args>),
    ("stat.reply", message::<stat::Found>),
    ("mkdir.args", message::<mkdir::Args>),
    ("mkdir.reply", message::<mkdir::Made>),
    ("rm.args", message::<rm::Args>),
    ("rm.reply", message::<rm::Removed>),
    ("mv.args", message::<mv::Args>),
    ("mv.reply", message::<mv::Moved>),
    ("link.args", message::<link::Args>),
    ("link.reply", message::<link::Linked>),
    ("attr.args", message::<attr::Args>),
    ("attr.reply", message::<attr::Set>),
    ("entry", message::<Entry>),
    ("spec", message::<Spec>),
    ("rights", message::<Rights>),
    ("status", message::<Status>),
    ("holes", message::<Holes>),
    ("digest", message::<Digest>),
    ("limits", message::<con::Limits>),
    ("successor", message::<con::Successor>),
    ("cut", cut),
];

/// Decoding costs no more than what was sent, and saying it again says the same.
fn value(body: &[u8]) {
    let Some(value) = said(codec::decode::<Value>(body)) else { return };
    let (weight, depth) = weight(&value);
    assert!(weight <= body.len(), "{weight} nodes and bytes out of {} bytes", body.len());
    assert!(depth <= RECURSION_MAX, "nested {depth} times");
    let frame = codec::encode(&value).expect("what was decoded is encoded");
    let again = codec::decode::<Value>(&frame[PREFIX_LEN..]).expect("what was encoded is decoded");
    // By their bytes: there are numbers that are not equal to themselves.
    assert_eq!(codec::encode(&again).unwrap(), frame, "another value after a second time");
}

/// A message is decoded directly, or as a value first, as the dispatcher does; and it survives being
/// sent on. All compared by their bytes: there are numbers that are not equal to themselves.
fn message<T: Serialize + DeserializeOwned + Debug>(body: &[u8]) {
    let encode = |message: &T| codec::encode(message).expect("what was decoded is encoded");
    let direct = said(codec::decode::<T>(body));
    let indirect = said(codec::decode::<Value>(body)).and_then(|value| said(codec::from_value::<T>(&value)));
    if let (Some(direct), Some(indirect)) = (&direct, &indirect) {
        assert_eq!(encode(direct), encode(indirect), "{direct:?} when decoded at once, {indirect:?} in two steps");
    }
    for message in [direct, indirect].into_iter().flatten() {
        let frame = encode(&message);
        let again: T = codec::decode(&frame[PREFIX_LEN..]).expect("what was encoded is decoded");
        assert_eq!(encode(&again), frame, "{again:?} after a second time, {message:?} at first");
    }
}

/// What BEGIN and READ say of a file's extents is a cut of it or refused.
fn cut(body: &[u8]) {
    let Some(args) = said(codec::decode::<begin::Args>(body)) else { return };
    let Some(extents) = Extents::new(args.size, args.extent) else { return };
    assert_eq!((extents.size(), extents.length()), (args.size, args.extent));
    crate::extents::assert_tiled(extents);
}

/// The message, or `None`; why not is a short sentence that can be shown.
fn said<T>(decoded: Result<T, codec::DecodeError>) -> Option<T> {
    decoded
        .map_err(|error| {
            let why = error.to_string();
            assert_printable(&why);
            assert!(why.len() < 10 * TEXT_MAX, "{} bytes of an error", why.len());
        })
        .ok()
}

/// How many nodes and bytes of text a value holds, and how deep it is.
fn weight(value: &Value) -> (usize, usize) {
    let parts: Vec<&Value> = match value {
        Value::Bytes(bytes) => return (1 + bytes.len(), 0),
        Value::Text(text) => return (1 + text.len(), 0),
        // A large number is a tag and its bytes, and no nesting.
        Value::Tag(_, inner) if inner.is_bytes() => return (1 + weight(inner).0, 0),
        Value::Tag(_, inner) => vec![inner],
        Value::Array(items) => items.iter().collect(),
        Value::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
        _ => return (1, 0),
    };
    parts.into_iter().map(weight).fold((1, 1), |(sum, deepest), (part, depth)| (sum + part, deepest.max(depth + 1)))
}
