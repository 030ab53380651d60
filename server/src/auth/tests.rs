//! Tokens that are good, and tokens that are not for each way in which they can be bad.

use std::{fs, path::PathBuf};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::FutureExt as _;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;
use crate::{metrics::Metrics, time::Duration};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The public half of an RSA key whose private half nobody has kept, and what it signed.
pub(super) const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr5Vb4sPWLn1rqKHMy/wI
KamG9AQaG99/mKI4yO/A5T/D2EbX1YwqG79dMTOsbGew6AtFhVbNkzFdHSjIZDt8
OekZj6wdwkIEg1MdOlsYuqgddyveLmL1g9k3HwQDRtE8wN99tIPhkA8jxR6fUMn4
xcUJY3gMd6IJCnOy9U9Y3pIyOpmGwxnBpGafcvbdmX+E0sKq3CV1Z8afnHdIK7ro
AEE6LhccI9QMWRH+PPY7e7SqWuM55q+l68Ijw2bUdt1Rvt54lKh3/F+mFCE3JbgK
BPPjc2EkPs5tAolMTiEyplGA3CHUR8UMJz8OJBe/eCsF81sTHNtbklRIjtyehcKv
ZQIDAQAB
-----END PUBLIC KEY-----
";
const RSA_HEADER: &str = r#"{"alg":"RS256","typ":"JWT"}"#;
const RSA_CLAIMS: &str = r#"{"iss":"https://issuer.example","aud":"cowrite","sub":"alice","exp":4102444800,"cowrite":{"documents":[{"id":"notes/7","access":"write"}]}}"#;
const RSA_SIGNATURE: &str = "gXrzQWwvdAT6h9pCkspBfSNwW0nvvhucBnCA8RxVuT7sQFBIoyxAo4JPaBdxPsmsDWzpmAbSVtIcTUxr6WXHwGNpoxTM0_ghfWcxMK6boWBn_6F7f3IZdaX2bLTM8kI44jVFrzyufsNT6w4v0racadoYTBjMwIzezO8pVvwObBXojbjc6ZMRoeYRl8FH4wpntVvbqlyRpW0PM_AvLbqPQwJQy9z4Js2OMtb0Xr5M1iYBkhP0rYmjp_q_yjNhWjSyJWHZMeNIlyJgRb-mRwfenW-j2zSgjEngwrakC6Iisk6xrb4y8Cdp-OzSA3vADAFPWaINt_tGr0nc9XcoSs7dLA";

/// SubjectPublicKeyInfo up to the key: P-256, and Ed25519.
pub(super) const EC_PREFIX: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const ED_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Keys in a directory that goes with it.
pub(super) struct Keys {
    directory: tempfile::TempDir,
    keys: Vec<KeyConfig>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), keys: Vec::new() }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join(self.keys.len().to_string());
        fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn with(mut self, algorithm: Algorithm, text: &str, kid: &str) -> Self {
        let file = self.file(text);
        self.keys.push(KeyConfig { algorithm, file, kid: kid.to_owned() });
        self
    }

    /// `config` with all keys but the first.
    fn without_first(&self, config: &Config) -> Config {
        Config { keys: self.keys[1..].to_vec(), ..config.clone() }
    }

    fn config(&self) -> Config {
        Config {
            mode: Mode::Jwt,
            issuer: "https://issuer.example".to_owned(),
            audience: "cowrite".to_owned(),
            keys: self.keys.clone(),
            ..Config::default()
        }
    }

    pub(super) fn authenticator(&self) -> Authenticator {
        let config = self.config();
        config.validate(([0, 0, 0, 0], 1).into()).unwrap();
        Authenticator::new(&config, Metrics::new().auth).unwrap()
    }
}

fn secret_alone() -> Authenticator {
    Keys::new().with(Algorithm::HS256, SECRET, "").authenticator()
}

