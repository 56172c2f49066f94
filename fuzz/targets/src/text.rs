//! What is shown: bytes of a peer's on a terminal or in a log.

use ftpq_proto::Escaped;

/// Any bytes, shown: nothing in them can drive a terminal or forge a line, and nothing is lost.
pub fn escape(data: &[u8]) {
    let shown = Escaped::new(data).to_string();
    assert_printable(&shown);
    assert_eq!(unescape(&shown), data, "not what was escaped: {shown}");
    assert!(shown.len() <= 10 * data.len(), "{} bytes out of {}", shown.len(), data.len());
    assert_eq!(format!("{:?}", Escaped::new(data)), format!("\"{shown}\""));
}

/// Neither control characters nor what changes the direction of text or cannot be seen.
pub(crate) fn assert_printable(shown: &str) {
    let bad = shown.chars().find(|&c| c.is_control() || FORMATS.iter().any(|formats| formats.contains(&c)));
    assert_eq!(bad.map(|c| c.escape_unicode().to_string()), None, "in {shown:?}");
}

/// Unicode's line and paragraph separators and its format characters (categories Zl, Zp and Cf) that are
/// not part of the writing of any language.
const FORMATS: &[std::ops::RangeInclusive<char>] = &[
    '\u{ad}'..='\u{ad}',
    '\u{61c}'..='\u{61c}',
    '\u{180e}'..='\u{180e}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
    '\u{fff9}'..='\u{fffb}',
    '\u{e0001}'..='\u{e007f}',
];

/// The bytes that were escaped.
pub(crate) fn unescape(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = shown;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let (kind, after) = escape.split_at(1);
        let plain = match kind {
            "n" => Some(b'\n'),
            "r" => Some(b'\r'),
            "t" => Some(b'\t'),
            "0" => Some(0),
            "\\" => Some(b'\\'),
            _ => None,
        };
        rest = match (plain, kind) {
            (Some(byte), _) => {
                bytes.push(byte);
                after
            }
            (None, "x") => {
                bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hex digits"));
                &after[2..]
            }
            (None, "u") => {
                let (code, rest) = after.strip_prefix('{').and_then(|after| after.split_once('}')).expect("braces");
                let c = u32::from_str_radix(code, 16).ok().and_then(char::from_u32).expect("a character");
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest
            }
            _ => panic!("an unknown escape in {shown}"),
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
