//! Promise: what holds for every session holds for those behind a WebSocket: who may only read
//! changes nothing, and who does not read costs no more than his outbox.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use cowrite_server::{
    auth::{self, Authenticator},
    log::{MemoryLog, Quarantine},
    metrics::Metrics,
    room::{self, Registry},
    session::{
        self, Access, CloseReason, Delivery, Event, Frame, Inbound, Join, Outbox, RefuseReason,
        Rules, SessionId, Sessions,
    },
    shutdown::Tasks,
};
use cowrite_tests::{RawSocket, ServerProcess, TestServer, YClient, lib0, soon, text_update};
use tokio::sync::mpsc;
use yrs::{Doc, ReadTxn as _, Text as _, Transact as _};

/// Frames that a test sends.
struct Frames(mpsc::Receiver<Frame>);

impl Inbound for Frames {
    const WAITS: bool = true;

    async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
        let frame = self.0.recv().await?;
        Some(Ok(Delivery { frames: vec![frame], reply: None }))
    }
}

/// A session without a transport.
struct Session {
    frames: mpsc::Sender<Frame>,
    outbox: Arc<Outbox>,
}

impl Session {
    async fn open(sessions: &Sessions, access: Access) -> Self {
        let (frames, inbound) = mpsc::channel(16);
        let join = Join {
            protocol_version: session::PROTOCOL_VERSION,
            document: "notes".to_owned(),
            access: Some(access),
            rules: Rules::Yjs,
            ..Join::default()
        };
        frames.send(Frame::Join(Box::new(join))).await.unwrap();
        let (outbox, _) = sessions.open(SessionId::random(), Frames(inbound));
        Self { frames, outbox }
    }

    /// The next acknowledgement or refusal.
    async fn answer(&self) -> Result<u64, (u64, RefuseReason)> {
        soon("an answer", async {
            loop {
                let mut events = Vec::new();
                let end = poll_fn(|cx| self.outbox.poll_take(cx, &mut events)).await;
                assert_eq!(end, None, "the session goes on");
                for event in events {
                    match event {
                        Event::Ack { update_id, .. } => return Ok(update_id),
                        Event::Refused { update_id, reason } => return Err((update_id, reason)),
                        _ => {}
                    }
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_reader_is_refused_what_is_new_and_acknowledged_what_is_not() {
    let (metrics, tasks) = (Metrics::new(), Tasks::new());
    let log = Arc::new(MemoryLog::new(metrics.log.clone()));
    let config = room::Config::default();
    let registry =
        Registry::new(config, log, Quarantine::in_memory(), metrics.room.clone(), tasks.clone());
    let sessions = Sessions::new(
        session::Config::default(),
        registry,
        Authenticator::new(&auth::Config::default(), metrics.auth.clone()).unwrap(),
        metrics.session.clone(),
        tasks.clone(),
    );
    let doc = Doc::new();
    let text = doc.get_or_insert_text("text");
    let edit = |change: &dyn Fn(&mut yrs::TransactionMut<'_>)| {
        let mut txn = doc.transact_mut();
        change(&mut txn);
        Bytes::from(txn.encode_update_v1())
    };
    let typed = edit(&|txn| text.insert(txn, 0, "hello"));
    let removed = edit(&|txn| text.remove_range(txn, 0, 2));
    let writer = Session::open(&sessions, Access::Write).await;
    for (update_id, update) in [(1, typed), (2, removed)] {
        writer.frames.send(Frame::Update { update_id, update }).await.unwrap();
        assert_eq!(writer.answer().await, Ok(update_id));
    }
    // What a provider answers: the deletions of the whole document, and nothing else.
    let state_vector = doc.transact().state_vector();
    let same = Bytes::from(doc.transact().encode_diff_v1(&state_vector));
    assert!(same.len() > 2);
    let reader = Session::open(&sessions, Access::Read).await;
    let send = async |frame| reader.frames.send(frame).await.unwrap();
    send(Frame::Difference { update_id: 1, update: same.clone() }).await;
    assert_eq!(reader.answer().await, Ok(1));
    send(Frame::Update { update_id: 2, update: text_update("x") }).await;
    assert_eq!(reader.answer().await, Err((2, RefuseReason::WriteDenied)));
    send(Frame::Difference { update_id: 3, update: text_update("y") }).await;
    assert_eq!(reader.answer().await, Err((3, RefuseReason::WriteDenied)));
    let deletion = edit(&|txn| text.remove_range(txn, 0, 1));
    send(Frame::Update { update_id: 4, update: deletion }).await;
    assert_eq!(reader.answer().await, Err((4, RefuseReason::WriteDenied)));
    // A writer that brings nothing adds nothing to the log.
    let records = metrics.room.updates.get();
    writer.frames.send(Frame::Difference { update_id: 3, update: same }).await.unwrap();
    assert_eq!(writer.answer().await, Ok(3));
    assert_eq!(metrics.room.updates.get(), records);
    drop((writer, reader));
    tasks.cancel();
    soon("the tasks end", tasks.wait()).await;
}

#[tokio::test]
async fn a_socket_that_is_not_read_holds_no_more_than_its_outbox_and_catches_up() {
    let server = TestServer::start().await;
    let metrics = server.metrics();
    let mut slow = YClient::open(server.address(), "notes").await;
    slow.wait_for_sync().await;
    let mut writer = YClient::open(server.address(), "notes").await;
    writer.wait_for_sync().await;
    // More than the buffers of both sockets take, and those of the outbox.
    let mut sent = 0;
    soon("the session lags", async {
        while metrics.room.lagging.get() == 0 {
            writer.type_text(&"0123456789".repeat(5_000)).await;
            sent += 50_000;
            assert!(sent < 64 << 20, "somebody holds it all");
            tokio::task::yield_now().await;
        }
    })
    .await;
    writer.type_text("the end").await;
    let text = writer.text();
    slow.wait_for_text(&text).await;
}

#[tokio::test]
async fn an_idle_websocket_session_costs_few_kilobytes() {
    let data = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(data.path(), &[]).await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let open = async |count: u32| {
        let mut sockets = Vec::new();
        for i in 0..count {
            let path = format!("/yjs/notes/{}", i % 10);
            let mut socket = RawSocket::open(server.address(), &path, &[]).await.unwrap();
            socket.send_bytes(lib0::message(&[0, 0], &[0])).await;
            while socket.message().await[..2] != [0, 1] {}
            sockets.push(socket);
        }
        sockets
    };
    let first = open(200).await;
    let before = resident();
    let rest = open(1000).await;
    let each = (resident() - before) as f64 / 1000.0;
    // About 10: the buckets of what it may send are 0.4 of them.
    assert!(each < 11.0, "{each} KiB");
    drop((first, rest));
    tokio::time::timeout(Duration::from_secs(5), server.kill()).await.unwrap();
}
