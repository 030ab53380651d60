//! Gets the keys of an issuer over HTTP: one request on a connection of its own.
//!
//! Only the address that is configured is asked: a redirect is a failure, because it would let the
//! issuer's web server choose what this server connects to.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::time::Duration;

/// How long an answer may take, from the look-up of the name to the last byte.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer, in bytes: sixteen RSA keys of 8192 bits with their certificates have less.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Roots that an issuer's certificate cannot be checked with.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read, or has no certificate.
    #[error("read the roots in {path} (auth.jwks_ca)")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// There is none.
    #[error("there is no root in {from}: auth.jwks_ca names a PEM file with one")]
    None {
        /// Where they were looked for.
        from: String,
    },
    /// They cannot be used, which is a fault of the build.
    #[error("use the roots for auth.jwks_url")]
    Use(#[source] rustls::Error),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it took longer than {FETCH_TIMEOUT:?}")]
    Slow,
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("the name is not one that a certificate can have")]
    Name(#[source] InvalidDnsNameError),
    #[error("http is for loopback addresses alone, and {0} is none")]
    NotLoopback(std::net::IpAddr),
    #[error("exchange a request and an answer")]
    Http(#[source] hyper::Error),
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {BODY_BYTES_MAX} bytes")]
    Large,
    #[error("read the answer")]
    Body(#[source] Box<dyn Error + Send + Sync>),
}

/// An address that keys are published at: the key `auth.jwks_url`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    uri: Uri,
    host: String,
    port: u16,
    is_https: bool,
}

impl Address {
    /// Takes an `https` URL, or an `http` one of a loopback address.
    ///
    /// # Errors
    ///
    /// What is wrong, to be read after the name of the key.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("is not an https URL"),
        };
        let authority = uri.authority().ok_or("has no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user in it, which is not sent");
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_loopback = host == "localhost"
            || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback());
        if !is_https && !is_loopback {
            return Err("is an http URL of another machine: whoever is on the way could put keys \
                        of his own into the answer, so that it has to be https");
        }
        Ok(Self { uri, host, port, is_https })
    }
}

/// Where to get keys, and how to know that it is the issuer who answers.
#[derive(Clone)]
pub(super) struct Source {
    address: Address,
    tls: Option<TlsConnector>,
    /// How often.
    pub(super) interval: Duration,
}

impl Source {
    /// Reads the roots: those in `ca`, or those of the system if that is empty.
    pub(super) fn load(
        address: Address,
        ca: &Path,
        interval: Duration,
    ) -> Result<Self, RootsError> {
        let tls = if address.is_https { Some(connector(ca)?) } else { None };
        Ok(Self { address, tls, interval })
    }

    /// What is published now.
    ///
    /// # Cancellation
    ///
    /// The request is given up.
    pub(super) async fn get(&self) -> Result<Bytes, FetchError> {
        timeout(FETCH_TIMEOUT, self.exchange()).await.unwrap_or(Err(FetchError::Slow))
    }

    async fn exchange(&self) -> Result<Bytes, FetchError> {
        let Address { host, port, .. } = &self.address;
        let stream = TcpStream::connect((&**host, *port)).await.map_err(FetchError::Connect)?;
        match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(FetchError::Name)?;
                let stream = tls.connect(name, stream).await.map_err(FetchError::Connect)?;
                self.ask(stream).await
            }
            None => {
                // The name localhost is what the system says it is.
                let ip = stream.peer_addr().map_err(FetchError::Connect)?.ip();
                if !ip.to_canonical().is_loopback() {
                    return Err(FetchError::NotLoopback(ip));
                }
                self.ask(stream).await
            }
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Bytes, FetchError> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
        let uri = &self.address.uri;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        let headers = request.headers_mut();
        let host = http::HeaderValue::from_str(authority);
        headers.insert(header::HOST, host.unwrap_or(http::HeaderValue::from_static("")));
        headers.insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
        let answer = async {
            let response = sender.send_request(request).await.map_err(FetchError::Http)?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|error| {
                if error.is::<LengthLimitError>() {
                    FetchError::Large
                } else {
                    FetchError::Body(error)
                }
            })
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // What is wrong with it the answer says as well, and what came before its end counts.
            _ = &mut connection => {}
        }
        answer.await
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({self})")
    }
}

impl std::fmt::Display for Source {
    /// The URL without its query, which may have what is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Address { uri, .. } = &self.address;
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}{}", uri.path())
    }
}

fn connector(ca: &Path) -> Result<TlsConnector, RootsError> {
    let (found, from) = if ca.as_os_str().is_empty() {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a root of the system cannot be read");
        }
        (found.certs, "what the system trusts".to_owned())
    } else {
        let failed = |source| RootsError::Read { path: ca.to_owned(), source };
        let found = CertificateDer::pem_file_iter(ca).map_err(failed)?;
        (found.collect::<Result<_, _>>().map_err(failed)?, ca.display().to_string())
    };
    let mut roots = RootCertStore::empty();
    let (used, _) = roots.add_parsable_certificates(found);
    if used == 0 {
        return Err(RootsError::None { from });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(RootsError::Use)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_machine_are_asked() {
        for good in [
            "https://issuer.example/.well-known/jwks.json",
            "https://issuer.example:8443/keys?tenant=a",
            "http://127.0.0.1:9000/keys",
            "http://[::1]:9000/keys",
            "http://localhost/keys",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for (bad, part) in [
            ("http://issuer.example/keys", "another machine"),
            ("http://localhost.example/keys", "another machine"),
            ("http://10.0.0.1/keys", "another machine"),
            ("ftp://issuer.example/keys", "not an https URL"),
            ("issuer.example/keys", "not a URL"),
            ("/keys", "not an https URL"),
            ("https://user:secret@issuer.example/keys", "user"),
            ("https:///keys", "not a URL"),
            ("", "not a URL"),
        ] {
            let error = Address::parse(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
