//! Which document id a document of another server gets.

use std::fmt::Write as _;

use crate::ids::{DocumentId, DocumentIdError};

/// How names become document ids.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// Stands before every name.
    pub prefix: String,
    /// Escape names that are no document ids instead of refusing them.
    pub escape: bool,
}

impl Naming {
    /// The id for `name`: the name itself behind the prefix. Where that is no document id, and
    /// escaping is wanted, every byte of its UTF-8 that is outside the alphabet, and every `~`, is
    /// written as `~` and two upper-case hexadecimal digits. Two names can only get one id if one of
    /// them looks as if it was escaped; the second one is then refused like any other document that
    /// is there already.
    ///
    /// # Errors
    ///
    /// What is wrong with the name, or with the escaped one.
    pub fn id(&self, name: &str) -> Result<DocumentId, DocumentIdError> {
        match DocumentId::parse(&format!("{}{name}", self.prefix)) {
            Err(DocumentIdError::Character) if self.escape => {
                DocumentId::parse(&format!("{}{}", self.prefix, escaped(name)))
            }
            parsed => parsed,
        }
    }
}

fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._:@+-/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(escaped, "~{byte:02X}").unwrap_or_default();
        }
    }
    escaped
}
