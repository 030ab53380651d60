//! Promise: a connection that is not used is not kept. Whoever connects and says nothing, or says it a
//! byte at a time, holds no place for long; and one address does not take the places of all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{net::SocketAddr, time::Duration};

use cowrite_server::{metrics::ReasonLabels, shutdown::Tasks};
use cowrite_tests::{
    Door, Participant, RawSession, ServerProcess, TestServer, YClient, channel, eventually,
    http_get,
    http2::{self, RawHttp2, call, connect_from, frame, kind},
    join, pacemaker, soon,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

const PUBLISH: &str = "/cowrite.v1.CollaborationService/Publish";

/// Reads until the server ends the connection; when that was.
async fn until_closed(socket: &mut TcpStream, start: Instant) -> Duration {
    let mut bytes = [0; 1024];
    // An error is an end too.
    soon("the end of the connection", async {
        while let Ok(1..) = socket.read(&mut bytes).await {}
    })
    .await;
    start.elapsed()
}

fn about(took: Duration, seconds: u64) {
    let most = Duration::from_secs(seconds) + Duration::from_millis(500);
    assert!(took >= Duration::from_secs(seconds) && took <= most, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_finish_its_preface_is_closed_in_time() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    for begun in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let start = Instant::now();
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(begun).await.unwrap();
        about(until_closed(&mut socket, start).await, 5);
    }
    assert_eq!(server.metrics().transport.silent.get(), 3);
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_comes_byte_by_byte_has_no_longer_than_one_that_does_not_come() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let start = Instant::now();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    for byte in http2::PREFACE {
        // It may have been closed.
        socket.write_all(&[*byte]).await.ok();
        sleep(Duration::from_secs(1)).await;
    }
    let mut bytes = [0; 1024];
    let read = soon("the end of the connection", socket.read(&mut bytes)).await;
    assert!(!matches!(read, Ok(1..)), "{:?}", start.elapsed());
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_head_of_http_1_that_comes_byte_by_byte_is_not_waited_for() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let start = Instant::now();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let trickle = async {
        for byte in b"GET / HTTP/1.1\r\nhost: cowrite\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            writer.write_all(&[*byte]).await.ok();
            sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut bytes = Vec::new();
    tokio::select! {
        () = trickle => {}
        _ = soon("the end of the connection", reader.read_to_end(&mut bytes)) => {}
    }
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    // And one that is kept alive is not kept for ever.
    let start = Instant::now();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: cowrite\r\n\r\n").await.unwrap();
    let took = until_closed(&mut socket, start).await;
    assert!(took < Duration::from_secs(7), "{took:?}");
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_without_streams_is_told_to_go_and_one_with_a_stream_stays() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::with_config(|config| {
        // Nobody answers pings here.
        config.transport.keepalive_interval = Duration::from_secs(3600);
        config.transport.idle_timeout = Duration::from_secs(10);
    })
    .await;
    let quiet = channel(server.address()).await;
    let mut reader = Participant::open(quiet, Door::Edit, "notes").await.unwrap();
    reader.wait_for_sync().await;
    let mut socket = YClient::open(server.address(), "notes").await;
    socket.wait_for_sync().await;
    let start = Instant::now();
    let mut idle = RawHttp2::open(server.address()).await;
    let goaway = loop {
        let frame = idle.next().await.expect("a word before the end");
        if frame.kind == kind::GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.payload[4..8], [0; 4], "without an error");
    about(start.elapsed(), 10);
    // The server asks whether that has arrived, and then closes.
    while let Some(frame) = idle.next().await {
        if frame.kind == kind::PING {
            let pong = http2::frame(kind::PING, http2::ACK, 0, &frame.payload);
            idle.send(&pong).await.unwrap();
        }
    }
    sleep(Duration::from_secs(25)).await;
    assert!(server.metrics().transport.idle.get() >= 1);
    // On the stream and the socket of the beginning.
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    writer.type_text("still here").await;
    reader.wait_for_text("still here").await;
    socket.wait_for_text("still here").await;
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_byte_by_byte_is_given_up_and_a_stream_is_not() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::with_config(|config| {
        config.transport.request_timeout = Duration::from_secs(10);
        config.transport.keepalive_interval = Duration::from_secs(3600);
    })
    .await;
    let (mut editor, _) =
        RawSession::open(server.channel(), Door::Edit, join("notes")).await.unwrap();
    // HTTP/2, natively.
    let start = Instant::now();
    let mut slow = RawHttp2::open(server.address()).await;
    let headers = frame(kind::HEADERS, http2::END_HEADERS, 1, &call(PUBLISH));
    slow.send(&headers).await.unwrap();
    slow.send(&frame(kind::DATA, 0, 1, &[0, 0, 0, 1, 0])).await.unwrap();
    let (mut writer, mut reader) = slow.split();
    let trickle = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            writer.write_all(&frame(kind::DATA, 0, 1, &[0])).await.ok();
        }
    };
    let answered = async {
        let mut told = Vec::new();
        // The status is in the headers of the answer, or in a reset of the stream.
        while !has_answer(&told) {
            let count = reader.read_buf(&mut told).await.unwrap();
            assert!(count > 0, "the connection ended");
        }
    };
    tokio::select! {
        () = trickle => {}
        () = soon("an answer", answered) => {}
    }
    about(start.elapsed(), 10);
    // HTTP/1, gRPC-Web.
    let start = Instant::now();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST {PUBLISH} HTTP/1.1\r\nhost: cowrite\r\ncontent-type: application/grpc-web+proto\r\n\
         content-length: 100000\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let trickle = async {
        loop {
            writer.write_all(&[0]).await.ok();
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut told = [0; 1024];
    tokio::select! {
        () = trickle => {}
        _ = soon("an answer", reader.read(&mut told)) => {}
    }
    about(start.elapsed(), 10);
    // The editor's request has been open all the time.
    editor.send([cowrite_tests::up::leave()]).await.unwrap();
    assert!(editor.end().await.1.is_none());
    tasks.cancel();
}

/// Whether there is a HEADERS or RST_STREAM frame of stream 1 among these.
fn has_answer(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let is_answer = [kind::HEADERS, kind::RST_STREAM].contains(&head[3]) && head[8] == 1;
        if is_answer {
            return true;
        }
        match rest.get(length..) {
            Some(next) => bytes = next,
            None => return false,
        }
    }
    false
}

/// Whether the server serves on this connection.
async fn is_served(socket: &mut TcpStream) -> bool {
    let asked = socket.write_all(b"GET /livez HTTP/1.1\r\nhost: cowrite\r\n\r\n").await;
    let mut answer = [0; 12];
    asked.is_ok()
        && soon("an answer or the end", socket.read_exact(&mut answer)).await.is_ok()
        && answer == *b"HTTP/1.1 200"
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_it_may_and_others_have_theirs() {
    let server =
        TestServer::with_config(|config| config.transport.connections_per_address_max = 3).await;
    let refused = |reason| {
        let refused = &server.metrics().transport.refused;
        refused.get_or_create(&ReasonLabels { reason }).get()
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut socket = connect_from("127.0.0.2", server.address()).await;
        assert!(is_served(&mut socket).await);
        open.push(socket);
    }
    let mut fourth = connect_from("127.0.0.2", server.address()).await;
    assert!(!is_served(&mut fourth).await);
    assert_eq!((refused("address"), refused("all")), (1, 0));
    // Another address, and the one from which any number may come.
    assert!(is_served(&mut connect_from("127.0.0.3", server.address()).await).await);
    for _ in 0..10 {
        let mut socket = connect_from("127.0.0.1", server.address()).await;
        assert!(is_served(&mut socket).await);
        open.push(socket);
    }
    // A place is free again when a connection ends.
    drop(open);
    let connections = &server.metrics().transport.connections;
    eventually("the connections to end", || connections.get() <= 1).await;
    assert!(is_served(&mut connect_from("127.0.0.2", server.address()).await).await);
}

#[tokio::test]
async fn a_server_that_has_run_out_of_file_descriptors_recovers() {
    let data = tempfile::tempdir().unwrap();
    let limited = ["bash", "-c", "ulimit -n 100 && exec \"$@\"", "_"];
    let server = ServerProcess::wrapped(&limited, data.path(), &[]).await;
    let address: SocketAddr = server.address();
    let mut flood = Vec::new();
    for _ in 0..300 {
        // The queue of the listener takes those for which there is no descriptor.
        let socket = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address));
        flood.push(socket.await);
    }
    drop(flood);
    assert_eq!(http_get(address, "/livez").await.status, 200);
}
