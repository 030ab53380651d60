//! Validated names: documents, sessions, epochs, sequences and principals.

use std::{fmt, sync::Arc};

use rand::Rng as _;

/// The longest document id, in bytes of ASCII.
pub const DOCUMENT_ID_BYTES_MAX: usize = 128;

/// The name of a document: 1 to 128 bytes of ASCII letters, digits and `._~:@+-`, in one or more
/// segments divided by `/`, none of which is `.`, `..` or empty.
///
/// One alphabet for all doors: such an id is the same text in a URL path, in a log line and in a
/// configuration file, and two ids that look alike are alike.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId(Arc<str>);

/// A text that is not a document id, and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentIdError {
    /// The text is empty.
    #[error("the document id is empty")]
    Empty,
    /// The text has more than [`DOCUMENT_ID_BYTES_MAX`] bytes.
    #[error("the document id is longer than {DOCUMENT_ID_BYTES_MAX} bytes")]
    TooLong,
    /// The text has a byte outside the alphabet.
    #[error("the document id has a character other than ASCII letters, digits and ._~:@+-/")]
    Character,
    /// A segment is empty, `.` or `..`.
    #[error("the document id has an empty segment, or one that is . or ..")]
    Segment,
}

impl DocumentId {
    /// Checks `text` and takes it as a document id.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, DocumentIdError> {
        if text.is_empty() {
            return Err(DocumentIdError::Empty);
        }
        if text.len() > DOCUMENT_ID_BYTES_MAX {
            return Err(DocumentIdError::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~:@+-/".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(DocumentIdError::Character);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(DocumentIdError::Segment);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentId({})", self.0)
    }
}

/// Names one session on this server. Random, so that it is unique over restarts too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

impl SessionId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::rng().next_u64())
    }

    /// Reads the form that `Display` writes: 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }

    /// The id as stored in the log.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The id from its form in the log.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Names one history of a document: 16 random bytes, new whenever the history is rebuilt.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub [u8; 16]);

impl Epoch {
    /// A new random epoch.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The position of a record in a document's log: the first record has 1, and there are no gaps.
/// 0 stands before the first record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Who somebody is, according to their credentials: at most 128 bytes of UTF-8. Written into the
/// log with every update.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The longest principal, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 128;

    /// Somebody without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Arc::from(""))
    }

    /// Whether it is somebody without credentials.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes `name` as a principal; `None` when it is longer than [`Self::BYTES_MAX`].
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        (name.len() <= Self::BYTES_MAX).then(|| Self(Arc::from(name)))
    }

    /// The name as text: empty for somebody without credentials.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({:?})", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_id_takes_the_documented_alphabet_and_nothing_else() {
        for good in ["a", "notes/7", "A.b_c~d:e@f+g-9", "a/b/c", "..a", &"x".repeat(128)] {
            assert_eq!(DocumentId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", DocumentIdError::Empty),
            (&*"x".repeat(129), DocumentIdError::TooLong),
            ("a b", DocumentIdError::Character),
            ("a\0b", DocumentIdError::Character),
            ("a\nb", DocumentIdError::Character),
            ("é", DocumentIdError::Character),
            ("%2e", DocumentIdError::Character),
            ("/a", DocumentIdError::Segment),
            ("a/", DocumentIdError::Segment),
            ("a//b", DocumentIdError::Segment),
            ("../../etc", DocumentIdError::Segment),
            (".", DocumentIdError::Segment),
        ] {
            assert_eq!(DocumentId::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_session_id_reads_back_from_its_text() {
        let id = SessionId::random();
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for bad in ["", "1", "+123456789abcdef", "00000000000000000", "GGGGGGGGGGGGGGGG"] {
            assert_eq!(SessionId::parse(bad), None, "{bad:?}");
        }
    }
}
