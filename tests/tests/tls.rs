//! Promise: TLS is spoken on the port of everything, nobody comes in without it unless that is
//! configured, and certificates change under open streams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cowrite_client::{Client, DocumentOptions};
use cowrite_server::{app::Server, metrics::Metrics, transport::Tls};
use cowrite_tests::{Authority, Issued, TestServer, eventually, http_get, soon};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

async fn server(issued: &Issued, client_ca: Option<&Path>) -> TestServer {
    TestServer::with_config(|config| {
        config.transport.tls.certificate.clone_from(&issued.certificate);
        config.transport.tls.key.clone_from(&issued.key);
        config.transport.tls.client_ca = client_ca.map(Path::to_owned).unwrap_or_default();
        // For the connection that every test server has.
        config.transport.tls.plaintext = true;
    })
    .await
}

async fn handshake(
    connector: &TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(address.ip());
    let socket = TcpStream::connect(address).await.unwrap();
    soon("a TLS handshake", connector.connect(name, socket)).await
}

/// The certificate that the server shows now.
async fn shown(authority: &Authority, address: SocketAddr) -> CertificateDer<'static> {
    let stream = handshake(&authority.client(&["h2"], None), address).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn get(mut stream: TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn document(authority: &Authority, server: &TestServer) -> cowrite_client::Document {
    let ca = fs::read(authority.ca()).unwrap();
    let url = format!("https://{}", server.address());
    let client = soon("a client", Client::builder(url).ca(ca).connect()).await.unwrap();
    let document = client.document("notes/tls", DocumentOptions::default());
    soon("the document", document.wait_until_synced()).await.unwrap();
    document
}

fn append(document: &cowrite_client::Document, text: &str) {
    use cowrite_client::yrs::{Text as _, WriteTxn as _};
    document.edit(|txn| {
        let root = txn.get_or_insert_text("content");
        root.push(txn, text);
    });
}

#[tokio::test]
async fn each_protocol_is_spoken_with_tls_and_without_on_one_port() {
    let authority = Authority::new();
    let server = server(&authority.issue("server"), None).await;
    for (offered, chosen) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"][..], "http/1.1")] {
        let client = authority.client(offered, None);
        let stream = handshake(&client, server.address()).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen.as_bytes()));
    }
    let stream = handshake(&authority.client(&["http/1.1"], None), server.address()).await.unwrap();
    assert!(get(stream).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(http_get(server.address(), "/livez").await.status, 200);
    let document = document(&authority, &server).await;
    append(&document, "through TLS");
    soon("the edit to be saved", document.wait_until_saved()).await.unwrap();
}

