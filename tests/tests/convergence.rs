//! Promise: whatever happens to connections and servers, in the end all copies say the same, and so
//! does the server when it reads its log anew.
//!
//! A simulation from a seed: native clients edit texts, maps and arrays of a few documents at random
//! while their connections are cut, stalled and slowed down, and the server is drained while its log
//! fails now and then (even seeds), or is a process that is killed (odd seeds). `COWRITE_SEED=n` runs one seed again; the order of what threads do is not in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cowrite_client::{Client, Document, DocumentOptions};
use cowrite_tests::{
    ChaosProxy, Door, FaultyLog, Participant, ServerProcess, TestServer, assert_converged, channel,
    content, eventually, seeds, setting, soon,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use yrs::{
    Any, Array as _, GetString as _, Map as _, MapPrelim, Text as _, TransactionMut, WriteTxn as _,
    types::Attrs,
};

const CLIENTS: usize = 4;
const DOCUMENTS: usize = 2;
const STEPS: usize = 400;

/// A server that can be restarted on what it has stored.
enum Host {
    /// Within this process, on a log that fails on request.
    Here { log: Arc<FaultyLog>, server: Option<TestServer> },
    /// A process, which is killed without a word.
    Process { directory: TempDir, server: Option<ServerProcess> },
}

/// The server of a simulation, and the way to it.
struct World {
    host: Host,
    proxy: ChaosProxy,
}

/// Small enough that rooms come and go, and that those who are stalled lag.
const SETTINGS: &[(&str, &str)] = &[
    ("ROOM__CHECKPOINT_UPDATES", "20"),
    ("ROOM__IDLE_TIMEOUT", "50ms"),
    ("ROOM__RECENT_BYTES_MAX", "2000"),
    ("ROOM__OUTBOX_ITEMS_MAX", "8"),
    ("SESSION__DRAIN_RETRY_MAX", "20ms"),
    ("LOG__SEGMENT_BYTES", "1048576"),
];

async fn start_here(log: &Arc<FaultyLog>) -> TestServer {
    TestServer::with_log(log.clone(), |config| {
        config.room.checkpoint_updates = 20;
        config.room.idle_timeout = Duration::from_millis(50);
        config.room.recent_bytes_max = 2000;
        config.room.outbox_items_max = 8;
        config.session.drain_retry_max = Duration::from_millis(20);
    })
    .await
}

impl World {
    async fn new(process: bool) -> Self {
        let host = if process {
            let directory = tempfile::tempdir().expect("a directory");
            let server = Some(ServerProcess::start(directory.path(), SETTINGS).await);
            Host::Process { directory, server }
        } else {
            let log = FaultyLog::new();
            let server = Some(start_here(&log).await);
            Host::Here { log, server }
        };
        let proxy = ChaosProxy::start(host.address()).await;
        Self { host, proxy }
    }

    /// Ends the server, and starts it on what it has stored.
    async fn restart(&mut self) {
        match &mut self.host {
            Host::Here { log, server } => {
                server.take().expect("a server").stop().await;
                *server = Some(start_here(log).await);
            }
            Host::Process { directory, server } => {
                server.take().expect("a server").kill().await;
                *server = Some(ServerProcess::start(directory.path(), SETTINGS).await);
            }
        }
        self.proxy.set_target(self.host.address());
    }

    fn fail_appends(&self, kept: bool) {
        if let Host::Here { log, .. } = &self.host {
            log.fail_appends(kept);
        }
    }

    fn heal(&self) {
        if let Host::Here { log, .. } = &self.host {
            log.heal();
        }
    }
}

impl Host {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Here { server, .. } => server.as_ref().expect("a server").address(),
            Self::Process { server, .. } => server.as_ref().expect("a server").address(),
        }
    }
}

