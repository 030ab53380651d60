//! Makes tokens and secrets, for development and tests. In production tokens come from the
//! application, which knows its users.

use std::{fs::OpenOptions, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use jsonwebtoken::Header;

use super::{
    Token,
    claims::{Audience, Claims, Grants, Right},
    config::{Algorithm, Config},
    crypto,
    keys::{self, KeyError},
};
use crate::{ids::Principal, time, time::Duration};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// There is no secret.
    #[error(
        "there is no key for HS256 in auth.keys: a token can be made here only with a secret that \
         this server has; with public keys, tokens come from who has the private ones"
    )]
    NoSecret,
    /// The secret cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Nobody is named.
    #[error("the subject is empty, or longer than {} bytes", Principal::BYTES_MAX)]
    Subject,
    /// There is no randomness to be had.
    #[error("get random bytes from the system")]
    Random(#[source] io::Error),
    /// It was not signed, which is a fault of the build.
    #[error("sign the token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// A token for `subject` from the first secret of `auth.keys`, good from now for `lifetime`.
///
/// # Errors
///
/// There is no secret that can be used.
pub fn mint(
    config: &Config,
    subject: &str,
    rights: &[Right],
    lifetime: Duration,
) -> Result<Token, MintError> {
    if subject.is_empty() || Principal::new(subject).is_none() {
        return Err(MintError::Subject);
    }
    crypto::install();
    let key = config.keys.iter().find(|key| key.algorithm == Algorithm::HS256);
    let key = key.ok_or(MintError::NoSecret)?;
    let signing = keys::signing_key(key)?;
    let issued = time::wall_ms() / 1000;
    let claims = Claims {
        sub: subject.to_owned(),
        iss: config.issuer.clone(),
        aud: Audience::One(config.audience.clone()),
        exp: (issued + lifetime.as_secs()) as f64,
        nbf: None,
        iat: Some(issued as f64),
        jti: Some(random_hex::<8>().map_err(MintError::Random)?),
        cowrite: Grants::of(rights),
    };
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = (!key.kid.is_empty()).then(|| key.kid.clone());
    jsonwebtoken::encode(&header, &claims, &signing).map(Token::from).map_err(MintError::Sign)
}

/// Writes a new secret for HS256 into a file that does not exist and that only its owner can read:
/// 32 random bytes as 64 hexadecimal digits, which are the secret as they stand there.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn new_secret(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", random_hex::<32>()?)?;
    file.sync_all()
}

/// Random bytes as hexadecimal digits.
fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
