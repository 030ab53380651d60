//! Accepts connections and serves HTTP/1 and HTTP/2 on them, until it is drained.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::rt::Executor;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    addresses::{Addresses, Full, Place},
    config::Config,
    doors::Doors,
    tls::{HANDSHAKE, Tls},
};
use crate::{
    metrics::{ReasonLabels, TransportMetrics},
    shutdown::Tasks,
    time::{self, Instant},
};

/// How long accepting pauses after an error, which mostly is a lack of file descriptors: trying
/// again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The largest head of a request, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// What an HTTP/2 connection begins with, and no other.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest HTTP/2 frame that is taken: the smallest that every server has to take.
const FRAME_BYTES_MAX: u32 = 16 << 10;

/// HTTP/2: streams that a client may have reset before they were looked at. More end the connection:
/// each would cost us a request, and the client nothing.
const RESET_STREAMS_MAX: usize = 20;

/// HTTP/2: mistakes with single streams, after which the connection ends. Not few: of a stream that we
/// ended, something may still be on its way, and a proxy has the streams of many on one connection.
const STREAM_ERRORS_MAX: usize = 1024;

/// How much a listener takes.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    config: Config,
    connections: Arc<Semaphore>,
    addresses: Addresses,
}

impl ListenerLimits {
    /// Limits from the settings of the doors.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let permits = config.connections_max.min(Semaphore::MAX_PERMITS);
        let connections = Arc::new(Semaphore::new(permits));
        let per_address = config.connections_per_address_max;
        let addresses = Addresses::new(per_address, &config.unlimited_addresses);
        Self { config: config.clone(), connections, addresses }
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
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = match self.limits.addresses.take(peer.ip()) {
                Ok(place) => place,
                Err(Full) => {
                    self.count_refused("address");
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.limits.connections).try_acquire_owned() else {
                self.count_refused("all");
                continue;
            };
            self.metrics.accepted.inc();
            self.metrics.connections.inc();
            let connections = self.metrics.connections.clone();
            let counted = Counted { connections, _permit: permit, _place: place };
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

    fn count_refused(&self, reason: &'static str) {
        self.metrics.refused.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// A connection, below HTTP. It counts as one as long as it is there: an upgraded one outlives the
/// task that it began in.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// What was read to find out the protocol, and is to be read again.
    begun: Bytes,
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
    _place: Option<Place>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

impl Wire {
    fn new(stream: Stream, counted: Counted) -> Self {
        Self { stream, begun: Bytes::new(), _counted: counted }
    }

    /// Reads until it is known which protocol is spoken.
    async fn begin(&mut self) -> io::Result<Protocol> {
        let mut begun = [0; PREFACE.len()];
        let mut count = 0;
        while count < begun.len() && begun[..count] == PREFACE[..count] {
            match self.read(&mut begun[count..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => count += read,
            }
        }
        self.begun = Bytes::copy_from_slice(&begun[..count]);
        Ok(if begun == *PREFACE { Protocol::Http2 } else { Protocol::Http1 })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let count = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun.split_to(count));
            return Poll::Ready(Ok(()));
        }
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
        let mut byte = [0];
        let deadline = time::now() + self.config.header_timeout;
        let first = timeout_at(deadline, self.socket.peek(&mut byte));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            first = first => match first {
                Ok(Ok(1)) => {}
                Ok(_) => return,
                Err(_) => {
                    self.metrics.silent.inc();
                    return;
                }
            }
        }
        let Self { socket, counted, config, tls, metrics, stop, cut } = self;
        let served = Served { config: &config, metrics: &metrics, doors, stop, cut };
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
                        let deadline = time::now() + config.header_timeout;
                        let wire = Wire::new(Stream::Tls(Box::new(socket)), counted);
                        served.run(wire, deadline).await;
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
            Some(_) | None => {
                served.run(Wire::new(Stream::Plain(socket), counted), deadline).await;
            }
        }
    }
}

struct Served<'a> {
    config: &'a Config,
    metrics: &'a TransportMetrics,
    doors: Doors,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Served<'_> {
    async fn run(self, mut wire: Wire, deadline: Instant) {
        // The builder below would wait for the rest of the preface without a limit.
        let protocol = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            begun = timeout_at(deadline, wire.begin()) => match begun {
                Ok(Ok(protocol)) => protocol,
                Ok(Err(_)) => return,
                Err(_) => {
                    self.metrics.silent.inc();
                    return;
                }
            }
        };
        let streams = Streams::new();
        let builder = builder(self.config, streams.clone());
        let service = TowerToHyperService::new(self.doors);
        let io = TokioIo::new(wire);
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut stopping = false;
        // In HTTP/1 the next head has to come within the header timeout.
        let mut is_watched = protocol == Protocol::Http2;
        let idle_timeout = self.config.idle_timeout;
        let mut idle = pin!(sleep(idle_timeout));
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
                () = idle.as_mut(), if is_watched => {
                    let now = time::now();
                    let ends = streams.idle_since().unwrap_or(now) + idle_timeout;
                    if ends > now {
                        idle.as_mut().reset(ends);
                    } else {
                        is_watched = false;
                        self.metrics.idle.inc();
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// The streams of an HTTP/2 connection: hyper runs a task for each.
#[derive(Clone, Debug)]
struct Streams {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    count: usize,
    /// When the last one ended.
    ended: Instant,
}

impl Streams {
    fn new() -> Self {
        Self { open: Arc::new(Mutex::new(Open { count: 0, ended: time::now() })) }
    }

    /// Since when there has been none.
    fn idle_since(&self) -> Option<Instant> {
        let open = self.open.lock();
        (open.count == 0).then_some(open.ended)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.open.lock().count += 1;
        let running = Running(self.clone());
        TokioExecutor::new().execute(async move {
            // Also when the task is dropped.
            let _running = running;
            stream.await
        });
    }
}

struct Running(Streams);

impl Drop for Running {
    fn drop(&mut self) {
        let mut open = self.0.open.lock();
        *open = Open { count: open.count - 1, ended: time::now() };
    }
}

fn builder(config: &Config, streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        // It bounds the head. The library's own limit of 100 headers costs no allocation.
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
        .max_frame_size(FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(STREAM_ERRORS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX);
    builder
}
