//! What tokens are judged by, as it is at one moment: it is replaced as a whole, and never changed.

use std::{path::PathBuf, sync::Arc};

use jsonwebtoken::Header;

use super::{
    SettingsError, Token,
    config::Config,
    fetch::{Address, Source},
    jwt::{Invalid, Standing, Verified, Verifier},
    keys::Key,
    revocations::Revocations,
};
use crate::{
    ids::Principal,
    time::{self},
};

/// What tokens are judged by. Cheap to clone: the parts are shared.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) verifier: Verifier,
    /// The keys of files.
    pub(super) files: Arc<[Key]>,
    /// Where the keys of the issuer are; `None` if all are in files.
    pub(super) source: Option<Arc<Source>>,
    /// The keys of the issuer; `None` before the first were there.
    pub(super) fetched: Option<Arc<[Key]>>,
    /// The file of the revocations, if there is one.
    pub(super) list: Option<Arc<PathBuf>>,
    pub(super) revocations: Arc<Revocations>,
}

impl Policy {
    /// Reads everything that the settings name, except what has to be fetched.
    pub(super) fn load(config: &Config) -> Result<Self, SettingsError> {
        let files = config.keys.iter().map(Key::load).collect::<Result<_, _>>()?;
        let source = if config.jwks_url.is_empty() {
            None
        } else {
            let address = Address::parse(&config.jwks_url).map_err(SettingsError::Address)?;
            Some(Arc::new(Source::load(address, &config.jwks_ca, config.jwks_interval)?))
        };
        let list = &config.revocations;
        let (list, revocations) = if list.as_os_str().is_empty() {
            (None, Revocations::default())
        } else {
            (Some(Arc::new(list.clone())), Revocations::load(list)?)
        };
        Ok(Self {
            verifier: Verifier::new(config),
            files,
            source,
            fetched: None,
            list,
            revocations: Arc::new(revocations),
        })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.files.iter().chain(self.fetched.iter().flat_map(|keys| keys.iter()))
    }

    /// How many keys there are.
    pub(super) fn keys_len(&self) -> usize {
        self.keys().count()
    }

    /// How many revocations there are.
    pub(super) fn revocations_len(&self) -> usize {
        self.revocations.len()
    }

    /// Whether tokens can be verified at all.
    pub(super) fn is_ready(&self) -> bool {
        self.keys().next().is_some()
    }

    /// Whether a key has exactly this name.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.keys().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Whose `token` is, and what it grants.
    pub(super) fn judge(&self, token: &Token, header: &Header) -> Result<Verified, Invalid> {
        let (wall_ms, now) = (time::wall_ms(), time::now());
        let verified = self.verifier.verify(token, header, self.keys(), wall_ms, now)?;
        if self.revocations.has(&verified.principal, &verified.standing.issued) {
            return Err(Invalid::Revoked);
        }
        Ok(verified)
    }

    /// Whether a token of `principal` that was good would still be, its time aside.
    pub(super) fn stands(&self, principal: &Principal, standing: &Standing) -> bool {
        let Standing { issued, key, terms } = standing;
        *self.verifier.terms == **terms
            && self.keys().any(|one| one.digest == *key)
            && !self.revocations.has(principal, issued)
    }
}
