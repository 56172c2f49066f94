//! What decoding promises: what was said comes back as it was said, what is over a limit is
//! refused, and no bytes whatever make a decoder panic.

#![allow(clippy::unwrap_used)] // samples that cannot be made are failures

use std::fmt::Debug;

use ciborium::Value;
use ftpq_proto::{
    Digest, Entry, Extents, Hole, Holes, Kind, LinkTarget, Name, RemotePath, Right, Rights, Spec, Status, Timestamp,
    UploadId, UserPath, Version,
    codec::{self, DecodeError, EncodeError, PREFIX_LEN},
    commands::{attr, begin, cd, commit, con, dwld, link, list, mkdir, mv, prove, read, rm, stat, upld, write},
    limits::{
        EXTENT_MAX, EXTENT_MIN, EXTENTS_MAX, FEATURES_MAX, FRAME_MAX, HELD_PAGE_MAX, HOLES_MAX, LIST_PAGE_BYTES,
        LIST_PAGE_MAX, NAME_MAX, PATH_MAX, PORTS_MAX, TEXT_MAX, VERBS_MAX,
    },
    message::{Failed, Reply, Request, Response, Trailer},
};
use proptest::{collection::vec, option, prelude::*, sample};
use serde::{Serialize, de::DeserializeOwned};

