//! The keys of an issuer, as it publishes them: a JSON Web Key Set (RFC 7517).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::{
    config::{Algorithm, KEYS_MAX},
    keys::Key,
};

/// The sizes of an RSA key, in bits: what ring verifies with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The longest `kid`, in bytes: it goes into a log line when its key is passed over.
const KID_BYTES_MAX: usize = 256;

/// The keys of a set that can be used, and what was said of the others.
#[derive(Clone, Debug)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// One sentence a key that was passed over, without what is in it.
    pub(super) ignored: Vec<String>,
}

/// A set that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SetError {
    #[error("what was answered is no JSON object with a list of keys")]
    Syntax,
    #[error("no key in the set can be used")]
    Empty,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The parameters of a key that are read here; others say nothing about how it verifies.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    alg: Option<String>,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<Value>,
    k: Option<Value>,
}

impl KeySet {
    /// Reads a set. A key that cannot be used is passed over: an issuer may publish keys for others.
    pub(super) fn parse(json: &[u8]) -> Result<Self, SetError> {
        let set: Set = serde_json::from_slice(json).map_err(|_| SetError::Syntax)?;
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        for (index, value) in set.keys.into_iter().enumerate() {
            let place = index + 1;
            match serde_json::from_value::<Jwk>(value).map_err(|_| "has parameters of a wrong kind")
            {
                Ok(_) if keys.len() == KEYS_MAX => {
                    ignored.push(format!("key {place} is one more than the {KEYS_MAX} that count"));
                    break;
                }
                Ok(jwk) => match jwk.key() {
                    Ok(key) => keys.push(key),
                    Err(why) => {
                        let kid = jwk.kid.unwrap_or_default();
                        let kid: String = kid.chars().take(64).collect();
                        ignored.push(format!("key {place} (kid {kid:?}) {why}"));
                    }
                },
                Err(why) => ignored.push(format!("key {place} {why}")),
            }
        }
        if keys.is_empty() { Err(SetError::Empty) } else { Ok(Self { keys, ignored }) }
    }
}

impl Jwk {
    /// The key with its one algorithm.
    ///
    /// # Errors
    ///
    /// Why it is passed over, to be read after its name.
    fn key(&self) -> Result<Key, &'static str> {
        if self.kty == "oct" || self.k.is_some() {
            return Err("is symmetric: what is published is no secret");
        }
        if self.d.is_some() {
            return Err("is private: it can no longer be trusted");
        }
        if self.r#use.as_ref().is_some_and(|r#use| r#use != "sig") {
            return Err("is not for signatures");
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("is not for verifying");
        }
        if self.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err("has a kid that is too long");
        }
        let (algorithm, name, decoding) = match (&self.kty[..], self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, "RS256", self.rsa()?),
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", self.p256()?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA", self.ed25519()?),
            _ => return Err("is of a kind that is not used here"),
        };
        if self.alg.as_ref().is_some_and(|alg| alg != name) {
            return Err("is for an algorithm that is not used here");
        }
        Ok(Key::new(algorithm, self.kid.clone().filter(|kid| !kid.is_empty()), decoding))
    }

    fn rsa(&self) -> Result<DecodingKey, &'static str> {
        let (n, e) = (number(self.n.as_deref())?, number(self.e.as_deref())?);
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err("has less than 2048 bits, or more than 8192");
        }
        Ok(DecodingKey::from_rsa_raw_components(&n, &e))
    }

    fn p256(&self) -> Result<DecodingKey, &'static str> {
        let (x, y) = (coordinate(self.x.as_deref())?, coordinate(self.y.as_deref())?);
        // A point as SEC 1 writes it, not compressed.
        Ok(DecodingKey::from_ec_der(&[&[4], &x[..], &y[..]].concat()))
    }

    fn ed25519(&self) -> Result<DecodingKey, &'static str> {
        Ok(DecodingKey::from_ed_der(&coordinate(self.x.as_deref())?))
    }
}

fn decoded(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("lacks a parameter")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "has a parameter that is not base64url")
}

