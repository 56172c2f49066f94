//! Where the journal of a staged file lies, and how it begins. What it lists is `stage.rs`'s affair.

use std::os::fd::OwnedFd;

use ftpq_proto::{Extents, limits::EXTENTS_MAX};

use super::{stage, sys::Sys};

/// Bytes of its header: what it is, the file's size, the extents' length, and a digest of that. A byte for
/// each extent follows.
pub(super) const HEADER: usize = 64;

/// The byte of an extent that is durable.
pub(super) const LISTED: u8 = 1;

/// Where it begins: behind the room for the file's bytes.
pub(super) fn begin(extents: Extents) -> u64 {
    extents.size().next_multiple_of(PAGE)
}

pub(super) fn header(extents: Extents) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (text, check) = header.split_at_mut(HEADER - 32);
    let words = [MAGIC, extents.size().to_le_bytes(), extents.length().to_le_bytes()];
    text.iter_mut().zip(words.as_flattened()).for_each(|(place, byte)| *place = *byte);
    check.copy_from_slice(blake3::hash(text).as_bytes());
    header
}

/// The bytes that the file itself will have, of a staged file that has `length` with its journal. `None` if it
/// has none. (Where a file holds something like a journal at its end, it may be a few pages too few.)
pub(super) fn announced(sys: &Sys, file: &OwnedFd, length: u64) -> Option<u64> {
    let last = length.checked_sub(HEADER as u64)? / PAGE * PAGE;
    let longest = HEADER as u64 + u64::from(EXTENTS_MAX);
    let places = (0..=longest / PAGE).filter_map(|back| last.checked_sub(back * PAGE));
    places.filter_map(|at| cut_at(sys, file, at)).map(|extents| (extents, begin(extents))).find_map(|(extents, at)| {
        let ends = at + HEADER as u64 + u64::from(extents.count());
        (ends == length).then_some(extents.size())
    })
}

/// How the file is cut, if its journal begins at `at`.
fn cut_at(sys: &Sys, file: &OwnedFd, at: u64) -> Option<Extents> {
    let mut found = Vec::with_capacity(HEADER);
    stage::read_full(sys, file, &mut found, at).ok()?;
    let number = |from: usize| Some(u64::from_le_bytes(found.get(from..from + 8)?.try_into().ok()?));
    let extents = Extents::new(number(8)?, number(16)?)?;
    (header(extents) == *found && begin(extents) == at).then_some(extents)
}

const MAGIC: [u8; 8] = *b"ftpq-ext";

const PAGE: u64 = 4096;