fn pem(prefix: &[u8], key: &[u8]) -> String {
    let der = STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

pub(super) fn now() -> f64 {
    time::wall_ms() as f64 / 1000.0
}

pub(super) fn claims() -> Value {
    let documents = json!([{"id": "notes/7", "access": "write"}]);
    json!({
        "iss": "https://issuer.example", "aud": "cowrite", "sub": "alice",
        "exp": now() + 60.0, "cowrite": {"documents": documents}
    })
}

pub(super) fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

pub(super) fn with_signature(message: &str, signature: impl AsRef<[u8]>) -> Token {
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)).into()
}

pub(super) fn hs256_of(header: &str, claims: &str, secret: &[u8]) -> Token {
    let message = unsigned(header, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    with_signature(&message, hmac::sign(&key, message.as_bytes()))
}

fn hs256(claims: &Value) -> Token {
    hs256_of(r#"{"alg":"HS256"}"#, &claims.to_string(), SECRET.as_bytes())
}

fn rs256() -> Token {
    format!("{}.{RSA_SIGNATURE}", unsigned(RSA_HEADER, RSA_CLAIMS)).into()
}

/// Who somebody is, where nothing has to be fetched to know it.
fn identify(authenticator: &Authenticator, token: &Token) -> Result<Identity, AuthError> {
    authenticator.identify(token).now_or_never().expect("nothing to wait for")
}

pub(super) fn access(
    authenticator: &Authenticator,
    token: &Token,
) -> Result<Option<Access>, AuthError> {
    let identity = identify(authenticator, token)?;
    assert_eq!(identity.principal().as_str(), "alice");
    Ok(identity.access(&DocumentId::parse("notes/7").unwrap()))
}

#[track_caller]
pub(super) fn assert_refused(authenticator: &Authenticator, what: &str, token: &Token) {
    let identity = identify(authenticator, token);
    assert_eq!(identity.unwrap_err(), AuthError::Unauthenticated, "{what}");
}

#[test]
fn each_algorithm_verifies_what_its_key_has_signed_and_nothing_else() {
    let signers = Signers::new();
    let es256 = signers.es256(r#"{"alg":"ES256"}"#, &claims().to_string());
    let eddsa = signers.eddsa(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    let tokens = [hs256(&claims()), rs256(), es256, eddsa];
    let keys = [
        (Algorithm::HS256, format!("{SECRET}\r\n")),
        (Algorithm::RS256, RSA_PUBLIC.to_owned()),
        (Algorithm::ES256, signers.ec_pem()),
        (Algorithm::EdDSA, signers.ed_pem()),
    ];
    let mut all = Keys::new();
    for (i, (algorithm, text)) in keys.iter().enumerate() {
        let one = Keys::new().with(*algorithm, text, "").authenticator();
        for (j, token) in tokens.iter().enumerate() {
            if i == j {
                assert_eq!(access(&one, token), Ok(Some(Access::Write)), "{algorithm:?}");
            } else {
                assert_refused(&one, &format!("token {j} with the key for {algorithm:?}"), token);
            }
        }
        all = all.with(*algorithm, text, "");
    }
    let all = all.authenticator();
    for token in &tokens {
        assert_eq!(access(&all, token), Ok(Some(Access::Write)));
        // One bit of the signature.
        let mut forged = token.expose().to_owned().into_bytes();
        let last = forged.len() - 4;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        assert_refused(
            &all,
            "a signature with another bit",
            &String::from_utf8(forged).unwrap().into(),
        );
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let keys = Keys::new().with(Algorithm::RS256, RSA_PUBLIC, "");
    let authenticator = keys.authenticator();
    let header = r#"{"alg":"HS256"}"#;
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim_end().as_bytes()] {
        let token = hs256_of(header, &claims().to_string(), secret);
        assert_refused(&authenticator, "HS256 with the public key as the secret", &token);
    }
    // Nor can it be made one by mistake.
    let mistaken = Keys::new().with(Algorithm::HS256, RSA_PUBLIC, "");
    let error =
        Authenticator::new(&mistaken.config(), Metrics::new().auth).unwrap_err().to_string();
    assert!(error.contains("is in PEM"), "{error}");
}

#[test]
fn a_token_that_is_not_signed_or_not_whole_is_refused() {
    let authenticator = secret_alone();
    let good = hs256(&claims());
    let text = good.expose();
    let (message, signature) = text.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let claims = claims().to_string();
    let mut cases = vec![
        ("nothing".to_owned(), String::new()),
        ("no signature".to_owned(), format!("{message}.")),
        ("two parts".to_owned(), message.to_owned()),
        ("four parts".to_owned(), format!("{text}.{signature}")),
        ("five parts, as if encrypted".to_owned(), format!("{text}.{header}.{payload}")),
        ("blanks around it".to_owned(), format!(" {text} ")),
        ("padding".to_owned(), format!("{text}=")),
        ("a scheme before it".to_owned(), format!("Bearer {text}")),
        ("too long".to_owned(), "a".repeat(TOKEN_BYTES_MAX + 1)),
    ];
    for alg in ["none", "None", "NONE", "", "hs256", "HS384", "HS512", "PS256", "RS256", "ES256"] {
        let message = unsigned(&json!({ "alg": alg }).to_string(), &claims);
        cases.push((format!("alg {alg:?} without a signature"), format!("{message}.")));
        let token = hs256_of(&json!({ "alg": alg }).to_string(), &claims, SECRET.as_bytes());
        cases.push((format!("alg {alg:?} signed with the secret"), token.expose().to_owned()));
    }
    for header in [
        "",
        "{}",
        "[]",
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
    ] {
        let token = hs256_of(header, &claims, SECRET.as_bytes());
        cases.push((format!("the header {header}"), token.expose().to_owned()));
    }
    for end in (0..text.len()).step_by(7) {
        cases.push((format!("the first {end} bytes"), text[..end].to_owned()));
    }
    for (what, token) in cases {
        assert_refused(&authenticator, &what, &token.into());
    }
    assert_eq!(access(&authenticator, &good), Ok(Some(Access::Write)));
}

#[test]
fn a_token_that_is_longer_than_the_limit_is_refused_though_it_is_signed() {
    let padded = |bytes: usize| {
        let mut claims = claims();
        claims["padding"] = json!("x".repeat(bytes));
        hs256(&claims)
    };
    assert!(padded(5000).expose().len() < TOKEN_BYTES_MAX);
    assert!(identify(&secret_alone(), &padded(5000)).is_ok());
    assert_refused(&secret_alone(), "too long", &padded(TOKEN_BYTES_MAX));
}

#[test]
fn every_claim_has_to_be_there_once_and_right() {
    let authenticator = secret_alone();
    assert_eq!(access(&authenticator, &hs256(&claims())), Ok(Some(Access::Write)));
    for name in ["iss", "aud", "sub", "exp"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_refused(&authenticator, &format!("no {name}"), &hs256(&claims));
        claims[name] = Value::Null;
        assert_refused(&authenticator, &format!("{name} is null"), &hs256(&claims));
    }
    let cases = [
        ("iss", json!("https://other.example")),
        ("iss", json!("https://issuer.example/")),
        ("iss", json!(["https://issuer.example"])),
        ("aud", json!("other")),
        ("aud", json!("cowrite2")),
        ("aud", json!([])),
        ("aud", json!(["other", "another"])),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("x".repeat(Principal::BYTES_MAX + 1))),
        ("exp", json!(now() - 31.0)),
        ("exp", json!(0)),
        ("exp", json!(-1.0)),
        ("exp", json!(1e300)),
        ("exp", json!("4102444800")),
        ("nbf", json!(now() + 60.0)),
        ("nbf", json!("soon")),
        ("cowrite", json!({"documents": "*"})),
        ("cowrite", json!({"documents": [{"id": "notes/7", "access": "all"}]})),
        ("cowrite", json!({"rooms": []})),
        ("cowrite", json!("all")),
    ];
    for (name, value) in cases {
        let mut claims = claims();
        claims[name] = value;
        assert_refused(&authenticator, &format!("{name} is {}", claims[name]), &hs256(&claims));
    }
    for name in ["iss", "aud", "sub", "exp", "cowrite"] {
        // Which of the two counts is a matter of taste, and so of attacks.
        let (whole, value) = (claims().to_string(), claims()[name].to_string());
        let twice = format!("{},\"{name}\":{value}}}", whole.strip_suffix('}').unwrap());
        let token = hs256_of(r#"{"alg":"HS256"}"#, &twice, SECRET.as_bytes());
        assert_refused(&authenticator, &format!("{name} twice"), &token);
    }
    for (name, value) in [
        ("aud", json!(["other", "cowrite"])),
        ("exp", json!(now() - 29.0)),
        ("exp", json!(1e18)),
        ("nbf", json!(now() + 29.0)),
        ("nbf", json!(now() - 1000.0)),
        ("iat", json!(now() as u64)),
        ("jti", json!("an id")),
    ] {
        let mut claims = claims();
        claims[name] = value;
        let what = format!("{name} is {}", claims[name]);
        assert_eq!(access(&authenticator, &hs256(&claims)), Ok(Some(Access::Write)), "{what}");
    }
    let mut nothing = claims();
    nothing.as_object_mut().unwrap().remove("cowrite");
    assert_eq!(access(&authenticator, &hs256(&nothing)), Ok(None));
}

#[test]
fn a_key_with_a_kid_is_for_that_kid_alone() {
    let other = "another secret of thirty-two bytes";
    let keys =
        Keys::new().with(Algorithm::HS256, SECRET, "old").with(Algorithm::HS256, other, "new");
    let authenticator = keys.authenticator();
    let token = |kid: &str, secret: &str| {
        let header = format!(r#"{{"alg":"HS256"{kid}}}"#);
        hs256_of(&header, &claims().to_string(), secret.as_bytes())
    };
    for (kid, secret) in [(r#","kid":"old""#, SECRET), (r#","kid":"new""#, other)] {
        assert_eq!(access(&authenticator, &token(kid, secret)), Ok(Some(Access::Write)));
    }
    for (kid, secret) in [
        (r#","kid":"new""#, SECRET),
        (r#","kid":"old""#, other),
        (r#","kid":"Old""#, SECRET),
        (r#","kid":"""#, SECRET),
        (r#","kid":7"#, SECRET),
        ("", SECRET),
        (r#","jwk":{"kty":"oct","k":"c2VjcmV0"}"#, "secret"),
    ] {
        assert_refused(&authenticator, kid, &token(kid, secret));
    }
    // One without a kid is tried on every token.
    let any = secret_alone();
    assert_eq!(access(&any, &token(r#","kid":"whatever""#, SECRET)), Ok(Some(Access::Write)));
}

#[test]
fn a_token_is_good_until_exp_and_the_leeway() {
    let identity = identify(&secret_alone(), &hs256(&claims())).unwrap();
    let left = identity.expires().unwrap().duration_since(time::now());
    assert!(left <= Duration::from_secs(90) && left > Duration::from_secs(80), "{left:?}");
    let nobody = Authenticator::new(&Config::default(), Metrics::new().auth).unwrap();
    let nobody = identify(&nobody, &Token::default()).unwrap();
    assert_eq!((nobody.expires(), nobody.principal()), (None, &Principal::anonymous()));
}

#[test]
fn a_key_that_cannot_be_right_is_refused_by_its_file() {
    for (algorithm, text, why) in [
        (Algorithm::HS256, "short", "less than 32 bytes"),
        (Algorithm::HS256, "", "less than 32 bytes"),
        (Algorithm::RS256, SECRET, "not a public key"),
        (Algorithm::ES256, RSA_PUBLIC, "not a public key"),
        (Algorithm::EdDSA, RSA_PUBLIC, "not a public key"),
        (
            Algorithm::RS256,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "private",
        ),
    ] {
        let keys = Keys::new().with(algorithm, text, "");
        let error =
            Authenticator::new(&keys.config(), Metrics::new().auth).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains(&*keys.keys[0].file.to_string_lossy()), "{error}");
        assert!(text.is_empty() || !error.contains(text), "{error}");
    }
    let mut config = Keys::new().with(Algorithm::HS256, SECRET, "").config();
    config.keys[0].file = PathBuf::from("there/is/no/such/file");
    assert!(
        Authenticator::new(&config, Metrics::new().auth)
            .unwrap_err()
            .to_string()
            .contains("no/such/file")
    );
}

#[test]
fn neither_secrets_nor_tokens_are_in_what_is_printed() {
    let keys = Keys::new().with(Algorithm::HS256, SECRET, "");
    let authenticator = keys.authenticator();
    let token = hs256(&claims());
    let printed = format!("{authenticator:?} {:?} {token:?} {token:#?}", keys.config());
    let bytes = format!("{:?}", SECRET.as_bytes());
    for secret in [SECRET, bytes.trim_matches(['[', ']']), token.expose()] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn a_minted_token_grants_what_was_said() {
    let keys = Keys::new();
    let file = keys.directory.path().join("0");
    new_secret(&file).unwrap();
    assert!(new_secret(&file).is_err(), "a secret is never overwritten");
    let key = KeyConfig { algorithm: Algorithm::HS256, file: file.clone(), kid: "k".to_owned() };
    let config = Config { keys: vec![key], ..keys.config() };
    let id = DocumentId::parse("notes/7").unwrap();
    let rights = [
        Right { scope: Scope::Document(id), access: Access::Read },
        Right { scope: Scope::prefix("team/").unwrap(), access: Access::Admin },
    ];
    let life = Duration::from_secs(100);
    let token = mint(&config, "alice", &rights, life).unwrap();
    let identity = Authenticator::new(&config, Metrics::new().auth).unwrap();
    let identity = identify(&identity, &token).unwrap();
    let access = |id| identity.access(&DocumentId::parse(id).unwrap());
    assert_eq!(access("notes/7"), Some(Access::Read));
    assert_eq!((access("team/a"), access("team")), (Some(Access::Admin), None));
    let grant = identity.grant(&DocumentId::parse("team/a").unwrap()).unwrap();
    assert_eq!(grant.access, Access::Write, "a session knows nothing above");
    assert!(matches!(mint(&config, "", &rights, life), Err(MintError::Subject)));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn without_credentials_only_this_machine_is_served_unless_told_otherwise() {
    let config = Config::default();
    for good in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(config.validate(good.parse().unwrap()), Ok(()), "{good}");
    }
    for bad in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let error = config.validate(bad.parse().unwrap()).unwrap_err();
        assert!(error.contains("--insecure") && error.contains(bad), "{error}");
        let insecure = Config { insecure: true, ..Config::default() };
        assert_eq!(insecure.validate(bad.parse().unwrap()), Ok(()));
    }
    let empty = Config { mode: Mode::Jwt, ..Config::default() };
    let local = "127.0.0.1:1".parse().unwrap();
    assert!(empty.validate(local).unwrap_err().contains("auth.issuer"));
}

/// Keys for every algorithm, and who has the private halves.
pub(super) struct Signers {
    pub(super) ec: EcdsaKeyPair,
    pub(super) ed: Ed25519KeyPair,
    random: SystemRandom,
}

impl Signers {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random);
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self { ec: ec.unwrap(), ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(), random }
    }

    pub(super) fn ec_pem(&self) -> String {
        pem(EC_PREFIX, self.ec.public_key().as_ref())
    }

    pub(super) fn ed_pem(&self) -> String {
        pem(ED_PREFIX, self.ed.public_key().as_ref())
    }

    pub(super) fn es256(&self, header: &str, claims: &str) -> Token {
        let message = unsigned(header, claims);
        let signature = self.ec.sign(&self.random, message.as_bytes()).unwrap();
        with_signature(&message, signature)
    }

    pub(super) fn eddsa(&self, header: &str, claims: &str) -> Token {
        let message = unsigned(header, claims);
        let signature = self.ed.sign(message.as_bytes());
        with_signature(&message, signature)
    }
}

#[test]
fn published_keys_verify_what_their_private_halves_have_signed() {
    let signers = Signers::new();
    let point = signers.ec.public_key().as_ref();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // The modulus, with the exponent 65537: what is in the PEM.
    let der =
        STANDARD.decode(RSA_PUBLIC.lines().filter(|l| !l.starts_with('-')).collect::<String>());
    let der = der.unwrap();
    let modulus = &der[der.len() - 261..der.len() - 5];
    let set = json!({"keys": [
        {"kty": "RSA", "n": b64(modulus), "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": b64(&point[1..33]), "y": b64(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(signers.ed.public_key().as_ref())},
    ]});
    let config = Config { jwks_url: "http://127.0.0.1:1/keys".to_owned(), ..Keys::new().config() };
    let authenticator = Authenticator::new(&config, Metrics::new().auth).unwrap();
    assert!(!authenticator.is_ready());
    let jwt = authenticator.jwt.as_ref().unwrap();
    let source = jwt.policy.borrow().source.clone().unwrap();
    jwt.publish(&source, jwks::KeySet::parse(set.to_string().as_bytes()).unwrap());
    assert!(authenticator.is_ready());
    let claims = claims().to_string();
    for token in [
        rs256(),
        signers.es256(r#"{"alg":"ES256","kid":"ec"}"#, &claims),
        signers.eddsa(r#"{"alg":"EdDSA","kid":"ed"}"#, &claims),
    ] {
        assert_eq!(access(&authenticator, &token), Ok(Some(Access::Write)));
    }
    for token in [
        hs256_of(r#"{"alg":"HS256","kid":"ec"}"#, &claims, point),
        signers.es256(r#"{"alg":"ES256","kid":"ed"}"#, &claims),
    ] {
        assert_refused(&authenticator, "the wrong kind of key", &token);
    }
}

#[test]
fn what_stands_is_judged_again_by_what_is_now() {
    let keys = Keys::new().with(Algorithm::HS256, SECRET, "");
    let list = keys.directory.path().join("revoked.toml");
    let config = Config { revocations: list.clone(), ..keys.config() };
    fs::write(&list, "").unwrap();
    let authenticator = Authenticator::new(&config, Metrics::new().auth).unwrap();
    let mut changes = authenticator.changes().unwrap();
    let mut made = claims();
    (made["iat"], made["jti"]) = (json!(1000), json!("one"));
    let identity = identify(&authenticator, &hs256(&made)).unwrap();
    let principal = identity.principal().clone();
    let mut stands = |config: &Config| {
        authenticator.apply(Authenticator::prepare(config).unwrap());
        assert!(changes.take(), "a change is told");
        assert!(!changes.take(), "once");
        authenticator.stands(&principal, identity.standing())
    };
    assert!(stands(&config));
    for (text, expected) in [
        ("[[revoked]]\ntoken = 'one'\n", false),
        ("[[revoked]]\ntoken = 'two'\n", true),
        ("[[revoked]]\nsubject = 'alice'\nissued_before = 1970-01-01T00:16:41Z\n", false),
        ("[[revoked]]\nsubject = 'alice'\nissued_before = 1970-01-01T00:16:40Z\n", true),
        ("[[revoked]]\nsubject = 'bob'\nissued_before = 2100-01-01T00:00:00Z\n", true),
    ] {
        fs::write(&list, text).unwrap();
        assert_eq!(stands(&config), expected, "{text}");
        let again = identify(&authenticator, &hs256(&made));
        assert_eq!(again.is_ok(), expected, "{text}");
    }
    for other in [
        Config { issuer: "https://other.example".to_owned(), ..config.clone() },
        Config { audience: "other".to_owned(), ..config.clone() },
        keys.with(Algorithm::HS256, "another secret of thirty-two bytes", "")
            .without_first(&config),
    ] {
        assert!(!stands(&other));
        assert!(stands(&config), "and back");
    }
}
