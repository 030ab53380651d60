//! An issuer that publishes its keys over HTTP, well or badly.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cowrite_server::{
    app::Config,
    auth::{self, Mode},
    shutdown::Tasks,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// What `iss` and `aud` are.
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "cowrite-tests";

/// What is answered to whoever asks for keys.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These keys.
    Keys(Vec<Value>),
    /// This text, with 200.
    Text(String),
    /// This status, and a header of it.
    Status(u16, &'static str, String),
    /// A body without an end.
    Endless,
    /// Nothing, while the connection stays open.
    Nothing,
}

/// The web server of an issuer. Dropped, it is gone.
#[derive(Debug)]
pub struct KeyServer {
    address: SocketAddr,
    is_tls: bool,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
    tasks: Tasks,
}

impl KeyServer {
    /// One that answers so, without TLS.
    pub async fn start(answer: Answer) -> Self {
        Self::serve(answer, None).await
    }

    /// One that answers so, with TLS.
    pub async fn with_tls(answer: Answer, acceptor: TlsAcceptor) -> Self {
        Self::serve(answer, Some(acceptor)).await
    }

    async fn serve(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, tasks) = (Arc::new(AtomicUsize::new(0)), Tasks::new());
        let (answer, is_tls) = (Arc::new(Mutex::new(answer)), tls.is_some());
        let accept = {
            let (asked, answer, group) = (Arc::clone(&asked), Arc::clone(&answer), tasks.clone());
            async move {
                loop {
                    let (socket, _) = listener.accept().await.expect("a connection");
                    let (tls, asked, answer) =
                        (tls.clone(), Arc::clone(&asked), Arc::clone(&answer));
                    let end = group.token().clone();
                    group.spawn(end.run_until_cancelled_owned(async move {
                        connection(socket, tls, &asked, &answer).await.ok();
                    }));
                }
            }
        };
        tasks.spawn(tasks.token().clone().run_until_cancelled_owned(accept));
        Self { address, is_tls, asked, answer, tasks }
    }

    /// Where the keys are.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}/keys?of=cowrite", self.address)
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Makes a server ask for tokens whose keys are here.
    pub fn configure(&self, config: &mut Config) {
        config.auth = auth::Config {
            mode: Mode::Jwt,
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            jwks_url: self.url(),
            leeway: Duration::ZERO,
            ..auth::Config::default()
        };
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn connection(
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    asked: &AtomicUsize,
    answer: &Mutex<Answer>,
) -> std::io::Result<()> {
    match tls {
        Some(tls) => exchange(tls.accept(socket).await?, asked, answer).await,
        None => exchange(socket, asked, answer).await,
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: &AtomicUsize,
    answer: &Mutex<Answer>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    assert!(request.starts_with(b"GET /keys?of=cowrite HTTP/1.1\r\n"), "{request:?}");
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let whole = |status: u16, header: &str, body: &str| {
        format!("HTTP/1.1 {status} x\r\n{header}content-length: {}\r\n\r\n{body}", body.len())
    };
    let text = match answer {
        Answer::Keys(keys) => whole(200, "", &json!({ "keys": keys }).to_string()),
        Answer::Text(text) => whole(200, "", &text),
        Answer::Status(status, name, value) => whole(status, &format!("{name}: {value}\r\n"), ""),
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
        Answer::Nothing => std::future::pending().await,
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// A key that tokens are signed with, of Ed25519.
pub struct SigningKey {
    kid: String,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?})", self.kid)
    }
}

impl SigningKey {
    /// A new one with this name.
    #[must_use]
    pub fn new(kid: &str) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&rand::random::<[u8; 32]>());
        Self { kid: kid.to_owned(), pair: pair.expect("a key") }
    }

    /// Its public half, as it is published.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x})
    }

    /// A token for `subject` that is good for ten minutes and lets it write `document`.
    #[must_use]
    pub fn token(&self, subject: &str, document: &str) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600,
            "cowrite": {"documents": [{"id": document, "access": "write"}]}
        });
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.kid});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}
