//! Requests that a client might make, each with arguments that the input chooses.

use ciborium::Value;
use ftpq_proto::{
    Digest, Hole, Holes, LinkTarget, RemotePath, Timestamp, UploadId, UserPath, VERSION, Version,
    commands::{attr, begin, cd, commit, con, dwld, link, list, mkdir, mv, prove, read, rm, stat, upld, write},
    limits::EXTENT_MIN,
    message::Request,
};
use serde::Serialize;

use crate::Input;

/// What a client was told, and can say again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// By BEGIN.
    pub(crate) upload: UploadId,
    /// By DWLD: the version, size and digest of a file.
    pub(crate) file: (Version, u64, Digest),
}

impl Default for Told {
    fn default() -> Self {
        let nothing = Digest::from([0; 32]);
        Self { upload: UploadId::from([0; 32]), file: (nothing.into(), 0, nothing) }
    }
}

/// A verb's arguments, as the input wants them.
type MakeArgs = fn(&mut Input<'_>, &Told) -> Value;

/// Every verb, by the byte that chooses it. New ones go to the end: the corpus counts.
const VERBS: &[(&str, MakeArgs)] = &[
    (con::VERB, |input, _| con_any(input)),
    (list::VERB, |input, _| value(list::Args { path: path(input) })),
    (cd::VERB, |input, _| value(cd::Args { path: path(input) })),
    (stat::VERB, |input, _| value(stat::Args { path: path(input) })),
    (mkdir::VERB, |input, _| value(mkdir::Args { path: path(input), parents: input.flag() })),
    (rm::VERB, |input, _| value(rm::Args { path: path(input), recursive: input.flag() })),
    (mv::VERB, |input, _| value(mv::Args { from: path(input), to: path(input), overwrite: input.flag() })),
    (link::VERB, |input, _| link(input)),
    (attr::VERB, |input, _| value(attr::Args { path: path(input), mode: mode(input), mtime: mtime(input) })),
    (upld::VERB, |input, _| value(upload(input))),
    (dwld::VERB, |input, _| download(input)),
    (read::VERB, read),
    (begin::VERB, |input, told| value(begin(input, told))),
    (write::VERB, |input, told| {
        value(write::Args { path: path(input), upload: told.upload, index: index(input), holes: holes(input) })
    }),
    (prove::VERB, |input, told| {
        value(prove::Args { path: path(input), upload: told.upload, index: index(input), digest: digest(input, told) })
    }),
    (commit::VERB, |input, told| {
        let (path, digest) = (path(input), digest(input, told));
        value(commit::Args { path, upload: told.upload, digest, mode: mode(input), mtime: mtime(input) })
    }),
    ("acme.none", |input, _| input.bytes(4).to_vec().into()),
];

/// A request that means something.
pub(crate) fn request(input: &mut Input<'_>, told: &Told) -> Request {
    let (verb, args) = input.choose(VERBS);
    Request { verb: verb.into(), cwd: cwd(input), args: args(input, told) }
}

/// CON's arguments as a client of this release has them.
pub(crate) fn con_args() -> Value {
    versions(&[VERSION])
}

/// The arguments of UPLD.
pub(crate) fn upload(input: &mut Input<'_>) -> upld::Args {
    let options = input.byte();
    let has = |bit: u8| options & (1 << bit) != 0;
    upld::Args {
        path: path(input),
        size: has(0).then(|| size(input)),
        holes: if has(1) { holes(input) } else { Holes::NONE },
        overwrite: has(2),
        accept_same: has(3),
        parents: has(4),
        eager: has(5),
        mode: mode(input),
        mtime: mtime(input),
    }
}

/// The arguments of BEGIN.
pub(crate) fn begin(input: &mut Input<'_>, told: &Told) -> begin::Args {
    let options = input.byte();
    let has = |bit: u8| options & (1 << bit) != 0;
    begin::Args {
        path: path(input),
        size: size(input),
        extent: input.choose(&[EXTENT_MIN, EXTENT_MIN, 2 * EXTENT_MIN, 1 << 30, 1, 0, u64::MAX]),
        fresh: has(0),
        apart: has(1).then(|| digest(input, told)),
        sparse: has(2),
        overwrite: has(3),
        same: has(4).then(|| digest(input, told)),
        parents: has(5),
        first: has(6),
    }
}

/// A path that often means something to others, too.
pub(crate) fn path(input: &mut Input<'_>) -> UserPath {
    const PATHS: &[&[u8]] = &[
        b"a",
        b"b",
        b"d",
        b"d/a",
        b"d/e",
        b"d/e/a",
        b"link",
        b"link/a",
        b"",
        b"/",
        b"..",
        b"../canary",
        b"/../../canary",
        b"a/",
        b"d/../a",
        b"caf\xe9",
        b"two\nlines\x1b[31m",
        b".ftpq-0123456789abcdef0123456789abcdef",
    ];
    let choice = usize::from(input.byte());
    let path = PATHS.get(choice).map(|path| path.to_vec()).unwrap_or_else(|| match choice {
        // Something of the input's own; or too long in one way or another.
        0x80.. => input.bytes(choice - 0x80).to_vec(),
        0x7f => vec![b'n'; 256],
        0x7e => b"x/".repeat(300),
        _ => PATHS[choice % PATHS.len()].to_vec(),
    });
    UserPath::new(path).unwrap_or_default()
}

fn cwd(input: &mut Input<'_>) -> RemotePath {
    input.choose(&["/", "/", "/d", "/d/e", "/link", "/nowhere/at/all"]).parse().expect("a path")
}

fn con_any(input: &mut Input<'_>) -> Value {
    match input.below(5) {
        0 => versions(&[]),
        1 => versions(&[u32::from(input.byte()), u32::MAX]),
        2 => {
            let mut args = con_args();
            if let Value::Map(fields) = &mut args {
                fields.push(("ticket".into(), Value::Bytes(vec![input.byte(); 16])));
            }
            args
        }
        _ => con_args(),
    }
}

/// By its fields' names: new ones, which may be left out, do not matter here.
fn versions(versions: &[u32]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|&version| version.into()).collect();
    Value::Map(vec![("versions".into(), versions.into()), ("agent".into(), "fuzz/1".into())])
}

