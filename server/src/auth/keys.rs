//! Keys that tokens are signed with, and those of them that are in files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jsonwebtoken::{DecodingKey, DecodingKeyKind, EncodingKey};

use super::{
    config::{Algorithm, KeyConfig},
    crypto::{self, Digest},
};

/// The shortest secret, in bytes: as many as the hash has (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// The largest file of a key, in bytes: an RSA key of 8192 bits has less than 2 KiB.
const FILE_BYTES_MAX: usize = 64 << 10;

/// A key that cannot be used. Says nothing of what is in the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("read the key {path} (auth.keys)")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is in the file is not a key for its algorithm.
    #[error("the key {path} (auth.keys) {what}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A key that verifies tokens, and which tokens. Its `Debug` shows nothing secret: that of
/// [`DecodingKey`] does not either.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    /// `None` for all tokens.
    pub(super) kid: Option<String>,
    pub(super) decoding: DecodingKey,
    /// The same for the same key, read again: who was let in by a key is asked to go when it has.
    pub(super) digest: Digest,
}

impl Key {
    /// Reads the key of an entry of `auth.keys`.
    pub(super) fn load(config: &KeyConfig) -> Result<Self, KeyError> {
        let path = &config.file;
        let unusable = |what| KeyError::Unusable { path: path.clone(), what };
        let parse = match config.algorithm {
            Algorithm::HS256 => {
                let decoding = DecodingKey::from_secret(&read_secret(path)?);
                return Ok(Self::configured(config, decoding));
            }
            Algorithm::RS256 => DecodingKey::from_rsa_pem,
            Algorithm::ES256 => DecodingKey::from_ec_pem,
            Algorithm::EdDSA => DecodingKey::from_ed_pem,
        };
        let pem = read(path)?;
        if contains(&pem, b"PRIVATE KEY-----") {
            return Err(unusable("is a private key: this server needs the public one only"));
        }
        let decoding = parse(&pem).map_err(|_| {
            unusable("is not a public key in PEM (BEGIN PUBLIC KEY) for its algorithm")
        })?;
        Ok(Self::configured(config, decoding))
    }

    fn configured(config: &KeyConfig, decoding: DecodingKey) -> Self {
        let kid = (!config.kid.is_empty()).then(|| config.kid.clone());
        Self::new(config.algorithm, kid, decoding)
    }

    /// A key that is used with `algorithm` alone.
    pub(super) fn new(algorithm: Algorithm, kid: Option<String>, decoding: DecodingKey) -> Self {
        let name: &[u8] = match algorithm {
            Algorithm::HS256 => b"HS256",
            Algorithm::RS256 => b"RS256",
            Algorithm::ES256 => b"ES256",
            Algorithm::EdDSA => b"EdDSA",
        };
        let (is_named, named) = (&[u8::from(kid.is_some())], kid.as_deref().unwrap_or_default());
        let digest = match decoding.kind() {
            DecodingKeyKind::SecretOrDer(key) => {
                crypto::digest(&[name, is_named, named.as_bytes(), key])
            }
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                crypto::digest(&[name, is_named, named.as_bytes(), n, e])
            }
        };
        Self { algorithm, kid, decoding, digest }
    }

    /// Whether the key may be the one of a token with this `kid`.
    pub(super) fn is_for(&self, kid: Option<&str>) -> bool {
        self.kid.is_none() || self.kid.as_deref() == kid
    }
}

/// The key that signs with the secret of an entry of `auth.keys`, which is one for HS256.
pub(super) fn signing_key(config: &KeyConfig) -> Result<EncodingKey, KeyError> {
    Ok(EncodingKey::from_secret(&read_secret(&config.file)?))
}

/// The secret in a file: its bytes as they are, without a line end.
fn read_secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let unusable = |what| KeyError::Unusable { path: path.to_owned(), what };
    let mut secret = read(path)?;
    if secret.ends_with(b"\n") {
        secret.pop();
    }
    if secret.ends_with(b"\r") {
        secret.pop();
    }
    if contains(&secret, b"-----BEGIN ") {
        return Err(unusable("is in PEM, which is for RS256, ES256 and EdDSA: HS256 has a secret"));
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(unusable(
            "has less than 32 bytes, which can be guessed: `cowrite token \
                             --new-secret FILE` makes a good one",
        ));
    }
    Ok(secret)
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes =
        fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(KeyError::Unusable { path: path.to_owned(), what: "is too large for a key" });
    }
    Ok(bytes)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
