//! Replays a recorded session: one client for each agent, as fast as the server takes it, and then
//! looks whether everybody has the text that was recorded.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use cowrite_client::JoinOptions;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use yrs::{
    Doc, GetString as _, OffsetKind, Options, ReadTxn as _, Text as _, TextRef, Transact as _,
    TransactionMut, Update, block::ClientID, updates::decoder::Decode as _,
};

use crate::{
    door::Entrance,
    error::{Error, SessionError, TraceError},
    pipeline::Pipeline,
    report::{Progress, Row, row},
    sessions,
    storm::initial_state,
    trace::{Patch, Seen, Trace},
    update::Malformed,
};

/// How long the last updates may take to reach everybody.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct ReplayReport {
    pub(crate) document: String,
    pub(crate) agents: usize,
    pub(crate) transactions: usize,
    /// Replacements in all transactions.
    pub(crate) edits: usize,
    /// From the first edit to the last acknowledgement.
    pub(crate) seconds: f64,
    pub(crate) edits_per_second: f64,
    /// All clients, and one who joins now, have one and the same document.
    pub(crate) converged: bool,
    /// Clients whose document is the recorded one.
    pub(crate) clients_identical: usize,
    /// One who joins now gets the recorded document.
    pub(crate) server_identical: bool,
    /// All of them do.
    pub(crate) identical: bool,
}

/// What the agents do, worked out before anything is sent: finding a position in a long text takes
/// this side longer than the server needs for the update.
struct Script {
    steps: Vec<Step>,
    /// What each agent has at its end.
    docs: Vec<Doc>,
}

/// A transaction as an update.
struct Step {
    agent: usize,
    update: Bytes,
    /// The last steps of other agents that it depends on.
    after: Vec<usize>,
}

/// The client of one agent.
struct Player {
    pipeline: Pipeline,
    /// What the session received.
    received: Doc,
    /// The steps that were sent; each is the update with the next id.
    sent: Vec<usize>,
}

/// Where to replay.
pub(crate) struct Target<'a> {
    pub(crate) entrance: &'a Entrance,
    /// A document that does not exist yet.
    pub(crate) document: &'a str,
    /// The root text.
    pub(crate) root: &'a str,
}

