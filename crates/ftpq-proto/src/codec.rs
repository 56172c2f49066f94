//! Frames: a `u32` big-endian length, then exactly one CBOR value of that many bytes.
//!
//! ciborium is lenient where a protocol must not be: it accepts trailing bytes and deep nesting
//! (256 levels). [`decode`] refuses both.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    escape::Escaped,
    limits::{FRAME_MAX, RECURSION_MAX, TEXT_MAX, VERB_MAX},
};

/// Bytes of the length in front of each frame.
pub const PREFIX_LEN: usize = 4;

/// A value as one frame, prefix included.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0; PREFIX_LEN];
    ciborium::ser::into_writer(value, &mut frame).map_err(|error| EncodeError::Value(error.to_string()))?;
    let len = frame.len() - PREFIX_LEN;
    if len > FRAME_MAX {
        return Err(EncodeError::TooLarge { len });
    }
    let prefix = (len as u32).to_be_bytes();
    frame.splice(..PREFIX_LEN, prefix);
    Ok(frame)
}

/// How many bytes of CBOR follow this prefix.
pub fn body_len(prefix: [u8; PREFIX_LEN]) -> Result<usize, DecodeError> {
    let len = u32::from_be_bytes(prefix) as usize;
    if len > FRAME_MAX { Err(DecodeError::TooLarge { len }) } else { Ok(len) }
}

/// The one value in a frame's body (the bytes after the prefix).
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    if body.len() > FRAME_MAX {
        return Err(DecodeError::TooLarge { len: body.len() });
    }
    let mut rest = body;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, RECURSION_MAX)
        .map_err(|error| DecodeError::Malformed(describe(error)))?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing { len: rest.len() }) }
}

/// A CBOR value, decoded already, as a message.
pub fn from_value<T: DeserializeOwned>(value: &ciborium::Value) -> Result<T, DecodeError> {
    value.deserialized().map_err(|error| match error {
        ciborium::value::Error::Custom(what) => DecodeError::Malformed(clipped(&what).into()),
    })
}

/// A value of ours that does not fit the wire.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The value needs more than [`FRAME_MAX`] bytes.
    #[error("a message of {len} bytes exceeds the frame limit of {FRAME_MAX}")]
    TooLarge {
        /// Bytes that it would need.
        len: usize,
    },
    /// The value has no CBOR form.
    #[error("the message cannot be encoded: {0}")]
    Value(String),
}

/// Bytes of a peer's that are no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame announces more than [`FRAME_MAX`] bytes.
    #[error("a frame of {len} bytes exceeds the limit of {FRAME_MAX}")]
    TooLarge {
        /// Bytes announced.
        len: usize,
    },
    /// Not CBOR, nested too deeply, or not the value expected here. The text may hold words of the peer's, and
    /// is therefore shown escaped; at most [`TEXT_MAX`] bytes.
    #[error("malformed message: {}", Escaped::new(_0))]
    Malformed(String),
    /// More bytes than the one value.
    #[error("{len} bytes after the end of a message")]
    Trailing {
        /// Bytes left over.
        len: usize,
    },
}

/// A name that the peer gives something is part of what is wrong with it, however long it is.
fn describe(error: ciborium::de::Error<std::io::Error>) -> String {
    match error {
        ciborium::de::Error::Io(_) => "it ends too early".into(),
        ciborium::de::Error::Syntax(offset) => format!("no CBOR at byte {offset}"),
        // An unknown word stands in it as it came.
        ciborium::de::Error::Semantic(_, what) => clipped(&what).into(),
        ciborium::de::Error::RecursionLimitExceeded => "nested too deeply".into(),
    }
}

/// What a peer said, up to [`TEXT_MAX`] bytes of it: no line for a person is longer.
pub fn clipped(text: &str) -> &str {
    let whole = (0..=TEXT_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..whole.unwrap_or(0)).unwrap_or_default()
}

/// `deserialize_with` for a vector that refuses more than `MAX` elements while reading them.
pub(crate) fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(std::marker::PhantomData<T>);
    impl<'de, T: serde::Deserialize<'de>, const MAX: usize> serde::de::Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX} elements")
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX {
                    return Err(serde::de::Error::custom(format_args!("more than {MAX} elements")));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Bounded::<T, MAX>(std::marker::PhantomData))
}

