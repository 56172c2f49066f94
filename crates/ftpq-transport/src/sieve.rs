//! First packets: anybody can send as many as fit on the wire, in any name, and each that is answered takes
//! keys, a token and a packet, whether anybody is there to hear of it or not. A server answers so many a
//! second. The others are dropped where that costs next to nothing, and connections that are there go on.

use std::time::Instant;

use crate::tuning::{FIRST_PACKETS, FIRST_PACKETS_AT_ONCE};

/// Tells which datagrams a server has the time to look at.
#[derive(Debug)]
pub(crate) struct Sieve {
    /// For first packets of those who come for the first time.
    new: Budget,
    /// For those that bring a token, as the server asked them to. It may be nonsense, so there is an end to
    /// these as well; but those who come for the first time do not take their places.
    returning: Budget,
}

#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Sieve {
    pub(crate) fn new(now: Instant) -> Self {
        let budget = || Budget { left: FIRST_PACKETS_AT_ONCE, at: now };
        Self { new: budget(), returning: budget() }
    }

    /// How many bytes of `datagrams` go through, which are `size` bytes each and came from one sender in a
    /// row. Those behind one that does not go through share its fate.
    pub(crate) fn pass(&mut self, datagrams: &[u8], size: usize) -> usize {
        self.pass_at(datagrams, size, Instant::now)
    }

    /// Asks for the time only where it matters: bulk data pass here, too.
    fn pass_at(&mut self, datagrams: &[u8], size: usize, now: impl Fn() -> Instant) -> usize {
        let mut passed = 0;
        for datagram in datagrams.chunks(size.max(1)) {
            let enough = match First::of(datagram) {
                None => true,
                Some(First::New) => self.new.take(now()),
                Some(First::Returning) => self.returning.take(now()),
            };
            if !enough {
                break;
            }
            passed += datagram.len();
        }
        passed
    }
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * FIRST_PACKETS;
        self.left = (self.left + gained).min(FIRST_PACKETS_AT_ONCE);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    New,
    Returning,
}

impl First {
    /// What `datagram` begins with, if that is a first packet (RFC 9000 section 17.2.2). In another version,
    /// every packet counts as one: it is answered like one.
    fn of(datagram: &[u8]) -> Option<Self> {
        let (&[form, a, b, c, d], rest) = datagram.split_first_chunk()?;
        if form & LONG_HEADER == 0 {
            return None;
        }
        if u32::from_be_bytes([a, b, c, d]) != VERSION {
            return Some(Self::New);
        }
        if form & PACKET_TYPE != INITIAL {
            return None;
        }
        let token_len = skip_id(skip_id(rest)?)?.first()?;
        Some(if *token_len == 0 { Self::New } else { Self::Returning })
    }
}

/// What follows a connection ID.
fn skip_id(bytes: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = bytes.split_first()?;
    rest.get(usize::from(len)..)
}

const LONG_HEADER: u8 = 0x80;
const PACKET_TYPE: u8 = 0x30;
const INITIAL: u8 = 0x00;
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NEW: &[u8] = &[0xc3, 0, 0, 0, 1, 2, 7, 7, 1, 7, 0, 9, 9, 9];
    const RETURNING: &[u8] = &[0xc3, 0, 0, 0, 1, 2, 7, 7, 1, 7, 3, 9, 9, 9];

    #[test]
    fn first_packets_are_told_from_all_others() {
        assert_eq!(First::of(NEW), Some(First::New));
        assert_eq!(First::of(RETURNING), Some(First::Returning));
        let draft = [&[0xc3, 0xff, 0, 0, 29], &NEW[5..]].concat();
        assert_eq!(First::of(&draft), Some(First::New));
        // 0-RTT, Handshake, Retry, and what begins with a short header.
        for form in [0xd3, 0xe3, 0xf3, 0x43] {
            assert_eq!(First::of(&[&[form], &NEW[1..]].concat()), None);
        }
        // What is cut is no packet at all.
        for len in 0..11 {
            assert_eq!(First::of(&NEW[..len.min(10)]), None);
        }
        assert_eq!(First::of(&[0xc3, 0, 0, 0, 1, 255, 0]), None);
    }

    #[test]
    fn so_many_pass_at_once_and_so_many_a_second() {
        let begin = Instant::now();
        let mut sieve = Sieve::new(begin);
        let mut passing = |datagram: &[u8], secs| {
            let now = begin + Duration::from_secs(secs);
            (0..100_000).take_while(|_| sieve.pass_at(datagram, datagram.len(), || now) > 0).count() as f64
        };
        assert_eq!(passing(NEW, 0), FIRST_PACKETS_AT_ONCE);
        // A token gets its own chance, and what is no first packet needs none.
        assert_eq!(passing(RETURNING, 0), FIRST_PACKETS_AT_ONCE);
        assert_eq!(passing(&[0x43; 1200], 0), 100_000.0);
        assert_eq!(passing(NEW, 1), FIRST_PACKETS.min(FIRST_PACKETS_AT_ONCE));
        assert_eq!(passing(NEW, 1000), FIRST_PACKETS_AT_ONCE);
    }

    #[test]
    fn each_of_those_that_come_in_a_row_counts() {
        let begin = Instant::now();
        let mut sieve = Sieve::new(begin);
        let row = [[0x43; 14], NEW.try_into().unwrap(), NEW.try_into().unwrap(), [0x43; 14]].concat();
        assert_eq!(sieve.pass_at(&row, 14, || begin), row.len());
        sieve.new.left = 1.0;
        assert_eq!(sieve.pass_at(&row, 14, || begin), 28);
        assert_eq!(sieve.pass_at(&row, 14, || begin), 14);
        // The last one may be shorter.
        assert_eq!(sieve.pass_at(&row[..5], 14, || begin), 5);
    }
}