/// A number without leading zeros, which ring refuses.
fn number(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let bytes = decoded(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

fn coordinate(text: Option<&str>) -> Result<[u8; 32], &'static str> {
    decoded(text)?.try_into().map_err(|_| "has a parameter that is not of 32 bytes")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn rsa(bits: usize) -> Value {
        let mut n = vec![0xff; bits / 8];
        n.insert(0, 0);
        json!({"kty": "RSA", "kid": "r", "n": b64(&n), "e": "AQAB"})
    }

    fn ec() -> Value {
        json!({"kty": "EC", "crv": "P-256", "kid": "e", "x": b64(&[1; 32]), "y": b64(&[2; 32])})
    }

    fn ed() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": b64(&[3; 32])})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn parse(keys: &[Value]) -> Result<KeySet, SetError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn each_kind_of_key_has_the_one_algorithm_that_goes_with_it() {
        let signing = |key: Value| with(key, "use", json!("sig"));
        let named = |key, alg| with(with(key, "alg", json!(alg)), "key_ops", json!(["verify"]));
        for set in [
            [rsa(2048), ec(), ed()],
            [signing(rsa(8192)), signing(ec()), signing(ed())],
            [named(rsa(2048), "RS256"), named(ec(), "ES256"), named(ed(), "EdDSA")],
        ] {
            let KeySet { keys, ignored } = parse(&set).unwrap();
            assert_eq!(ignored, [""; 0]);
            let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
            assert_eq!(algorithms, [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
            let kids: Vec<_> = keys.iter().map(|key| key.kid.as_deref()).collect();
            assert_eq!(kids, [Some("r"), Some("e"), Some("d")]);
        }
    }

    #[test]
    fn a_key_that_is_not_for_this_is_passed_over_with_a_reason() {
        for (key, reason) in [
            (rsa(2040), "less than 2048 bits"),
            (rsa(1024), "less than 2048 bits"),
            (rsa(8200), "more than 8192"),
            (json!({"kty": "oct", "k": b64(&[7; 32])}), "symmetric"),
            (with(ed(), "k", json!("AA")), "symmetric"),
            (with(rsa(2048), "d", json!("AQAB")), "private"),
            (with(ed(), "d", json!("AQAB")), "private"),
            (with(ec(), "use", json!("enc")), "not for signatures"),
            (with(ec(), "key_ops", json!(["sign"])), "not for verifying"),
            (with(rsa(2048), "alg", json!("RS512")), "an algorithm"),
            (with(rsa(2048), "alg", json!("HS256")), "an algorithm"),
            (with(rsa(2048), "alg", json!("none")), "an algorithm"),
            (with(ec(), "alg", json!("EdDSA")), "an algorithm"),
            (with(ec(), "crv", json!("P-384")), "a kind"),
            (with(ed(), "crv", json!("X25519")), "a kind"),
            (with(ed(), "kty", json!("RSA2")), "a kind"),
            (with(ec(), "x", json!(b64(&[1; 31]))), "32 bytes"),
            (with(ed(), "x", json!("?")), "base64url"),
            (with(ed(), "kid", json!("k".repeat(257))), "too long"),
            (with(ed(), "kid", json!(7)), "a wrong kind"),
            (json!("a key"), "a wrong kind"),
            (json!({"kty": "RSA", "e": "AQAB"}), "lacks"),
        ] {
            assert_eq!(parse(std::slice::from_ref(&key)).unwrap_err(), SetError::Empty, "{key}");
            let KeySet { keys, ignored } = parse(&[key.clone(), ed()]).unwrap();
            assert_eq!((keys.len(), ignored.len()), (1, 1), "{key}");
            assert!(ignored[0].contains(reason), "{key}: {ignored:?}");
        }
    }

    #[test]
    fn more_than_sixteen_keys_do_not_count_and_what_is_no_set_is_refused() {
        let KeySet { keys, ignored } = parse(&vec![ed(); 20]).unwrap();
        assert_eq!((keys.len(), ignored.len()), (16, 1));
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>", "null"] {
            assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), SetError::Syntax, "{text}");
        }
        assert_eq!(parse(&[]).unwrap_err(), SetError::Empty);
    }
}
