//! Promise: hostile bytes harm nobody. Somebody who may write in one document sends everything that
//! harms a careless server, a thousand times a second; the honest notice nothing, in that document and
//! in others, and nothing that was acknowledged to them is lost.
//!
//! `COWRITE_HOSTILE_SECONDS` says for how long (4). How long the honest waited for acknowledgements
//! without and with the attack is printed, and asserted where `COWRITE_HOSTILE_P99_RATIO`, in per cent,
//! is set: for `make soak`, which has the processors for itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test fails where something is not as it should be"
)]

use std::{path::Path, time::Duration};

use cowrite_proto::v1::Join;
use cowrite_server::auth::Access;
use cowrite_tests::{
    Door, Hostile, Issuer, Participant, ServerProcess, channel, http_get, join, setting, soon,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

/// The document that is attacked, and another one.
const DOCUMENTS: [&str; 2] = ["shared/notes", "shared/other"];

/// The honest in each document.
const HONEST: usize = 10;

/// Attackers, who share the messages.
const ATTACKERS: u32 = 20;

/// Messages of all attackers in a second.
const MESSAGES_PER_SECOND: u32 = 1000;

/// How often each of the honest types.
const PAUSE: Duration = Duration::from_millis(100);

struct Honest {
    participant: Participant,
    words: Vec<String>,
    waited: Vec<Duration>,
}

impl Honest {
    async fn join(server: &ServerProcess, issuer: &Issuer, document: &str, n: usize) -> Self {
        let token = issuer.token(&format!("honest-{n}"), &[(document, Access::Write)]);
        let (id, doc) = (100 + n as u64, yrs::Doc::with_client_id(100 + n as u64));
        let wish = Join { token, awareness_client_id: id, ..join(document) };
        let channel = channel(server.address()).await;
        let joined = Participant::open_with(channel, Door::Edit, wish, doc).await;
        let mut participant = joined.expect("the honest are let in");
        participant.wait_for_sync().await;
        Self { participant, words: Vec::new(), waited: Vec::new() }
    }

    /// Types until `end`, and waits for each acknowledgement.
    async fn work(mut self, n: usize, end: Instant) -> Self {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < end {
            // What comes meanwhile is taken, as an editor does it.
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    let word = format!("<{n}.{}>", self.words.len());
                    let sent = Instant::now();
                    self.participant.type_text(&word).await;
                    self.participant.wait_for_acks().await;
                    self.waited.push(sent.elapsed());
                    self.words.push(word);
                }
                () = self.participant.step() => {}
            }
        }
        self
    }
}

/// All work until `end`.
async fn work(honest: Vec<Honest>, end: Instant) -> Vec<Honest> {
    let mut working = JoinSet::new();
    for (n, honest) in honest.into_iter().enumerate() {
        working.spawn(async move { (n, honest.work(n, end).await) });
    }
    let mut done = working.join_all().await;
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, honest)| honest).collect()
}

/// The time that 99 of 100 acknowledgements took at most, of those since the last time.
fn p99(honest: &mut [Honest]) -> Duration {
    let mut waited: Vec<_> =
        honest.iter_mut().flat_map(|honest| std::mem::take(&mut honest.waited)).collect();
    waited.sort_unstable();
    waited[waited.len() * 99 / 100]
}

/// Attacks until `end`; returns how many messages were sent.
async fn attack(server: &ServerProcess, issuer: &Issuer, victim: u64, end: Instant) -> u64 {
    let mut attacking = JoinSet::new();
    for n in 0..ATTACKERS {
        let token = |access| issuer.token(&format!("mallory-{n}"), &[(DOCUMENTS[0], access)]);
        let tokens = [token(Access::Write), token(Access::Read)];
        let mut hostile = Hostile::new(server.address(), DOCUMENTS[0], tokens, victim).await;
        attacking.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) * ATTACKERS / MESSAGES_PER_SECOND);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let attacks = Hostile::attacks();
            let mut sent = 0;
            for attack in attacks.iter().cycle().skip(n as usize * 3) {
                ticks.tick().await;
                // A server that does not answer an attacker does nothing wrong.
                let limit = Duration::from_secs(1);
                drop(tokio::time::timeout(limit, hostile.send(*attack)).await);
                sent += 1;
                if Instant::now() >= end {
                    break;
                }
            }
            sent
        });
    }
    attacking.join_all().await.into_iter().sum()
}

async fn metric(server: &ServerProcess, name: &str) -> Vec<String> {
    let metrics = http_get(server.admin(), "/metrics").await.text();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(str::to_owned).collect()
}

async fn start(data: &Path, issuer: &Issuer) -> ServerProcess {
    let settings = issuer.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &value[..])).collect();
    ServerProcess::start(data, &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_attacked_from_all_sides_goes_on_as_if_nothing_was() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let issuer = Issuer::new();
    let server = start(&data, &issuer).await;
    let span = Duration::from_secs(setting("COWRITE_HOSTILE_SECONDS", 4));
    let mut honest = Vec::new();
    for n in 0..2 * HONEST {
        let document = DOCUMENTS[n / HONEST];
        honest.push(Honest::join(&server, &issuer, document, n).await);
    }
    let victim = honest[0].participant.client_id();

    let mut honest = work(honest, Instant::now() + span).await;
    let calm = p99(&mut honest);
    let end = Instant::now() + span;
    let (mut honest, sent) =
        tokio::join!(work(honest, end), attack(&server, &issuer, victim, end),);
    let attacked = p99(&mut honest);
    eprintln!("{sent} messages; p99 {calm:?} without, {attacked:?} with the attack");
    assert!(sent > u64::from(MESSAGES_PER_SECOND) * span.as_secs() / 4, "an attack: {sent}");
    let ratio = setting("COWRITE_HOSTILE_P99_RATIO", u64::MAX);
    let measured = attacked.as_micros() as u64 * 100 / calm.as_micros() as u64;
    assert!(measured <= ratio, "p99 is {measured} per cent of what it was");

    // No room was in trouble, and everybody is still there.
    assert_eq!(metric(&server, "cowrite_room_restarts_total{").await, [""; 0]);
    assert_eq!(
        metric(&server, "cowrite_rooms_quarantined ").await,
        ["cowrite_rooms_quarantined 0"]
    );
    assert!(metric(&server, "cowrite_sessions_closed_total{").await.len() > 3, "others were not");
    for honest in &mut honest {
        honest.participant.type_text("<end>").await;
        honest.participant.wait_for_acks().await;
    }
    server.kill().await;

    let server = start(&data, &issuer).await;
    for (document, honest) in DOCUMENTS.iter().zip(honest.chunks(HONEST)) {
        let token = issuer.token("reader", &[(document, Access::Read)]);
        let wish = Join { token, ..join(document) };
        let channel = channel(server.address()).await;
        let doc = yrs::Doc::with_client_id(1);
        let joined = Participant::open_with(channel, Door::Edit, wish, doc).await;
        let mut reader = joined.expect("the document is there");
        soon("the document", reader.wait_for_sync()).await;
        let text = reader.text();
        for word in honest.iter().flat_map(|honest| &honest.words) {
            assert!(text.contains(word), "{word} was acknowledged");
        }
    }
}
