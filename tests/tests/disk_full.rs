//! Promise: when the disk is full, reading goes on, nothing that was acknowledged is lost, and
//! writing goes on by itself when there is room again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use cowrite_proto::v1::{Access, ErrorReason};
use cowrite_tests::{
    Door, Participant, RawSession, ServerProcess, channel, http_get, join, refused, soon,
};
use tonic::Code;

/// Makes a small file system at `$0` that only the server sees, and becomes the server.
const IN_SMALL_DISK: &str = r#"mount -t tmpfs -o size=8m cowrite "$0" && exec "$@""#;

/// Whether the server took an update in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    Refused,
}

/// Sends an update, and comes back with it for as long as the session is lost.
async fn offer(
    mut writer: Participant,
    server: &ServerProcess,
    update: &Bytes,
) -> (Participant, Taken) {
    soon("an answer to an update", async {
        loop {
            // A session that has ended says so when it is read.
            let id = writer.send_update(update.clone()).await.unwrap_or(u64::MAX);
            let refusals = writer.refused.len();
            while writer.ended.is_none() && writer.acked < id && writer.refused.len() == refusals {
                writer.step().await;
            }
            if writer.acked >= id {
                return (writer, Taken::Yes);
            }
            if let Some(refusal) = writer.refused.get(refusals) {
                assert_eq!(refusal.reason(), ErrorReason::LogFull);
                assert!(refusal.retry_after.is_some(), "trying again may help");
                return (writer, Taken::Refused);
            }
            let status = writer.ended.clone().unwrap().expect("a reason to end");
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            let connection = channel(server.address()).await;
            writer = writer.come_back(connection, Door::Edit, "notes", 0).await.unwrap();
        }
    })
    .await
}

/// Fills the disk to its last byte.
fn fill(filler: &Path) {
    let mut file = fs::File::create(filler).expect("the disk of the server can be seen");
    let mut part = vec![1; 64 << 10];
    while !part.is_empty() {
        if file.write_all(&part).is_err() {
            part.truncate(part.len() / 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_loses_nothing_and_recovers_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().to_str().unwrap();
    let wrapper = ["unshare", "-rm", "sh", "-c", IN_SMALL_DISK, disk];
    let settings = [("LOG__SEGMENT_BYTES", "1048576"), ("ROOM__CHECKPOINT_UPDATES", "100000")];
    let data = directory.path().join("data");
    let server = ServerProcess::try_start(&wrapper, &data, &settings).await;
    let server = server.unwrap_or_else(|error| {
        panic!("this test needs a mount of its own; is `unshare -rm` permitted? {error}")
    });
    // Its files as it sees them.
    let seen = PathBuf::from(format!("/proc/{}/root{disk}", server.id()));
    let connection = channel(server.address()).await;
    let mut writer = Participant::open(connection.clone(), Door::Edit, "notes").await.unwrap();
    writer.type_text("before|").await;
    writer.wait_for_acks().await;
    let filler = seen.join("filler");
    fill(&filler);

    // What is preallocated still takes some; then it is over.
    let mut refused_update = None;
    for i in 0..200 {
        let update = writer.append_unsent(&format!("{i}:{}|", "x".repeat(20_000)));
        let (returned, taken) = offer(writer, &server, &update).await;
        writer = returned;
        if taken == Taken::Refused {
            refused_update = Some(update);
            break;
        }
    }
    let refused_update = refused_update.expect("a disk of 8 MiB does not take 4 MB and a filler");
    let stored = {
        let text = writer.text();
        let last = text.trim_end_matches('|').rfind('|').unwrap();
        text[..=last].to_owned()
    };

    // Reading goes on, also for those who come now; a document that does not exist cannot be made.
    for (door, access) in [(Door::Edit, Access::Read), (Door::Publish, Access::Unspecified)] {
        let wish = cowrite_proto::v1::Join { access: access.into(), ..join("notes") };
        let reader = Participant::open_with(connection.clone(), door, wish, yrs::Doc::new()).await;
        let mut reader = reader.unwrap();
        reader.wait_for_sync().await;
        assert_eq!(reader.text().len(), stored.len());
        assert_eq!(reader.text(), stored, "all that was acknowledged, and nothing else");
    }
    let status = RawSession::open(connection.clone(), Door::Edit, join("new")).await.unwrap_err();
    let refusal = refused(&status);
    assert_eq!((refusal.code, &refusal.reason[..]), (Code::ResourceExhausted, "LOG_FULL"));
    assert_eq!(http_get(server.admin(), "/readyz").await.status, 200, "readers are welcome");
    let metrics = http_get(server.admin(), "/metrics").await.text();
    assert!(metrics.lines().any(|line| line == "cowrite_log_writable 0"), "{metrics}");

    // There is room again.
    fs::remove_file(&filler).unwrap();
    let mut writer = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let (returned, taken) = offer(writer, &server, &refused_update).await;
            writer = returned;
            if taken == Taken::Yes {
                break writer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the server is writable again within a few seconds");
    writer.type_text("after").await;
    writer.wait_for_acks().await;
    let mut reader = Participant::open(connection.clone(), Door::Edit, "notes").await.unwrap();
    reader.wait_for_text(&writer.text()).await;
    let mut new = Participant::open(connection, Door::Edit, "new").await.unwrap();
    new.type_text("possible again").await;
    new.wait_for_acks().await;
}
