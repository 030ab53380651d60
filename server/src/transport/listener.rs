//! Accepts connections and serves HTTP/1 and HTTP/2 on them, until it is drained.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    doors::Doors,
    tls::{HANDSHAKE, Tls},
};
use crate::{metrics::TransportMetrics, shutdown::Tasks};

/// How long accepting pauses after an error, which mostly is a lack of file descriptors: trying
/// again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The largest head of a request, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// How much a listener takes.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    config: Config,
    connections: Arc<Semaphore>,
}

impl ListenerLimits {
    /// Limits from the settings of the doors.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let permits = config.connections_max.min(Semaphore::MAX_PERMITS);
        Self { config: config.clone(), connections: Arc::new(Semaphore::new(permits)) }
    }
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: ListenerLimits,
    tls: Option<Tls>,
    metrics: TransportMetrics,
}

impl Listener {
    /// Takes a port, on which TLS is spoken if there is some.
    ///
    /// # Errors
    ///
    /// The port is taken, or not allowed.
    pub async fn bind(
        address: SocketAddr,
        limits: ListenerLimits,
        tls: Option<Tls>,
        metrics: TransportMetrics,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self { socket, limits, tls, metrics })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves `doors` to everybody who connects, each connection in a task of `tasks`, until
    /// `stop`; then takes nobody in, lets streams end, and closes connections as they fall idle.
    /// A connection whose streams do not end is cut by cancelling `tasks`.
    pub async fn serve(self, doors: Doors, stop: CancellationToken, tasks: Tasks) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.limits.connections).try_acquire_owned() else {
                self.metrics.refused.inc();
                continue;
            };
            self.metrics.accepted.inc();
            self.metrics.connections.inc();
            let counted =
                Counted { connections: self.metrics.connections.clone(), _permit: permit };
            let connection = Connection {
                socket,
                counted,
                config: self.limits.config.clone(),
                tls: self.tls.clone(),
                metrics: self.metrics.clone(),
                stop: stop.clone(),
                cut: tasks.token().clone(),
            };
            tasks.spawn(connection.serve(doors.clone()));
        }
    }
}

/// A connection, below HTTP. It counts as one as long as it is there: an upgraded one outlives the
/// task that it began in.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    _counted: Counted,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    // Boxed: it is a hundred times larger.
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug)]
struct Counted {
    connections: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

impl Wire {
    fn new(stream: Stream, counted: Counted) -> Self {
        Self { stream, _counted: counted }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

struct Connection {
    socket: TcpStream,
    counted: Counted,
    config: Config,
    tls: Option<Tls>,
    metrics: TransportMetrics,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    async fn serve(self, doors: Doors) {
        // Small frames are sent when they are there; batching is done above.
        if let Err(error) = self.socket.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        // The builder below waits for the first bytes without a limit.
        let mut byte = [0];
        let first = self.socket.peek(&mut byte);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            first = timeout(self.config.header_timeout, first) => {
                if !matches!(first, Ok(Ok(1))) {
                    return;
                }
            }
        }
        let Self { socket, counted, config, tls, metrics, stop, cut } = self;
        let served = Served { config: &config, doors, stop, cut };
        let (acceptor, takes_plaintext) = tls.map_or((None, true), |tls| tls.now());
        match acceptor {
            Some(acceptor) if byte[0] == HANDSHAKE => {
                let handshake = timeout(config.header_timeout, acceptor.accept(socket));
                let accepted = tokio::select! {
                    biased;
                    () = served.stop.cancelled() => return,
                    accepted = handshake => accepted,
                };
                match accepted {
                    Ok(Ok(socket)) => {
                        served.run(Wire::new(Stream::Tls(Box::new(socket)), counted)).await
                    }
                    Ok(Err(error)) => {
                        metrics.tls_failures.inc();
                        tracing::debug!(%error, "TLS handshake failed");
                    }
                    Err(_) => {
                        metrics.tls_failures.inc();
                        tracing::debug!("TLS handshake took too long");
                    }
                }
            }
            Some(_) if !takes_plaintext => tracing::debug!("a connection without TLS"),
            Some(_) | None => served.run(Wire::new(Stream::Plain(socket), counted)).await,
        }
    }
}

struct Served<'a> {
    config: &'a Config,
    doors: Doors,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Served<'_> {
    async fn run(self, wire: Wire) {
        let builder = builder(self.config);
        let service = TowerToHyperService::new(self.doors);
        let io = TokioIo::new(wire);
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                // Nobody is cut who was not asked to stop: one token less to look at for each frame.
                () = self.cut.cancelled(), if stopping => return,
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                served = connection.as_mut() => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
            }
        }
    }
}

fn builder(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        // Without a timer, keepalive panics.
        .timer(TokioTimer::new())
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .max_concurrent_streams(config.streams_per_connection_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_send_buf_size(config.stream_send_bytes)
        .max_header_list_size(HEADER_BYTES_MAX);
    builder
}