/// Replays the trace in the file `path`.
pub(crate) async fn run(
    path: &Path,
    target: &Target<'_>,
    progress: &Progress,
) -> Result<ReplayReport, Error> {
    let Target { entrance, document, root } = *target;
    let trace = Trace::read(path)?;
    let script = Script::write(&trace, root, progress)
        .map_err(|source| Error::Trace { path: path.to_owned(), source })?;
    let mut players = Vec::new();
    for _ in 0..trace.agents {
        let session = sessions::open(entrance, JoinOptions::new(document)).await?;
        let received = new_doc();
        let mirror = received.clone();
        let pipeline = Pipeline::new(document, session, move |update| {
            // What does not get in here is found by the comparison at the end.
            let applied = apply(&mirror, &update);
            debug_assert!(applied.is_ok());
        });
        players.push(Player { pipeline, received, sent: Vec::new() });
    }

    progress.begin("replaying", script.steps.len() as u64);
    let began = Instant::now();
    for (at, step) in script.steps.iter().enumerate() {
        for after in &step.after {
            players[script.steps[*after].agent].acknowledged(*after).await?;
        }
        let player = &mut players[step.agent];
        if step.update.as_ref() != Update::EMPTY_V1 {
            player.pipeline.send(step.update.clone()).await?;
            player.sent.push(at);
        }
        progress.step(1);
    }
    for player in &mut players {
        player.pipeline.flush().await?;
    }
    let seconds = began.elapsed().as_secs_f64();

    progress.begin("comparing", 0);
    let limit = Instant::now() + SETTLE_MAX;
    let texts = loop {
        let pairs = players.iter().zip(&script.docs);
        let texts: Vec<_> = pairs.map(|(player, own)| player.with(own, root)).collect();
        if texts.iter().all(|text| *text == trace.end_content) || Instant::now() > limit {
            break texts;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let server_text = fresh(target).await?;
    let server_identical = server_text == trace.end_content;
    let clients_identical = texts.iter().filter(|text| **text == trace.end_content).count();
    let edits = trace.transactions.iter().map(|transaction| transaction.patches.len()).sum();
    Ok(ReplayReport {
        document: document.to_owned(),
        agents: trace.agents,
        transactions: trace.transactions.len(),
        edits,
        seconds,
        edits_per_second: edits as f64 / seconds,
        converged: texts.iter().all(|text| *text == server_text),
        clients_identical,
        server_identical,
        identical: server_identical && clients_identical == trace.agents,
    })
}

impl Script {
    fn write(trace: &Trace, root: &str, progress: &Progress) -> Result<Self, TraceError> {
        let flat = trace.is_flat();
        let mut script = Self { steps: Vec::new(), docs: Vec::new() };
        // Where two have typed at one place at a time, the lower client id comes first. Recordings
        // have the agents in their order, so the ids have to be in that order.
        let client_base = rand::random::<u64>() >> 16;
        script.docs.extend((0..trace.agents as u64).map(|agent| {
            let client_id = ClientID::new(client_base + agent);
            Doc::with_options(Options { client_id, ..doc_options() })
        }));
        let mut seen: Vec<_> = script.docs.iter().map(|_| Seen::nothing(trace)).collect();
        // The step before the first transaction: everybody starts from it.
        let start = Patch(0, 0, trace.start_content.clone());
        let start = edit(&script.docs[0], root, std::slice::from_ref(&start), flat);
        for doc in &script.docs[1..] {
            apply(doc, &start).map_err(|_| unmergeable(0))?;
        }
        script.steps.push(Step { agent: 0, update: start, after: Vec::new() });
        progress.begin("working out the edits", trace.transactions.len() as u64);
        for (at, transaction) in trace.transactions.iter().enumerate() {
            let agent = transaction.agent;
            let mut last = vec![None; trace.agents];
            if seen[agent].is_new() && agent != 0 {
                last[0] = Some(0);
            }
            for other in seen[agent].advance(trace, at)? {
                // Transaction n is step n + 1.
                apply(&script.docs[agent], &script.steps[other + 1].update)
                    .map_err(|_| unmergeable(at))?;
                last[trace.transactions[other].agent] = Some(other + 1);
            }
            let update = edit(&script.docs[agent], root, &transaction.patches, flat);
            // What these depend on was at the server before them.
            let after = last.into_iter().flatten().collect();
            script.steps.push(Step { agent, update, after });
            progress.step(1);
        }
        Ok(script)
    }
}

fn unmergeable(at: usize) -> TraceError {
    TraceError::Transaction { at, what: "what it has seen cannot be merged" }
}

/// Makes replacements in one transaction; returns it as an update.
fn edit(doc: &Doc, root: &str, patches: &[Patch], flat: bool) -> Bytes {
    let text = doc.get_or_insert_text(root);
    let mut txn = doc.transact_mut();
    for patch in patches {
        replace(&mut txn, &text, patch, flat);
    }
    txn.encode_update_v1().into()
}

impl Player {
    /// Waits until the step `at` of this agent, and all its steps before, are at the server.
    async fn acknowledged(&mut self, at: usize) -> Result<(), Error> {
        let id = self.sent.partition_point(|sent| *sent <= at);
        self.pipeline.acknowledged(id as u64).await
    }

    /// The text of what the session received, with what the agent did itself.
    fn with(&self, own: &Doc, root: &str) -> String {
        let known = self.received.transact().state_vector();
        let own = own.transact().encode_diff_v1(&known);
        match apply(&self.received, &own) {
            Ok(()) => text_of(&self.received, root),
            Err(_) => String::new(),
        }
    }
}

/// The text that one who joins now gets.
async fn fresh(target: &Target<'_>) -> Result<String, Error> {
    let mut session = sessions::open(target.entrance, JoinOptions::new(target.document)).await?;
    let state = initial_state(&mut session).await;
    let (state, _) = state.map_err(|error| error.on(target.document))?;
    let doc = new_doc();
    apply(&doc, &state).map_err(|error| error.on(target.document))?;
    Ok(text_of(&doc, target.root))
}

fn new_doc() -> Doc {
    Doc::with_options(doc_options())
}

fn doc_options() -> Options {
    Options { offset_kind: OffsetKind::Utf16, ..Options::default() }
}

fn apply(doc: &Doc, update: &[u8]) -> Result<(), SessionError> {
    let update = Update::decode_v1(update).map_err(|_| Malformed)?;
    doc.transact_mut().apply_update(update).map_err(|_| Malformed)?;
    Ok(())
}

fn text_of(doc: &Doc, root: &str) -> String {
    let text = doc.get_or_insert_text(root);
    text.get_string(&doc.transact())
}

/// Makes a replacement whose position and length are in code points. `flat` tells that these are
/// UTF-16 units as well.
fn replace(txn: &mut TransactionMut<'_>, text: &TextRef, patch: &Patch, flat: bool) {
    let Patch(position, deleted, inserted) = patch;
    let (mut position, mut deleted) = (*position, *deleted);
    if !flat {
        let content = text.get_string(txn);
        let units = |from: u32, count: u32| -> u32 {
            let chars = content.chars().skip(from as usize).take(count as usize);
            chars.map(|c| c.len_utf16() as u32).sum()
        };
        deleted = units(position, deleted);
        position = units(0, position);
    }
    if deleted > 0 {
        text.remove_range(txn, position, deleted);
    }
    if !inserted.is_empty() {
        text.insert(txn, position, inserted);
    }
}

impl ReplayReport {
    /// The report for people.
    pub(crate) fn rows(&self) -> Vec<Row> {
        vec![
            row("document", &self.document),
            row("agents", self.agents),
            row("edits", self.edits),
            row("time", format!("{:.2} s", self.seconds)),
            row("edits/s", format!("{:.0}", self.edits_per_second)),
            row("all have the same", if self.converged { "yes" } else { "NO" }),
            row("clients", format!("{} of {} as recorded", self.clients_identical, self.agents)),
            row("server", if self.server_identical { "as recorded" } else { "DIFFERENT" }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_typed_at_one_place_comes_out_in_the_order_of_the_agents() {
        let trace = r#"{"endContent": "onetwo", "numAgents": 2, "txns": [
            {"parents": [], "agent": 1, "patches": [[0, 0, "two"]]},
            {"parents": [], "agent": 0, "patches": [[0, 0, "one"]]},
            {"parents": [0, 1], "agent": 0, "patches": []}]}"#;
        let trace = Trace::parse(trace.as_bytes()).expect("a trace");
        let script = Script::write(&trace, "t", &Progress::new()).expect("a script");
        assert_eq!(text_of(&script.docs[0], "t"), trace.end_content);
    }

    #[test]
    fn positions_count_code_points_whatever_they_take() {
        let doc = new_doc();
        let text = doc.get_or_insert_text("t");
        let mut txn = doc.transact_mut();
        for (position, deleted, inserted) in [(0, 0, "a😀b"), (2, 0, "😀c"), (1, 1, "é")] {
            replace(&mut txn, &text, &Patch(position, deleted, inserted.to_owned()), false);
        }
        assert_eq!(text.get_string(&txn), "aé😀cb");
    }
}
