//! HTTP/2 by hand: frames that no library would send.

use std::{io, net::SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

use crate::soon;

/// What every connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The kinds of frames, as RFC 9113 numbers them.
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// The flag of an answer to SETTINGS or PING.
pub const ACK: u8 = 1;
/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of headers that no CONTINUATION follows.
pub const END_HEADERS: u8 = 4;

/// A frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
    out.freeze()
}

/// The headers of a call of `path`, without indices into tables: HPACK in its simplest form.
#[must_use]
pub fn call(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "cowrite"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        header(&mut out, name, value);
    }
    out
}

/// A header that is not to be indexed. Both texts have at most 126 bytes.
pub fn header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        out.push(length.expect("a short text"));
        out.extend_from_slice(text.as_bytes());
    }
}

/// A connection on which frames are written by hand, and what comes is read on request.
#[derive(Debug)]
pub struct RawHttp2 {
    writer: OwnedWriteHalf,
    reader: OwnedReadHalf,
    read: BytesMut,
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Bytes,
}

/// A connection that comes from `source`, an address of the loopback device such as 127.0.0.2.
pub async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let source = format!("{source}:0").parse().expect("an address");
    socket.bind(source).expect("an address of the loopback device");
    soon("a connection", socket.connect(address)).await.expect("a listener")
}

impl RawHttp2 {
    /// Connects, and says that this is HTTP/2.
    pub async fn open(address: SocketAddr) -> Self {
        let socket = soon("a connection", TcpStream::connect(address)).await.expect("a listener");
        socket.set_nodelay(true).expect("a TCP socket");
        let (reader, writer) = socket.into_split();
        let mut this = Self { writer, reader, read: BytesMut::new() };
        this.send(PREFACE).await.expect("the server reads");
        this.send(&frame(kind::SETTINGS, 0, 0, &[])).await.expect("the server reads");
        this
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// The server has ended the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Received> {
        soon("a frame", async {
            loop {
                if let Some(frame) = self.parse() {
                    return Some(frame);
                }
                // A connection that is reset has ended.
                match self.reader.read_buf(&mut self.read).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return None,
                }
            }
        })
        .await
    }

    /// Reads to the end of the connection; the error code of the GOAWAY that came last, if any.
    pub async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == kind::GOAWAY {
                code = frame
                    .payload
                    .get(4..8)
                    .map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")));
            }
        }
        code
    }

    /// The way up and the way down, for two who use them at the same time.
    #[must_use]
    pub fn split(self) -> (OwnedWriteHalf, OwnedReadHalf) {
        (self.writer, self.reader)
    }

    fn parse(&mut self) -> Option<Received> {
        let head: [u8; 9] = self.read.get(..9)?.try_into().expect("nine bytes");
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if self.read.len() < 9 + length {
            return None;
        }
        let payload = self.read.split_to(9 + length).freeze().slice(9..);
        Some(Received { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}
