//! Promise: whatever a client does wrong, it alone is refused, with a code and a stable reason; the
//! others of its document stay, keep what they have, and go on editing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use bytes::Bytes;
use cowrite_proto::v1::{
    Access, ClientFrame, ErrorReason, Join, PublishRequest, SubscribeRequest,
    collaboration_service_client::CollaborationServiceClient, server_frame::Frame as Down,
};
use cowrite_server::{shutdown::Tasks, time};
use cowrite_tests::{
    Door, Participant, RawSession, Refused, TestServer, join, join_as, pacemaker, refused,
    text_update, up,
};
use tonic::{Code, Status};
use yrs::{Text as _, WriteTxn as _};

/// What a client does wrong.
enum Deed {
    /// Joins in a way that is refused.
    Join(fn(&mut Join)),
    /// Joins as it should, and sends this.
    Send(fn() -> Vec<ClientFrame>),
    /// Joins as it should, and sends a message that the door cannot read: Edit ends with it, while
    /// Publish refuses the call alone.
    SendUnreadable(fn() -> Vec<ClientFrame>),
    /// Joins to read, and sends this.
    SendAsReader(fn() -> Vec<ClientFrame>),
    /// Sends this instead of a Join, which only Edit allows.
    SendFirst(fn() -> Vec<ClientFrame>),
}

/// An update that depends on one that is not sent.
fn incomplete_update() -> Bytes {
    let doc = yrs::Doc::new();
    let mut updates = ["a", "b"].map(|letter| {
        use yrs::Transact as _;
        let mut txn = doc.transact_mut();
        txn.get_or_insert_text("text").push(&mut txn, letter);
        Bytes::from(txn.encode_update_v1())
    });
    std::mem::take(&mut updates[1])
}

const CASES: &[(&str, Deed, Code, ErrorReason)] = {
    use Code::{Aborted, FailedPrecondition, InvalidArgument, PermissionDenied, ResourceExhausted};
    use Deed::{Join, Send, SendAsReader, SendFirst, SendUnreadable};
    use ErrorReason as R;
    &[
        (
            "a document id with a blank",
            Join(|join| join.document = "a b".to_owned()),
            InvalidArgument,
            R::BadDocumentId,
        ),
        (
            "an empty document id",
            Join(|join| join.document = String::new()),
            InvalidArgument,
            R::BadDocumentId,
        ),
        (
            "a document id that climbs",
            Join(|join| join.document = "../etc".to_owned()),
            InvalidArgument,
            R::BadDocumentId,
        ),
        (
            "a protocol version of the future",
            Join(|join| join.protocol_version = 2),
            InvalidArgument,
            R::UnsupportedProtocolVersion,
        ),
        (
            "no protocol version",
            Join(|join| join.protocol_version = 0),
            InvalidArgument,
            R::UnsupportedProtocolVersion,
        ),
        (
            "a state vector that promises more than it has",
            Join(|join| join.state_vector = Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f])),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "an epoch of five bytes",
            Join(|join| join.epoch = Bytes::from_static(&[1; 5])),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "an awareness client id of 54 bits",
            Join(|join| join.awareness_client_id = 1 << 53),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "an access that does not exist",
            Join(|join| join.access = 99),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "the epoch of another history",
            Join(|join| join.epoch = Bytes::from_static(&[9; 16])),
            FailedPrecondition,
            R::EpochMismatch,
        ),
        (
            "an update larger than the limit",
            Send(|| vec![up::update(1, vec![0; (1 << 20) + 1])]),
            ResourceExhausted,
            R::UpdateTooLarge,
        ),
        (
            "a message larger than the limit",
            SendUnreadable(|| (1..=5).map(|id| up::update(id, vec![0; 1 << 20])).collect()),
            Code::OutOfRange,
            R::MessageTooLarge,
        ),
        (
            "an update of noise",
            Send(|| vec![up::update(1, vec![0xff; 10])]),
            InvalidArgument,
            R::MalformedUpdate,
        ),
        (
            "an empty update",
            Send(|| vec![up::update(1, Bytes::new())]),
            InvalidArgument,
            R::MalformedUpdate,
        ),
        (
            "an update with something behind its end",
            Send(|| vec![up::update(1, [&text_update("x")[..], &[0]].concat())]),
            InvalidArgument,
            R::MalformedUpdate,
        ),
        (
            "an update whose beginning is missing",
            Send(|| vec![up::update(1, incomplete_update())]),
            Aborted,
            R::IncompleteUpdate,
        ),
        (
            "an update of somebody who may only read",
            SendAsReader(|| vec![up::update(1, text_update("x"))]),
            PermissionDenied,
            R::WriteDenied,
        ),
        (
            "a large and malformed update of somebody who may only read",
            SendAsReader(|| vec![up::update(1, vec![0xff; 2 << 20])]),
            PermissionDenied,
            R::WriteDenied,
        ),
        (
            "a second Join",
            Send(|| vec![up::join(join("elsewhere"))]),
            InvalidArgument,
            R::AlreadyJoined,
        ),
        (
            "an awareness state that is not JSON",
            Send(|| vec![up::awareness(&b"{\"user\""[..])]),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "an awareness state larger than the limit",
            Send(|| vec![up::awareness(format!("\"{}\"", "x".repeat(4095)))]),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "a frame of a kind that does not exist",
            SendUnreadable(|| vec![ClientFrame { frame: None }]),
            InvalidArgument,
            R::MalformedFrame,
        ),
        (
            "an update before the Join",
            SendFirst(|| vec![up::update(1, text_update("x"))]),
            InvalidArgument,
            R::NotJoined,
        ),
        ("a message without frames", SendFirst(Vec::new), InvalidArgument, R::NotJoined),
        ("a Leave before the Join", SendFirst(|| vec![up::leave()]), InvalidArgument, R::NotJoined),
    ]
};