fn link(input: &mut Input<'_>) -> Value {
    let options = input.byte();
    let target = LinkTarget::new(path(input).as_bytes()).unwrap_or_else(|_| LinkTarget::new("a").expect("a target"));
    value(link::Args {
        path: path(input),
        target,
        overwrite: options & 1 != 0,
        accept_same: options & 2 != 0,
        parents: options & 4 != 0,
        mtime: mtime(input),
    })
}

fn download(input: &mut Input<'_>) -> Value {
    let up_to = input.flag().then(|| size(input));
    value(dwld::Args { path: path(input), up_to, sparse: input.flag() })
}

fn read(input: &mut Input<'_>, told: &Told) -> Value {
    let (version, told_size, _) = told.file;
    let size = if input.flag() { told_size } else { size(input) };
    let extent = input.choose(&[EXTENT_MIN, 2 * EXTENT_MIN, 0]);
    value(read::Args { path: path(input), version, size, extent, index: index(input), digest_only: input.flag() })
}

/// Sizes around those at which something changes.
fn size(input: &mut Input<'_>) -> u64 {
    const MIB: u64 = 1024 * 1024;
    input.choose(&[
        0,
        1,
        10,
        1000,
        65_537,
        256 * 1024,
        256 * 1024 + 1,
        8 * MIB,
        8 * MIB + 1,
        16 * MIB,
        16 * MIB + 1,
        1 << 44,
        1 << 45,
        u64::MAX,
    ])
}

fn index(input: &mut Input<'_>) -> u32 {
    input.choose(&[0, 0, 1, 1, 2, u32::MAX])
}

/// Some holes, mostly ones that can be.
fn holes(input: &mut Input<'_>) -> Holes {
    let mut end = 0;
    let mut all = Vec::new();
    for _ in 0..input.below(4) {
        let (offset, length) = (end + 1 + u64::from(input.byte()), input.choose(&[1, 100, 65_536, EXTENT_MIN]));
        all.push(Hole { offset: if input.flag() { 0 } else { offset }, length });
        end = offset + length;
    }
    Holes::new(all).unwrap_or_default()
}

fn digest(input: &mut Input<'_>, told: &Told) -> Digest {
    if input.flag() { told.file.2 } else { Digest::from([input.byte(); 32]) }
}

fn mode(input: &mut Input<'_>) -> Option<u32> {
    input.choose(&[None, None, Some(0o644), Some(0o755), Some(0), Some(0o7777), Some(u32::MAX)])
}

fn mtime(input: &mut Input<'_>) -> Option<Timestamp> {
    input.choose(&[None, None, Timestamp::new(0, 0), Timestamp::new(i64::MAX, 999_999_999), Timestamp::new(-1, 1)])
}

fn value(args: impl Serialize) -> Value {
    Value::serialized(&args).expect("arguments")
}
