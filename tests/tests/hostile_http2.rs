//! Promise: a connection that abuses HTTP/2 is ended or slowed down. Those beside it go on meanwhile, and
//! the server's memory does not grow by it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use cowrite_proto::v1::server_frame::Frame as Down;
use cowrite_server::shutdown::Tasks;
use cowrite_tests::{
    Door, RawSession, ServerProcess, TestServer, channel, http_request,
    http2::{END_HEADERS, RawHttp2, call, frame, header, kind},
    join, soon, text_update, up,
};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpStream};

const EDIT: &str = "/cowrite.v1.CollaborationService/Edit";

/// What the server may grow by: far less than it would keep of any of these floods.
const GROWTH_KIB_MAX: u64 = 24 << 10;

/// How long a flood lasts that the server does not end.
const FLOOD: Duration = Duration::from_secs(3);

/// The error code of HTTP/2 for a peer that does too much.
const ENHANCE_YOUR_CALM: u32 = 11;

fn resident_kib(server: &ServerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How a flood ended.
#[derive(Debug)]
struct Outcome {
    /// The server has ended the connection.
    is_ended: bool,
    /// With this error code.
    code: Option<u32>,
}

/// Lets `flood` make bytes to be sent, until the server ends the connection or [`FLOOD`] is over, while
/// somebody edits on a connection of his own.
async fn withstand(name: &str, flood: impl Fn(u32) -> Bytes + Send + 'static) -> Outcome {
    let data = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(data.path(), &[]).await;
    let connection = channel(server.address()).await;
    let (mut honest, _) = RawSession::open(connection, Door::Edit, join("honest")).await.unwrap();
    let mut slowest = Duration::ZERO;
    let mut id = 0;
    let mut edit = async || {
        id += 1;
        let start = tokio::time::Instant::now();
        honest.send([up::update(id, text_update("x"))]).await.unwrap();
        while !matches!(honest.next().await.unwrap(), Some(Down::Ack(ack)) if ack.update_id == id) {
        }
        slowest = slowest.max(start.elapsed());
    };
    edit().await;
    let before = resident_kib(&server);
    let hostile = RawHttp2::open(server.address()).await;
    let (mut writer, mut reader) = hostile.split();
    let tasks = Tasks::new();
    let reading = tasks.spawn(async move {
        let mut told = Vec::new();
        // An error is an end as well.
        while let Ok(1..) = reader.read_buf(&mut told).await {
            // The last words are what counts.
            if told.len() > 1 << 20 {
                told.drain(..1 << 19);
            }
        }
        told
    });
    let flooding = tasks.spawn(async move {
        let start = tokio::time::Instant::now();
        let mut round = 0;
        let mut is_ended = false;
        while start.elapsed() < FLOOD && !is_ended {
            let sent = tokio::time::timeout(FLOOD, writer.write_all(&flood(round))).await;
            is_ended = matches!(sent, Ok(Err(_)));
            round += 1;
        }
        is_ended
    });
    while !flooding.is_finished() {
        edit().await;
    }
    let is_ended = flooding.await.unwrap();
    let told = soon("the end of what the server said", reading).await.unwrap();
    edit().await;
    let grown = resident_kib(&server).saturating_sub(before);
    let goaway = told.windows(6).rposition(|six| six == [kind::GOAWAY, 0, 0, 0, 0, 0]);
    let code = goaway.and_then(|at| told.get(at + 10..at + 14));
    let code = code.map(|code| u32::from_be_bytes(code.try_into().unwrap()));
    assert!(grown < GROWTH_KIB_MAX, "{name}: {grown} KiB");
    assert!(slowest < Duration::from_secs(2), "{name}: {slowest:?}");
    Outcome { is_ended, code }
}

/// The id of the `n`th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// Frames in one write.
fn many(count: u32, one: impl Fn(u32) -> Bytes) -> Bytes {
    let mut out = BytesMut::new();
    for i in 0..count {
        out.put_slice(&one(i));
    }
    out.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_soon_as_they_are_opened_end_the_connection() {
    let head = call(EDIT);
    let outcome = withstand("rapid reset", move |round| {
        many(100, |i| {
            let stream = stream(round * 100 + i);
            let open = frame(kind::HEADERS, END_HEADERS, stream, &head);
            let reset = frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [open, reset].concat().into()
        })
    });
    let outcome = outcome.await;
    assert!(outcome.is_ended, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_on_one_connection_are_refused() {
    let head = call(EDIT);
    let outcome = withstand("stream opens", move |round| {
        many(100, |i| frame(kind::HEADERS, END_HEADERS, stream(round * 100 + i), &head))
    });
    let outcome = outcome.await;
    assert!(outcome.is_ended, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_end_the_connection() {
    let outcome = withstand("continuation", |round| {
        let mut some = Vec::new();
        for i in 0..100 {
            header(&mut some, &format!("x-{round}-{i}"), "aaaaaaaaaaaaaaaaaaaa");
        }
        if round == 0 {
            frame(kind::HEADERS, 0, 1, &call(EDIT))
        } else {
            frame(kind::CONTINUATION, 0, 1, &some)
        }
    });
    let outcome = outcome.await;
    assert!(outcome.is_ended, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_no_bytes_that_never_end_end_the_connection() {
    let outcome = withstand("empty continuation", |round| {
        if round == 0 {
            frame(kind::HEADERS, 0, 1, &call(EDIT))
        } else {
            many(100, |_| frame(kind::CONTINUATION, 0, 1, &[]))
        }
    });
    let outcome = outcome.await;
    assert!(outcome.is_ended, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_unfolds_to_many_costs_no_more_than_it_may() {
    // A long header goes into the table once, and is then meant by one byte, thousands of times.
    let outcome = withstand("header bomb", |round| {
        let mut head = call(EDIT);
        if round == 0 {
            head.push(0x40);
            head.push(4);
            head.extend_from_slice(b"bomb");
            // 3000 bytes, as a number of HPACK: 127 and the rest in groups of 7 bits.
            head.extend_from_slice(&[0x7f, 0xb9, 0x16]);
            head.extend_from_slice(&[b'b'; 3000]);
        }
        head.extend_from_slice(&[0xbe; 10_000]);
        frame(kind::HEADERS, END_HEADERS, stream(round), &head)
    });
    let outcome = outcome.await;
    assert!(outcome.is_ended, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_frames_of_no_bytes_end_the_connection() {
    let outcome = withstand("empty DATA", |round| {
        if round == 0 {
            frame(kind::HEADERS, END_HEADERS, 1, &call(EDIT))
        } else {
            many(100, |_| frame(kind::DATA, 0, 1, &[]))
        }
    });
    let outcome = outcome.await;
    assert_eq!(outcome.code, Some(ENHANCE_YOUR_CALM), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings_that_never_stop_cost_nobody_else_anything() {
    for (name, one) in [
        ("PING", frame(kind::PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(kind::SETTINGS, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(kind::WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes())),
        ("a frame of no kind", frame(0xbb, 0, 0, &[])),
    ] {
        // Whether it is ended or only answered: no one pays for it but its sender.
        withstand(name, move |_| many(100, |_| one.clone())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_single_bytes_does_not_end_the_connection_of_those_beside_it() {
    // The frames of a client that sends more than it may, cut into pieces of one byte: as many as h2
    // ends a connection for, if they are not read.
    let server = TestServer::start().await;
    let mut hostile = RawHttp2::open(server.address()).await;
    for n in [0, 1] {
        hostile.send(&frame(kind::HEADERS, END_HEADERS, stream(n), &call(EDIT))).await.unwrap();
        let document = if n == 0 { "flood" } else { "honest" };
        hostile
            .send(&frame(kind::DATA, 0, stream(n), &message(&up::join(join(document)))))
            .await
            .unwrap();
    }
    let window = frame(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    hostile.send(&window).await.unwrap();
    let update = message(&up::update(1, text_update("x")));
    let pieces = many(u32::try_from(update.len()).unwrap(), |i| {
        frame(kind::DATA, 0, stream(0), &update[i as usize..][..1])
    });
    let (mut writer, mut reader) = hostile.split();
    let tasks = Tasks::new();
    let (ended, mut end) = tokio::sync::watch::channel(false);
    tasks.spawn(async move {
        let mut told = BytesMut::new();
        while let Ok(1..) = reader.read_buf(&mut told).await {
            // The trailers of the flood: its session has ended, and its stream is reset then.
            let reset = [kind::RST_STREAM, 0, 0, 0, 0, 1];
            if told.windows(6).any(|six| six == reset) {
                ended.send_replace(true);
            }
            let goaway = told.windows(6).any(|six| six == [kind::GOAWAY, 0, 0, 0, 0, 0]);
            assert!(!goaway, "the connection was ended for all: {told:?}");
        }
    });
    // As fast as a proxy passes them on, which is slower than they are read; unread, they would fill
    // the stream's window of 64 KiB, and that is twice as many as h2 stands.
    for _ in 0..5000 {
        if *end.borrow() {
            break;
        }
        writer.write_all(&pieces).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    soon("the end of the flood", end.wait_for(|ended| *ended)).await.unwrap();
    let update = message(&up::update(1, text_update("still here")));
    writer.write_all(&frame(kind::DATA, 0, stream(1), &update)).await.unwrap();
    let mut honest = cowrite_tests::Participant::join(&server, Door::Edit, "honest").await;
    honest.wait_for_text("still here").await;
}

/// A gRPC message with one frame.
fn message(one: &cowrite_proto::v1::ClientFrame) -> Vec<u8> {
    use prost::Message as _;
    let request = cowrite_proto::v1::EditRequest { frames: vec![one.clone()] };
    let mut out = vec![0];
    out.put_u32(u32::try_from(request.encoded_len()).unwrap());
    out.extend_from_slice(&request.encode_to_vec());
    out
}

#[tokio::test]
async fn heads_of_http_1_are_bounded_in_size_and_number() {
    let server = TestServer::start().await;
    for (count, length, status) in [(50, 10, 200), (150, 10, 431), (50, 1000, 431)] {
        let headers: Vec<_> = (0..count).map(|i| (format!("x-{i}"), "a".repeat(length))).collect();
        let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let answer = http_request(server.address(), "GET", "/livez", &headers, b"").await;
        assert_eq!(answer.status, status, "{count} of {length} bytes");
    }
}

#[tokio::test]
async fn trailers_of_http_1_are_bounded() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /cowrite.v1.CollaborationService/Publish HTTP/1.1\r\nhost: cowrite\r\n\
                content-type: application/grpc-web+proto\r\ntransfer-encoding: chunked\r\n\r\n\
                5\r\n\0\0\0\0\0\r\n0\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    let trailer = format!("x-trailer: {}\r\n", "a".repeat(1000));
    soon("the end of the connection", async {
        // 100 MiB, if nobody stops it.
        while sent < 100 << 20 && socket.write_all(trailer.as_bytes()).await.is_ok() {
            sent += trailer.len();
        }
    })
    .await;
    assert!(sent < 8 << 20, "{sent} bytes of trailers were taken");
}

#[tokio::test]
async fn a_refusal_of_too_many_streams_leaves_those_that_are_open() {
    let server = TestServer::with_config(|config| {
        config.transport.streams_per_connection_max = 2;
    })
    .await;
    let mut raw = RawHttp2::open(server.address()).await;
    for n in 0..3 {
        raw.send(&frame(kind::HEADERS, END_HEADERS, stream(n), &call(EDIT))).await.unwrap();
    }
    let refusal = loop {
        let frame = raw.next().await.expect("the connection stays");
        if frame.kind == kind::RST_STREAM {
            break frame;
        }
    };
    assert_eq!(refusal.stream, stream(2));
    assert_eq!(refusal.payload[..], 7_u32.to_be_bytes(), "REFUSED_STREAM: it may come again");
    raw.send(&frame(kind::DATA, 0, 1, &message(&up::join(join("notes"))))).await.unwrap();
    let answer = loop {
        let frame = raw.next().await.expect("the connection stays");
        if frame.kind == kind::DATA {
            break frame;
        }
    };
    assert_eq!(answer.stream, 1);
}
