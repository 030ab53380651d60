//! Who a client is, and what it may do with a document.
//!
//! A client shows a token; what the token says is checked once, when a session begins or is given a
//! new token, and from then on the session compares a field. docs/security.md has the form of a
//! token.

mod claims;
mod config;
mod crypto;
mod jwt;
mod keys;
mod mint;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use self::{
    claims::Rights,
    jwt::{Verified, Verifier},
    keys::Key,
};
pub use self::{
    claims::{Right, Scope},
    config::{Algorithm, Config, KeyConfig, Mode},
    jwt::TOKEN_BYTES_MAX,
    keys::KeyError,
    mint::{MintError, mint, new_secret},
};
use crate::{
    ids::{DocumentId, Principal},
    time::{self, Instant},
};

/// What somebody may do with a document; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Sees everything, has an awareness state, changes nothing.
    Read,
    /// May also edit the shared type that is for comments, `room.comments_root`.
    Comment,
    /// May also edit.
    Write,
    /// May also decide about the document as a whole. In a session this is the same as to write.
    Admin,
}

/// What a client shows to say who it is. `Debug` shows its length only, so that no token gets into a
/// log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// The token itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self(token.into())
    }
}

impl From<&str> for Token {
    fn from(token: &str) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// Whom a client is taken for, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is.
    pub principal: Principal,
    /// The highest access to the document.
    pub access: Access,
}

/// Somebody whose credentials were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    principal: Principal,
    rights: Rights,
    expires: Option<Instant>,
}

impl Identity {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// When the credentials are good no longer; `None` for never.
    #[must_use]
    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// What may be done with `document`; `None` when that is nothing, which does not say whether the
    /// document exists.
    #[must_use]
    pub fn access(&self, document: &DocumentId) -> Option<Access> {
        self.rights.access(document)
    }

    /// What a session on `document` may do: there is nothing above writing in it.
    #[must_use]
    pub fn grant(&self, document: &DocumentId) -> Option<Grant> {
        let access = self.access(document)?.min(Access::Write);
        Some(Grant { principal: self.principal.clone(), access })
    }
}

/// Why it is not known who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The credentials are missing, or not valid.
    #[error("the credentials are not valid")]
    Unauthenticated,
}

/// Checks credentials. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Authenticator {
    jwt: Option<Arc<Jwt>>,
}

#[derive(Debug)]
struct Jwt {
    verifier: Verifier,
    keys: Vec<Key>,
}

impl Authenticator {
    /// An authenticator with these settings, which reads its keys.
    ///
    /// # Errors
    ///
    /// A key cannot be read or used.
    pub fn new(config: &Config) -> Result<Self, KeyError> {
        let jwt = match config.mode {
            Mode::None => None,
            Mode::Jwt => {
                crypto::install();
                let keys = config.keys.iter().map(Key::load).collect::<Result<_, _>>()?;
                Some(Arc::new(Jwt { verifier: Verifier::new(config), keys }))
            }
        };
        Ok(Self { jwt })
    }

    /// Who somebody with `token` is.
    ///
    /// # Errors
    ///
    /// That is not known; a client is not told why.
    pub fn identify(&self, token: &Token) -> Result<Identity, AuthError> {
        let Some(Jwt { verifier, keys }) = self.jwt.as_deref() else {
            let principal = Principal::anonymous();
            return Ok(Identity { principal, rights: Rights::All, expires: None });
        };
        let (wall_ms, now) = (time::wall_ms(), time::now());
        let verified = jwt::header(token)
            .and_then(|header| verifier.verify(token, &header, keys, wall_ms, now));
        match verified {
            Ok(Verified { principal, rights, expires }) => {
                Ok(Identity { principal, rights, expires: Some(expires) })
            }
            Err(why) => {
                tracing::debug!(%why, "token refused");
                Err(AuthError::Unauthenticated)
            }
        }
    }
}

#[cfg(test)]
mod tests;
