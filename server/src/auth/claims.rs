//! What a token says: who it is for, until when, and what it grants.

use serde::{Deserialize, Serialize};

use super::Access;
use crate::ids::DocumentId;

/// The claims of a token that are read here. Others are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    pub(super) iss: String,
    pub(super) aud: Audience,
    /// Seconds since 1970; fractions are allowed.
    pub(super) exp: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<f64>,
    /// When it was made: for clients, which see from it how long a token lives, and for revocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<f64>,
    /// Its own name, for revocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    #[serde(default)]
    pub(super) cowrite: Grants,
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// The claim `cowrite`: what the token grants.
// A field that is not known could be a restriction, and must not be ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grants {
    #[serde(default)]
    documents: Vec<Entry>,
}

/// An entry of `cowrite.documents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Id(ById),
    Prefix(ByPrefix),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ById {
    id: String,
    access: Access,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByPrefix {
    prefix: String,
    access: Access,
}

/// Which documents a grant is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One document.
    Document(DocumentId),
    /// All documents whose id begins with this: whole segments, so that it ends with `/`, or is
    /// empty.
    Prefix(String),
}

impl Scope {
    /// Takes `prefix`, which is empty for all documents or ends with `/`; `None` for anything else.
    #[must_use]
    pub fn prefix(prefix: &str) -> Option<Self> {
        let whole = match prefix.strip_suffix('/') {
            Some(segments) => DocumentId::parse(segments).is_ok(),
            None => prefix.is_empty(),
        };
        whole.then(|| Self::Prefix(prefix.to_owned()))
    }

    fn contains(&self, document: &DocumentId) -> bool {
        match self {
            Self::Document(id) => id == document,
            Self::Prefix(prefix) => document.as_str().starts_with(&**prefix),
        }
    }
}

/// Access to some documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// To which.
    pub scope: Scope,
    /// What may be done with them.
    pub access: Access,
}

impl Grants {
    /// A claim that grants `rights`.
    pub(super) fn of(rights: &[Right]) -> Self {
        let entry = |right: &Right| {
            let access = right.access;
            match &right.scope {
                Scope::Document(id) => Entry::Id(ById { id: id.to_string(), access }),
                Scope::Prefix(prefix) => Entry::Prefix(ByPrefix { prefix: prefix.clone(), access }),
            }
        };
        Self { documents: rights.iter().map(entry).collect() }
    }

    /// What the claim grants; `None` when an entry names what no document can be.
    pub(super) fn rights(&self) -> Option<Rights> {
        let right = |entry: &Entry| {
            Some(match entry {
                Entry::Id(ById { id, access }) => {
                    Right { scope: Scope::Document(DocumentId::parse(id).ok()?), access: *access }
                }
                Entry::Prefix(ByPrefix { prefix, access }) => {
                    Right { scope: Scope::prefix(prefix)?, access: *access }
                }
            })
        };
        self.documents.iter().map(right).collect::<Option<_>>().map(Rights::Some)
    }
}

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything with every document.
    All,
    /// This.
    Some(Vec<Right>),
}

impl Rights {
    /// The highest access to `document` of all that contain it.
    pub(super) fn access(&self, document: &DocumentId) -> Option<Access> {
        match self {
            Self::All => Some(Access::Admin),
            Self::Some(rights) => {
                let matching = rights.iter().filter(|right| right.scope.contains(document));
                matching.map(|right| right.access).max()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(documents: &str) -> Option<Rights> {
        let claim = format!(r#"{{"documents":{documents}}}"#);
        serde_json::from_str::<Grants>(&claim).ok()?.rights()
    }

    fn access(documents: &str, document: &str) -> Option<Access> {
        rights(documents).expect(documents).access(&DocumentId::parse(document).unwrap())
    }

    #[test]
    fn an_id_is_exact_and_a_prefix_covers_whole_segments() {
        let claim = r#"[{"id":"notes/7","access":"write"},{"prefix":"team-a/","access":"read"}]"#;
        for (document, expected) in [
            ("notes/7", Some(Access::Write)),
            ("notes/77", None),
            ("notes/7/x", None),
            ("notes", None),
            ("team-a/x", Some(Access::Read)),
            ("team-a/x/y", Some(Access::Read)),
            ("team-a", None),
            ("team-ab/x", None),
            ("x/team-a/y", None),
        ] {
            assert_eq!(access(claim, document), expected, "{document}");
        }
        assert_eq!(access(r#"[{"prefix":"","access":"admin"}]"#, "a/b"), Some(Access::Admin));
    }

    #[test]
    fn the_highest_access_wins_in_any_order() {
        let (low, high) =
            (r#"{"prefix":"a/","access":"read"}"#, r#"{"id":"a/b","access":"write"}"#);
        for claim in [format!("[{low},{high}]"), format!("[{high},{low}]")] {
            assert_eq!(access(&claim, "a/b"), Some(Access::Write));
            assert_eq!(access(&claim, "a/c"), Some(Access::Read));
        }
    }

    #[test]
    fn nothing_is_granted_by_default() {
        assert_eq!(access("[]", "a"), None);
        let empty: Grants = serde_json::from_str("{}").unwrap();
        assert_eq!(empty.rights(), Some(Rights::Some(Vec::new())));
    }

    #[test]
    fn a_claim_that_is_not_understood_grants_nothing_at_all() {
        for documents in [
            r#"[{"id":"a","access":"owner"}]"#,
            r#"[{"id":"a","access":"WRITE"}]"#,
            r#"[{"id":"a"}]"#,
            r#"[{"access":"write"}]"#,
            r#"[{"id":"a","prefix":"b/","access":"write"}]"#,
            r#"[{"id":"a","access":"write","until":"noon"}]"#,
            r#"[{"id":"a","id":"b","access":"write"}]"#,
            r#"[{"id":"","access":"write"}]"#,
            r#"[{"id":"a/../b","access":"write"}]"#,
            r#"[{"prefix":"team","access":"write"}]"#,
            r#"[{"prefix":"/","access":"write"}]"#,
            r#"[{"prefix":"a//","access":"write"}]"#,
            r#"[{"id":"good","access":"write"},{"prefix":"../","access":"write"}]"#,
            r#""*""#,
        ] {
            assert_eq!(rights(documents), None, "{documents}");
        }
        assert!(serde_json::from_str::<Grants>(r#"{"document":[]}"#).is_err());
    }
}