/// One edit that somebody could make: the shapes that editors make of text with formats, and of
/// structured data.
fn edit(random: &mut StdRng, txn: &mut TransactionMut<'_>) {
    let text = txn.get_or_insert_text("text");
    let map = txn.get_or_insert_map("map");
    let array = txn.get_or_insert_array("array");
    let letters: String = (0..random.random_range(1..6))
        .map(|_| ['a', 'b', 'ä', '中', '🦀', ' '][random.random_range(0..6)])
        .collect();
    // In UTF-16 units, and not within a character.
    let positions: Vec<u32> = {
        let mut at = 0;
        let written = text.get_string(txn);
        let mut positions = vec![0];
        for letter in written.chars() {
            at += u32::try_from(letter.len_utf16()).expect("1 or 2");
            positions.push(at);
        }
        positions
    };
    let place = |random: &mut StdRng| random.random_range(0..positions.len());
    match random.random_range(0..12) {
        0..=4 => text.insert(txn, positions[place(random)], &letters),
        5 | 6 => {
            let from = place(random);
            let to = (from + random.random_range(0..8)).min(positions.len() - 1);
            text.remove_range(txn, positions[from], positions[to] - positions[from]);
        }
        7 => {
            let from = place(random);
            let to = (from + random.random_range(0..8)).min(positions.len() - 1);
            let bold = if random.random_bool(0.7) { Any::Bool(true) } else { Any::Null };
            let attributes = Attrs::from([("bold".into(), bold)]);
            text.format(txn, positions[from], positions[to] - positions[from], attributes);
        }
        8 => {
            let key = format!("k{}", random.random_range(0..4));
            map.insert(txn, key, letters);
        }
        9 => {
            let key = format!("k{}", random.random_range(0..4));
            let inner = MapPrelim::from([("inner", letters)]);
            map.insert(txn, key, inner);
        }
        10 => {
            let at = random.random_range(0..=array.len(txn));
            array.insert(txn, at, letters);
        }
        _ => {
            let length = array.len(txn);
            if length > 0 {
                array.remove(txn, random.random_range(0..length));
            } else {
                map.remove(txn, "k0");
            }
        }
    }
}

async fn simulate(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed % 2 == 1).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        // Each with a connection of its own.
        clients.push(Client::connect(world.proxy.url()).await.expect("the server is there"));
    }
    let open = |client: &Client, number: usize| {
        client.document(format!("sim/{number}"), DocumentOptions::default())
    };
    // Of each document, of each client.
    let mut copies: Vec<Vec<Document>> = (0..DOCUMENTS)
        .map(|number| clients.iter().map(|client| open(client, number)).collect())
        .collect();
    for _ in 0..setting("COWRITE_STEPS", STEPS as u64) {
        match random.random_range(0..100) {
            0..=84 => {
                let copy =
                    &copies[random.random_range(0..DOCUMENTS)][random.random_range(0..CLIENTS)];
                for _ in 0..random.random_range(1..5) {
                    copy.edit(|txn| edit(&mut random, txn));
                }
            }
            85..=87 => world.proxy.cut(),
            88 => world.proxy.stall(),
            89 => world.proxy.trickle(),
            90..=92 => world.proxy.pass(),
            93 => world.restart().await,
            94 | 95 => world.fail_appends(random.random_bool(0.5)),
            96 | 97 => world.heal(),
            98 => {
                // Somebody closes a document in good order, or just goes, and comes back anew.
                let (who, what) =
                    (random.random_range(0..CLIENTS), random.random_range(0..DOCUMENTS));
                world.proxy.pass();
                world.heal();
                soon("a client to leave", copies[what][who].leave()).await.expect("all is saved");
                copies[what][who] = open(&clients[who], what);
            }
            _ => tokio::time::sleep(Duration::from_millis(random.random_range(1..30))).await,
        }
        if random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_micros(random.random_range(1..3000))).await;
        }
    }
    // Quiet.
    world.proxy.pass();
    world.heal();
    for copy in copies.iter().flatten() {
        soon("edits to be saved", copy.wait_until_saved()).await.expect("they are saved");
    }
    let name = |who: usize| ["Alice", "Bob", "Carol", "Dave"][who];
    for copies in &copies {
        let all_equal = || {
            let first = content(copies[0].doc());
            copies.iter().all(|copy| content(copy.doc()) == first)
        };
        let waited = tokio::time::timeout(
            Duration::from_secs(20),
            eventually("all copies to say the same", all_equal),
        );
        // What differs is said below.
        waited.await.ok();
        let mine = copies.iter().enumerate().map(|(who, copy)| (name(who), copy.doc()));
        assert_converged(mine);
    }
    // What the log says.
    world.restart().await;
    let connection = channel(world.host.address()).await;
    for (number, copies) in copies.iter().enumerate() {
        let document = format!("sim/{number}");
        let reader = Participant::open(connection.clone(), Door::Edit, &document).await;
        let mut reader = reader.expect("the reader is let in");
        reader.wait_for_sync().await;
        assert_converged([("Alice", copies[0].doc()), ("the log", reader.doc())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_copies_converge_whatever_happens_on_the_way() {
    let fresh = usize::try_from(setting("COWRITE_SEEDS", 4)).expect("a number of seeds");
    for seed in seeds(fresh) {
        eprintln!("seed={seed}: replay with COWRITE_SEED={seed}");
        let started = cowrite_server::time::now();
        simulate(seed).await;
        eprintln!("seed={seed} took {:?}", started.elapsed());
    }
}
