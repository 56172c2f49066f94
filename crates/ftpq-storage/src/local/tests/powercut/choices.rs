//! All combinations of several choices, or some of them where they are too many.

/// Which of the states is looked at: for each thing that may have one of several values, which one. 0 is the
/// newest, the last the oldest.
pub(super) struct Choices {
    pub(super) how: How,
    /// What was taken, and of how many.
    pub(super) taken: Vec<(usize, usize)>,
    pub(super) at: usize,
    pub(super) tried: usize,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    All,
    Oldest,
    OneNotNewest(usize, usize),
    AllButOneOldest(usize),
    /// The seed.
    Random(u64),
}

impl Choices {
    pub(super) fn new(how: How) -> Self {
        let random = if let How::Random(seed) = how { seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 } else { 0 };
        Self { how, taken: Vec::new(), at: 0, tried: 0, random }
    }

    pub(super) fn pick(&mut self, of: usize) -> usize {
        if of == 1 {
            return 0;
        }
        let at = self.at;
        self.at += 1;
        match self.how {
            How::All => {
                if at == self.taken.len() {
                    self.taken.push((0, of));
                }
                self.taken[at].0
            }
            How::Oldest => of - 1,
            How::OneNotNewest(place, option) => {
                if at == place {
                    option.min(of - 1)
                } else {
                    0
                }
            }
            How::AllButOneOldest(place) => {
                if at == place {
                    0
                } else {
                    of - 1
                }
            }
            How::Random(_) => {
                // xorshift64
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                (self.random >> 33) as usize % of
            }
        }
    }

    /// The next of all; false after the last.
    pub(super) fn next(&mut self) -> bool {
        self.tried += 1;
        self.taken.truncate(self.at);
        while let Some((taken, of)) = self.taken.pop() {
            if taken + 1 < of {
                self.taken.push((taken + 1, of));
                return true;
            }
        }
        false
    }
}
