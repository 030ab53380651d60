//! Promise: what is taken back is gone within five seconds at every door, and nothing else is.
//!
//! In real time, because that is what is promised.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use cowrite_server::{app::Config, auth::Access};
use cowrite_tests::{AnyDoor, Farewell, Guest, Issuer, TestServer, eventually, jti, soon};
use humantime_serde::re::humantime;
use tempfile::TempDir;
use tokio::time::Instant;

/// What is promised.
const BOUND: Duration = Duration::from_secs(5);

/// A server with a list of revocations, and its configuration.
struct World {
    server: TestServer,
    issuer: Issuer,
    config: Config,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let (issuer, folder) = (Issuer::new(), TempDir::new().unwrap());
        fs::write(folder.path().join("revoked.toml"), "").unwrap();
        let mut config = Config::default();
        let server = TestServer::with_config(|settings| {
            issuer.configure(settings);
            settings.auth.revocations = folder.path().join("revoked.toml");
            config = settings.clone();
        })
        .await;
        Self { server, issuer, config, folder }
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("revoked.toml")
    }

    /// Replaces the list as one should: at once.
    fn revoke(&self, list: &str) {
        let new = self.folder.path().join("new.toml");
        fs::write(&new, list).unwrap();
        fs::rename(new, self.list()).unwrap();
    }

    async fn enter(&self, door: AnyDoor, token: &str) -> Result<Guest, Farewell> {
        Guest::enter(&self.server, door, token, "notes").await
    }

    /// Somebody at every door with a token of his own.
    async fn everywhere(&self, subject: &str) -> Vec<(AnyDoor, String, Guest)> {
        let mut guests = Vec::new();
        for door in AnyDoor::ALL {
            let token = self.issuer.token(subject, &[("notes", Access::Write)]);
            let guest = self.enter(door, &token).await.unwrap();
            guests.push((door, token, guest));
        }
        guests
    }

    fn entries(&self) -> i64 {
        self.server.metrics().auth.revocations.get()
    }
}

/// How each door says that somebody may come back with another token.
fn revoked(door: AnyDoor) -> Farewell {
    let text = "the token was revoked".to_owned();
    match door {
        AnyDoor::Edit | AnyDoor::Publish => Farewell::Status("TOKEN_REVOKED".to_owned()),
        AnyDoor::YWebSocket => Farewell::Close(1013, text),
        AnyDoor::Hocuspocus => Farewell::Denied(text),
    }
}

/// How each door says that a token is not valid.
fn unauthenticated(door: AnyDoor) -> Farewell {
    let text = "the credentials are not valid".to_owned();
    match door {
        AnyDoor::Edit | AnyDoor::Publish => Farewell::Status("UNAUTHENTICATED".to_owned()),
        AnyDoor::YWebSocket => Farewell::Close(4401, text),
        AnyDoor::Hocuspocus => Farewell::Denied(text),
    }
}

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[tokio::test]
async fn all_tokens_of_somebody_are_taken_back_everywhere_but_not_those_made_later() {
    let world = World::new().await;
    let alice = world.everywhere("alice").await;
    let bob = world.everywhere("bob").await;
    let before = seconds() + 1;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(before);
    let time = humantime::format_rfc3339_seconds(time);
    world.revoke(&format!("[[revoked]]\nsubject = 'alice'\nissued_before = {time}\n"));
    let from = Instant::now();
    let mut tokens = Vec::new();
    for (door, token, mut guest) in alice {
        assert_eq!(guest.end().await, revoked(door), "{door:?}");
        assert!(from.elapsed() < BOUND, "{door:?}: {:?}", from.elapsed());
        tokens.push((door, token));
    }
    for (door, token) in tokens {
        assert_eq!(world.enter(door, &token).await.unwrap_err(), unauthenticated(door), "{door:?}");
    }
    for (door, _, mut guest) in bob {
        assert_eq!(guest.write(1).await, Ok(true), "{door:?}");
    }
    eventually("the next second", || seconds() >= before).await;
    for (door, _, mut guest) in world.everywhere("alice").await {
        assert_eq!(guest.write(1).await, Ok(true), "{door:?}");
    }
}

#[tokio::test]
async fn one_token_is_taken_back_by_its_name_and_the_others_of_its_owner_are_not() {
    let world = World::new().await;
    let guests = world.everywhere("alice").await;
    let mut others = world.everywhere("alice").await;
    let list: String = guests
        .iter()
        .map(|(_, token, _)| format!("[[revoked]]\ntoken = '{}'\n", jti(token)))
        .collect();
    world.revoke(&list);
    let from = Instant::now();
    for (door, token, mut guest) in guests {
        assert_eq!(guest.end().await, revoked(door), "{door:?}");
        assert!(from.elapsed() < BOUND, "{door:?}: {:?}", from.elapsed());
        assert_eq!(world.enter(door, &token).await.unwrap_err(), unauthenticated(door), "{door:?}");
    }
    for (door, _, guest) in &mut others {
        assert_eq!(guest.write(1).await, Ok(true), "{door:?}");
    }
    // What is taken off the list counts again.
    let (_, token, _) = &others[0];
    world.revoke(&format!("[[revoked]]\ntoken = '{}'\n", jti(token)));
    eventually("the new list", || world.entries() == 1).await;
    assert_eq!(
        world.enter(AnyDoor::Edit, token).await.unwrap_err(),
        unauthenticated(AnyDoor::Edit)
    );
    world.revoke("");
    eventually("the empty list", || world.entries() == 0).await;
    assert!(world.enter(AnyDoor::Edit, token).await.is_ok());
}

