//! Joins: the message, the document, the state vector, and the token.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use cowrite_fuzz::in_time;
use cowrite_server::{
    auth::{Algorithm, Authenticator, Config, KeyConfig, Mode, new_secret},
    metrics::Metrics,
    session::fuzzing::accept,
    transport::fuzzing::join,
};
use libfuzzer_sys::fuzz_target;

static AUTHENTICATORS: LazyLock<[Authenticator; 2]> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    new_secret(&file).expect("a secret");
    let key = KeyConfig { algorithm: Algorithm::HS256, file, kid: String::new() };
    let jwt = Config {
        mode: Mode::Jwt,
        issuer: "i".to_owned(),
        audience: "a".to_owned(),
        keys: vec![key],
        ..Config::default()
    };
    let metrics = Metrics::new().auth;
    let new = |config| Authenticator::new(&config, metrics.clone()).expect("it can be used");
    [Config::default(), jwt].map(new)
});

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    in_time(|| {
        for authenticator in &*AUTHENTICATORS {
            if let Some(join) = join(message.clone()) {
                accept(join, authenticator);
            }
        }
    });
});
