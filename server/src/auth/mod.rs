//! Who a client is, and what it may do with a document.

use serde::{Deserialize, Serialize};

use crate::ids::{DocumentId, Principal};

/// What a session may do with its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Sees everything, has an awareness state, changes nothing.
    Read,
    /// May also edit.
    Write,
}

/// How clients say who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They do not: everybody may do everything.
    #[default]
    None,
}

/// The settings of authentication: the table `[auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How clients say who they are.
    pub mode: Mode,
}

/// Whom a client is taken for, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who it is.
    pub principal: Principal,
    /// The highest access to the document.
    pub access: Access,
}

/// Checks credentials.
#[derive(Clone, Debug)]
pub struct Authenticator {
    mode: Mode,
}

impl Authenticator {
    /// An authenticator with these settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { mode: config.mode }
    }

    /// What somebody with `token` may do with `document`; `None` when that is nothing, which does
    /// not say whether the document exists.
    #[must_use]
    pub fn grant(&self, _token: &str, _document: &DocumentId) -> Option<Grant> {
        match self.mode {
            Mode::None => Some(Grant { principal: Principal::anonymous(), access: Access::Write }),
        }
    }
}
