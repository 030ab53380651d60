//! Where tokens come from, and when a running session needs a new one.

use std::{error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::Error;

/// No refresh is sooner than this after the last.
const REFRESH_MIN: Duration = Duration::from_secs(5);

/// How long a token function may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

type Fetching =
    Pin<Box<dyn Future<Output = Result<String, Arc<dyn error::Error + Send + Sync>>> + Send>>;

/// Credentials, or where to get them: a token, from a `String` or a `&str`, or a function that is asked
/// anew for each session and each refresh. `Debug` does not show the token.
#[derive(Clone, Default)]
pub struct TokenSource(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    Fixed(Arc<str>),
    Asked(Arc<dyn Fn() -> Fetching + Send + Sync>),
}

impl TokenSource {
    /// Asks `fetch` for a token whenever one is needed. An error counts as a session that was lost: it
    /// is tried again later.
    pub fn from_fn<F, T, E>(fetch: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        Self(Source::Asked(Arc::new(move || {
            let fetching = fetch();
            Box::pin(async move { fetching.await.map_err(|error| Arc::from(error.into())) })
        })))
    }

    /// There is no token.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.0, Source::None)
    }

    /// A token can be had that is another one than the last.
    pub(crate) fn can_refresh(&self) -> bool {
        matches!(self.0, Source::Asked(_))
    }

    /// The token now.
    pub(crate) async fn get(&self) -> Result<String, Error> {
        match &self.0 {
            Source::None => Ok(String::new()),
            Source::Fixed(token) => Ok(token.as_ref().to_owned()),
            Source::Asked(fetch) => match tokio::time::timeout(FETCH_TIMEOUT, fetch()).await {
                Ok(Ok(token)) => Ok(token),
                Ok(Err(error)) => Err(Error::lost(&format!("the token function failed: {error}"))),
                Err(_) => Err(Error::lost("the token function did not answer within 30 s")),
            },
        }
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        if token.is_empty() { Self(Source::None) } else { Self(Source::Fixed(token.into())) }
    }
}

impl From<String> for TokenSource {
    fn from(token: String) -> Self {
        Self::from(&*token)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::None => "TokenSource(none)",
            Source::Fixed(_) => "TokenSource(fixed)",
            Source::Asked(_) => "TokenSource(asked)",
        })
    }
}

/// How long after it was fetched a token should be replaced: at four fifths of its lifetime. The
/// lifetime is `exp - iat`, both by the clock of whoever issued it, so that the clock here plays no
/// part. `None` for a token that is no JWT or does not say both.
pub(crate) fn refresh_after(token: &str) -> Option<Duration> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let life = claims.get("exp")?.as_f64()? - claims.get("iat")?.as_f64()?;
    let life = Duration::try_from_secs_f64(life).ok().filter(|life| !life.is_zero())?;
    Some(life.mul_f64(0.8).max(REFRESH_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_replaced_at_four_fifths_of_its_life_by_its_own_clock() {
        let life = refresh_after(&token(r#"{"iat":1000,"exp":1600}"#));
        assert_eq!(life, Some(Duration::from_secs(480)));
        let short = refresh_after(&token(r#"{"iat":1000,"exp":1001}"#));
        assert_eq!(short, Some(REFRESH_MIN));
        for claims in [r#"{"exp":1600}"#, r#"{"iat":1}"#, r#"{"iat":2,"exp":1}"#, "[]", "x"] {
            assert_eq!(refresh_after(&token(claims)), None, "{claims}");
        }
        for text in ["", "x", "a.b", "..."] {
            assert_eq!(refresh_after(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_source_tells_its_token_to_nobody_but_the_server() {
        let source = TokenSource::from("hunter2");
        assert!(!format!("{source:?}").contains("hunter2"));
        assert_eq!(source.get().await.unwrap(), "hunter2");
        assert!(TokenSource::from("").is_none());
        let failing = TokenSource::from_fn(async || Err::<String, _>("no login"));
        assert!(failing.get().await.unwrap_err().to_string().contains("no login"));
    }
}
