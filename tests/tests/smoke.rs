//! tmp
use cowrite_tests::*;
#[tokio::test]
async fn smoke() {
    let server = TestServer::start().await;
    let mut alice = Participant::join(&server, Door::Edit, "notes").await;
    let mut bob = Participant::join(&server, Door::Publish, "notes").await;
    alice.type_text("Hello").await;
    bob.wait_for_text("Hello").await;
    let dir = tempfile::tempdir().unwrap();
    let p = ServerProcess::start(dir.path(), &[]).await;
    let mut a = Participant::open(channel(p.address()).await, Door::Edit, "x").await.unwrap();
    a.type_text("hi").await;
    a.wait_for_acks().await;
    p.kill().await;
}
