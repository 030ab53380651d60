//! Replays a recorded session: one client for each agent, as fast as the server takes it, and then
//! looks whether everybody has the text that was recorded.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use cowrite_client::JoinOptions;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use yrs::{
    Doc, GetString as _, OffsetKind, Options, ReadTxn as _, Text as _, TextRef, Transact as _,
    TransactionMut, Update, updates::decoder::Decode as _,
};

use crate::{
    error::{Error, SessionError},
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
    /// Clients whose document is the recorded one.
    pub(crate) clients_identical: usize,
    /// One who joins now gets the recorded document.
    pub(crate) server_identical: bool,
    /// All of them do.
    pub(crate) identical: bool,
}

/// One agent of the trace.
struct Agent {
    doc: Doc,
    text: TextRef,
    seen: Seen,
    pipeline: Pipeline,
    /// What the session received.
    received: Doc,
    /// The ids of the updates that were sent, with their transaction.
    sent: Vec<(usize, u64)>,
}

/// Where to replay.
pub(crate) struct Target<'a> {
    pub(crate) url: &'a str,
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
    let trace = Trace::read(path)?;
    let Target { url, document, root } = *target;
    let flat = trace.is_flat();
    let mut agents = Vec::new();
    for _ in 0..trace.agents {
        let session = sessions::open(url, JoinOptions::new(document)).await?;
        let doc = new_doc();
        let received = new_doc();
        let mirror = received.clone();
        let pipeline = Pipeline::new(document, session, move |update| {
            // What does not get in here is found by the comparison at the end.
            let applied = apply(&mirror, &update);
            debug_assert!(applied.is_ok());
        });
        let text = doc.get_or_insert_text(root);
        agents.push(Agent {
            doc,
            text,
            seen: Seen::nothing(&trace),
            pipeline,
            received,
            sent: Vec::new(),
        });
    }

    progress.begin("replaying", trace.transactions.len() as u64);
    let began = Instant::now();
    let mut updates: Vec<Bytes> = Vec::with_capacity(trace.transactions.len());
    if !trace.start_content.is_empty() {
        let first = &mut agents[0];
        let start = {
            let mut txn = first.doc.transact_mut();
            first.text.insert(&mut txn, 0, &trace.start_content);
            txn.encode_update_v1()
        };
        let id = first.pipeline.send(start.clone().into()).await?;
        first.pipeline.acknowledged(id).await?;
        for agent in &agents[1..] {
            apply(&agent.doc, &start).map_err(|error| error.on(document))?;
        }
    }
    for (at, transaction) in trace.transactions.iter().enumerate() {
        let merged = agents[transaction.agent]
            .seen
            .advance(&trace, at)
            .map_err(|source| Error::Trace { path: path.to_owned(), source })?;
        // The last update of each other agent: what it depends on was at the server before it.
        let mut last = vec![None; trace.agents];
        for other in merged {
            apply(&agents[transaction.agent].doc, &updates[other])
                .map_err(|error| error.on(document))?;
            last[trace.transactions[other].agent] = Some(other);
        }
        for (agent, last) in last.into_iter().enumerate() {
            if let Some(last) = last {
                agents[agent].acknowledged(last).await?;
            }
        }
        let agent = &mut agents[transaction.agent];
        let update: Bytes = {
            let mut txn = agent.doc.transact_mut();
            for patch in &transaction.patches {
                replace(&mut txn, &agent.text, patch, flat);
            }
            txn.encode_update_v1().into()
        };
        if update.as_ref() != Update::EMPTY_V1 {
            let id = agent.pipeline.send(update.clone()).await?;
            agent.sent.push((at, id));
        }
        updates.push(update);
        progress.step(1);
    }
    for agent in &mut agents {
        agent.pipeline.flush().await?;
    }
    let seconds = began.elapsed().as_secs_f64();

    progress.begin("comparing", 0);
    let limit = Instant::now() + SETTLE_MAX;
    let clients_identical = loop {
        let identical = agents.iter().filter(|agent| agent.has(root, &trace.end_content)).count();
        if identical == agents.len() || Instant::now() > limit {
            break identical;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let server_identical = fresh(target).await? == trace.end_content;
    let edits = trace.transactions.iter().map(|transaction| transaction.patches.len()).sum();
    Ok(ReplayReport {
        document: document.to_owned(),
        agents: trace.agents,
        transactions: trace.transactions.len(),
        edits,
        seconds,
        edits_per_second: edits as f64 / seconds,
        clients_identical,
        server_identical,
        identical: server_identical && clients_identical == trace.agents,
    })
}

impl Agent {
    /// Waits until the transaction `at` of this agent, and all before it, is at the server.
    async fn acknowledged(&mut self, at: usize) -> Result<(), Error> {
        let after = self.sent.partition_point(|(sent, _)| *sent <= at);
        match after.checked_sub(1).map(|last| self.sent[last].1) {
            Some(id) => self.pipeline.acknowledged(id).await,
            None => Ok(()),
        }
    }

    /// What the session received, with what this agent did, is `content`.
    fn has(&self, root: &str, content: &str) -> bool {
        let known = self.received.transact().state_vector();
        let own = self.doc.transact().encode_diff_v1(&known);
        apply(&self.received, &own).is_ok() && text_of(&self.received, root) == content
    }
}

/// The text that one who joins now gets.
async fn fresh(target: &Target<'_>) -> Result<String, Error> {
    let mut session = sessions::open(target.url, JoinOptions::new(target.document)).await?;
    let state = initial_state(&mut session).await;
    let (state, _) = state.map_err(|error| error.on(target.document))?;
    let doc = new_doc();
    apply(&doc, &state).map_err(|error| error.on(target.document))?;
    Ok(text_of(&doc, target.root))
}

fn new_doc() -> Doc {
    Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() })
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
        let yes = |is: bool| if is { "identical" } else { "DIFFERENT" };
        vec![
            row("document", &self.document),
            row("agents", self.agents),
            row("edits", self.edits),
            row("time", format!("{:.2} s", self.seconds)),
            row("edits/s", format!("{:.0}", self.edits_per_second)),
            row("clients", format!("{} of {} identical", self.clients_identical, self.agents)),
            row("server", yes(self.server_identical)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