proptest! {
    #[test]
    fn con_comes_back_as_it_was_said(args in con_args(), welcome in welcome()) {
        survives(args)?;
        survives(welcome)?;
    }

    #[test]
    fn list_comes_back_as_it_was_said(args in list_args(), page in page(), listed in listed()) {
        survives(args)?;
        survives(page)?;
        survives(listed)?;
    }

    #[test]
    fn cd_comes_back_as_it_was_said(args in cd_args(), folder in folder()) {
        survives(args)?;
        survives(folder)?;
    }

    #[test]
    fn upld_comes_back_as_it_was_said(args in upld_args(), committed in committed()) {
        survives(args)?;
        survives(upld::Go {})?;
        survives(committed)?;
    }

    #[test]
    fn dwld_comes_back_as_it_was_said(args in dwld_args(), file in file(), sent in sent()) {
        survives(args)?;
        survives(file)?;
        survives(sent)?;
        survives(dwld::Large {})?;
    }

    #[test]
    fn begin_comes_back_as_it_was_said(args in begin_args(), held in held(), begun in begun()) {
        survives(args)?;
        survives(held)?;
        survives(begun)?;
    }

    #[test]
    fn write_prove_and_commit_come_back_as_they_were_said(
        write in write_args(),
        written in written(),
        prove in prove_args(),
        same: bool,
        commit in commit_args(),
    ) {
        survives(write)?;
        survives(written)?;
        survives(prove)?;
        survives(prove::Proved { same })?;
        survives(commit)?;
    }

    #[test]
    fn read_comes_back_as_it_was_said(args in read_args(), part in part(), digest in digest()) {
        survives(args)?;
        survives(part)?;
        survives(read::Sent { digest })?;
    }

    #[test]
    fn holes_are_those_of_a_file_or_refused(pairs in vec(hole(), 0..8), length: u64) {
        let decoded = decode::<Holes>(&pairs).ok();
        let mut end = None;
        let mut total = 0;
        let good = pairs.iter().all(|&(offset, length)| {
            let (before, after) = (end, u128::from(offset) + u128::from(length));
            (end, total) = (Some(after), total + length as u128);
            length > 0 && after <= u64::MAX.into() && before.is_none_or(|before| u128::from(offset) > before)
        });
        prop_assert_eq!(decoded.is_some(), good);
        if let Some(holes) = decoded {
            prop_assert_eq!(holes.iter().map(<(u64, u64)>::from).collect::<Vec<_>>(), pairs);
            let fits = end.unwrap_or(0) <= u128::from(length);
            prop_assert_eq!(holes.data_in(length).map(u128::from), fits.then(|| u128::from(length) - total));
        }
    }

    /// Whatever a peer calls a cut, it is one or none, and costs nothing to try.
    #[test]
    fn a_cut_covers_the_file_or_is_none(size: u64, small in 0..(1_u64 << 45), shift in 0..64_u32, odd: u64) {
        for (size, length) in [(size, odd), (size, 1 << shift), (small, 1 << shift), (small, odd), (size, 0)] {
            let Some(extents) = Extents::new(size, length) else { continue };
            prop_assert!(length.is_power_of_two() && (EXTENT_MIN..=EXTENT_MAX).contains(&length));
            prop_assert!((2..=EXTENTS_MAX).contains(&extents.count()));
            let last = extents.get(extents.count() - 1).unwrap();
            prop_assert_eq!((last.offset + last.length, last.offset % length), (size, 0));
            prop_assert!(last.length > 0 && last.length <= length);
            for beyond in [extents.count(), u32::MAX] {
                prop_assert_eq!(extents.get(beyond), None);
            }
        }
        if let Some(extents) = Extents::of(small) {
            prop_assert_eq!(Extents::new(small, extents.length()), Some(extents));
        }
    }

    #[test]
    fn stat_comes_back_as_it_was_said(args in stat_args(), found in found()) {
        survives(args)?;
        survives(found)?;
    }

    #[test]
    fn mkdir_comes_back_as_it_was_said(args in mkdir_args(), made in made()) {
        survives(args)?;
        survives(made)?;
    }

    #[test]
    fn rm_comes_back_as_it_was_said(args in rm_args(), removed in removed()) {
        survives(args)?;
        survives(removed)?;
    }

    #[test]
    fn mv_comes_back_as_it_was_said(args in mv_args(), moved in moved()) {
        survives(args)?;
        survives(moved)?;
    }

    #[test]
    fn link_comes_back_as_it_was_said(args in link_args(), linked in linked()) {
        survives(args)?;
        survives(linked)?;
    }

    #[test]
    fn attr_comes_back_as_it_was_said(args in attr_args(), set in set()) {
        survives(args)?;
        survives(set)?;
    }

    #[test]
    fn an_entry_takes_no_more_of_a_page_than_it_says(entry in entry()) {
        prop_assert!(body(&entry).len() <= entry.page_bytes());
    }

    #[test]
    fn the_grammar_comes_back_as_it_was_said(
        request in request(mv_args()),
        response in response(),
        trailer in trailer(),
        status: u32,
    ) {
        survives(request)?;
        survives(response)?;
        survives(trailer)?;
        survives(Status::from(status))?;
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..512), prefix: [u8; PREFIX_LEN]) {
        decode_as_everything(&bytes)?;
        if let Ok(len) = codec::body_len(prefix) {
            prop_assert!(len <= FRAME_MAX);
        }
    }

    #[test]
    fn a_damaged_message_does_no_harm(body in any_message(), damage in vec(damage(), 1..8)) {
        let damaged = damage.iter().fold(body, |body, damage| damage.done_to(body));
        decode_as_everything(&damaged)?;
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_whoever_makes_it() {
    let len = FRAME_MAX + 1;
    assert_eq!(codec::body_len((len as u32).to_be_bytes()), Err(DecodeError::TooLarge { len }));
    assert_eq!(codec::body_len((FRAME_MAX as u32).to_be_bytes()), Ok(FRAME_MAX));
    assert_eq!(codec::decode::<Value>(&vec![0; len]), Err(DecodeError::TooLarge { len }));
    assert!(matches!(codec::encode(&"x".repeat(FRAME_MAX)), Err(EncodeError::TooLarge { .. })));
}

#[test]
fn the_largest_page_of_the_longest_names_fits_a_frame() {
    let name = Name::new(vec![0xff; NAME_MAX]).ok();
    let mtime = Timestamp::new(i64::MIN, 999_999_999).unwrap();
    let entry = Entry { name, kind: Kind::Folder, size: u64::MAX, mtime, mode: u32::MAX, target: None };
    let mut page = list::Page { entries: vec![entry.clone(); LIST_PAGE_MAX] };
    let response = Response::Item(Value::serialized(&page).unwrap());
    assert_eq!(decode::<Response>(&response), Ok(response));
    page.entries.push(entry);
    refuses(&page);
}

#[test]
fn the_largest_page_of_extents_fits_a_frame() {
    let extent = begin::HeldExtent { index: u32::MAX, digest: Some([0xff; 32].into()) };
    let mut held = begin::Held { extents: vec![extent; HELD_PAGE_MAX] };
    let response = Response::Item(Value::serialized(&held).unwrap());
    assert_eq!(decode::<Response>(&response), Ok(response));
    takes(&held);
    held.extents.push(extent);
    refuses(&held);
}

#[test]
fn the_largest_messages_about_large_files_fit_a_frame() {
    let (path, cwd) = (longest_path(), longest_path().resolve(&RemotePath::root()).unwrap());
    let (digest, upload) = (Digest::from([0xff; 32]), UploadId::from([0xff; 32]));
    let mtime = Timestamp::new(i64::MIN, 999_999_999);
    fits(&cwd, begin::VERB, begin_with(&path));
    let (index, mode) = (u32::MAX, Some(u32::MAX));
    fits(&cwd, write::VERB, write::Args { path: path.clone(), upload, index, holes: most_holes() });
    fits(&cwd, prove::VERB, prove::Args { path: path.clone(), upload, index, digest });
    fits(&cwd, commit::VERB, commit::Args { path: path.clone(), upload, digest, mode, mtime });
    let [size, extent] = [u64::MAX; 2];
    let read = read::Args { path: path.clone(), version: digest.into(), size, extent, index, digest_only: true };
    fits(&cwd, read::VERB, read);
    let upld = upld::Args {
        path: path.clone(),
        size: Some(u64::MAX),
        holes: most_holes(),
        overwrite: true,
        accept_same: true,
        parents: true,
        eager: true,
        mode,
        mtime,
    };
    fits(&cwd, upld::VERB, upld);
    let head = dwld::File {
        path: cwd,
        size: u64::MAX,
        version: digest.into(),
        sparse: true,
        holes: most_holes(),
        mtime: mtime.unwrap(),
        mode: u32::MAX,
    };
    takes(&Response::Head(Value::serialized(&head).unwrap()));
    takes(&Response::Head(Value::serialized(&read::Part { holes: most_holes() }).unwrap()));
}

#[test]
fn holes_over_the_limit_are_refused_wherever_they_stand() {
    let pairs = |count: u64| (0..count).map(|index| Value::Array(vec![(2 * index).into(), 1.into()])).collect();
    let holes = |over| Value::Array(pairs(HOLES_MAX as u64 + over));
    let path = || ("path", Value::from("f"));
    let write =
        |over| map([path(), ("upload", Value::Bytes(vec![0; 32])), ("index", 0.into()), ("holes", holes(over))]);
    let upload = |over| map([path(), ("size", 5.into()), ("holes", holes(over))]);
    let part = |over| map([("holes", holes(over))]);
    for (over, fits) in [(0, true), (1, false)] {
        assert_eq!(decode::<write::Args>(&write(over)).is_ok(), fits);
        assert_eq!(decode::<upld::Args>(&upload(over)).is_ok(), fits);
        assert_eq!(decode::<read::Part>(&part(over)).is_ok(), fits);
    }
}

#[test]
fn holes_that_no_file_has_are_refused() {
    for bad in [
        &[(5, 0)][..],
        &[(0, 10), (10, 5)],
        &[(0, 10), (5, 10)],
        &[(9, 1), (0, 1)],
        &[(1, u64::MAX)],
        &[(u64::MAX, 1)],
        &[(0, 1), (u64::MAX, u64::MAX)],
    ] {
        refuses_as::<Holes>(&bad);
    }
    assert_eq!(decode::<Holes>(&[(0, u64::MAX)]).unwrap().data_in(u64::MAX), Some(0));
    refuses_as::<Holes>(&[(0, 1, 2)]);
    assert!(Value::serialized(&[(0, 1, 2)]).unwrap().deserialized::<Holes>().is_err());
    refuses_as::<Holes>(&[(-1, 1)]);
    refuses_as::<Holes>(&[[0]]);
    refuses_as::<Holes>(&"");
}

#[test]
fn a_name_of_an_upload_or_version_has_its_length_and_is_not_logged() {
    for len in [0, 31, 33] {
        refuses_as::<UploadId>(&Value::Bytes(vec![0x17; len]));
        refuses_as::<Version>(&Value::Bytes(vec![0x17; len]));
    }
    let id = decode::<UploadId>(&Value::Bytes(vec![0x17; 32])).unwrap();
    assert_eq!(id, UploadId::from([0x17; 32]));
    assert!(!format!("{id:?}").contains("17"), "{id:?}");
}

#[test]
fn a_page_that_ends_by_its_bytes_fits_a_frame() {
    let name = Name::new(vec![0xff; NAME_MAX]).ok();
    let mtime = Timestamp::new(i64::MIN, 999_999_999).unwrap();
    let target = LinkTarget::new(vec![0xff; PATH_MAX]).ok();
    let entry = Entry { name, kind: Kind::Folder, size: u64::MAX, mtime, mode: u32::MAX, target };
    // The page was not yet at its end, and got one more.
    let page = list::Page { entries: vec![entry.clone(); LIST_PAGE_BYTES.div_ceil(entry.page_bytes())] };
    let response = Response::Item(Value::serialized(&page).unwrap());
    assert_eq!(decode::<Response>(&response), Ok(response));
}

#[test]
fn more_than_the_stated_number_of_anything_is_refused() {
    let args =
        |versions, features| con::Args { versions: vec![1; versions], features: vec!["f".into(); features], ..args() };
    takes(&args(FEATURES_MAX, FEATURES_MAX));
    refuses(&args(FEATURES_MAX + 1, 0));
    refuses(&args(0, FEATURES_MAX + 1));
    let welcome = |features, verbs| con::Welcome {
        features: vec!["f".into(); features],
        verbs: vec![Spec::for_everyone("V", ""); verbs],
        ..nobody()
    };
    takes(&welcome(FEATURES_MAX, VERBS_MAX));
    refuses(&welcome(FEATURES_MAX + 1, 0));
    refuses(&welcome(0, VERBS_MAX + 1));
    let shards = |ports| con::Welcome { ports: vec![4434; ports], ..nobody() };
    takes(&shards(PORTS_MAX));
    refuses(&shards(PORTS_MAX + 1));
}

#[test]
fn a_text_over_the_limit_is_refused() {
    for (len, fits) in [(TEXT_MAX, true), (TEXT_MAX + 1, false)] {
        let text = "t".repeat(len);
        let check = |taken: bool, what| assert_eq!(taken, fits, "{what} of {len} bytes");
        check(is_taken(&Failed { status: Status::Io, message: text.clone() }), "a message");
        check(is_taken(&Spec::for_everyone("V", &text)), "a summary");
        check(is_taken(&con::Args { agent: text.clone(), ..args() }), "a client's name");
        check(is_taken(&con::Welcome { agent: text.clone(), ..nobody() }), "a server's name");
        check(is_taken(&con::Welcome { user: text.clone(), ..nobody() }), "a user's name");
        check(is_taken(&con::Welcome { key: text, ..nobody() }), "a key");
    }
}

#[test]
fn a_timestamp_has_less_than_a_second_of_nanoseconds() {
    let timestamp = |nanos: u64| map([("secs", 0.into()), ("nanos", nanos.into())]);
    assert_eq!(decode(&timestamp(999_999_999)), Ok(Timestamp::new(0, 999_999_999).unwrap()));
    for nanos in [1_000_000_000, u32::MAX.into(), u64::MAX] {
        assert!(decode::<Timestamp>(&timestamp(nanos)).is_err(), "{nanos}");
    }
}

#[test]
fn options_that_are_left_out_are_off() {
    let path = || ("path", Value::from("f"));
    let upload = upld::Args {
        path: "f".parse().unwrap(),
        size: Some(5),
        holes: Holes::NONE,
        overwrite: false,
        accept_same: false,
        parents: false,
        eager: false,
        mode: None,
        mtime: None,
    };
    assert_eq!(decode(&map([path(), ("size", 5.into())])), Ok(upload.clone()));
    assert_eq!(decode(&map([path()])), Ok(upld::Args { size: None, ..upload }));
    assert_eq!(decode(&map([path()])), Ok(dwld::Args { path: "f".parse().unwrap(), up_to: None, sparse: false }));
    let begin = begin::Args {
        path: "f".parse().unwrap(),
        size: 5,
        extent: 8,
        fresh: false,
        apart: None,
        sparse: false,
        overwrite: false,
        same: None,
        parents: false,
        first: false,
    };
    assert_eq!(decode(&map([path(), ("size", 5.into()), ("extent", 8.into())])), Ok(begin));
    assert_eq!(decode(&map([])), Ok(begin::Begun { upload: None, written: None }));
    assert_eq!(decode(&map([])), Ok(read::Part { holes: Holes::NONE }));
    assert_eq!(decode(&map([("index", 7.into())])), Ok(begin::HeldExtent { index: 7, digest: None }));
    let id = || Value::Bytes(vec![0x17; 32]);
    let (upload, digest) = (UploadId::from([0x17; 32]), Digest::from([0x17; 32]));
    let write = write::Args { path: "f".parse().unwrap(), upload, index: 7, holes: Holes::NONE };
    assert_eq!(decode(&map([path(), ("upload", id()), ("index", 7.into())])), Ok(write));
    let commit = commit::Args { path: "f".parse().unwrap(), upload, digest, mode: None, mtime: None };
    assert_eq!(decode(&map([path(), ("upload", id()), ("digest", id())])), Ok(commit));
    assert!(decode::<begin::Args>(&map([path(), ("size", 5.into())])).is_err());
    assert!(decode::<write::Args>(&map([path(), ("index", 7.into())])).is_err());
    assert!(decode::<commit::Args>(&map([path(), ("upload", id())])).is_err());
    assert_eq!(decode(&map([path()])), Ok(mkdir::Args { path: "f".parse().unwrap(), parents: false }));
    assert_eq!(decode(&map([path()])), Ok(rm::Args { path: "f".parse().unwrap(), recursive: false }));
    let link = ("target", Value::from("f"));
    let to_link = link::Args {
        path: "f".parse().unwrap(),
        target: LinkTarget::new("f").unwrap(),
        overwrite: false,
        accept_same: false,
        parents: false,
        mtime: None,
    };
    assert_eq!(decode(&map([path(), link])), Ok(to_link));
    assert_eq!(decode(&map([path()])), Ok(attr::Args { path: "f".parse().unwrap(), mode: None, mtime: None }));
    assert!(decode::<link::Args>(&map([path()])).is_err());
    assert_eq!(decode(&map([])), Ok(list::Args { path: UserPath::default() }));
    assert!(decode::<dwld::Args>(&map([])).is_err());
}

/// Whether a decoder takes a value with one field more than it knows.
macro_rules! tolerates {
    ($strategy:expr) => {{
        let mut value = Value::serialized(&sample_of($strategy)).unwrap();
        value.as_map_mut().unwrap().push(("novelty".into(), true.into()));
        codec::decode::<Value>(&body(&value)).unwrap();
        is_decoded_as(&$strategy, &value)
    }};
}

#[test]
fn an_option_that_is_not_known_is_refused() {
    assert!(!tolerates!(request(cd_args())));
    assert!(!tolerates!(con_args()));
    assert!(!tolerates!(list_args()));
    assert!(!tolerates!(cd_args()));
    assert!(!tolerates!(upld_args()));
    assert!(!tolerates!(dwld_args()));
    assert!(!tolerates!(stat_args()));
    assert!(!tolerates!(mkdir_args()));
    assert!(!tolerates!(rm_args()));
    assert!(!tolerates!(mv_args()));
    assert!(!tolerates!(begin_args()));
    assert!(!tolerates!(write_args()));
    assert!(!tolerates!(prove_args()));
    assert!(!tolerates!(commit_args()));
    assert!(!tolerates!(read_args()));
    assert!(!tolerates!(link_args()));
    assert!(!tolerates!(attr_args()));
}

#[test]
fn a_newer_server_may_say_more() {
    assert!(tolerates!(welcome()));
    assert!(tolerates!(spec()));
    assert!(tolerates!(page()));
    assert!(tolerates!(entry()));
    assert!(tolerates!(listed()));
    assert!(tolerates!(folder()));
    assert!(tolerates!(Just(upld::Go {})));
    assert!(tolerates!(committed()));
    assert!(tolerates!(file()));
    assert!(tolerates!(sent()));
    assert!(tolerates!(found()));
    assert!(tolerates!(made()));
    assert!(tolerates!(removed()));
    assert!(tolerates!(moved()));
    assert!(tolerates!(Just(dwld::Large {})));
    assert!(tolerates!(held()));
    assert!(tolerates!(held_extent()));
    assert!(tolerates!(begun()));
    assert!(tolerates!(written()));
    assert!(tolerates!(Just(prove::Proved { same: true })));
    assert!(tolerates!(part()));
    assert!(tolerates!(digest().prop_map(|digest| read::Sent { digest })));
    assert!(tolerates!(linked()));
    assert!(tolerates!(set()));
    assert!(tolerates!(failed()));
    assert!(tolerates!(trailer()));
}

/// A hostile server cannot have a client write anywhere but under a name in the folder at hand.
#[test]
fn a_page_with_what_is_no_name_or_no_target_is_refused() {
    let time = || map([("secs", 0.into()), ("nanos", 0.into())]);
    let page = |name: Value, target: Value| {
        let (kind, size, mode) = ("link".into(), 0.into(), 0.into());
        let entry = map([
            ("name", name),
            ("kind", kind),
            ("size", size),
            ("mtime", time()),
            ("mode", mode),
            ("target", target),
        ]);
        decode::<list::Page>(&map([("entries", Value::Array(vec![entry]))]))
    };
    assert!(page("...".into(), "..".into()).is_ok());
    for name in ["", ".", "..", "/", "a/b", "../a", "/etc/passwd", "a\0b", &"n".repeat(NAME_MAX + 1)] {
        for name in [Value::from(name), Value::Bytes(name.into())] {
            assert!(page(name.clone(), "f".into()).is_err(), "{name:?}");
        }
    }
    for target in ["", "a\0b", &"t".repeat(PATH_MAX + 1)] {
        assert!(page("l".into(), target.into()).is_err(), "{target:?}");
    }
}

#[test]
fn rights_that_are_not_known_are_skipped() {
    let words = Value::Array(vec!["list".into(), "teleport".into(), "read".into()]);
    assert_eq!(decode(&words), Ok(Rights::NONE.with(Right::List).with(Right::Read)));
}

trait Message: Serialize + DeserializeOwned + PartialEq + Debug {}
impl<T: Serialize + DeserializeOwned + PartialEq + Debug> Message for T {}

fn body<T: Serialize>(value: &T) -> Vec<u8> {
    codec::encode(value).unwrap().split_off(PREFIX_LEN)
}

/// What `value` is taken for after a way over the wire.
fn decode<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, DecodeError> {
    codec::decode(&body(value))
}

fn is_taken<T: Message>(value: &T) -> bool {
    decode::<T>(value).is_ok_and(|decoded| decoded == *value)
}

fn takes<T: Message>(value: &T) {
    assert!(is_taken(value));
}

fn refuses<T: Message>(value: &T) {
    refuses_as::<T>(value);
}

fn refuses_as<T: Message>(value: &(impl Serialize + Debug)) {
    let decoded = decode::<T>(value);
    assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{value:?} became {decoded:?}");
}

/// In a request from the longest folder there is.
fn fits<A: Message>(cwd: &RemotePath, verb: &str, args: A) {
    takes(&Request { verb: verb.into(), cwd: cwd.clone(), args });
}

/// As many holes as there may be, whose numbers take as many bytes as they can.
fn most_holes() -> Holes {
    let length = u64::MAX / HOLES_MAX as u64 / 2;
    let first = u64::MAX - 2 * length * HOLES_MAX as u64;
    let holes = (0..HOLES_MAX as u64).map(|index| Hole { offset: first + (2 * index + 1) * length, length });
    let holes = Holes::new(holes.collect()).unwrap();
    assert_eq!(holes.iter().count(), HOLES_MAX);
    holes
}

/// Of bytes that are not UTF-8, which take no less room.
fn longest_path() -> UserPath {
    let component = [b"/".as_slice(), &[0xff; NAME_MAX]].concat();
    let path: Vec<u8> = component.iter().copied().cycle().take(PATH_MAX).collect();
    UserPath::new(path).unwrap()
}

fn begin_with(path: &UserPath) -> begin::Args {
    begin::Args {
        path: path.clone(),
        size: u64::MAX,
        extent: u64::MAX,
        fresh: true,
        apart: Some([0xff; 32].into()),
        sparse: true,
        overwrite: true,
        same: Some([0xff; 32].into()),
        parents: true,
        first: true,
    }
}

fn survives<T: Message>(value: T) -> Result<(), TestCaseError> {
    let decoded = decode::<T>(&value);
    prop_assert_eq!(decoded.as_ref(), Ok(&value));
    // Most of them travel within another message, decoded twice.
    let inner = Value::serialized(&value).unwrap();
    prop_assert_eq!(decode::<Value>(&inner).unwrap().deserialized::<T>().unwrap(), value);
    Ok(())
}

/// Decodes as every message there is. What is taken must be sayable, and mean the same.
fn decode_as_everything(bytes: &[u8]) -> Result<(), TestCaseError> {
    macro_rules! each {
        ($($type:ty),* $(,)?) => {$(
            if let Ok(value) = codec::decode::<$type>(bytes) {
                survives(value)?;
            }
        )*};
    }
    each!(con::Args, con::Welcome, list::Args, list::Page, list::Listed, cd::Args, cd::Folder);
    each!(upld::Args, upld::Go, upld::Committed, dwld::Args, dwld::File, dwld::Sent, stat::Args, stat::Found);
    each!(dwld::Large, begin::Args, begin::Held, begin::HeldExtent, begin::Begun, write::Args, write::Written);
    each!(prove::Args, prove::Proved, commit::Args, read::Args, read::Part, read::Sent);
    each!(Hole, Holes, UploadId, Version);
    each!(mkdir::Args, mkdir::Made, rm::Args, rm::Removed, mv::Args, mv::Moved);
    each!(link::Args, link::Linked, attr::Args, attr::Set, LinkTarget);
    each!(Request<mv::Args>, Failed, Trailer, Status, Digest, Entry, Name, RemotePath, Right, Rights, Spec);
    each!(Timestamp, UserPath);
    // These may hold a NaN, which is not even equal to itself.
    let _ = codec::decode::<Request>(bytes);
    let _ = codec::decode::<Response>(bytes);
    Ok(())
}

/// One thing that happens to bytes. Places are parts of however many bytes there are.
#[derive(Clone, Debug)]
enum Damage {
    Flip(sample::Index, u8),
    Truncate(sample::Index),
    Insert(sample::Index, u8),
}

impl Damage {
    fn done_to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Damage::Flip(place, bits) => {
                if !bytes.is_empty() {
                    *place.get_mut(&mut bytes) ^= bits;
                }
            }
            Damage::Truncate(place) => bytes.truncate(place.index(bytes.len() + 1)),
            Damage::Insert(place, byte) => bytes.insert(place.index(bytes.len() + 1), *byte),
        }
        bytes
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<sample::Index>;
    prop_oneof![
        4 => (place(), 1..=u8::MAX).prop_map(|(place, bits)| Damage::Flip(place, bits)),
        1 => place().prop_map(Damage::Truncate),
        2 => (place(), any::<u8>()).prop_map(|(place, byte)| Damage::Insert(place, byte)),
    ]
}

