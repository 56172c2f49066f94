//! Sizes as people write them: `512M`. A suffix is a power of 1024; without one, it is bytes.

/// The bytes that `text` names: digits, then nothing or one of K, M, G and T.
pub fn parse_bytes(text: &str) -> Result<u64, ParseBytesError> {
    let unit = |suffix: char| SUFFIXES.iter().find(|(_, letter)| *letter == suffix).map(|(unit, _)| *unit);
    let (digits, unit) = match text.chars().next_back().and_then(unit) {
        Some(unit) => (text.get(..text.len() - 1).unwrap_or_default(), unit),
        None => (text, 1),
    };
    // A sign would pass for a number, too.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseBytesError::Syntax);
    }
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or(ParseBytesError::TooMuch)
}

/// What [`parse_bytes`] takes for `bytes`, with the largest suffix that is exact.
pub fn bytes_text(bytes: u64) -> String {
    let exact = SUFFIXES.iter().find(|(unit, _)| bytes != 0 && bytes.is_multiple_of(*unit));
    exact.map_or_else(|| bytes.to_string(), |(unit, letter)| format!("{}{letter}", bytes / unit))
}

/// About so many bytes, for people.
pub fn about(bytes: u64) -> String {
    match SUFFIXES.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => format!("{:.1} {letter}iB", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseBytesError {
    /// It is not written as one.
    #[error("a size is digits and at most one of K, M, G and T behind them, as in 512M")]
    Syntax,
    /// It does not fit 64 bits.
    #[error("a size is below 16 EiB")]
    TooMuch,
}

/// The largest first.
const SUFFIXES: [(u64, char); 4] = [(1 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("1000", 1000),
            ("1025", 1025),
            ("1K", 1 << 10),
            ("512M", 512 << 20),
            ("3G", 3 << 30),
            ("16T", 16 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!((parse_bytes(text), bytes_text(bytes)), (Ok(bytes), text.into()));
        }
        assert_eq!(parse_bytes("0G"), Ok(0));
        assert_eq!(parse_bytes("1024K"), Ok(1 << 20));
    }

    #[test]
    fn people_are_told_about_how_much() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB")] {
            assert_eq!(about(bytes), text);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in
            ["", "M", " 1M", "1 M", "+1", "-1", "1m", "1MB", "1MiB", "1KK", "0x10", "1.5G", "1\u{41c}", "\u{661}"]
        {
            assert_eq!(parse_bytes(bad), Err(ParseBytesError::Syntax), "{bad:?}");
        }
        for much in ["18446744073709551616", "16777216T", "99999999999999999999999"] {
            assert_eq!(parse_bytes(much), Err(ParseBytesError::TooMuch), "{much:?}");
        }
    }
}
