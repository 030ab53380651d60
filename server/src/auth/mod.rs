//! Who a client is, and what it may do with a document.
//!
//! A client shows a token; what the token says is checked once, when a session begins or is given a
//! new token, and from then on the session compares a field. docs/security.md has the form of a
//! token.

mod claims;
mod config;
mod crypto;
mod fetch;
mod jwks;
mod jwt;
mod keeper;
mod keys;
mod mint;
mod policy;
mod revocations;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::{
    claims::Rights,
    jwt::{Invalid, Verified},
    keeper::Asks,
    keys::Key,
    policy::Policy,
};
pub use self::{
    claims::{Right, Scope},
    config::{Algorithm, Config, KeyConfig, Mode},
    fetch::RootsError,
    jwt::{Standing, TOKEN_BYTES_MAX},
    keys::KeyError,
    mint::{MintError, mint, new_secret},
    revocations::RevocationsError,
};
use crate::{
    ids::{DocumentId, Principal},
    metrics::AuthMetrics,
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
    standing: Option<Standing>,
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

    /// What the credentials can be judged by again; `None` if they need not be.
    #[must_use]
    pub fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
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
    /// The credentials name a key that may be the issuer's, whose keys cannot be had now.
    #[error("the keys of the issuer cannot be had now")]
    Unavailable,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The address of the issuer's keys cannot be used.
    #[error("auth.jwks_url {0}")]
    Address(&'static str),
    /// The issuer's certificate cannot be checked.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The list of revocations cannot be used.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
}

/// Checks credentials. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Authenticator {
    jwt: Option<Arc<Jwt>>,
}

#[derive(Debug)]
struct Jwt {
    policy: watch::Sender<Arc<Policy>>,
    asks: Asks,
    /// Keys could not be fetched, so that one that is not known may be the issuer's all the same.
    is_stale: AtomicBool,
    metrics: AuthMetrics,
}

/// Settings whose files were read, and which can be used.
#[derive(Debug)]
pub struct Prepared(Policy);

/// Tells when tokens are judged by something else than before.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<Arc<Policy>>);

impl Changes {
    /// Waits until it has changed since the last call of [`Self::take`].
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub async fn wait(&mut self) {
        if self.0.changed().await.is_err() {
            // The authenticator is gone, and nothing changes any more.
            std::future::pending().await
        }
    }

    /// Whether it has changed since the last call, which costs the load of a number.
    pub fn take(&mut self) -> bool {
        let has_changed = self.0.has_changed().unwrap_or(false);
        if has_changed {
            self.0.mark_unchanged();
        }
        has_changed
    }
}

impl Authenticator {
    /// An authenticator with these settings, which reads the files that they name. Keys that are
    /// fetched are there when [`Self::keep`] has fetched them.
    ///
    /// # Errors
    ///
    /// A file cannot be read or used.
    pub fn new(config: &Config, metrics: AuthMetrics) -> Result<Self, SettingsError> {
        let jwt = match config.mode {
            Mode::None => None,
            Mode::Jwt => {
                let Prepared(policy) = Self::prepare(config)?;
                let is_stale = AtomicBool::new(policy.source.is_some());
                let policy = watch::Sender::new(Arc::new(policy));
                let jwt = Jwt { policy, asks: Asks::new(), is_stale, metrics };
                jwt.count();
                Some(Arc::new(jwt))
            }
        };
        Ok(Self { jwt })
    }

    /// Reads the files that `config` names, and changes nothing. Blocks.
    ///
    /// # Errors
    ///
    /// A file cannot be read or used.
    pub fn prepare(config: &Config) -> Result<Prepared, SettingsError> {
        crypto::install();
        Policy::load(config).map(Prepared)
    }

    /// Judges by other settings from now on, sessions that are open included. Keys that were fetched
    /// count until others were, if there still is an address to fetch them from. Whether there are
    /// tokens at all does not change.
    pub fn apply(&self, prepared: Prepared) {
        let Some(jwt) = &self.jwt else { return };
        let Prepared(prepared) = prepared;
        jwt.replace(|old| {
            let fetched = old.fetched.clone().filter(|_| prepared.source.is_some());
            Some(Policy { fetched, ..prepared.clone() })
        });
    }

