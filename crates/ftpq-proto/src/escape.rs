//! The one way in which bytes of a peer's reach a terminal or a log.

use std::fmt;

/// Shows bytes so that they can neither drive a terminal nor forge a line: control characters,
/// escape sequences, line and paragraph separators, bidirectional and invisible format characters,
/// and bytes that are not UTF-8 come out as `\u{…}` or `\xNN`. Letters of every script, emoji and
/// quotes stay as they are; a backslash is doubled, so that nothing can pass for an escape.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl<'a> Escaped<'a> {
    /// Any bytes, or a `&str`.
    pub fn new(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(bytes.as_ref())
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            // std knows which characters print (Unicode's categories); it also escapes quotes,
            // which are harmless here.
            for piece in chunk.valid().split_inclusive(['\'', '"']) {
                let quote = piece.ends_with(['\'', '"']);
                let (text, quote) = piece.split_at(piece.len() - usize::from(quote));
                write!(f, "{}{quote}", text.escape_debug())?;
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_rest_is_kept() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain name.txt", "plain name.txt"),
            ("Olá, 世界 🦀 d'or \"x\"".as_bytes(), "Olá, 世界 🦀 d'or \"x\""),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"two\nlines\r", "two\\nlines\\r"),
            ("\u{202e}gpj.exe\u{200b}".as_bytes(), "\\u{202e}gpj.exe\\u{200b}"),
            ("\u{9b}31m\u{2028}".as_bytes(), "\\u{9b}31m\\u{2028}"),
            (b"caf\xe9", "caf\\xe9"),
            (b"back\\slash", "back\\\\slash"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(Escaped::new(*bytes).to_string(), *shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_can_control(bytes: Vec<u8>) {
            let shown = Escaped::new(&bytes).to_string();
            let controls = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            prop_assert!(!shown.contains(controls));
        }
    }
}