/// The bytes of any message.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    fn bytes<T: Serialize + Debug>(messages: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Vec<u8>> {
        messages.prop_map(|message| body(&message)).boxed()
    }
    proptest::strategy::Union::new([
        bytes(request(con_args())),
        bytes(request(upld_args())),
        bytes(request(mv_args())),
        bytes(con_args()),
        bytes(welcome()),
        bytes(list_args()),
        bytes(page()),
        bytes(listed()),
        bytes(cd_args()),
        bytes(folder()),
        bytes(upld_args()),
        bytes(committed()),
        bytes(dwld_args()),
        bytes(file()),
        bytes(sent()),
        bytes(stat_args()),
        bytes(found()),
        bytes(mkdir_args()),
        bytes(made()),
        bytes(rm_args()),
        bytes(removed()),
        bytes(mv_args()),
        bytes(moved()),
        bytes(request(begin_args())),
        bytes(request(write_args())),
        bytes(begin_args()),
        bytes(held()),
        bytes(begun()),
        bytes(write_args()),
        bytes(written()),
        bytes(prove_args()),
        bytes(commit_args()),
        bytes(read_args()),
        bytes(part()),
        bytes(link_args()),
        bytes(linked()),
        bytes(attr_args()),
        bytes(set()),
        bytes(response()),
        bytes(failed()),
        bytes(trailer()),
    ])
}

