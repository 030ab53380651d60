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

/// What handshakes are made with, if TLS is spoken. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: RwLock<Prepared>,
    metrics: TransportMetrics,
}

/// Settings whose files were read, and which can be used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prepared {
    config: Arc<Config>,
    /// Of the files as they were.
    seen: Arc<[Stamp]>,
    /// `None`: no TLS.
    server: Option<Arc<ServerConfig>>,
}

impl Prepared {
    /// Reads the files of `config`, if TLS is on in it. Blocks.
    ///
    /// # Errors
    ///
    /// A file cannot be used; the message names it and its key.
    pub fn load(config: &Config) -> Result<Self, TlsError> {
        // Before they are read, so that a change while they are is not missed.
        let seen = stamps(config).into();
        let server = if config.is_on() { Some(Arc::new(read(config)?)) } else { None };
        Ok(Self { config: Arc::new(config.clone()), seen, server })
    }
}

impl Tls {
    /// Reads the files of `config`, if TLS is on in it.
    ///
    /// # Errors
    ///
    /// A file cannot be used; the message names it and its key.
    pub fn load(config: &Config, metrics: TransportMetrics) -> Result<Self, TlsError> {
        let current = RwLock::new(Prepared::load(config)?);
        Ok(Self { inner: Arc::new(Inner { current, metrics }) })
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.inner.current.read().server.is_some()
    }

    /// What a handshake is made with now, and whether connections without TLS are served as well; no
    /// acceptor, and `true`, where TLS is not spoken.
    pub(super) fn now(&self) -> (Option<TlsAcceptor>, bool) {
        let current = self.inner.current.read();
        let acceptor = current.server.clone().map(TlsAcceptor::from);
        (acceptor, current.server.is_none() || current.config.plaintext)
    }

    /// Makes handshakes with these from now on; connections that are open go on as they are.
    pub fn apply(&self, prepared: Prepared) {
        if prepared.server.is_some() {
            let certificate = prepared.config.certificate.display();
            tracing::info!(%certificate, "TLS files read anew");
            self.inner.metrics.tls_reloads.inc();
        }
        *self.inner.current.write() = prepared;
    }

    /// Reads the files again. What cannot be used leaves everything as it was, and is logged and
    /// counted. Blocks.
    pub fn reload(&self) {
        let config = Arc::clone(&self.inner.current.read().config);
        match Prepared::load(&config) {
            Ok(prepared) => {
                let mut current = self.inner.current.write();
                // Other settings may have come meanwhile, and count.
                if Arc::ptr_eq(&current.config, &config) {
                    *current = prepared;
                    drop(current);
                    self.inner.metrics.tls_reloads.inc();
                    tracing::info!(certificate = %config.certificate.display(), "TLS files read anew");
                }
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Says that files cannot be used, and that everything is as it was.
    pub fn refused(&self, error: &TlsError) {
        tracing::error!(%error, "TLS files cannot be used: the ones before stay");
        self.inner.metrics.tls_reload_failures.inc();
    }

    /// Reloads whenever the files have changed, for ever.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub async fn watch(self) {
        let mut failed: Option<Vec<Stamp>> = None;
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let Prepared { config, seen, server } = self.inner.current.read().clone();
            if server.is_none() {
                continue;
            }
            let look = tokio::task::spawn_blocking(move || stamps(&config));
            let Ok(now) = look.await else { continue };
            // A renewal writes two files: the first look at a change may find only one of them new.
            // What it then refuses is read again when the other one has changed.
            if *now != *seen && failed.as_ref() != Some(&now) {
                failed = Some(now);
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