fn expected(code: Code, reason: ErrorReason) -> Refused {
    let reason = reason.as_str_name().strip_prefix("ERROR_REASON_").unwrap().to_owned();
    Refused { code, reason, domain: "cowrite".to_owned() }
}

impl Deed {
    /// Does it, and returns how the stream ended; `None` where `door` has no such deed.
    async fn commit(
        &self,
        server: &TestServer,
        door: Door,
        document: &str,
    ) -> Option<(Vec<Down>, Status)> {
        let mut wish = join_as(document, 77);
        let frames = match self {
            Self::Join(change) => {
                change(&mut wish);
                let refusal = RawSession::open(server.channel(), door, wish).await;
                return Some((Vec::new(), refusal.expect_err("the join is refused")));
            }
            Self::SendFirst(_) if door == Door::Publish => return None,
            Self::SendFirst(frames) => {
                let mut session = RawSession::edit(server.channel()).await;
                session.send(frames()).await.unwrap();
                let (frames, status) = session.end().await;
                return Some((frames, status.expect("the stream is refused")));
            }
            Self::Send(frames) | Self::SendUnreadable(frames) => frames,
            Self::SendAsReader(frames) => {
                wish.access = Access::Read.into();
                frames
            }
        };
        let (mut session, _) = RawSession::open(server.channel(), door, wish).await.unwrap();
        let answer = session.send(frames()).await;
        let told = match &answer {
            Err(status) => Some(refused(status)),
            Ok(()) => None,
        };
        if matches!(self, Self::SendUnreadable(_)) && door == Door::Publish {
            session.send([up::leave()]).await.expect("the session goes on");
            assert!(session.end().await.1.is_none());
            return Some((Vec::new(), answer.expect_err("the call is refused")));
        }
        let (frames, status) = session.end().await;
        let status = status.expect("the session is ended");
        if let Some(told) = told {
            assert_eq!(told, refused(&status), "Publish and the stream say the same");
        }
        Some((frames, status))
    }
}

/// Two who were in the document before, and what they can do after.
struct Bystanders {
    document: String,
    writer: Participant,
    reader: Participant,
}

impl Bystanders {
    async fn gather(server: &TestServer, document: &str) -> Self {
        let mut writer = Participant::join(server, Door::Edit, document).await;
        let mut reader = Participant::join(server, Door::Publish, document).await;
        writer.type_text("safe").await;
        writer.wait_for_acks().await;
        reader.wait_for_text("safe").await;
        Self { document: document.to_owned(), writer, reader }
    }

    /// They are there, have what they had, and can edit; so has the server.
    async fn are_well(mut self, server: &TestServer) {
        self.writer.type_text(" and").await;
        self.reader.wait_for_text("safe and").await;
        self.reader.type_text(" sound").await;
        self.writer.wait_for_text("safe and sound").await;
        self.writer.wait_for_acks().await;
        self.reader.wait_for_acks().await;
        let mut newcomer = Participant::join(server, Door::Edit, &self.document).await;
        newcomer.wait_for_sync().await;
        assert_eq!(newcomer.text(), "safe and sound");
        assert!(self.writer.ended.is_none() && self.reader.ended.is_none());
    }
}

#[tokio::test]
async fn who_does_something_wrong_is_refused_with_a_reason_and_nobody_else_suffers() {
    let server = TestServer::start().await;
    for (number, (name, deed, code, reason)) in CASES.iter().enumerate() {
        for door in Door::ALL {
            let document = format!("refusals/{number}/{door:?}");
            let bystanders = Bystanders::gather(&server, &document).await;
            let Some((frames, status)) = deed.commit(&server, door, &document).await else {
                continue;
            };
            let mut expected = expected(*code, *reason);
            if *reason == ErrorReason::MessageTooLarge && door == Door::Publish {
                // By tonic, which knows the code and no reasons.
                (expected.reason, expected.domain) = Default::default();
            }
            assert_eq!(refused(&status), expected, "{name}, {door:?}: {status:?}");
            for frame in frames {
                if let Down::Closing(closing) = frame {
                    assert_eq!(closing.reason(), *reason, "{name}: the announcement of the end");
                }
            }
            bystanders.are_well(&server).await;
        }
    }
}

#[tokio::test]
async fn a_subscription_without_a_join_is_refused() {
    let server = TestServer::start().await;
    let mut client = CollaborationServiceClient::new(server.channel());
    let status = client.subscribe(SubscribeRequest { join: None }).await.unwrap_err();
    assert_eq!(refused(&status), expected(Code::InvalidArgument, ErrorReason::NotJoined));
}

