//! Support for the tests of Cowrite: one file in `tests/` for each promise.
//!
//! A test starts a server of its own on a free port of the loopback device, brings participants in,
//! and waits for conditions, never for a while. A wait that is never fulfilled fails after
//! [`PATIENCE`] with what was there instead.
//!
//! ```no_run
//! use cowrite_tests::{Door, Participant, TestServer};
//!
//! # async fn example() {
//! let server = TestServer::start().await;
//! let mut alice = Participant::join(&server, Door::Edit, "notes").await;
//! let mut bob = Participant::join(&server, Door::Publish, "notes").await;
//! alice.type_text("Hello").await;
//! bob.wait_for_text("Hello").await;
//! # }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "support for tests: whatever goes wrong here has to fail a test"
)]

mod authority;
mod content;
mod faults;
mod guest;
mod hocuspocus;
mod hostile;
mod http1;
pub mod http2;
mod issuer;
mod key_server;
mod participant;
pub mod parts;
mod process;
mod proxy;
mod raw;
mod server;
mod settings;
mod websocket;

use std::time::Duration;

pub use crate::{
    authority::{Authority, Issued},
    content::{assert_converged, content},
    faults::FaultyLog,
    guest::{AnyDoor, Farewell, Guest},
    hocuspocus::{HClient, HDocument, addressed},
    hostile::{Attack, Hostile},
    http1::{GrpcWebPart, GrpcWebStream, HttpAnswer, http_get, http_request},
    issuer::{Issuer, jti},
    key_server::{Answer, KeyServer, SigningKey},
    participant::{Participant, text_update, text_update_of},
    process::{ServerProcess, cowrite},
    proxy::ChaosProxy,
    raw::{Door, RawSession, Refused, channel, join, join_as, refused, up},
    server::TestServer,
    settings::{pacemaker, seeds, setting},
    websocket::{Lib0, RawSocket, Told, UpgradeRefused, YClient, lib0},
};

/// How long a test waits for something that has to happen: far longer than it ever takes, so that
/// only a broken promise gets there.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `work`, at most for [`PATIENCE`].
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Waits until `condition` holds, which nothing announces: it is asked again and again.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
