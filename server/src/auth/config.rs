//! The settings of authentication.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::fetch::Address;

/// The most keys of files, and of an issuer: every one that fits a token may be tried.
pub(super) const KEYS_MAX: usize = 16;

/// The bounds of `auth.jwks_interval`.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Where the issuer publishes its keys, as a JSON Web Key Set: an `https` URL, or an `http` one of
    /// a loopback address. Empty: nowhere.
    pub jwks_url: String,
    /// How often they are fetched.
    #[serde(with = "humantime_serde")]
    pub jwks_interval: Duration,
    /// Roots that the certificate of the URL must lead to, as a PEM file. Empty: those of the system.
    pub jwks_ca: PathBuf,
    /// The file with the tokens that are taken back. Empty: none.
    pub revocations: PathBuf,
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
            jwks_url: String::new(),
            jwks_interval: Duration::from_secs(600),
            jwks_ca: PathBuf::new(),
            revocations: PathBuf::new(),
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
                if self.keys.is_empty() && self.jwks_url.is_empty() {
                    return Err("auth.mode \"jwt\" needs a key in auth.keys, or auth.jwks_url; \
                                `cowrite token --new-secret FILE` makes a secret for HS256"
                        .to_owned());
                }
            }
        }
        if self.keys.len() > KEYS_MAX {
            return Err(format!("auth.keys has more than {KEYS_MAX} keys"));
        }
        if !self.jwks_url.is_empty() {
            Address::parse(&self.jwks_url).map_err(|what| format!("auth.jwks_url {what}"))?;
        }
        if self.jwks_interval < INTERVAL_MIN || self.jwks_interval > INTERVAL_MAX {
            return Err("auth.jwks_interval must be from 1s to 1day".to_owned());
        }
        if self.jwks_url.is_empty() && !self.jwks_ca.as_os_str().is_empty() {
            return Err("auth.jwks_ca means something only with auth.jwks_url".to_owned());
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
