//! Promise: on SIGHUP a changed configuration counts as far as it can, without a restart; and one that
//! cannot be used changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cowrite_proto::v1::{Join, server_frame::Frame as Down};
use cowrite_server::auth::Access;
use cowrite_tests::{
    Authority, Door, Issuer, RawSession, RawSocket, ServerProcess, channel, eventually, http_get,
    http_request, join, refused, soon, text_update, up,
};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;

const A: &str = "https://a.example";
const B: &str = "https://b.example";

/// A server with a configuration file.
struct World {
    folder: TempDir,
    server: ServerProcess,
}

/// What is in a configuration file.
struct Settings<'a> {
    issuer: &'a Issuer,
    origin: &'a str,
    filter: &'a str,
    more: &'a str,
}

impl Settings<'_> {
    fn text(&self) -> String {
        let Self { issuer, origin, filter, more } = self;
        format!(
            "[auth]\nmode = 'jwt'\nissuer = 'https://issuer.example'\naudience = 'cowrite-tests'\n\
             leeway = '0s'\nkeys = [{{ algorithm = 'HS256', file = '{}' }}]\n\
             [telemetry]\nfilter = '{filter}'\n[transport]\nallowed_origins = ['{origin}']\n{more}",
            issuer.secret().display()
        )
    }
}

impl World {
    async fn start(settings: &Settings<'_>) -> Self {
        let folder = TempDir::new().unwrap();
        let file = file(&folder);
        fs::write(&file, settings.text()).unwrap();
        let data = folder.path().join("data");
        let server = ServerProcess::start(&data, &[("CONFIG", file.to_str().unwrap())]).await;
        Self { folder, server }
    }

    /// Changes the file, tells the server, and waits for what it says.
    async fn hang_up(&self, text: &str, says: &str) {
        fs::write(file(&self.folder), text).unwrap();
        let before = self.server.said().matches(says).count();
        self.server.signal("HUP").await;
        eventually(says, || self.server.said().matches(says).count() > before).await;
    }

    async fn open(&self, token: String) -> Result<RawSession, String> {
        let join = Join { token, ..join("notes") };
        let channel = channel(self.server.address()).await;
        let opened = RawSession::open(channel, Door::Edit, join).await;
        opened.map(|(session, _)| session).map_err(|status| refused(&status).reason)
    }

    /// Whether a page of this origin gets through both doors for browsers.
    async fn allows(&self, origin: &str) -> bool {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        let path = "/cowrite.v1.CollaborationService/Subscribe";
        let answer = http_request(self.server.address(), "OPTIONS", path, &headers, b"").await;
        let web = answer.headers.get("access-control-allow-origin").map(String::as_str);
        let headers = [("origin", origin)];
        let socket = RawSocket::open(self.server.address(), "/yjs/notes", &headers).await;
        assert_eq!(web == Some(origin), socket.is_ok(), "both doors say the same");
        socket.is_ok()
    }

    async fn metric(&self, line: &str) -> bool {
        let text = http_get(self.server.admin(), "/metrics").await.text();
        text.lines().any(|found| found == line)
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("cowrite.toml")
}

fn token(issuer: &Issuer) -> String {
    issuer.token("alice", &[("notes", Access::Write)])
}

async fn write(session: &mut RawSession, update_id: u64) {
    session.send([up::update(update_id, text_update("x"))]).await.unwrap();
    let acked = |frame: &Down| matches!(frame, Down::Ack(ack) if ack.update_id == update_id);
    while !acked(&session.next().await.unwrap().unwrap()) {}
}

#[tokio::test]
async fn what_can_change_counts_at_once_and_the_rest_is_named() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let before = Settings { issuer: &old, origin: A, filter: "info", more: "" };
    let world = World::start(&before).await;
    let mut let_in = world.open(token(&old)).await.unwrap();
    write(&mut let_in, 1).await;
    assert_eq!((world.allows(A).await, world.allows(B).await), (true, false));
    world.open(token(&new)).await.unwrap_err();
    assert!(!world.server.said().contains("token refused"), "that is a line of level debug");