#[tokio::test]
async fn frames_for_a_session_that_is_not_the_callers_are_refused() {
    let server = TestServer::start().await;
    let bystanders = Bystanders::gather(&server, "notes").await;
    let edit = RawSession::open(server.channel(), Door::Edit, join("notes")).await.unwrap();
    let opened = RawSession::open(server.channel(), Door::Publish, join("notes")).await.unwrap();
    let gone = RawSession::open(server.channel(), Door::Publish, join("notes")).await.unwrap();
    let (mut session, left) = gone;
    session.send([up::leave()]).await.unwrap();
    assert!(session.end().await.1.is_none());
    let mut client = CollaborationServiceClient::new(server.channel());
    for (id, secret) in [
        ("0000000000000000".to_owned(), opened.1.session_secret.clone()),
        ("not a session".to_owned(), opened.1.session_secret.clone()),
        (opened.1.session_id.clone(), Bytes::from_static(&[0; 16])),
        (opened.1.session_id.clone(), Bytes::new()),
        (opened.1.session_id.clone(), opened.1.session_secret.slice(..15)),
        (edit.1.session_id.clone(), Bytes::new()),
        (left.session_id, left.session_secret),
    ] {
        let frames = vec![up::update(1, text_update("forged"))];
        let request = PublishRequest { session_id: id.clone(), session_secret: secret, frames };
        let status = client.publish(request).await.expect_err(&id);
        assert_eq!(refused(&status), expected(Code::NotFound, ErrorReason::UnknownSession), "{id}");
    }
    // The session whose secret was guessed at is none the worse for it.
    let (mut session, _) = opened;
    session.send([up::leave()]).await.unwrap();
    assert!(session.end().await.1.is_none());
    bystanders.are_well(&server).await;
}

#[tokio::test]
async fn a_room_takes_as_many_sessions_as_it_may_and_no_more() {
    for door in Door::ALL {
        let server = TestServer::with_config(|config| config.room.sessions_max = 3).await;
        let bystanders = Bystanders::gather(&server, "notes").await;
        let third = RawSession::open(server.channel(), door, join("notes")).await.unwrap();
        let status = RawSession::open(server.channel(), door, join("notes")).await.unwrap_err();
        let reason = expected(Code::ResourceExhausted, ErrorReason::TooManySessions);
        assert_eq!(refused(&status), reason);
        let (mut session, _) = third;
        session.send([up::leave()]).await.unwrap();
        assert!(session.end().await.1.is_none());
        bystanders.are_well(&server).await;
    }
}

#[tokio::test]
async fn a_server_opens_as_many_documents_as_it_may_and_no_more() {
    for door in Door::ALL {
        let server = TestServer::with_config(|config| config.room.rooms_max = 1).await;
        let bystanders = Bystanders::gather(&server, "notes").await;
        let status = RawSession::open(server.channel(), door, join("other")).await.unwrap_err();
        let reason = expected(Code::ResourceExhausted, ErrorReason::TooManyRooms);
        assert_eq!(refused(&status), reason);
        bystanders.are_well(&server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_say_whom_it_joins_ends_after_join_timeout() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let opened = time::now();
    let mut session = RawSession::edit(server.channel()).await;
    let (frames, status) = session.end().await;
    let took = opened.elapsed();
    let reason = expected(Code::DeadlineExceeded, ErrorReason::JoinTimeout);
    assert_eq!(refused(&status.unwrap()), reason);
    assert!(matches!(&frames[..], [Down::Closing(_)]), "{frames:?}");
    let timeout = Duration::from_secs(10);
    assert!(took >= timeout && took < timeout + Duration::from_millis(100), "{took:?}");
    tasks.cancel();
}

#[tokio::test]
async fn an_update_that_makes_the_document_too_large_is_refused_and_the_session_goes_on() {
    let server = TestServer::with_config(|config| {
        config.session.update_bytes_max = 2048;
        config.room.document_bytes_max = 4096;
    })
    .await;
    for door in Door::ALL {
        let document = format!("{door:?}");
        let mut writer = Participant::join(&server, door, &document).await;
        let mut reader = Participant::join(&server, Door::Edit, &document).await;
        for _ in 0..3 {
            writer.type_text(&"x".repeat(1000)).await;
        }
        writer.wait_for_acks().await;
        writer.send_update(text_update(&"y".repeat(2000))).await.unwrap();
        writer.wait_until("a refusal", |p| !p.refused.is_empty()).await;
        let refused = &writer.refused[0];
        assert_eq!(refused.update_id, 4);
        assert_eq!(refused.reason(), ErrorReason::DocumentTooLarge);
        assert!(refused.retry_after.is_none(), "coming back does not help");
        writer.type_text("z").await;
        writer.wait_for_acks().await;
        let expected = "x".repeat(3000) + "z";
        reader.wait_for_text(&expected).await;
    }
    let metrics = server.metrics().encode().unwrap();
    let counted = "cowrite_room_refused_total{reason=\"document_too_large\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}