/// `deserialize_with` for a sentence: refuses one of more than [`TEXT_MAX`] bytes.
pub(crate) fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    short(deserializer, TEXT_MAX)
}

/// `deserialize_with` for a verb's name: refuses one of more than [`VERB_MAX`] bytes.
pub(crate) fn verb<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    short(deserializer, VERB_MAX)
}

fn short<'de, D: serde::Deserializer<'de>>(deserializer: D, max: usize) -> Result<String, D::Error> {
    let text: String = serde::Deserialize::deserialize(deserializer)?;
    if text.len() > max { Err(serde::de::Error::custom("text too long")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of<T: Serialize>(value: &T) -> Vec<u8> {
        encode(value).unwrap()[PREFIX_LEN..].to_vec()
    }

    #[test]
    fn the_prefix_is_the_length_of_the_body() {
        let frame = encode("abc").unwrap();
        assert_eq!(frame, [0, 0, 0, 4, 0x63, b'a', b'b', b'c']);
        assert_eq!(body_len([0, 0, 0, 4]), Ok(4));
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let len = FRAME_MAX + 1;
        assert_eq!(body_len((len as u32).to_be_bytes()), Err(DecodeError::TooLarge { len }));
        assert!(matches!(encode(&vec![0_u64; FRAME_MAX]), Err(EncodeError::TooLarge { .. })));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut body = body_of(&1_u8);
        body.push(0);
        assert_eq!(decode::<u8>(&body), Err(DecodeError::Trailing { len: 1 }));
    }

    #[test]
    fn a_truncated_value_is_refused() {
        let body = body_of(&"abcdef");
        assert!(matches!(decode::<String>(&body[..4]), Err(DecodeError::Malformed(_))));
    }

    /// A server could otherwise drive the terminal on which the client says why it gave up, and a client fill
    /// the server's log.
    #[test]
    fn what_a_peer_calls_something_is_shown_escaped_and_cut() {
        let hostile = "\u{1b}[2J\nforged line".repeat(150);
        for error in [
            decode::<crate::Kind>(&body_of(&hostile)).unwrap_err(),
            from_value::<crate::Kind>(&hostile.as_str().into()).unwrap_err(),
        ] {
            let shown = error.to_string();
            assert!(shown.contains("\\u{1b}[2J\\nforged line"), "{shown}");
            assert!(!shown.contains(char::is_control) && shown.len() < 3 * TEXT_MAX, "{} bytes", shown.len());
        }
    }

    #[test]
    fn a_verb_s_name_is_short() {
        let request = |verb: String| body_of(&crate::message::Request { verb, cwd: Default::default(), args: () });
        let decoded = |len| decode::<crate::message::Request>(&request("V".repeat(len)));
        assert_eq!(decoded(VERB_MAX).unwrap().verb.len(), VERB_MAX);
        assert_eq!(decoded(VERB_MAX + 1), Err(DecodeError::Malformed("text too long".into())));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = [vec![0x81; RECURSION_MAX + 1], vec![0x00]].concat();
        let error = decode::<ciborium::Value>(&deep).unwrap_err();
        assert_eq!(error, DecodeError::Malformed("nested too deeply".into()));
    }

    #[test]
    fn a_word_that_is_none_is_shown_so_that_it_can_do_no_harm() {
        let word = "\u{1b}[2J\n\u{202e}".repeat(300);
        for error in [
            decode::<crate::Kind>(&body_of(&word)).unwrap_err(),
            from_value::<crate::Kind>(&ciborium::Value::Text(word)).unwrap_err(),
        ] {
            let shown = error.to_string();
            assert!(shown.contains("\\u{1b}[2J\\n\\u{202e}") && shown.len() < 8 * TEXT_MAX, "{shown}");
            assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown}");
        }
    }

    #[test]
    fn what_is_clipped_ends_with_a_whole_character() {
        let long = format!("x{}", "é".repeat(TEXT_MAX));
        assert_eq!(clipped(&long).len(), TEXT_MAX - 1);
        assert_eq!(clipped("short"), "short");
    }
}
