//! Everything that is usually tried to be taken for a token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::KeyPair as _;
use serde_json::Value;

use super::tests::{
    EC_PREFIX, Keys, RSA_PUBLIC, SECRET, Signers, access, assert_refused, claims, hs256_of, now,
    unsigned, with_signature,
};
use super::*;

#[test]
fn none_of_the_usual_forgeries_is_taken_for_a_token() {
    let (signers, mallory) = (Signers::new(), Signers::new());
    let authenticator = Keys::new()
        .with(Algorithm::HS256, SECRET, "secret")
        .with(Algorithm::RS256, RSA_PUBLIC, "rsa")
        .with(Algorithm::ES256, &signers.ec_pem(), "ec")
        .with(Algorithm::EdDSA, &signers.ed_pem(), "ed")
        .authenticator();
    let claims = claims().to_string();
    let header = |alg: &str, kid: &str, more: &str| {
        format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"{kid}"{more}}}"#)
    };
    let hs = |header: &str, claims: &str| hs256_of(header, claims, SECRET.as_bytes());
    // What each key signs is good, or the rest would prove nothing.
    assert_eq!(
        access(&authenticator, &hs(&header("HS256", "secret", ""), &claims)),
        Ok(Some(Access::Write))
    );
    let es256 = signers.es256(&header("ES256", "ec", ""), &claims);
    assert_eq!(access(&authenticator, &es256), Ok(Some(Access::Write)));
    let eddsa = signers.eddsa(&header("EdDSA", "ed", ""), &claims);
    assert_eq!(access(&authenticator, &eddsa), Ok(Some(Access::Write)));

    let mut forgeries = Vec::new();
    let mut forge = |what: String, token: Token| forgeries.push((what, token));
    // The public key as a secret: in PEM, as DER, and the point itself.
    let (ec, ec_pem) = (signers.ec.public_key().as_ref(), signers.ec_pem());
    let ec_der = [EC_PREFIX, ec].concat();
    let (ed, ed_pem) = (signers.ed.public_key().as_ref(), signers.ed_pem());
    for (kid, secret) in [
        ("rsa", RSA_PUBLIC.as_bytes()),
        ("rsa", RSA_PUBLIC.trim_end().as_bytes()),
        ("ec", ec_pem.as_bytes()),
        ("ec", &ec_der),
        ("ec", ec),
        ("ed", ed_pem.as_bytes()),
        ("ed", ed),
    ] {
        let token = hs256_of(&header("HS256", kid, ""), &claims, secret);
        forge(format!("the public key {kid} as a secret of {} bytes", secret.len()), token);
    }
    // Signatures that need no key: none, empty, and zeros, which some verifiers of ECDSA took.
    for alg in ["none", "None", "nOnE", "HS256", "RS256", "ES256", "EdDSA", "ES256K", "PS256"] {
        for kid in ["secret", "rsa", "ec", "ed"] {
            let message = unsigned(&header(alg, kid, ""), &claims);
            forge(format!("{alg} for {kid} without a signature"), format!("{message}.").into());
            forge(format!("{alg} for {kid} with zeros"), with_signature(&message, [0; 64]));
        }
    }
    // Keys that a token brings along, signed with them.
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let theirs = b64(mallory.ed.public_key().as_ref());
    for more in [
        format!(r#","jwk":{{"kty":"OKP","crv":"Ed25519","x":"{theirs}"}}"#),
        r#","jku":"https://evil.example/keys""#.to_owned(),
        r#","x5u":"https://evil.example/certificate""#.to_owned(),
        r#","x5c":["MIIB"]"#.to_owned(),
    ] {
        let token = mallory.eddsa(&header("EdDSA", "ed", &more), &claims);
        forge(format!("the header {more}"), token);
        // They are not looked at either in a token that is good.
        if !more.contains("MIIB") {
            let good = signers.eddsa(&header("EdDSA", "ed", &more), &claims);
            assert_eq!(access(&authenticator, &good), Ok(Some(Access::Write)), "{more}");
        }
    }
    // Names that lead somewhere, if they were files, queries or addresses.
    for kid in [
        "../../../dev/null",
        "/dev/null",
        "secret/../secret",
        "secret ",
        "SECRET",
        "0",
        "*",
        "secret' OR '1'='1",
        "https://evil.example/key",
        "secret%00",
        "\\u0000",
    ] {
        forge(format!("the kid {kid:?}"), hs256_of(&header("HS256", kid, ""), &claims, b""));
        forge(format!("the kid {kid:?}"), hs(&header("HS256", kid, ""), &claims));
    }
    for more in [
        r#","crit":["exp"]"#,
        r#","crit":[]"#,
        r#","crit":["b64"],"b64":false"#,
        r#","crit":"exp""#,
        r#","kid":"secret""#,
        r#","alg":"none""#,
    ] {
        forge(format!("the header {more}"), hs(&header("HS256", "secret", more), &claims));
    }
    // One algorithm under the name of another key.
    for kid in ["secret", "rsa", "ed"] {
        forge(format!("ES256 for {kid}"), signers.es256(&header("ES256", kid, ""), &claims));
    }
    for kid in ["secret", "rsa", "ec"] {
        forge(format!("EdDSA for {kid}"), signers.eddsa(&header("EdDSA", kid, ""), &claims));
    }
    // A signature of another encoding, and parts that are not base64url without padding.
    let signature = |token: &Token| {
        let (_, signature) = token.expose().rsplit_once('.').unwrap();
        URL_SAFE_NO_PAD.decode(signature).unwrap()
    };
    let message = unsigned(&header("ES256", "ec", ""), &claims);
    let fixed = signature(&signers.es256(&header("ES256", "ec", ""), &claims));
    let (r, s) = fixed.split_at(32);
    let der = [&[0x30, 70, 2, 33, 0], r, &[2, 33, 0], s].concat();
    forge("a signature of ECDSA in DER".to_owned(), with_signature(&message, der));
    let good = hs(&header("HS256", "secret", ""), &claims);
    let parts: Vec<_> = good.expose().split('.').collect();
    for (what, token) in [
        ("a dot behind it", format!("{}.", good.expose())),
        ("a dot before it", format!(".{}", good.expose())),
        ("an empty payload", format!("{}..{}", parts[0], parts[2])),
        ("an empty header", format!(".{}.{}", parts[1], parts[2])),
        ("padding of the header", format!("{}=.{}.{}", parts[0], parts[1], parts[2])),
        ("padding of the payload", format!("{}.{}==.{}", parts[0], parts[1], parts[2])),
        ("padding of the signature", format!("{}.{}.{}=", parts[0], parts[1], parts[2])),
        ("a line end within", format!("{}.{}\n.{}", parts[0], parts[1], parts[2])),
        ("a NUL behind it", format!("{}\0", good.expose())),
        ("another payload", format!("{}.{}.{}", parts[0], b64(b"{}"), parts[2])),
        (
            "JSON serialization",
            format!(r#"{{"payload":"{}","signature":"{}"}}"#, parts[1], parts[2]),
        ),
        ("9 KiB", format!("{}.{}.{}", parts[0], "A".repeat(9 << 10), parts[2])),
    ] {
        forge(what.to_owned(), token.into());
    }
    // Claims, signed with the right key: what is not a number is no time, and nothing is guessed.
    let signed = |name: &str, value: &str| {
        let whole: Value = serde_json::from_str(&claims).unwrap();
        let mut fields: Vec<String> = whole
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| *key != name)
            .map(|(key, value)| format!("{key:?}:{value}"))
            .collect();
        if !value.is_empty() {
            fields.push(format!("{name:?}:{value}"));
        }
        hs(&header("HS256", "secret", ""), &format!("{{{}}}", fields.join(",")))
    };
    let (past, future) = (now() - 1e4, now() + 1e4);
    for (name, values) in [
        (
            "exp",
            &[
                "",
                "null",
                "true",
                "\"4102444800\"",
                "NaN",
                "Infinity",
                "-Infinity",
                "1e309",
                "1e308",
                "-1",
                "0",
                "[4102444800]",
                "{}",
                "0x7fffffff",
                "04102444800",
                &past.to_string(),
            ][..],
        ),
        ("nbf", &["\"0\"", "true", "[]", "NaN", "1e309", &future.to_string()]),
        ("iat", &["\"0\"", "true", "[]", "NaN", "1e309"]),
        ("jti", &["7", "[]", "{}", "true"]),
        (
            "aud",
            &[
                "",
                "null",
                "\"other\"",
                "[]",
                "[\"other\"]",
                "[\"COWRITE\"]",
                "[[\"cowrite\"]]",
                "\"cowrite \"",
                "{\"cowrite\":1}",
                "true",
            ],
        ),
        (
            "iss",
            &[
                "",
                "null",
                "\"https://other.example\"",
                "\"https://issuer.example/\"",
                "[\"https://issuer.example\"]",
                "\"https://issuer.example\\u0000\"",
            ],
        ),
        ("sub", &["", "null", "\"\"", "7", "[\"alice\"]", &format!("{:?}", "x".repeat(129))]),
    ] {
        for value in values {
            forge(format!("{name} is {value:?}"), signed(name, value));
        }
    }
    for name in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "cowrite"] {
        let value = match name {
            "nbf" | "iat" => "1".to_owned(),
            "jti" => "\"a\"".to_owned(),
            name => serde_json::from_str::<Value>(&claims).unwrap()[name].to_string(),
        };
        let once = signed(name, &value);
        assert_eq!(access(&authenticator, &once), Ok(Some(Access::Write)), "{name} once");
        forge(format!("{name} twice"), signed(name, &format!("{value},\"{name}\":{value}")));
    }
    // Far too long is long, and no number overflows.
    for far in ["1e18", "9007199254740993"] {
        assert_eq!(access(&authenticator, &signed("exp", far)), Ok(Some(Access::Write)), "{far}");
    }
    assert!(forgeries.len() > 150, "{}", forgeries.len());
    for (what, token) in forgeries {
        assert_refused(&authenticator, &what, &token);
    }
}
