//! What a client can do: one step each.

use std::pin::Pin;

use ftpq_proto::{
    Digest, Extent, Hole, Holes, Status,
    codec::{self, PREFIX_LEN},
    commands::{begin, commit, con, upld, write},
    message::{Request, Trailer},
};
use ftpq_storage::{BodyHasher, join};

use super::{
    answers::Heard,
    client::Client,
    requests::{self, begin, con_args, request},
};
use crate::Input;

/// One step of a client's, as the input wants it.
type Step = for<'a> fn(&'a mut Client<'_>, &'a mut Input<'_>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Every step, by the byte that chooses it. New ones go to the end: the corpus counts.
pub(crate) const STEPS: &[(&str, Step)] = &[
    ("con", |client, _| Box::pin(say_con(client))),
    ("call", |client, input| Box::pin(call(client, input))),
    ("request", |client, input| Box::pin(ask(client, input))),
    ("broken request", |client, input| Box::pin(ask_badly(client, input))),
    ("bytes", |client, input| Box::pin(send_bytes(client, input))),
    ("body", |client, input| Box::pin(send_body(client, input))),
    ("trailer", |client, input| Box::pin(send_trailer(client, input))),
    ("finish", |client, input| Box::pin(finish(client, input))),
    ("reset", |client, input| Box::pin(reset(client, input))),
    ("stop", |client, input| Box::pin(stop(client, input))),
    ("hear", |client, input| Box::pin(hear(client, input))),
    ("close", |client, input| Box::pin(close(client, input))),
    ("move", |client, _| Box::pin(move_away(client))),
    ("upload", |client, input| Box::pin(upload(client, input))),
    ("large upload", |client, input| Box::pin(upload_by_extents(client, input))),
];

async fn say_con(client: &mut Client<'_>) {
    let request = Request { verb: con::VERB.into(), cwd: Default::default(), args: con_args() };
    client.call(&request).await;
}

/// A request, and all of its answer.
async fn call(client: &mut Client<'_>, input: &mut Input<'_>) {
    let request = request(input, &client.told);
    client.call(&request).await;
}

/// A request, and no more for now.
async fn ask(client: &mut Client<'_>, input: &mut Input<'_>) {
    let request = request(input, &client.told);
    if let Some(stream) = client.open().await {
        stream.request(&request).await;
    }
}

/// A request in which some bytes are others, or that is cut.
async fn ask_badly(client: &mut Client<'_>, input: &mut Input<'_>) {
    let Ok(mut frame) = codec::encode(&request(input, &client.told)) else { return };
    for _ in 0..=input.below(4) {
        let at = usize::from(input.byte()) * 256 + usize::from(input.byte());
        let len = frame.len();
        frame[at % len] = input.byte();
    }
    if input.flag() {
        // Otherwise the length is right, and what is wrong is further inside.
        let len = ((frame.len() - PREFIX_LEN) as u32).to_be_bytes();
        frame[..PREFIX_LEN].copy_from_slice(&len);
    }
    let kept = frame.len() - input.below(4).min(frame.len());
    if let Some(stream) = client.open().await {
        stream.bytes(&frame[..kept]).await;
        stream.finish();
    }
}

/// Bytes of the input, on any stream.
async fn send_bytes(client: &mut Client<'_>, input: &mut Input<'_>) {
    let len = usize::from(input.byte());
    let bytes = input.bytes(len);
    if let Some(stream) = client.stream(input.byte()).await {
        stream.bytes(bytes).await;
    }
}

/// Some of a body, as a block or as a chunk, on any stream.
async fn send_body(client: &mut Client<'_>, input: &mut Input<'_>) {
    let len = input.choose(&[0_usize, 1, 10, 100, 1000, 65_537, 256 * 1024, 256 * 1024 + 1]);
    let chunked = input.flag();
    if let Some(stream) = client.stream(input.byte()).await {
        if chunked {
            stream.bytes(&(len as u32).to_be_bytes()).await;
        }
        stream.body(&vec![input.byte(); len]).await;
    }
}