    let after = Settings {
        issuer: &new,
        origin: B,
        filter: "info,cowrite_server::auth=debug",
        more: "[room]\nrooms_max = 77\n[session]\nheartbeat_interval = '7s'\n",
    };
    let says = "needs a restart: room.rooms_max, session.heartbeat_interval";
    world.hang_up(&after.text(), says).await;
    let (_, status) = let_in.end().await;
    assert_eq!(refused(&status.unwrap()).reason, "TOKEN_REVOKED");
    assert_eq!(world.open(token(&old)).await.unwrap_err(), "UNAUTHENTICATED");
    assert!(world.server.said().contains("token refused"), "{}", world.server.said());
    let mut session = world.open(token(&new)).await.unwrap();
    write(&mut session, 1).await;
    assert_eq!((world.allows(A).await, world.allows(B).await), (false, true));
    assert!(world.metric("cowrite_config_reloads_total{result=\"ok\"} 1").await);

    // The same once more: nothing has changed, and nobody notices.
    world.hang_up(&after.text(), says).await;
    write(&mut session, 2).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let before = Settings { issuer: &old, origin: A, filter: "info", more: "" };
    let world = World::start(&before).await;
    let mut session = world.open(token(&old)).await.unwrap();
    let after = Settings { issuer: &new, origin: B, ..before };
    let good = after.text();
    let cases = [
        (format!("{good}["), "is not TOML"),
        (format!("{good}[rooms]\nmax = 1\n"), "rooms"),
        (format!("{good}[room]\nsessions_max = 0\n"), "room.sessions_max"),
        (good.replace("'info'", "'=,='"), "telemetry.filter"),
        (good.replace("keys = [", "keys = [{ algorithm = 'RS256', file = 'x/y' }, "), "x/y"),
        (good.replace("leeway", "revocations = 'x/z'\nleeway"), "x/z"),
        (good.replace("leeway", "jwks_url = 'http://a.example/'\nleeway"), "auth.jwks_url"),
        (format!("{good}[transport.tls]\ncertificate = 'x/c'\nkey = 'x/k'\n"), "x/c"),
        // Whoever asks for tokens goes on asking, and needs an issuer.
        ("[telemetry]\nfilter = 'trace'\n".to_owned(), "auth.issuer"),
    ];
    for (index, (text, part)) in cases.iter().enumerate() {
        world.hang_up(text, "everything stays as it was").await;
        let said = world.server.said();
        let line = said.lines().rfind(|line| line.contains("stays as it was")).unwrap();
        assert!(line.contains(part), "{part} is not in {line}");
        let failed = format!("cowrite_config_reloads_total{{result=\"failed\"}} {}", index + 1);
        assert!(world.metric(&failed).await, "{failed}");
        write(&mut session, index as u64 + 1).await;
        assert!(world.open(token(&old)).await.is_ok(), "{part}");
        assert_eq!(world.open(token(&new)).await.unwrap_err(), "UNAUTHENTICATED", "{part}");
        assert_eq!((world.allows(A).await, world.allows(B).await), (true, false), "{part}");
    }
    fs::remove_file(file(&world.folder)).unwrap();
    world.server.signal("HUP").await;
    let count = || world.server.said().matches("stays as it was").count();
    eventually("the file to be missed", || count() == cases.len() + 1).await;
    world.hang_up(&before.text(), "the configuration was read anew").await;
    write(&mut session, 100).await;
}

#[tokio::test]
async fn tls_is_turned_on_and_finds_other_files_while_streams_go_on() {
    let issuer = Issuer::new();
    let (one, two) = (Authority::new(), Authority::new());
    let settings = Settings { issuer: &issuer, origin: A, filter: "info", more: "" };
    let world = World::start(&settings).await;
    let mut session = world.open(token(&issuer)).await.unwrap();
    for (round, authority) in [&one, &two].into_iter().enumerate() {
        let issued = authority.issue("server");
        let path = |path: &Path| path.display().to_string();
        let more = format!(
            "[transport.tls]\ncertificate = '{}'\nkey = '{}'\n",
            path(&issued.certificate),
            path(&issued.key)
        );
        let text = Settings { more: &more, ..settings }.text();
        world.hang_up(&text, "the configuration was read anew").await;
        for (client, trusts) in [(&one, round == 0), (&two, round == 1)] {
            let socket = TcpStream::connect(world.server.address()).await.unwrap();
            let name = ServerName::from(world.server.address().ip());
            let connected = client.client(&["h2"], None).connect(name, socket);
            assert_eq!(soon("a handshake", connected).await.is_ok(), trusts, "{round}");
        }
        // Without TLS nobody new is served, and who was is still.
        write(&mut session, round as u64 + 1).await;
    }
    world.hang_up(&settings.text(), "the configuration was read anew").await;
    assert!(world.open(token(&issuer)).await.is_ok(), "without TLS again");
    write(&mut session, 9).await;
}
