//! Promise: the example of a configuration is one: with the files that it names, a server starts with
//! it, and takes in who has a token, over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails where something is not as it should be"
)]

use std::{fs, path::Path, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cowrite_client::{
    Client, DocumentOptions,
    yrs::{Text as _, WriteTxn as _},
};
use cowrite_proto::v1::ErrorReason;
use cowrite_tests::{Authority, ServerProcess, http_get, soon};
use rcgen::KeyPair;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The example, and what is in it.
fn example() -> (String, toml::Table) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cowrite.example.toml");
    let text = fs::read_to_string(path).unwrap();
    let table = text.parse().unwrap();
    (text, table)
}

/// What the application issues, as the example asks for it.
fn token(auth: &Value, key: &KeyPair) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({
        "iss": auth["issuer"], "aud": auth["audience"], "sub": "alice", "exp": now + 600,
        "cowrite": {"documents": [{"prefix": "notes/", "access": "write"}]}
    });
    let (algorithm, kid) = (&auth["keys"][0]["algorithm"], &auth["keys"][0]["kid"]);
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": kid});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(&header), encode(&claims));
    let (random, der) = (SystemRandom::new(), key.serialize_der());
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap();
    let signature = key.sign(&random, message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

#[tokio::test]
async fn a_server_starts_with_the_example_as_it_stands() {
    let (text, table) = example();
    let (authority, key, folder) =
        (Authority::new(), KeyPair::generate().unwrap(), TempDir::new().unwrap());
    let root = folder.path().display();
    let table: Value = serde_json::to_value(table).unwrap();
    let place = |path: &Value| folder.path().join(path.as_str().unwrap().trim_start_matches('/'));
    let issued = authority.issue("server");
    let tls = &table["transport"]["tls"];
    copy(&issued.certificate, &place(&tls["certificate"]));
    copy(&issued.key, &place(&tls["key"]));
    let auth = &table["auth"];
    let issuer = place(&auth["keys"][0]["file"]);
    fs::create_dir_all(issuer.parent().unwrap()).unwrap();
    fs::write(&issuer, key.public_key_pem()).unwrap();
    fs::write(place(&auth["revocations"]), "").unwrap();

    // Nothing but where the files are, and ports that are free.
    let text = [
        ("\"/etc/cowrite/", format!("\"{root}/etc/cowrite/")),
        ("\"/var/lib/cowrite\"", format!("\"{root}/var/lib/cowrite\"")),
        ("\nlisten = \"[::]:8443\"", "\nlisten = \"[::]:0\"".to_owned()),
        ("\nadmin_listen = \"127.0.0.1:9090\"", "\nadmin_listen = \"127.0.0.1:0\"".to_owned()),
    ]
    .into_iter()
    .fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the example");
        text.replace(from, &to)
    });
    let file = folder.path().join("cowrite.toml");
    fs::write(&file, text).unwrap();
    let server = ServerProcess::configured(&file).await;

    let url = format!("https://127.0.0.1:{}", server.address().port());
    let client = async |token: String| {
        let ca = fs::read(authority.ca()).unwrap();
        soon("a client", Client::builder(&url).ca(ca).token(token).connect()).await.unwrap()
    };
    let alice = client(token(auth, &key)).await;
    let document = alice.document("notes/7", DocumentOptions::default());
    soon("the document", document.wait_until_synced()).await.unwrap();
    document.edit(|txn| txn.get_or_insert_text("content").push(txn, "Hello"));
    soon("the edit to be on the disk", document.wait_until_saved()).await.unwrap();
    assert!(place(&table["log"]["directory"]).join("catalogue.db").exists(), "that is its disk");

    let foreign = client(token(auth, &KeyPair::generate().unwrap())).await;
    let document = foreign.document("notes/7", DocumentOptions::default());
    let refused = soon("a refusal", document.wait_until_synced()).await.unwrap_err();
    assert_eq!(refused.reason(), ErrorReason::Unauthenticated, "{refused}");
    assert_eq!(http_get(server.admin(), "/readyz").await.status, 200);
}