/// The digest of the body that was sent on any stream, or of another.
async fn send_trailer(client: &mut Client<'_>, input: &mut Input<'_>) {
    let wrong = input.flag();
    if let Some(stream) = client.stream(input.byte()).await {
        let digest = if wrong { Digest::from([7; 32]) } else { stream.body.finish() };
        stream.bytes(&codec::encode(&Trailer { digest }).expect("a trailer")).await;
    }
}

async fn finish(client: &mut Client<'_>, input: &mut Input<'_>) {
    if let Some(stream) = client.stream(input.byte()).await {
        stream.finish();
    }
}

async fn reset(client: &mut Client<'_>, input: &mut Input<'_>) {
    let status = status(input);
    if let Some(stream) = client.stream(input.byte()).await {
        stream.cut(status);
    }
}

async fn stop(client: &mut Client<'_>, input: &mut Input<'_>) {
    let status = status(input);
    if let Some(stream) = client.stream(input.byte()).await {
        stream.stop(status);
    }
}

async fn hear(client: &mut Client<'_>, input: &mut Input<'_>) {
    client.hear(input.byte(), input.flag()).await;
}

async fn close(client: &mut Client<'_>, input: &mut Input<'_>) {
    let status = input.flag().then(|| status(input));
    client.close(status);
}

/// To another port.
async fn move_away(client: &mut Client<'_>) {
    client.connection().await.rebind();
}

/// A small file, as a client of this release sends it.
async fn upload(client: &mut Client<'_>, input: &mut Input<'_>) {
    let len = input.choose(&[0_usize, 1, 100, 5000, 65_537]);
    let args = upld::Args { size: Some(len as u64), holes: Holes::NONE, eager: true, ..requests::upload(input) };
    let bytes = vec![input.byte(); len];
    let request = asking(upld::VERB, &args);
    let Some(stream) = client.open().await else { return };
    stream.request(&request).await;
    stream.body(&bytes).await;
    let digest = stream.body.finish();
    stream.bytes(&codec::encode(&Trailer { digest }).expect("a trailer")).await;
    stream.finish();
    client.hear_last().await;
}

/// A file by extents, almost all of which is holes.
async fn upload_by_extents(client: &mut Client<'_>, input: &mut Input<'_>) {
    let args = begin::Args { first: false, ..begin(input, &client.told) };
    let Some(extents) = ftpq_proto::Extents::new(args.size, args.extent) else { return };
    if args.size > 24 * 1024 * 1024 {
        return;
    }
    let Some(Heard::Done) = client.call(&asking(begin::VERB, &args)).await else { return };
    let upload = client.told.upload;
    let fill = input.byte();
    let mut digests = Vec::new();
    for extent in extents.iter() {
        let holes = Holes::new(vec![Hole { offset: 1, length: extent.length - 1 }]).unwrap_or_default();
        let digest = digest_of(extent, fill, &holes);
        digests.push(digest);
        let request = asking(write::VERB, &write::Args { path: args.path.clone(), upload, index: extent.index, holes });
        let Some(stream) = client.open().await else { return };
        stream.request(&request).await;
        stream.bytes(&[fill]).await;
        stream.bytes(&codec::encode(&Trailer { digest }).expect("a trailer")).await;
        stream.finish();
        client.hear_last().await;
    }
    let digest = join(&digests).expect("two extents or more");
    if input.flag() {
        let args = commit::Args { path: args.path, upload, digest, mode: None, mtime: None };
        client.call(&asking(commit::VERB, &args)).await;
    }
}

/// Of an extent that begins with one byte and is holes from there.
fn digest_of(extent: Extent, first: u8, holes: &Holes) -> Digest {
    let mut hasher = BodyHasher::new(Some(extent));
    hasher.update(&[first]);
    holes.iter().for_each(|hole| hasher.zeros(hole.length));
    hasher.finish()
}

fn asking(verb: &str, args: &impl serde::Serialize) -> Request {
    let args = ciborium::Value::serialized(args).expect("arguments");
    Request { verb: verb.into(), cwd: Default::default(), args }
}

fn status(input: &mut Input<'_>) -> Status {
    Status::from(input.choose(&[0, 100, 306, 500, 600, 9999, u32::MAX]))
}