    /// Fetches the keys of the issuer and reads the list of revocations, again and again. Never ready.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost; what was there stays.
    pub async fn keep(self) {
        match &self.jwt {
            Some(jwt) => {
                tokio::join!(keeper::keep_keys(jwt), keeper::keep_revocations(jwt));
            }
            None => std::future::pending().await,
        }
    }

    /// Whether anybody's credentials can be checked: not before there is a key.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.jwt.as_ref().is_none_or(|jwt| jwt.policy.borrow().is_ready())
    }

    /// Waits until [`Self::is_ready`].
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub async fn ready(&self) {
        if let Some(jwt) = &self.jwt {
            let mut policy = jwt.policy.subscribe();
            // An error means that the authenticator is gone, which the borrow rules out.
            drop(policy.wait_for(|policy| policy.is_ready()).await);
        }
    }

    /// Tells when [`Self::stands`] may answer otherwise; `None` if never.
    #[must_use]
    pub fn changes(&self) -> Option<Changes> {
        self.jwt.as_ref().map(|jwt| Changes(jwt.policy.subscribe()))
    }

    /// Whether credentials of `principal` that were good still are, their time aside: they were not
    /// taken back, and the key that verified them is still there.
    #[must_use]
    pub fn stands(&self, principal: &Principal, standing: Option<&Standing>) -> bool {
        match (&self.jwt, standing) {
            (Some(jwt), Some(standing)) => jwt.policy.borrow().stands(principal, standing),
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    /// Who somebody with `token` is. Waits for a fetch of the issuer's keys if the token names one
    /// that is not known, once a minute.
    ///
    /// # Errors
    ///
    /// That is not known; a client is not told why.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub async fn identify(&self, token: &Token) -> Result<Identity, AuthError> {
        let Some(jwt) = &self.jwt else {
            let principal = Principal::anonymous();
            let rights = Rights::All;
            return Ok(Identity { principal, rights, expires: None, standing: None });
        };
        match jwt.identify(token).await {
            Ok(Verified { principal, rights, expires, standing }) => {
                let (expires, standing) = (Some(expires), Some(standing));
                Ok(Identity { principal, rights, expires, standing })
            }
            Err((why, error)) => {
                tracing::debug!(%why, "token refused");
                Err(error)
            }
        }
    }
}

impl Jwt {
    async fn identify(&self, token: &Token) -> Result<Verified, (Invalid, AuthError)> {
        let invalid = |why| (why, AuthError::Unauthenticated);
        let header = jwt::header(token).map_err(invalid)?;
        let policy = self.policy.borrow().clone();
        let why = match policy.judge(token, &header) {
            Ok(verified) => return Ok(verified),
            Err(why) => why,
        };
        let is_unknown = match &header.kid {
            Some(kid) => !policy.knows(kid),
            // Any of the issuer's keys may be for it, of which there are none yet.
            None => policy.fetched.is_none(),
        };
        if policy.source.is_none() || !is_unknown || !why.is_of_key() {
            return Err(invalid(why));
        }
        let why = if self.asks.ask(time::now()).await {
            let policy = self.policy.borrow().clone();
            match policy.judge(token, &header) {
                Ok(verified) => return Ok(verified),
                Err(why) => why,
            }
        } else {
            why
        };
        if why.is_of_key() && self.is_stale.load(Ordering::Relaxed) {
            return Err((why, AuthError::Unavailable));
        }
        Err(invalid(why))
    }

    /// Judges by what `change` makes of what was, if it makes anything; tells so.
    fn replace(&self, change: impl FnOnce(&Policy) -> Option<Policy>) -> bool {
        let replaced = self.policy.send_if_modified(|policy| match change(policy) {
            Some(new) => {
                *policy = Arc::new(new);
                true
            }
            None => false,
        });
        if replaced {
            self.count();
        }
        replaced
    }

    fn count(&self) {
        let policy = self.policy.borrow();
        let count = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        self.metrics.keys.set(count(policy.keys_len()));
        self.metrics.revocations.set(count(policy.revocations_len()));
    }
}

#[cfg(test)]
mod forgeries;
#[cfg(test)]
mod tests;