#[tokio::test]
async fn a_new_token_that_was_taken_back_ends_the_session_that_is_shown_it() {
    let world = World::new().await;
    let taken_back = world.issuer.token("alice", &[("notes", Access::Write)]);
    world.revoke(&format!("[[revoked]]\ntoken = '{}'\n", jti(&taken_back)));
    eventually("the new list", || world.entries() == 1).await;
    for (door, _, mut guest) in world.everywhere("alice").await {
        if door != AnyDoor::YWebSocket {
            guest.show(&taken_back).await;
            assert_eq!(guest.end().await, unauthenticated(door), "{door:?}");
        }
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_used_leaves_the_one_before() {
    let world = World::new().await;
    let taken_back = world.issuer.token("alice", &[("notes", Access::Write)]);
    let list = format!("[[revoked]]\ntoken = '{}'\n", jti(&taken_back));
    world.revoke(&list);
    eventually("the new list", || world.entries() == 1).await;
    let mut guests = world.everywhere("bob").await;
    let failures = || world.server.metrics().auth.revocation_failures.get();
    for (count, broken) in [(1, "[[revoked]]\ntoken = 'x"), (2, "[[revoked]]\nuser = 'x'\n")] {
        world.revoke(broken);
        eventually("the failure", || failures() == count).await;
    }
    fs::remove_file(world.list()).unwrap();
    eventually("the failure", || failures() == 3).await;
    for door in AnyDoor::ALL {
        let refused = world.enter(door, &taken_back).await.unwrap_err();
        assert_eq!(refused, unauthenticated(door), "{door:?}");
    }
    for (door, _, guest) in &mut guests {
        assert_eq!(guest.write(1).await, Ok(true), "{door:?}");
    }
    world.revoke(&(list + "[[revoked]]\ntoken = 'another'\n"));
    eventually("a list that can be used", || world.entries() == 2).await;
}

#[tokio::test]
async fn a_key_that_is_taken_away_takes_its_sessions_with_it() {
    let world = World::new().await;
    let other = Issuer::new();
    let mut both = world.config.clone();
    both.auth.keys.push(cowrite_server::auth::KeyConfig {
        algorithm: cowrite_server::auth::Algorithm::HS256,
        file: other.secret().to_owned(),
        kid: String::new(),
    });
    let live = world.server.live();
    assert_eq!(live.reload(|| Ok(both.clone())).unwrap(), [""; 0]);
    let guests = world.everywhere("alice").await;
    let from = Instant::now();
    both.auth.keys.remove(0);
    live.reload(|| Ok(both)).unwrap();
    for (door, token, mut guest) in guests {
        assert_eq!(guest.end().await, revoked(door), "{door:?}");
        assert!(from.elapsed() < BOUND, "{door:?}: {:?}", from.elapsed());
        assert_eq!(world.enter(door, &token).await.unwrap_err(), unauthenticated(door), "{door:?}");
    }
}

#[tokio::test]
async fn a_token_that_expires_ends_its_session_in_time() {
    let world = World::new().await;
    let life = Duration::from_secs(2);
    for door in AnyDoor::ALL {
        let token = world.issuer.token_for(life, "alice", &[("notes", Access::Write)]);
        let (from, wall) = (Instant::now(), seconds());
        let mut guest = world.enter(door, &token).await.unwrap();
        let text = "the token has expired".to_owned();
        let expected = match door {
            AnyDoor::Edit | AnyDoor::Publish => Farewell::Status("TOKEN_EXPIRED".to_owned()),
            AnyDoor::YWebSocket => Farewell::Close(1013, text),
            AnyDoor::Hocuspocus => Farewell::Denied(text),
        };
        assert_eq!(guest.end().await, expected, "{door:?}");
        assert!(seconds() > wall, "{door:?}: too early");
        assert!(from.elapsed() < life + BOUND, "{door:?}: {:?}", from.elapsed());
    }
}

#[tokio::test]
async fn who_may_only_read_from_now_on_writes_no_more() {
    let world = World::new().await;
    let may_read = world.issuer.token("alice", &[("notes", Access::Read)]);
    for (door, token, mut guest) in world.everywhere("alice").await {
        assert_eq!(guest.write(1).await, Ok(true), "{door:?}");
        let from = Instant::now();
        if door == AnyDoor::YWebSocket {
            // It has no words for a new token: the old one is taken back, and it comes with the new.
            world.revoke(&format!("[[revoked]]\ntoken = '{}'\n", jti(&token)));
            assert_eq!(guest.end().await, revoked(door));
            guest = world.enter(door, &may_read).await.unwrap();
        } else {
            guest.show(&may_read).await;
        }
        let refused = match door {
            AnyDoor::Edit | AnyDoor::Publish => Err(Farewell::Status("WRITE_DENIED".to_owned())),
            AnyDoor::YWebSocket | AnyDoor::Hocuspocus => Ok(false),
        };
        assert_eq!(soon("the refusal", guest.write(2)).await, refused, "{door:?}");
        assert!(from.elapsed() < BOUND, "{door:?}: {:?}", from.elapsed());
    }
}
