//! A TCP proxy between a client and a server, which breaks as networks do.

use std::{net::SocketAddr, sync::Arc};

use cowrite_server::shutdown::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// How bytes are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// They are not: neither side hears anything, and neither learns why.
    Stall,
    /// One at a time, each a segment of its own.
    Trickle,
}

/// A proxy on a free port. Dropped, it cuts everything.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    target: Arc<watch::Sender<SocketAddr>>,
    mode: Arc<watch::Sender<Mode>>,
    cut: Arc<watch::Sender<CancellationToken>>,
    tasks: Tasks,
}

impl ChaosProxy {
    /// A proxy to `target` that does nothing wrong yet.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let this = Self {
            address,
            target: Arc::new(watch::Sender::new(target)),
            mode: Arc::new(watch::Sender::new(Mode::Pass)),
            cut: Arc::new(watch::Sender::new(CancellationToken::new())),
            tasks: Tasks::new(),
        };
        let (target, mode, cut) = (this.target.clone(), this.mode.clone(), this.cut.clone());
        let tasks = this.tasks.clone();
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, cut) = (*target.borrow(), cut.borrow().clone());
                let mode = mode.subscribe();
                let relay = async move {
                    // A server that is not there is a connection that ends at once.
                    if let Ok(server) = TcpStream::connect(target).await {
                        relay(client, server, mode).await;
                    }
                };
                tasks.spawn(cut.run_until_cancelled_owned(relay));
            }
        };
        let accept = this.tasks.token().clone().run_until_cancelled_owned(accept);
        this.tasks.spawn(accept);
        this
    }

    /// Where clients come in.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients come in, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// New connections go there from now on.
    pub fn set_target(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Ends all connections that there are.
    pub fn cut(&self) {
        self.cut.send_replace(CancellationToken::new()).cancel();
    }

    /// Passes nothing on from now on, also of connections to come.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// Passes on one byte at a time from now on.
    pub fn trickle(&self) {
        self.mode.send_replace(Mode::Trickle);
    }

    /// Passes everything on again, what was held first.
    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.tasks.cancel();
        self.cut();
    }
}

async fn relay(client: TcpStream, server: TcpStream, mode: watch::Receiver<Mode>) {
    for socket in [&client, &server] {
        // Without it everything is only slower.
        socket.set_nodelay(true).ok();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(pump(from_client, to_server, mode.clone()), pump(from_server, to_client, mode));
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| *mode) else {
            return;
        };
        let step = if now == Mode::Trickle { 1 } else { count };
        for part in buffer[..count].chunks(step) {
            if to.write_all(part).await.is_err() {
                return;
            }
        }
    }
    // The other side is told that there is no more; if it is gone, it knows.
    to.shutdown().await.ok();
}
