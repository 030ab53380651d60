//! Who makes tokens for the people of a test.

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cowrite_server::{
    app::Config,
    auth::{self, Access, Algorithm, KeyConfig, Mode, Right, Scope},
    ids::DocumentId,
};
use serde_json::Value;
use tempfile::TempDir;

/// Makes tokens that servers with its settings take.
#[derive(Debug)]
pub struct Issuer {
    config: auth::Config,
    _directory: TempDir,
}

impl Issuer {
    /// With a new secret.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("secret");
        auth::new_secret(&file).expect("a secret");
        let key = KeyConfig { algorithm: Algorithm::HS256, file, kid: String::new() };
        let config = auth::Config {
            mode: Mode::Jwt,
            issuer: "https://issuer.example".to_owned(),
            audience: "cowrite-tests".to_owned(),
            keys: vec![key],
            // So that a token can be made that has expired.
            leeway: Duration::ZERO,
            ..auth::Config::default()
        };
        Self { config, _directory: directory }
    }

    /// The file with the secret.
    #[must_use]
    pub fn secret(&self) -> &Path {
        &self.config.keys[0].file
    }

    /// Makes a server ask for tokens of this issuer.
    pub fn configure(&self, config: &mut Config) {
        config.auth = self.config.clone();
    }

    /// The same for a server that is a process of its own, as [`ServerProcess`](crate::ServerProcess)
    /// takes it.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let auth::Config { issuer, audience, keys, .. } = &self.config;
        let key = keys.first().expect("a key");
        let keys = format!("[{{ algorithm = \"HS256\", file = {:?} }}]", key.file);
        vec![
            ("AUTH__MODE", "jwt".to_owned()),
            ("AUTH__ISSUER", issuer.clone()),
            ("AUTH__AUDIENCE", audience.clone()),
            ("AUTH__KEYS", keys),
        ]
    }

    /// A token for `subject` that is good for ten minutes and grants `access` to each document, or to
    /// each prefix that ends with `/`.
    #[must_use]
    pub fn token(&self, subject: &str, grants: &[(&str, Access)]) -> String {
        self.token_for(Duration::from_secs(600), subject, grants)
    }

    /// As [`Self::token`], with the same key but for another audience.
    #[must_use]
    pub fn foreign_token(&self, subject: &str, grants: &[(&str, Access)]) -> String {
        let audience = "somebody else".to_owned();
        let config = auth::Config { audience, ..self.config.clone() };
        mint(&config, Duration::from_secs(600), subject, grants)
    }

    /// As [`Self::token`], good for `life`: with none, it has expired.
    #[must_use]
    pub fn token_for(&self, life: Duration, subject: &str, grants: &[(&str, Access)]) -> String {
        mint(&self.config, life, subject, grants)
    }
}

/// The `jti` of a token.
#[must_use]
pub fn jti(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("three parts"));
    let claims: Value = serde_json::from_slice(&payload.expect("base64url")).expect("JSON");
    claims["jti"].as_str().expect("a jti").to_owned()
}

fn mint(config: &auth::Config, life: Duration, subject: &str, grants: &[(&str, Access)]) -> String {
    let right = |(id, access): &(&str, Access)| {
        let scope = Scope::prefix(id).or_else(|| DocumentId::parse(id).ok().map(Scope::Document));
        Right { scope: scope.expect("a document or a prefix"), access: *access }
    };
    let rights: Vec<_> = grants.iter().map(right).collect();
    let token = auth::mint(config, subject, &rights, life);
    token.expect("a token").expose().to_owned()
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}