#[tokio::test]
async fn without_leave_nobody_is_served_without_tls() {
    let authority = Authority::new();
    let issued = authority.issue("server");
    let mut config = cowrite_server::app::Config::default();
    config.transport.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.transport.admin_listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.log.kind = cowrite_server::log::Kind::Memory;
    config.transport.tls.certificate = issued.certificate;
    config.transport.tls.key = issued.key;
    let server = Server::bind(config).await.unwrap();
    let address = server.local_addr().unwrap();
    let tasks = cowrite_server::shutdown::Tasks::new();
    let running = tasks.spawn(server.run(std::future::pending()));

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed, or reset because the request was not read: no answer in either case.
    drop(soon("the connection to end", plain.read_to_end(&mut answer)).await);
    assert_eq!(answer, b"");
    let stream = handshake(&authority.client(&["http/1.1"], None), address).await.unwrap();
    assert!(get(stream).await.unwrap().starts_with("HTTP/1.1 200"));
    running.abort();
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_open_streams_go_on() {
    let authority = Authority::new();
    let issued = authority.issue("server");
    let server = server(&issued, None).await;
    let document = document(&authority, &server).await;
    let before = shown(&authority, server.address()).await;

    authority.issue("server");
    server.tls().reload();

    let after = shown(&authority, server.address()).await;
    assert_ne!(before, after);
    append(&document, "on the old connection");
    soon("the edit to be saved", document.wait_until_saved()).await.unwrap();
    assert_eq!(server.metrics().session.opened.get(), 1, "the session was not opened anew");
    assert_eq!(server.metrics().transport.tls_reloads.get(), 1);
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_everything_as_it_was() {
    let authority = Authority::new();
    let issued = authority.issue("server");
    let server = server(&issued, None).await;
    let before = shown(&authority, server.address()).await;
    let other = authority.issue("other");
    let tls = server.tls();

    // The certificate of another key; no certificate at all; not even a file.
    fs::copy(&other.certificate, &issued.certificate).unwrap();
    tls.reload();
    fs::write(&issued.certificate, "not a certificate").unwrap();
    tls.reload();
    fs::remove_file(&issued.certificate).unwrap();
    tls.reload();
    assert_eq!(server.metrics().transport.tls_reload_failures.get(), 3);
    assert_eq!(shown(&authority, server.address()).await, before);
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_noticed_without_being_told() {
    let authority = Authority::new();
    let issued = authority.issue("server");
    let mut config = cowrite_server::transport::tls::Config::default();
    config.certificate.clone_from(&issued.certificate);
    config.key.clone_from(&issued.key);
    let metrics = Metrics::new().transport;
    let tls = Tls::load(&config, metrics.clone()).unwrap();
    let tasks = cowrite_server::shutdown::Tasks::new();
    let watching = tasks.spawn(tls.watch());
    fs::write(&issued.key, "").unwrap();
    eventually("the change to be noticed", || metrics.tls_reload_failures.get() == 1).await;
    authority.issue("server");
    eventually("the new files to be taken", || metrics.tls_reloads.get() == 1).await;
    watching.abort();
}

#[tokio::test]
async fn where_client_certificates_are_asked_for_nobody_comes_in_without_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (issued, client) = (authority.issue("server"), authority.issue("client"));
    let server = server(&issued, Some(&authority.ca())).await;

    let stream = handshake(&authority.client(&["http/1.1"], Some(&client)), server.address()).await;
    assert!(get(stream.unwrap()).await.unwrap().starts_with("HTTP/1.1 200"));
    for identity in [None, Some(&stranger.issue("client"))] {
        // In TLS 1.3 the client learns of the refusal after its side of the handshake.
        let stream = handshake(&authority.client(&["http/1.1"], identity), server.address()).await;
        let answer = match stream {
            Ok(stream) => get(stream).await,
            Err(error) => Err(error),
        };
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(server.metrics().transport.tls_failures.get(), 2);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_at_the_start_by_name() {
    let authority = Authority::new();
    let (issued, other) = (authority.issue("server"), authority.issue("other"));
    let empty = authority.folder().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let metrics = Metrics::new().transport;
    let refused = |certificate: &Path, key: &Path, client_ca: &Path| {
        let config = cowrite_server::transport::tls::Config {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.to_owned(),
            plaintext: false,
        };
        Tls::load(&config, metrics.clone()).unwrap_err().to_string()
    };
    let (good, none) = (&issued, Path::new(""));
    let missing = authority.folder().join("missing.pem");
    let cases = [
        (refused(&missing, &good.key, none), "missing.pem (transport.tls.certificate)"),
        (refused(&empty, &good.key, none), "empty.pem (transport.tls.certificate)"),
        (refused(&good.certificate, &empty, none), "empty.pem (transport.tls.key)"),
        (refused(&good.certificate, &other.key, none), "other.key"),
        (refused(&good.certificate, &good.key, &empty), "empty.pem (transport.tls.client_ca)"),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{message}");
    }
}

/// How often certificates change while documents are typed in, and how many documents.
const ROTATIONS: usize = 20;
const TYPISTS: usize = 8;

#[tokio::test]
async fn certificates_and_roots_change_under_load_and_nobody_who_types_notices() {
    let authority = Authority::new();
    let mut config = None;
    let issued = authority.issue("server");
    let server = TestServer::with_config(|settings| {
        settings.transport.tls.certificate.clone_from(&issued.certificate);
        settings.transport.tls.key.clone_from(&issued.key);
        settings.transport.tls.plaintext = true;
        config = Some(settings.clone());
    })
    .await;
    let mut config = config.unwrap();
    let tasks = cowrite_server::shutdown::Tasks::new();
    let typed: Vec<_> = (0..TYPISTS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut documents = Vec::new();
    for (index, typed) in typed.iter().enumerate() {
        let ca = fs::read(authority.ca()).unwrap();
        let url = format!("https://{}", server.address());
        // A connection of its own for each.
        let client = soon("a client", Client::builder(url).ca(ca).connect()).await.unwrap();
        let document = client.document(format!("typed/{index}"), DocumentOptions::default());
        soon("the document", document.wait_until_synced()).await.unwrap();
        let (typed, stop) = (Arc::clone(typed), tasks.token().clone());
        documents.push(tasks.spawn(async move {
            while !stop.is_cancelled() {
                append(&document, "x");
                typed.fetch_add(1, Ordering::Relaxed);
                soon("the edit to be saved", document.wait_until_saved()).await.unwrap();
            }
            document
        }));
    }

    let visitor = authority.issue("visitor");
    let count = || typed.iter().map(|typed| typed.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let mut shown_before = shown(&authority, server.address()).await;
    for rotation in 0..ROTATIONS {
        authority.issue("server");
        // In every second round clients need a certificate, which those who type do not have.
        let asks = rotation % 2 == 1;
        config.transport.tls.client_ca = if asks { authority.ca() } else { Default::default() };
        server.live().reload(|| Ok(config.clone())).unwrap();
        let known = authority.client(&["http/1.1"], Some(&visitor));
        let stream = handshake(&known, server.address()).await.unwrap();
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        assert_ne!(certificate, shown_before, "rotation {rotation}");
        shown_before = certificate;
        assert!(get(stream).await.unwrap().starts_with("HTTP/1.1 200"));
        let unknown =
            match handshake(&authority.client(&["http/1.1"], None), server.address()).await {
                Ok(stream) => get(stream).await,
                Err(error) => Err(error),
            };
        assert_eq!(unknown.is_err(), asks, "rotation {rotation}");
        let before = count();
        eventually("everybody to type on", || {
            count().iter().zip(&before).all(|(now, before)| now > before)
        })
        .await;
    }
    tasks.cancel();
    let documents = soon("everybody to stop", futures_util::future::join_all(documents)).await;
    let metrics = server.metrics();
    assert_eq!(metrics.session.opened.get(), TYPISTS as u64, "no session was opened anew");
    assert_eq!(metrics.session.sessions.get(), TYPISTS as i64);
    assert_eq!(metrics.transport.tls_reloads.get(), ROTATIONS as u64);
    drop(documents);
    // What others read is what was typed.
    let ca = fs::read(authority.ca()).unwrap();
    config.transport.tls.client_ca = Default::default();
    server.live().reload(|| Ok(config.clone())).unwrap();
    let url = format!("https://{}", server.address());
    let reader = soon("a client", Client::builder(url).ca(ca).connect()).await.unwrap();
    for (index, typed) in count().into_iter().enumerate() {
        let document = reader.document(format!("typed/{index}"), DocumentOptions::default());
        soon("the document", document.wait_until_synced()).await.unwrap();
        assert_eq!(document.text("content").len(), typed, "edits of {index}");
    }
}
