//! Inputs made from others by chance that can be repeated.

/// Longer inputs are cut: most targets refuse them by their length alone.
const LEN_MAX: usize = 8 * 1024;

/// Numbers at which things go wrong.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x1_0000, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Pieces of what is said to ftpq, and of what nobody should say.
const WORDS: [&[u8]; 12] =
    [b"..", b"/", b"\0", b"\n", b"\x1b[", b"\xff", b"\xf6", b"\x9f", b"\x5f", b"\x1b", b"SHA256:", b"="];

/// Makes inputs out of a corpus.
pub(crate) struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { state: seed, corpus }
    }

    /// The next input: a seed that was changed a few times, or, seldom, nothing but noise.
    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let mut input = if self.below(32) == 0 { Vec::new() } else { self.seed() };
        if input.is_empty() {
            let len = self.below(64);
            input = (0..len).map(|_| self.random() as u8).collect();
        }
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let some = input.len().min(at + 1 + self.below(16));
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.random() as u8,
            2 => drop(input.drain(at..some)),
            3 => {
                let part = input[at..some].repeat(1 + self.below(8));
                input.splice(at..at, part).for_each(drop);
            }
            4 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.iter().copied()).for_each(drop);
            }
            5 => self.number(input, at),
            6 => {
                // The rest of another seed, from anywhere.
                let other = self.seed();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.insert(at, self.random() as u8),
        }
    }

    /// Puts a number, or one beside it, over what stands there, as wide as chance wants it.
    fn number(&mut self, input: &mut [u8], at: usize) {
        let near = (self.below(3) as u64).wrapping_sub(1);
        let number = NUMBERS[self.below(NUMBERS.len())].wrapping_add(near);
        let width = 1 << self.below(4);
        let bytes = number.to_be_bytes();
        input[at..].iter_mut().zip(&bytes[bytes.len() - width..]).for_each(|(old, new)| *old = *new);
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.below(self.corpus.len());
        self.corpus.get(index).cloned().unwrap_or_default()
    }

    fn below(&mut self, end: usize) -> usize {
        (self.random() % end.max(1) as u64) as usize
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