/// Any one value of a strategy, always the same.
fn sample_of<S: Strategy>(strategy: S) -> S::Value {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    strategy.new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

fn is_decoded_as<S: Strategy>(_: &S, value: &Value) -> bool
where
    S::Value: DeserializeOwned,
{
    decode::<S::Value>(value).is_ok()
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn args() -> con::Args {
    con::Args { versions: vec![], agent: String::new(), features: vec![], ticket: None }
}

fn nobody() -> con::Welcome {
    con::Welcome {
        version: 1,
        agent: String::new(),
        features: vec![],
        verbs: vec![],
        user: String::new(),
        key: String::new(),
        rights: Rights::NONE,
        limits: con::Limits::default(),
        successor: None,
        ports: vec![],
    }
}

// What there is to say.

prop_compose! {
    fn con_args()(
        versions in vec(any::<u32>(), 0..=FEATURES_MAX),
        agent in text(),
        features in vec(".{0,20}", 0..=FEATURES_MAX),
        ticket in option::of(any::<[u8; 16]>()),
    ) -> con::Args {
        con::Args { versions, agent, features, ticket: ticket.map(Into::into) }
    }
}

prop_compose! {
    fn welcome()(
        version: u32,
        [agent, user, key] in [text(), text(), text()],
        features in vec(".{0,20}", 0..=FEATURES_MAX),
        verbs in vec(spec(), 0..20),
        rights in rights(),
        limits in limits(),
        successor in option::of(successor()),
        ports in vec(any::<u16>(), 0..=PORTS_MAX),
    ) -> con::Welcome {
        con::Welcome { version, agent, features, verbs, user, key, rights, limits, successor, ports }
    }
}

prop_compose! {
    fn limits()(
        [bytes, files, rate] in [option::of(any::<u64>()), option::of(any::<u64>()), option::of(any::<u64>())],
        expires in option::of(any::<i64>()),
    ) -> con::Limits {
        con::Limits { bytes, files, rate, expires }
    }
}

prop_compose! {
    fn successor()([key, signature] in [text(), text()], until: i64) -> con::Successor {
        con::Successor { key, until, signature }
    }
}

prop_compose! {
    fn spec()(
        verb in "[A-Za-z][A-Za-z0-9._-]{0,63}",
        summary in text(),
        right in option::of(sample::select(&Right::ALL)),
        repeatable: bool,
        priority: i32,
    ) -> Spec {
        Spec { verb, summary, right, repeatable, priority }
    }
}

fn list_args() -> impl Strategy<Value = list::Args> {
    typed().prop_map(|path| list::Args { path })
}

fn page() -> impl Strategy<Value = list::Page> {
    vec(entry(), 0..=LIST_PAGE_MAX).prop_map(|entries| list::Page { entries })
}

fn listed() -> impl Strategy<Value = list::Listed> {
    (path(), any::<bool>(), any::<u64>()).prop_map(|(path, folder, count)| list::Listed { path, folder, count })
}

fn cd_args() -> impl Strategy<Value = cd::Args> {
    typed().prop_map(|path| cd::Args { path })
}

fn folder() -> impl Strategy<Value = cd::Folder> {
    path().prop_map(|path| cd::Folder { path })
}

prop_compose! {
    fn upld_args()(
        path in typed(),
        size: Option<u64>,
        holes in holes(),
        [overwrite, accept_same, parents, eager]: [bool; 4],
        mode: Option<u32>,
        mtime in option::of(timestamp()),
    ) -> upld::Args {
        upld::Args { path, size, holes, overwrite, accept_same, parents, eager, mode, mtime }
    }
}

fn committed() -> impl Strategy<Value = upld::Committed> {
    (path(), any::<u64>(), digest()).prop_map(|(path, length, digest)| upld::Committed { path, length, digest })
}

fn dwld_args() -> impl Strategy<Value = dwld::Args> {
    (typed(), any::<Option<u64>>(), any::<bool>()).prop_map(|(path, up_to, sparse)| dwld::Args { path, up_to, sparse })
}

prop_compose! {
    fn file()(
        path in path(),
        size: u64,
        version in version(),
        sparse: bool,
        holes in holes(),
        mtime in timestamp(),
        mode: u32,
    ) -> dwld::File {
        dwld::File { path, size, version, sparse, holes, mtime, mode }
    }
}

fn sent() -> impl Strategy<Value = dwld::Sent> {
    (any::<u64>(), digest()).prop_map(|(length, digest)| dwld::Sent { length, digest })
}

prop_compose! {
    fn begin_args()(
        path in typed(),
        [size, extent]: [u64; 2],
        [fresh, sparse, overwrite, parents, first]: [bool; 5],
        [apart, same] in [option::of(digest()), option::of(digest())],
    ) -> begin::Args {
        begin::Args { path, size, extent, fresh, apart, sparse, overwrite, same, parents, first }
    }
}

fn held() -> impl Strategy<Value = begin::Held> {
    vec(held_extent(), 0..20).prop_map(|extents| begin::Held { extents })
}

fn held_extent() -> impl Strategy<Value = begin::HeldExtent> {
    (any::<u32>(), option::of(digest())).prop_map(|(index, digest)| begin::HeldExtent { index, digest })
}

fn begun() -> impl Strategy<Value = begin::Begun> {
    (option::of(upload_id()), option::of(digest())).prop_map(|(upload, written)| begin::Begun { upload, written })
}

prop_compose! {
    fn write_args()(path in typed(), upload in upload_id(), index: u32, holes in holes()) -> write::Args {
        write::Args { path, upload, index, holes }
    }
}

fn written() -> impl Strategy<Value = write::Written> {
    digest().prop_map(|digest| write::Written { digest })
}

prop_compose! {
    fn prove_args()(path in typed(), upload in upload_id(), index: u32, digest in digest()) -> prove::Args {
        prove::Args { path, upload, index, digest }
    }
}

prop_compose! {
    fn commit_args()(
        path in typed(),
        upload in upload_id(),
        digest in digest(),
        mode: Option<u32>,
        mtime in option::of(timestamp()),
    ) -> commit::Args {
        commit::Args { path, upload, digest, mode, mtime }
    }
}

prop_compose! {
    fn read_args()(
        path in typed(),
        version in version(),
        [size, extent]: [u64; 2],
        index: u32,
        digest_only: bool,
    ) -> read::Args {
        read::Args { path, version, size, extent, index, digest_only }
    }
}

fn part() -> impl Strategy<Value = read::Part> {
    holes().prop_map(|holes| read::Part { holes })
}

fn stat_args() -> impl Strategy<Value = stat::Args> {
    typed().prop_map(|path| stat::Args { path })
}

fn found() -> impl Strategy<Value = stat::Found> {
    (path(), entry()).prop_map(|(path, entry)| stat::Found { path, entry })
}

fn mkdir_args() -> impl Strategy<Value = mkdir::Args> {
    (typed(), any::<bool>()).prop_map(|(path, parents)| mkdir::Args { path, parents })
}

fn made() -> impl Strategy<Value = mkdir::Made> {
    path().prop_map(|path| mkdir::Made { path })
}

fn rm_args() -> impl Strategy<Value = rm::Args> {
    (typed(), any::<bool>()).prop_map(|(path, recursive)| rm::Args { path, recursive })
}

fn removed() -> impl Strategy<Value = rm::Removed> {
    (path(), any::<u64>()).prop_map(|(path, count)| rm::Removed { path, count })
}

fn mv_args() -> impl Strategy<Value = mv::Args> {
    (typed(), typed(), any::<bool>()).prop_map(|(from, to, overwrite)| mv::Args { from, to, overwrite })
}

fn moved() -> impl Strategy<Value = mv::Moved> {
    (path(), path()).prop_map(|(from, to)| mv::Moved { from, to })
}

prop_compose! {
    fn link_args()(
        path in typed(),
        target in link_target(),
        [overwrite, accept_same, parents]: [bool; 3],
        mtime in option::of(timestamp()),
    ) -> link::Args {
        link::Args { path, target, overwrite, accept_same, parents, mtime }
    }
}

fn linked() -> impl Strategy<Value = link::Linked> {
    path().prop_map(|path| link::Linked { path })
}

prop_compose! {
    fn attr_args()(path in typed(), mode: Option<u32>, mtime in option::of(timestamp())) -> attr::Args {
        attr::Args { path, mode, mtime }
    }
}

fn set() -> impl Strategy<Value = attr::Set> {
    path().prop_map(|path| attr::Set { path })
}

fn request<A: Debug>(args: impl Strategy<Value = A>) -> impl Strategy<Value = Request<A>> {
    (".{0,20}", path(), args).prop_map(|(verb, cwd, args)| Request { verb, cwd, args })
}

fn response() -> impl Strategy<Value = Response> {
    let value = || moved().prop_map(|moved| Value::serialized(&moved).unwrap());
    prop_oneof![
        value().prop_map(Response::Item),
        value().prop_map(Response::Head),
        value().prop_map(|value| Response::Reply(Reply::Ok(value))),
        failed().prop_map(|failed| Response::Reply(Reply::Error(failed))),
    ]
}

fn failed() -> impl Strategy<Value = Failed> {
    (any::<u32>(), text()).prop_map(|(status, message)| Failed { status: status.into(), message })
}

fn trailer() -> impl Strategy<Value = Trailer> {
    digest().prop_map(|digest| Trailer { digest })
}

prop_compose! {
    fn entry()(
        name in option::of(name()),
        kind in sample::select(&[Kind::File, Kind::Folder, Kind::Link, Kind::Other]),
        size: u64,
        mtime in timestamp(),
        mode: u32,
        target in option::of(link_target()),
    ) -> Entry {
        Entry { name, kind, size, mtime, mode, target }
    }
}

/// Names as people give them, and whatever else a file system holds.
fn name() -> impl Strategy<Value = Name> {
    let typical = "[a-zA-Z0-9 ._é世-]{1,40}".prop_map(String::into_bytes);
    let any_bytes = vec(sample::select((1..=u8::MAX).filter(|&byte| byte != b'/').collect::<Vec<_>>()), 1..=NAME_MAX);
    prop_oneof![3 => typical, 1 => any_bytes].prop_filter_map("a name", |bytes| Name::new(bytes).ok())
}

fn link_target() -> impl Strategy<Value = LinkTarget> {
    let typical = "(\\.\\./){0,3}[a-zé]{1,9}".prop_map(String::into_bytes);
    let any_bytes = vec(1..=u8::MAX, 1..200);
    prop_oneof![typical, any_bytes].prop_map(|bytes| LinkTarget::new(bytes).unwrap())
}

fn path() -> impl Strategy<Value = RemotePath> {
    vec(name(), 0..8).prop_map(|names| names.iter().fold(RemotePath::root(), |path, name| path.join(name).unwrap()))
}

fn typed() -> impl Strategy<Value = UserPath> {
    prop_oneof![
        path().prop_map(UserPath::from),
        "/?([a-zé .]{1,9}/|\\.\\./|\\./|/){0,6}".prop_map(|text| UserPath::new(text).unwrap()),
        vec(1..=u8::MAX, 0..64).prop_map(|bytes| UserPath::new(bytes).unwrap()),
    ]
}

fn rights() -> impl Strategy<Value = Rights> {
    vec(sample::select(&Right::ALL), 0..5).prop_map(|rights| rights.into_iter().fold(Rights::NONE, Rights::with))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Timestamp::new(secs, nanos).unwrap())
}

/// Good ones, with gaps of any size between them.
fn holes() -> impl Strategy<Value = Holes> {
    vec((1..1_u64 << 50, 1..1_u64 << 50), 0..20).prop_map(|steps| {
        let mut end = 0;
        let holes = steps.into_iter().map(|(gap, length)| {
            let offset = end + gap;
            end = offset + length;
            Hole { offset, length }
        });
        Holes::new(holes.collect()).unwrap()
    })
}

/// What may be a hole, mostly not after another: near each other, or near the end of all numbers.
fn hole() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![6 => (0..64_u64, 0..8_u64), 1 => (any::<u64>(), any::<u64>()), 1 => (u64::MAX - 4..=u64::MAX, 0..6_u64)]
}

fn upload_id() -> impl Strategy<Value = UploadId> {
    any::<[u8; 32]>().prop_map(UploadId::from)
}

fn version() -> impl Strategy<Value = Version> {
    digest().prop_map(Version::from)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from)
}

fn text() -> impl Strategy<Value = String> {
    ".{0,60}"
}
