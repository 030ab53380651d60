//! TLS on the same port as plain text, with certificates that change while the server runs.
//!
//! The first byte of a connection decides: a TLS handshake begins with 22, no HTTP request does.
//! What a new handshake uses is swapped as a whole, so connections that are open go on as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use crate::metrics::TransportMetrics;

/// The first byte of a connection that speaks TLS: a handshake record.
pub(super) const HANDSHAKE: u8 = 22;

/// How often the files are looked at. A certificate is renewed days before it expires.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// The settings of TLS: the table `[transport.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate and what leads from it to a root, as a PEM file. Empty: no TLS.
    pub certificate: PathBuf,
    /// The private key of the certificate, as a PEM file.
    pub key: PathBuf,
    /// Roots that client certificates must lead to, as a PEM file. Empty: clients need none.
    pub client_ca: PathBuf,
    /// Whether connections without TLS are served as well, on the same port.
    pub plaintext: bool,
}

impl Config {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !is_empty(&self.certificate)
    }

    /// Checks the values against each other. The files are read by [`Tls::load`].
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if is_empty(&self.certificate) != is_empty(&self.key) {
            return Err(
                "transport.tls.certificate and transport.tls.key belong together: set both \
                        or none"
                    .to_owned(),
            );
        }
        if !self.is_on() && (!is_empty(&self.client_ca) || self.plaintext) {
            return Err("transport.tls.client_ca and transport.tls.plaintext mean something only \
                        with transport.tls.certificate"
                .to_owned());
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key, &self.client_ca]
            .into_iter()
            .map(PathBuf::as_path)
            .filter(|path| !is_empty(path))
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Files that TLS cannot be spoken with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not have what it should.
    #[error("read {what} in {path} ({key}): {source}")]
    Read {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The key that names it.
        key: &'static str,
        /// The cause.
        source: rustls::pki_types::pem::Error,
    },
    /// A file has no certificate.
    #[error("{path} ({key}) has no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// The key that names it.
        key: &'static str,
    },
    /// The certificate, the key and the roots do not go together.
    #[error("use {certificate} with {key}: {source}")]
    Use {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The roots for client certificates cannot be used.
    #[error("use {path} (transport.tls.client_ca): {source}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::server::VerifierBuilderError,
    },
}

/// What handshakes are made with. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    /// Of the files as they were at the beginning.
    loaded: Vec<Stamp>,
    current: RwLock<Arc<ServerConfig>>,
    metrics: TransportMetrics,
}

impl Tls {
    /// Reads the files of `config`, which is on.
    ///
    /// # Errors
    ///
    /// A file cannot be used; the message names it and its key.
    pub fn load(config: &Config, metrics: TransportMetrics) -> Result<Self, TlsError> {
        // Before they are read, so that a change while they are is not missed.
        let loaded = stamps(config);
        let current = RwLock::new(Arc::new(read(config)?));
        let inner = Inner { config: config.clone(), loaded, current, metrics };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether connections without TLS are served as well.
    pub(super) fn plaintext(&self) -> bool {
        self.inner.config.plaintext
    }

    /// What the next handshake is made with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.inner.current.read()))
    }

    /// Reads the files again. What cannot be used leaves everything as it was, and is logged and
    /// counted.
    pub fn reload(&self) {
        let reloaded = match read(&self.inner.config) {
            Ok(config) => {
                *self.inner.current.write() = Arc::new(config);
                tracing::info!(certificate = %self.inner.config.certificate.display(), "TLS files read anew");
                &self.inner.metrics.tls_reloads
            }
            Err(error) => {
                tracing::error!(%error, "TLS files cannot be used: the ones before stay");
                &self.inner.metrics.tls_reload_failures
            }
        };
        reloaded.inc();
    }

    /// Reloads whenever the files have changed, for ever.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub async fn watch(self) {
        let mut seen = self.inner.loaded.clone();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let inner = Arc::clone(&self.inner);
            let look = tokio::task::spawn_blocking(move || stamps(&inner.config));
            let Ok(now) = look.await else { continue };
            // A renewal writes two files: the first look at a change may find only one of them new.
            // What it then refuses is read again when the other one has changed.
            if now != seen {
                seen = now;
                let tls = self.clone();
                drop(tokio::task::spawn_blocking(move || tls.reload()).await);
            }
        }
    }
}

/// When a file was written and how long it is; nothing for one that cannot be looked at.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(config: &Config) -> Vec<Stamp> {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    config.files().map(stamp).collect()
}

fn read(config: &Config) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&config.certificate, "transport.tls.certificate")?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|source| TlsError::Read {
        what: "a private key",
        path: config.key.clone(),
        key: "transport.tls.key",
        source,
    })?;
    let unusable = |source| TlsError::Use {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        source,
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if is_empty(&config.client_ca) {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(client_verifier(&config.client_ca, provider)?)
    };
    // Refuses a key that is not the certificate's.
    let mut server = builder.with_single_cert(chain, key).map_err(unusable)?;
    // Browsers use WebSockets over HTTP/1.1, and everything else over HTTP/2.
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets resume sessions without memory here.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = ring::Ticketer::new().map_err(unusable)?;
    Ok(server)
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    let unusable = |source| TlsError::ClientCa { path: path.to_owned(), source };
    // What is no root is left out; that none is left is refused below.
    roots.add_parsable_certificates(certificates(path, "transport.tls.client_ca")?);
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(unusable)
}

fn certificates(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| {
        let path = path.to_owned();
        TlsError::Read { what: "a certificate", path, key, source }
    };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned(), key });
    }
    Ok(found)
}
