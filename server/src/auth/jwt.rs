//! Verifies JSON Web Tokens.

use std::sync::Arc;

use jsonwebtoken::{Header, Validation, errors::ErrorKind};

use super::{
    Token,
    claims::{Claims, Rights},
    config::{Algorithm, Config},
    crypto::Digest,
    keys::Key,
    revocations::{self, Issued},
};
use crate::{
    ids::Principal,
    time::{Duration, Instant},
};

/// The longest token, in bytes: half of what the head of a request may have.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// A session ends after this at the latest, and has to come back: far longer than any token should
/// be good for, and short enough to add to any time.
const LIFE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Why a token is not taken. For logs: a client is told nothing of it, and nothing of the token is
/// in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("there is no token")]
    Missing,
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not a token of three parts with a header that can be read")]
    Shape,
    #[error("the header has critical parameters, which are not known here")]
    Critical,
    #[error("no key here is for its kid")]
    Key,
    #[error("the key for its kid has another algorithm")]
    Algorithm,
    #[error("the signature is not that of a key here")]
    Signature,
    #[error("exp, aud, iss or sub is missing, or a claim cannot be read")]
    Claims,
    #[error("it is from another issuer")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("sub is empty or longer than {} bytes", Principal::BYTES_MAX)]
    Subject,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it was revoked")]
    Revoked,
    #[error("the claim cowrite has an entry that cannot be")]
    Grants,
}

impl Invalid {
    /// Whether another key would make a difference.
    pub(super) fn is_of_key(self) -> bool {
        matches!(self, Self::Key | Self::Algorithm | Self::Signature)
    }
}

/// What a token says, after everything was checked.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    pub(super) rights: Rights,
    /// When it is good no longer: its `exp` and the leeway.
    pub(super) expires: Instant,
    pub(super) standing: Standing,
}

/// What is kept of a token to judge it again when what it was judged by has changed: the token itself
/// is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub(super) issued: Issued,
    /// The key that verified it.
    pub(super) key: Digest,
    pub(super) terms: Arc<Terms>,
}

/// Whose tokens are taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    issuer: String,
    audience: String,
}

/// What a token has to be like.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    pub(super) terms: Arc<Terms>,
    leeway: Duration,
}

/// The header of a token, of which nothing is believed but which key to try.
pub(super) fn header(token: &Token) -> Result<Header, Invalid> {
    let token = token.expose();
    if token.is_empty() {
        return Err(Invalid::Missing);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Invalid::TooLong);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Invalid::Shape)?;
    if header.crit.is_some() {
        return Err(Invalid::Critical);
    }
    Ok(header)
}

impl Verifier {
    pub(super) fn new(config: &Config) -> Self {
        let Config { issuer, audience, leeway, .. } = config.clone();
        Self { terms: Arc::new(Terms { issuer, audience }), leeway }
    }

    /// Checks `token` against `keys`, of which none but those for its `kid` are tried, each with its
    /// own algorithm. `wall_ms` and `now` are the same moment on two clocks.
    pub(super) fn verify<'a>(
        &self,
        token: &Token,
        header: &Header,
        keys: impl IntoIterator<Item = &'a Key>,
        wall_ms: u64,
        now: Instant,
    ) -> Result<Verified, Invalid> {
        let mut invalid = Invalid::Key;
        for key in keys {
            if !key.is_for(header.kid.as_deref()) {
                continue;
            }
            match signed(token, key) {
                Ok(claims) => return self.check(&claims, key.digest, wall_ms, now),
                Err(why) => invalid = why,
            }
        }
        Err(invalid)
    }

    fn check(
        &self,
        claims: &Claims,
        key: Digest,
        wall_ms: u64,
        now: Instant,
    ) -> Result<Verified, Invalid> {
        let Terms { issuer, audience } = &*self.terms;
        if claims.iss != *issuer {
            return Err(Invalid::Issuer);
        }
        if !claims.aud.contains(audience) {
            return Err(Invalid::Audience);
        }
        // Empty is who has no credentials.
        let named = !claims.sub.is_empty();
        let principal = Principal::new(&claims.sub).filter(|_| named).ok_or(Invalid::Subject)?;
        // Exact to the microsecond for the next three centuries.
        let (wall, leeway) = (wall_ms as f64 / 1000.0, self.leeway.as_secs_f64());
        if claims.nbf.is_some_and(|nbf| nbf > wall + leeway) {
            return Err(Invalid::NotYet);
        }
        let left = claims.exp + leeway - wall;
        if left <= 0.0 {
            return Err(Invalid::Expired);
        }
        let left = Duration::from_secs_f64(left.min(LIFE_MAX.as_secs_f64()));
        let rights = claims.cowrite.rights().ok_or(Invalid::Grants)?;
        // A cast from a float saturates: before 1970 is 1970.
        let at_ms = claims.iat.map(|iat| (iat * 1000.0) as u64);
        let issued = Issued { at_ms, id: claims.jti.as_deref().map(revocations::token_id) };
        let standing = Standing { issued, key, terms: Arc::clone(&self.terms) };
        Ok(Verified { principal, rights, expires: now + left, standing })
    }
}

/// The claims of a token that `key` has signed. Nothing in them is checked.
fn signed(token: &Token, key: &Key) -> Result<Claims, Invalid> {
    let mut validation = Validation::new(algorithm(key.algorithm));
    // These are checked above: with a clock that tests can set, and the issuer as one name.
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let decoded = jsonwebtoken::decode::<Claims>(token.expose(), &key.decoding, &validation);
    decoded.map(|decoded| decoded.claims).map_err(|error| {
        use ErrorKind as E;
        let kind = error.kind();
        if matches!(kind, E::InvalidAlgorithm | E::UnsupportedAlgorithm) {
            Invalid::Algorithm
        } else if matches!(kind, E::InvalidSignature) {
            Invalid::Signature
        } else if matches!(kind, E::InvalidToken | E::Base64(_) | E::Utf8(_)) {
            Invalid::Shape
        } else {
            Invalid::Claims
        }
    })
}

fn algorithm(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    }
}
