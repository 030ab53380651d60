//! The settings of authentication.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The most keys: every one that fits a token may be tried.
const KEYS_MAX: usize = 16;

/// How clients say who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They do not: everybody may do everything.
    #[default]
    None,
    /// By a JSON Web Token.
    Jwt,
}

/// An algorithm that tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret that signs and verifies.
    HS256,
    /// RSA with PKCS #1 v1.5 and SHA-256, 2048 to 8192 bits.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// A key that tokens may be signed with: an entry of `auth.keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The only algorithm that the key is used with, whatever a token says.
    pub algorithm: Algorithm,
    /// A public key in PEM, or for HS256 a secret of at least 32 bytes.
    pub file: PathBuf,
    /// The tokens that it is for: those whose header has this `kid`; empty for all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kid: String,
}

/// The settings of authentication: the table `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How clients say who they are.
    pub mode: Mode,
    /// Serve everybody who can connect, also on an address that others than this machine reach.
    pub insecure: bool,
    /// Whom tokens are issued by: their `iss`.
    pub issuer: String,
    /// Whom tokens are issued for: their `aud`, or one of them.
    pub audience: String,
    /// The keys that tokens may be signed with.
    pub keys: Vec<KeyConfig>,
    /// How far the clocks of this server and of the issuer may be apart.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::None,
            insecure: false,
            issuer: String::new(),
            audience: String::new(),
            keys: Vec::new(),
            leeway: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Checks the values against each other, and against where clients come in.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self, listen: SocketAddr) -> Result<(), String> {
        match self.mode {
            Mode::None => {
                // An IPv4 address may be written as an IPv6 one.
                if !self.insecure && !listen.ip().to_canonical().is_loopback() {
                    return Err(format!(
                        "auth.mode is \"none\", so that everybody who reaches {listen} may read \
                         and write every document: set auth.mode to \"jwt\", or listen on a \
                         loopback address, or, if only people you trust can reach it, say \
                         --insecure (auth.insecure = true)"
                    ));
                }
            }
            Mode::Jwt => {
                if self.issuer.is_empty() || self.audience.is_empty() {
                    return Err("auth.mode \"jwt\" needs auth.issuer and auth.audience: what the \
                                claims iss and aud of a token have to be"
                        .to_owned());
                }
                if self.keys.is_empty() {
                    return Err("auth.mode \"jwt\" needs a key in auth.keys; `cowrite token \
                                --new-secret FILE` makes a secret for HS256"
                        .to_owned());
                }
            }
        }
        if self.keys.len() > KEYS_MAX {
            return Err(format!("auth.keys has more than {KEYS_MAX} keys"));
        }
        if self.leeway > Duration::from_secs(300) {
            return Err(
                "auth.leeway must be at most 5m: a token is good for that much longer than \
                        it says"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
