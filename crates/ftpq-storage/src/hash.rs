//! Digests of files and extents while their bytes pass by, and of files from those of their extents.

use blake3::{
    Hasher,
    hazmat::{self, ChainingValue, HasherExt, Mode},
};
use ftpq_proto::{Digest, Extent};

/// Digests a whole file, or one extent as the subtree of BLAKE3's tree that it is.
pub struct BodyHasher {
    inner: Box<Hasher>,
    subtree: bool,
}

impl BodyHasher {
    /// For a whole file; or for an extent of one.
    pub fn new(extent: Option<Extent>) -> Self {
        let mut inner = Box::new(Hasher::new());
        if let Some(extent) = extent {
            inner.set_input_offset(extent.offset);
        }
        Self { inner, subtree: extent.is_some() }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// As many zeros: what a hole reads as.
    pub fn zeros(&mut self, mut length: u64) {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        while length > 0 {
            let some = length.min(ZEROS.len() as u64);
            self.inner.update(ZEROS.get(..some as usize).unwrap_or_default());
            length -= some;
        }
    }

    /// The digest of all that passed.
    pub fn finish(&self) -> Digest {
        if self.subtree { self.inner.finalize_non_root().into() } else { (*self.inner.finalize().as_bytes()).into() }
    }
}

/// The digest of a file from those of all its extents, in order (BLAKE3 paper, section 2.1). A file
/// has at least two extents; `None` for fewer.
pub fn join(extents: &[Digest]) -> Option<Digest> {
    let (left, right) = halves(extents)?;
    Some((*hazmat::merge_subtrees_root(&subtree(left)?, &subtree(right)?, Mode::Hash).as_bytes()).into())
}

fn subtree(extents: &[Digest]) -> Option<ChainingValue> {
    if let [one] = extents {
        return Some(*one.as_bytes());
    }
    let (left, right) = halves(extents)?;
    Some(hazmat::merge_subtrees_non_root(&subtree(left)?, &subtree(right)?, Mode::Hash))
}

/// The left subtree is the largest complete one that leaves something for the right.
fn halves(extents: &[Digest]) -> Option<(&[Digest], &[Digest])> {
    (extents.len() > 1).then(|| extents.split_at(extents.len().div_ceil(2).next_power_of_two()))
}

#[cfg(test)]
mod tests {
    use ftpq_proto::Extents;

    use super::*;

    #[test]
    fn extents_join_into_the_digest_of_the_file() {
        const MIB: usize = 1024 * 1024;
        let bytes: Vec<u8> = (0..72 * MIB + 77).map(|i| (i * 31 % 251) as u8).collect();
        for size in [8 * MIB + 1, 16 * MIB, 24 * MIB, 31 * MIB + 5, 40 * MIB, 64 * MIB + 1, 72 * MIB + 77] {
            let extents = Extents::new(size as u64, 8 * MIB as u64).unwrap();
            let digests: Vec<_> = extents
                .iter()
                .map(|extent| {
                    let mut hasher = BodyHasher::new(Some(extent));
                    hasher.update(&bytes[extent.offset as usize..][..extent.length as usize]);
                    hasher.finish()
                })
                .collect();
            assert_eq!(join(&digests), Some((*blake3::hash(&bytes[..size]).as_bytes()).into()), "{size}");
        }
        assert_eq!((join(&[]), join(&[[7; 32].into()])), (None, None));
    }

    #[test]
    fn holes_are_digested_as_zeros() {
        let mut hasher = BodyHasher::new(None);
        hasher.update(b"x");
        hasher.zeros(200_000);
        let bytes = [b"x".as_slice(), &[0; 200_000]].concat();
        assert_eq!(hasher.finish(), (*blake3::hash(&bytes).as_bytes()).into());
    }
}
