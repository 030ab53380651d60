//! Builds every layer from the bottom up, runs the server, and drains it in the order of the flow.

pub mod cli;
pub mod config;
mod export;
mod import;
mod place;
mod reload;
mod remote;
mod repair;
mod telemetry;
mod token;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::{
    config::Config,
    reload::{LIVE, Live, ReloadError},
};
use crate::{
    auth::{self, Authenticator},
    log::{self, Quarantine, UpdateLog},
    metrics::Metrics,
    room::Registry,
    session::Sessions,
    shutdown::Tasks,
    time,
    transport::{self, Doors, Health, Listener, ListenerLimits, Origins, Readiness, Tls},
};

/// Connections to the admin listener at most: a few probes and scrapers.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// A server that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// A port cannot be taken.
    #[error("listen on {address} ({key}): is it in use? give another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key that says so.
        key: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be spoken with the files that are configured.
    #[error(transparent)]
    Tls(#[from] transport::TlsError),
    /// Tokens cannot be checked with the files that are configured.
    #[error(transparent)]
    Auth(#[from] auth::SettingsError),
    /// The descriptors of the services cannot be read, which is a fault of the build.
    #[error("read the descriptors of the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every client was told, and everything ended by itself.
    Cleanly,
    /// Some connections were cut when `shutdown.grace` was over. What was acknowledged is on disk.
    Cut,
}

/// A server that has its ports and its log, and is about to serve.
#[derive(Debug)]
pub struct Server {
    config: Config,
    metrics: Arc<Metrics>,
    log: Arc<dyn UpdateLog>,
    listener: Listener,
    admin: Listener,
    live: Live,
    tls: Tls,
    doors: Doors,
    admin_doors: Doors,
    readiness: Readiness,
    health: Health,
    authenticator: Authenticator,
    rooms: Tasks,
    sessions: Tasks,
    connections: Tasks,
}

impl Server {
    /// Opens the log and takes the ports.
    ///
    /// # Errors
    ///
    /// The server cannot be started; the message says what to do.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let (log_config, log_metrics) = (config.log.clone(), metrics.log.clone());
        let opening = tokio::task::spawn_blocking(move || log::open(&log_config, log_metrics));
        let (log, quarantine) = opening.await.map_err(io::Error::other)??;
        Self::bind_on(config, metrics, log, quarantine).await
    }

    /// Takes the ports, with a log that is open already.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub async fn bind_with_log(
        config: Config,
        metrics: Arc<Metrics>,
        log: Arc<dyn UpdateLog>,
    ) -> Result<Self, StartError> {
        Self::bind_on(config, metrics, log, Quarantine::in_memory()).await
    }

    async fn bind_on(
        config: Config,
        metrics: Arc<Metrics>,
        log: Arc<dyn UpdateLog>,
        quarantine: Quarantine,
    ) -> Result<Self, StartError> {
        let (rooms, session_tasks, connections) = (Tasks::new(), Tasks::new(), Tasks::new());
        let registry = Registry::new(
            config.room.clone(),
            Arc::clone(&log),
            quarantine,
            metrics.room.clone(),
            rooms.clone(),
        );
        let authenticator = Authenticator::new(&config.auth, metrics.auth.clone())?;
        let sessions = Sessions::new(
            config.session.clone(),
            registry,
            authenticator.clone(),
            metrics.session.clone(),
            session_tasks.clone(),
        );
        sessions.set_limits(config.limits.clone());
        let readiness = Readiness::new(sessions.clone());
        // There has to be time left to say it.
        let drain_spread = config.session.drain_retry_max.min(config.shutdown.grace / 2);
        let origins = Origins::new(&config.transport.allowed_origins);
        let (doors, health) =
            transport::doors(&config.transport, &sessions, &readiness, &origins, drain_spread)?;
        let admin_doors = transport::admin_router(Arc::clone(&metrics), &readiness);
        let admin_doors = Doors::plain(admin_doors, config.transport.request_timeout);
        let bind = async |key, address, config: &transport::Config, tls| {
            let limits = ListenerLimits::new(config);
            let bound = Listener::bind(address, limits, tls, metrics.transport.clone()).await;
            bound.map_err(|source| StartError::Listen { address, key, source })
        };
        let settings = &config.transport;
        let tls = Tls::load(&settings.tls, metrics.transport.clone())?;
        let for_clients = Some(tls.clone());
        let listener = bind("transport.listen", settings.listen, settings, for_clients).await?;
        let admin = transport::Config {
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..config.transport.clone()
        };
        let admin = bind("transport.admin_listen", settings.admin_listen, &admin, None).await?;
        let live = Live::new(
            config.clone(),
            authenticator.clone(),
            sessions.clone(),
            tls.clone(),
            origins,
            Arc::clone(&metrics),
        );
        Ok(Self {
            config,
            metrics,
            log,
            listener,
            admin,
            live,
            tls,
            doors,
            admin_doors,
            readiness,
            health,
            authenticator,
            rooms,
            sessions: session_tasks,
            connections,
        })
    }

    /// Where clients come in.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators look.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// TLS, which can be told to read its files anew.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// What takes other settings while the server runs.
    #[must_use]
    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves until `shutdown` is ready, then drains: within `shutdown.grace`, whatever clients do.
    ///
    /// # Cancellation
    ///
    /// Everything is cut. What was acknowledged is on disk.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Stopped {
        let stop = CancellationToken::new();
        let (listeners, admin) = (Tasks::new(), Tasks::new());
        let serve = self.listener.serve(self.doors, stop.clone(), self.connections.clone());
        listeners.spawn(serve);
        let admin_stop = CancellationToken::new();
        let serve = self.admin.serve(self.admin_doors, admin_stop.clone(), admin.clone());
        admin.spawn(serve);
        let compact = compact(Arc::clone(&self.log), self.config.log.compact_interval);
        let compacting = listeners.token().clone().run_until_cancelled_owned(compact);
        listeners.spawn(compacting);
        let watch = self.tls.watch();
        listeners.spawn(listeners.token().clone().run_until_cancelled_owned(watch));
        let keep = self.authenticator.clone().keep();
        listeners.spawn(listeners.token().clone().run_until_cancelled_owned(keep));

        let mut shutdown = std::pin::pin!(shutdown);
        self.health.set_serving(self.authenticator.is_ready()).await;
        tokio::select! {
            biased;
            () = &mut shutdown => {}
            () = self.authenticator.ready() => {
                self.health.set_serving(true).await;
                shutdown.await;
            }
        }
        let grace = self.config.shutdown.grace;
        let deadline = time::now() + grace;
        tracing::info!(?grace, "draining");
        self.readiness.drain();
        self.health.set_serving(false).await;
        sleep(self.config.shutdown.delay.min(grace / 2)).await;
        // Nobody new; then everybody is told, after what they sent is durable; then the rooms,
        // which are empty, and the log.
        stop.cancel();
        self.sessions.cancel();
        let clean = within(deadline, self.sessions.wait()).await;
        self.rooms.cancel();
        let clean = within(deadline, self.rooms.wait()).await && clean;
        listeners.cancel();
        let clean = within(deadline, self.connections.wait()).await && clean;
        self.connections.cancel();
        // The last write, which cannot be given up halfway: it waits for nobody but the disk.
        let clean = within(deadline + grace, self.log.close()).await && clean;
        admin_stop.cancel();
        admin.cancel();
        if clean {
            tracing::info!("drained");
            Stopped::Cleanly
        } else {
            tracing::warn!("drained by cutting connections that did not end in time");
            Stopped::Cut
        }
    }
}

/// Whether `work` was done in time.
async fn within(deadline: Instant, work: impl Future<Output = ()>) -> bool {
    timeout_at(deadline, work).await.is_ok()
}

async fn compact(log: Arc<dyn UpdateLog>, interval: time::Duration) {
    loop {
        sleep(interval).await;
        match log.compact().await {
            Ok(done) if done.segments_dropped > 0 => {
                tracing::info!(
                    segments = done.segments_dropped,
                    bytes = done.bytes_freed,
                    "log compacted"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "compacting the log failed"),
        }
    }
}
