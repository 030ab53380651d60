//! HTTP/1.1 by hand: what browsers and probes send.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::soon;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, as it is after the transfer encoding.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of UTF-8")
    }
}

/// Gets `path`.
pub async fn http_get(address: SocketAddr, path: &str) -> HttpAnswer {
    http_request(address, "GET", path, &[], b"").await
}

/// Sends a request and reads the whole answer.
pub async fn http_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> HttpAnswer {
    soon("an HTTP answer", async {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()));
        socket.write_all(head.as_bytes()).await.expect("the server reads");
        socket.write_all(body).await.expect("the server reads");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("the server answers");
        parse(&answer)
    })
    .await
}

fn parse(answer: &[u8]) -> HttpAnswer {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&answer[..end]).expect("a head of ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let status = status.parse().expect("a status code");
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers: BTreeMap<_, _> = lines.map(header).collect();
    let body = &answer[end + 4..];
    let body = if body.is_empty() {
        return HttpAnswer { status, headers, body: Vec::new() };
    } else {
        body
    };
    let chunked = headers.get("transfer-encoding").is_some_and(|kind| kind == "chunked");
    let body = if chunked { unchunk(body) } else { body.to_vec() };
    HttpAnswer { status, headers, body }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").expect("the size of a chunk");
        let size = std::str::from_utf8(&rest[..line]).expect("ASCII");
        let size = usize::from_str_radix(size.trim(), 16).expect("a hexadecimal size");
        rest = &rest[line + 2..];
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// A part of a gRPC-Web answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcWebPart {
    /// A message.
    Message(Bytes),
    /// The trailers, as they stand.
    Trailers(String),
}

/// A gRPC-Web call over HTTP/1.1, whose answer is read as it comes.
#[derive(Debug)]
pub struct GrpcWebStream {
    socket: TcpStream,
    /// The status code of the answer.
    pub status: u16,
    /// The headers of the answer, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What was received and not looked at.
    raw: BytesMut,
    /// The body so far, without its transfer encoding.
    body: BytesMut,
}

impl GrpcWebStream {
    /// Calls `path` with one message.
    pub async fn open(address: SocketAddr, path: &str, message: &[u8]) -> Self {
        soon("an HTTP answer", async {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-grpc-web: 1\r\n\
                 content-type: application/grpc-web+proto\r\ncontent-length: {}\r\n\r\n",
                message.len() + 5
            );
            let mut request = BytesMut::from(head.as_bytes());
            request.put_u8(0);
            request.put_u32(u32::try_from(message.len()).expect("a small message"));
            request.put_slice(message);
            socket.write_all(&request).await.expect("the server reads");
            let mut raw = BytesMut::new();
            let end = loop {
                let end = raw.windows(4).position(|four| four == b"\r\n\r\n");
                if let Some(end) = end {
                    break end;
                }
                let count = socket.read_buf(&mut raw).await.expect("the server answers");
                assert!(count > 0, "the connection ended within the head: {raw:?}");
            };
            let HttpAnswer { status, headers, .. } = parse(&raw.split_to(end + 4));
            Self { socket, status, headers, raw, body: BytesMut::new() }
        })
        .await
    }

    /// The next part; `None` when the answer is complete.
    pub async fn next(&mut self) -> Option<GrpcWebPart> {
        soon("a part of an answer", async {
            loop {
                if let Some(part) = self.part() {
                    return Some(part);
                }
                if self.headers.get("content-length").is_some_and(|length| length == "0") {
                    return None;
                }
                match self.chunk() {
                    Some(chunk) if chunk.is_empty() => return None,
                    Some(chunk) => self.body.extend_from_slice(&chunk),
                    None => {
                        let count = self.socket.read_buf(&mut self.raw).await;
                        assert!(count.expect("the server answers") > 0, "the connection ended");
                    }
                }
            }
        })
        .await
    }

    fn part(&mut self) -> Option<GrpcWebPart> {
        let head = self.body.get(..5)?;
        let (is_trailers, length) = (head[0] & 0x80 != 0, &head[1..]);
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if self.body.len() < 5 + length {
            return None;
        }
        let part = self.body.split_to(5 + length).freeze().slice(5..);
        Some(if is_trailers {
            GrpcWebPart::Trailers(String::from_utf8(part.to_vec()).expect("trailers of ASCII"))
        } else {
            GrpcWebPart::Message(part)
        })
    }

    /// The next chunk of the transfer encoding; an empty one is the last.
    fn chunk(&mut self) -> Option<BytesMut> {
        let line = self.raw.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&self.raw[..line]).expect("ASCII");
        let size = usize::from_str_radix(size.trim(), 16).expect("a hexadecimal size");
        if self.raw.len() < line + 2 + size + 2 {
            return None;
        }
        let mut chunk = self.raw.split_to(line + 2 + size + 2).split_off(line + 2);
        chunk.truncate(size);
        Some(chunk)
    }
}
