//! A server within the test's process.

use std::{net::SocketAddr, path::Path, sync::Arc};

use cowrite_server::{
    app::{Config, Live, Server, Stopped},
    log::{Kind, MemoryLog, UpdateLog},
    metrics::Metrics,
    shutdown::Tasks,
    transport::Tls,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{channel, soon};

/// A server on free ports of the loopback device. Dropped, it is cut without a word.
#[derive(Debug)]
pub struct TestServer {
    address: SocketAddr,
    admin: SocketAddr,
    metrics: Arc<Metrics>,
    tls: Tls,
    live: Live,
    stop: CancellationToken,
    running: Option<JoinHandle<Stopped>>,
    channel: Channel,
}

/// The production settings on free ports.
fn config() -> Config {
    let mut config = Config::default();
    config.transport.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.transport.admin_listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.log.kind = Kind::Memory;
    config
}

impl TestServer {
    /// A server with the production settings and a log in memory.
    pub async fn start() -> Self {
        Self::with_config(|_| {}).await
    }

    /// A server with a log in memory and settings that `change` makes.
    pub async fn with_config(change: impl FnOnce(&mut Config)) -> Self {
        let metrics = Arc::new(Metrics::new());
        let log = Arc::new(MemoryLog::new(metrics.log.clone()));
        Self::with_metrics(metrics, log, change).await
    }

    /// A server on a log that the test holds on to.
    pub async fn with_log(log: Arc<dyn UpdateLog>, change: impl FnOnce(&mut Config)) -> Self {
        Self::with_metrics(Arc::new(Metrics::new()), log, change).await
    }

    /// A server with the embedded log in `directory`.
    pub async fn embedded(directory: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        config.log.kind = Kind::Embedded;
        config.log.directory = directory.to_owned();
        change(&mut config);
        config.validate().expect("settings that are valid");
        Self::run(Server::bind(config).await.expect("the server starts")).await
    }

    async fn with_metrics(
        metrics: Arc<Metrics>,
        log: Arc<dyn UpdateLog>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config();
        change(&mut config);
        config.validate().expect("settings that are valid");
        let server = Server::bind_with_log(config, metrics, log).await;
        Self::run(server.expect("the server starts")).await
    }

    async fn run(server: Server) -> Self {
        let address = server.local_addr().expect("an address");
        let admin = server.admin_addr().expect("an address");
        let (metrics, tls, live) = (server.metrics(), server.tls(), server.live());
        let stop = CancellationToken::new();
        let running = Tasks::new().spawn(server.run(stop.clone().cancelled_owned()));
        let channel = channel(address).await;
        Self { address, admin, metrics, tls, live, stop, running: Some(running), channel }
    }

    /// Where clients come in.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators look.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where clients come in, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A connection that all participants of a test may share.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What the server counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
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

    /// Asks the server to end, without waiting for it.
    pub fn begin_drain(&self) {
        self.stop.cancel();
    }

    /// Drains the server and says how it ended.
    pub async fn stop(mut self) -> Stopped {
        self.stop.cancel();
        let running = self.running.take().expect("a server that runs");
        soon("the server to end", running).await.expect("the server does not panic")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}
