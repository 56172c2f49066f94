//! How a peer may say that a file is cut, and where its holes are.

use ftpq_proto::{
    Extents, Hole, Holes,
    codec::{self, PREFIX_LEN},
    limits::{EXTENT_MAX, EXTENT_MIN, EXTENTS_MAX, HOLES_MAX},
};

use crate::Input;

/// A size, a length and an extent's number, then the holes as pairs.
pub fn extents(data: &[u8]) {
    let mut input = Input::new(data);
    let (size, length, index) = (input.u64(), input.u64(), input.u32());
    let fits = length.is_power_of_two() && (EXTENT_MIN..=EXTENT_MAX).contains(&length);
    let cut = Extents::new(size, length);
    assert_eq!(cut.is_some(), fits && size > length && size.div_ceil(length) <= EXTENTS_MAX.into());
    for extents in [cut, Extents::of(size)].into_iter().flatten() {
        assert_eq!(Extents::new(size, extents.length()), Some(extents));
        assert_tiled(extents);
        assert_eq!(extents.get(index).is_some(), index < extents.count());
    }
    // Pairs of two or eight bytes each: small numbers meet more often.
    let wide = input.flag();
    let mut pairs = Vec::new();
    while !input.is_empty() && pairs.len() <= HOLES_MAX {
        let mut number = || if wide { input.u64() } else { u64::from(input.byte()) << 8 | u64::from(input.byte()) };
        pairs.push((number(), number()));
    }
    holes(&pairs, size);
}

/// The extents cover the file without a gap, each is a subtree, and none is empty.
pub(crate) fn assert_tiled(extents: Extents) {
    let (size, length, count) = (extents.size(), extents.length(), extents.count());
    assert!((2..=EXTENTS_MAX).contains(&count) && (EXTENT_MIN..=EXTENT_MAX).contains(&length));
    let mut end = 0;
    // Of very many, the first and the last ones tell.
    for index in (0..count).filter(|index| (*index < 64) | (count - index < 64)) {
        let extent = extents.get(index).unwrap();
        assert!(extent.offset == end || index + 63 == count, "a gap before extent {index}");
        assert_eq!((extent.index, extent.offset % length), (index, 0));
        assert!(extent.length > 0 && extent.length <= length && (extent.length == length || index + 1 == count));
        end = extent.offset + extent.length;
    }
    assert_eq!(end, size);
    assert_eq!((extents.get(count), extents.get(u32::MAX)), (None, None));
    assert_eq!(extents.iter().count(), count as usize);
}

/// Holes are taken if they are in order and apart, and only then; over the wire, too.
fn holes(pairs: &[(u64, u64)], length: u64) {
    let mut end = None;
    let good = pairs.len() <= HOLES_MAX
        && pairs.iter().all(|&(offset, length)| {
            let (before, after) = (end, u128::from(offset) + u128::from(length));
            end = Some(after);
            length > 0 && after <= u64::MAX.into() && before.is_none_or(|before| u128::from(offset) > before)
        });
    let taken = Holes::new(pairs.iter().copied().map(Hole::from).collect()).ok();
    let frame = codec::encode(pairs).unwrap();
    let decoded = codec::decode::<Holes>(&frame[PREFIX_LEN..]).ok();
    assert_eq!(taken, decoded);
    assert_eq!(taken.is_some(), good, "{pairs:?}");
    let Some(holes) = taken else { return };
    assert!(holes.iter().map(<(u64, u64)>::from).eq(pairs.iter().copied()));
    assert_eq!(codec::encode(&holes).unwrap(), frame);
    let total: u128 = pairs.iter().map(|&(_, length)| u128::from(length)).sum();
    let fits = end.unwrap_or(0) <= u128::from(length);
    assert_eq!(holes.data_in(length).map(u128::from), fits.then(|| u128::from(length) - total));
}
