//! What a server announces about each of its verbs.

use serde::{Deserialize, Serialize};

use crate::{limits::VERB_MAX, rights::Right};

/// A verb as its handler declares it, as the dispatcher enforces it, and as CON announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The verb's name: upper case for ftpq's own (`LIST`), with a namespace for a plugin's
    /// (`acme.thumb`). See [`is_verb`].
    pub verb: String,
    /// One line for a person.
    #[serde(deserialize_with = "crate::codec::text")]
    pub summary: String,
    /// The right that a user needs for it; `None` where being known to the server is enough. A right
    /// that only a newer server knows arrives as `None` too: the server checks, not the client.
    #[serde(deserialize_with = "known_right")]
    pub right: Option<Right>,
    /// Whether running it twice does no more than running it once, so that a client may send it
    /// again when an answer got lost.
    pub repeatable: bool,
    /// Which streams go first where the path is full: higher before lower, 0 for most.
    pub priority: i32,
}

impl Spec {
    /// A verb that needs `right`, is not repeatable, and has priority 0.
    pub fn new(verb: &str, right: Right, summary: &str) -> Self {
        Self { right: Some(right), ..Self::for_everyone(verb, summary) }
    }

    /// The same for a verb that everybody may use whom the server knows.
    pub fn for_everyone(verb: &str, summary: &str) -> Self {
        Self { verb: verb.into(), summary: summary.into(), right: None, repeatable: false, priority: 0 }
    }

    /// The same, safe to repeat.
    #[must_use]
    pub fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// The same, at this priority.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }
}

fn known_right<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Right>, D::Error> {
    let word: Option<String> = Deserialize::deserialize(deserializer)?;
    Ok(Right::ALL.into_iter().find(|right| word.as_deref() == Some(right.as_str())))
}

/// Whether `name` can name a verb: 1 to [`VERB_MAX`] ASCII letters, digits, `.`, `-` and `_`,
/// beginning with a letter.
pub fn is_verb(name: &str) -> bool {
    name.len() <= VERB_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
