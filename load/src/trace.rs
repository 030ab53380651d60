//! Recorded editing sessions, in the formats of github.com/josephg/editing-traces.

use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use flate2::bufread::GzDecoder;
use serde::Deserialize;

use crate::error::{Error, TraceError};

/// A recorded session.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) start_content: String,
    pub(crate) end_content: String,
    pub(crate) agents: usize,
    pub(crate) transactions: Vec<Transaction>,
}

/// What one agent did at once.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// What the agent had seen: these transactions and all theirs.
    pub(crate) parents: Vec<usize>,
    pub(crate) agent: usize,
    pub(crate) patches: Vec<Patch>,
}

/// A replacement. Positions and lengths are in Unicode code points.
#[derive(Debug, Deserialize)]
pub(crate) struct Patch(pub(crate) u32, pub(crate) u32, pub(crate) String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileFormat {
    #[serde(default)]
    start_content: String,
    end_content: String,
    /// Of concurrent traces alone.
    num_agents: Option<usize>,
    txns: Vec<FileTransaction>,
}

#[derive(Deserialize)]
struct FileTransaction {
    parents: Option<Vec<usize>>,
    #[serde(default)]
    agent: usize,
    patches: Vec<Patch>,
}

impl Trace {
    /// Reads a `.json.gz` file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let read = || {
            let file = BufReader::new(File::open(path)?);
            Self::parse(BufReader::new(GzDecoder::new(file)))
        };
        read().map_err(|source| Error::Trace { path: path.to_owned(), source })
    }

    /// Reads JSON.
    pub(crate) fn parse(json: impl io::Read) -> Result<Self, TraceError> {
        Self::check(serde_json::from_reader(json)?)
    }

    fn check(file: FileFormat) -> Result<Self, TraceError> {
        let agents = file.num_agents.unwrap_or(1);
        let mut transactions = Vec::with_capacity(file.txns.len());
        for (at, FileTransaction { parents, agent, patches }) in file.txns.into_iter().enumerate() {
            // Sequential traces have no parents: each follows the one before.
            let parents = parents.unwrap_or_else(|| at.checked_sub(1).into_iter().collect());
            if parents.iter().any(|parent| *parent >= at) {
                return Err(TraceError::Transaction { at, what: "a parent comes later" });
            }
            if agent >= agents {
                return Err(TraceError::Transaction { at, what: "there is no such agent" });
            }
            transactions.push(Transaction { parents, agent, patches });
        }
        Ok(Self {
            start_content: file.start_content,
            end_content: file.end_content,
            agents,
            transactions,
        })
    }

    /// All text is in the Basic Multilingual Plane: a code point is one UTF-16 unit.
    pub(crate) fn is_flat(&self) -> bool {
        let flat = |text: &str| text.chars().all(|c| c.len_utf16() == 1);
        let mut patches = self.transactions.iter().flat_map(|txn| &txn.patches);
        flat(&self.start_content) && patches.all(|patch| flat(&patch.2))
    }
}

/// What one agent has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    seen: Vec<bool>,
    /// The agent's own last transaction.
    last: Option<usize>,
}

impl Seen {
    pub(crate) fn nothing(trace: &Trace) -> Self {
        Self { seen: vec![false; trace.transactions.len()], last: None }
    }

    /// The agent has made no transaction yet.
    pub(crate) fn is_new(&self) -> bool {
        self.last.is_none()
    }

    /// The agent makes transaction `at`: returns what it has to have merged before, in order.
    pub(crate) fn advance(&mut self, trace: &Trace, at: usize) -> Result<Vec<usize>, TraceError> {
        let mut missing = Vec::new();
        let mut reaches_last = self.last.is_none();
        let mut queue = trace.transactions[at].parents.clone();
        while let Some(parent) = queue.pop() {
            reaches_last |= self.last == Some(parent);
            if !std::mem::replace(&mut self.seen[parent], true) {
                missing.push(parent);
                queue.extend(&trace.transactions[parent].parents);
            }
        }
        // What an agent has seen it cannot make unseen, so its transactions have to be in a line.
        if !reaches_last {
            let what = "it does not follow its agent's one before";
            return Err(TraceError::Transaction { at, what });
        }
        self.seen[at] = true;
        self.last = Some(at);
        missing.sort_unstable();
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str) -> Result<Trace, TraceError> {
        Trace::parse(text.as_bytes())
    }

    #[test]
    fn an_agent_merges_exactly_what_its_parents_have_seen() {
        let trace = trace(
            r#"{"kind": "concurrent", "endContent": "", "numAgents": 2, "txns": [
                {"parents": [], "agent": 0, "patches": [[0, 0, "a"]]},
                {"parents": [0], "agent": 1, "patches": []},
                {"parents": [0], "agent": 0, "patches": []},
                {"parents": [1, 2], "agent": 1, "patches": []}]}"#,
        )
        .expect("checks");
        let mut seen = [Seen::nothing(&trace), Seen::nothing(&trace)];
        let mut merged =
            |at: usize| seen[trace.transactions[at].agent].advance(&trace, at).expect("a line");
        assert_eq!(
            [merged(0), merged(1), merged(2), merged(3)],
            [vec![], vec![0], vec![], vec![2]]
        );
    }

    #[test]
    fn a_sequential_trace_is_one_agent_whose_transactions_follow_each_other() {
        let trace = trace(
            r#"{"startContent": "", "endContent": "ab", "txns": [
                {"patches": [[0, 0, "a"]]}, {"patches": [[1, 0, "b"]]}]}"#,
        )
        .expect("checks");
        assert_eq!((trace.agents, trace.transactions[1].parents.as_slice()), (1, [0].as_slice()));
    }

    #[test]
    fn a_parent_that_comes_later_is_an_error() {
        let text = r#"{"endContent": "", "numAgents": 1,
            "txns": [{"parents": [0], "agent": 0, "patches": []}]}"#;
        assert!(trace(text).is_err());
    }
}
