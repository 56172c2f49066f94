//! What a server says on one stream, and whether it may.

use std::time::Duration;

use ciborium::Value;
use ftpq_proto::{
    Extents, Holes, Status, codec,
    commands::{attr, begin, cd, commit, con, dwld, link, list, mkdir, mv, prove, read, rm, stat, upld, write},
    limits::TEXT_MAX,
    message::{Failed, Reply, Request, Response, Trailer},
};
use ftpq_storage::BodyHasher;
use ftpq_transport::{RecvError, RecvHalf};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{requests::Told, world::PATIENCE};
use crate::text::assert_printable;

/// The half of a stream on which the server answers.
pub(crate) struct Answer {
    recv: RecvHalf,
    phase: Phase,
}

/// How far the exchange has come: see `ftpq_proto::message`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Items, a head or the reply may come.
    Open,
    /// The head has come, and the body if there was one: only the reply may.
    Headed,
    /// Nothing more comes, or nobody listens any more.
    Over,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A part, a head, or with it a body.
    More,
    /// The end: done.
    Done,
    /// The end: not done.
    Refused,
    /// The stream was cut.
    Cut,
    /// The connection is gone.
    Gone,
    /// Nothing within the time; nobody listens from now on.
    Silence,
}

impl Answer {
    pub(crate) fn new(recv: RecvHalf) -> Self {
        Self { recv, phase: Phase::Open }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Tells the server that nobody wants to know.
    pub(crate) fn stop(&mut self, status: Status) {
        self.recv.stop(status);
        self.phase = Phase::Over;
    }

    /// The next that the server says to `request`, if it says it in time.
    pub(crate) async fn hear(&mut self, request: Option<&Request>, told: &mut Told, patience: Duration) -> Heard {
        let heard = match self.recv.frame::<Response>(patience).await {
            Ok(response) => self.take(response, request, told).await,
            Err(error) => failed(error),
        };
        if !matches!(heard, Heard::More) {
            self.phase = Phase::Over;
        }
        heard
    }

    async fn take(&mut self, response: Response, request: Option<&Request>, told: &mut Told) -> Heard {
        let verb = request.map_or("", |request| request.verb.as_str());
        match response {
            Response::Item(item) => {
                assert_eq!(self.phase, Phase::Open, "{verb}: an item after the head");
                check_item(verb, &item);
                Heard::More
            }
            Response::Head(head) => {
                assert_eq!(self.phase, Phase::Open, "{verb}: a second head");
                self.phase = Phase::Headed;
                let request = request.expect("a head says that there was a request");
                match timeout(PATIENCE, self.body(request, &head, told)).await {
                    Ok(Ok(())) => Heard::More,
                    Ok(Err(error)) => failed(error),
                    Err(_) => panic!("{verb}: the body does not come"),
                }
            }
            Response::Reply(reply) => {
                self.recv.end().await;
                match reply {
                    Reply::Ok(value) => {
                        check_reply(verb, &value, self.phase, told);
                        Heard::Done
                    }
                    Reply::Error(failed) => {
                        check_failed(&failed);
                        Heard::Refused
                    }
                }
            }
        }
    }

    /// What follows a head.
    async fn body(&mut self, request: &Request, head: &Value, told: &mut Told) -> Result<(), RecvError> {
        match request.verb.as_str() {
            upld::VERB => check::<upld::Go>(head),
            dwld::VERB => {
                let file: dwld::File = decoded(head);
                told.file = (file.version, file.size, told.file.2);
                let args: dwld::Args = decoded(&request.args);
                if args.up_to.is_none_or(|up_to| file.size <= up_to) {
                    let hasher = BodyHasher::new(None);
                    self.bytes(file.size, &file.holes, hasher).await?;
                }
            }
            read::VERB => {
                let args: read::Args = decoded(&request.args);
                let extents = Extents::new(args.size, args.extent).expect("a cut that was taken");
                let extent = extents.get(args.index).expect("an extent that was taken");
                let part: read::Part = decoded(head);
                self.bytes(extent.length, &part.holes, BodyHasher::new(Some(extent))).await?;
            }
            begin::VERB => {
                assert!(decoded::<begin::Args>(&request.args).first, "nothing follows");
                let begun: begin::Begun = decoded(head);
                told.upload = begun.upload.expect("an upload that takes something");
            }
            other => panic!("{other} has no head"),
        }
        Ok(())
    }

    /// A body of `size` bytes with these holes, and the digest behind it.
    async fn bytes(&mut self, size: u64, holes: &Holes, mut hasher: BodyHasher) -> Result<(), RecvError> {
        assert!(holes.data_in(size).is_some(), "holes beyond the end");
        let mut at = 0;
        for (offset, length) in holes.iter().map(<(u64, u64)>::from).chain([(size, 0)]) {
            while at < offset {
                let block = self.recv.block((offset - at).min(64 * 1024) as usize).await?;
                hasher.update(&block);
                at += block.len() as u64;
            }
            hasher.zeros(length);
            at += length;
        }
        let trailer: Trailer = self.recv.frame(PATIENCE).await?;
        assert_eq!(trailer.digest, hasher.finish(), "not the digest of what came");
        Ok(())
    }
}

fn failed(error: RecvError) -> Heard {
    match error {
        RecvError::Reset(_) => Heard::Cut,
        RecvError::Stalled => Heard::Silence,
        RecvError::Closed(_) => Heard::Gone,
        RecvError::Ended | RecvError::Malformed(_) => panic!("the server's answer is none: {error}"),
    }
}

fn check_item(verb: &str, item: &Value) {
    match verb {
        list::VERB => check::<list::Page>(item),
        begin::VERB => check::<begin::Held>(item),
        other => panic!("{other} has no items"),
    }
}

/// The reply is the verb's own, and its head has come before.
fn check_reply(verb: &str, value: &Value, phase: Phase, told: &mut Told) {
    match verb {
        con::VERB => check::<con::Welcome>(value),
        list::VERB => check::<list::Listed>(value),
        cd::VERB => check::<cd::Folder>(value),
        stat::VERB => check::<stat::Found>(value),
        mkdir::VERB => check::<mkdir::Made>(value),
        rm::VERB => check::<rm::Removed>(value),
        mv::VERB => check::<mv::Moved>(value),
        link::VERB => check::<link::Linked>(value),
        attr::VERB => check::<attr::Set>(value),
        upld::VERB | commit::VERB => told.file.2 = decoded::<upld::Committed>(value).digest,
        write::VERB => check::<write::Written>(value),
        prove::VERB => check::<prove::Proved>(value),
        begin::VERB => {
            let begun: begin::Begun = decoded(value);
            assert_eq!(begun.written.is_some(), phase == Phase::Headed, "a first extent is written if it is taken");
            told.upload = begun.upload.unwrap_or(told.upload);
        }
        dwld::VERB => {
            assert_eq!(phase, Phase::Headed, "no head");
            let sent = codec::from_value::<dwld::Sent>(value).ok();
            match sent {
                Some(sent) => told.file.2 = sent.digest,
                None => check::<dwld::Large>(value),
            }
        }
        read::VERB => check::<read::Sent>(value),
        other => panic!("{other} was done"),
    }
}

/// A refusal is a sentence that can be shown, and no bug.
fn check_failed(failed: &Failed) {
    assert!(failed.status != Status::Internal, "{failed:?}");
    assert!(!failed.message.is_empty() && failed.message.len() <= TEXT_MAX, "{failed:?}");
    assert_printable(&failed.message);
}

fn check<T: DeserializeOwned>(value: &Value) {
    decoded::<T>(value);
}

fn decoded<T: DeserializeOwned>(value: &Value) -> T {
    codec::from_value(value).unwrap_or_else(|error| panic!("{error} in {value:?}"))
}
