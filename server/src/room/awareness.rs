//! Who is here, and where: the latest awareness state of each session of a room.
//!
//! States are never queued. Each change gets a version; an outbox remembers the version that it has
//! sent and fetches what is newer when its session is ready to take it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::outbox::Shared;
use crate::ids::SessionId;

/// The awareness state of one Yjs client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwarenessState {
    /// The Yjs client id.
    pub client_id: u64,
    /// Grows with each state of a client id.
    pub clock: u64,
    /// JSON in UTF-8; empty when the client is gone.
    pub state: Bytes,
}

/// The latest awareness states of a room.
#[derive(Debug)]
pub(super) struct AwarenessTable {
    /// The version of the last change, which is also its clock.
    version: u64,
    by_version: BTreeMap<u64, Entry>,
    by_client: HashMap<u64, u64>,
    /// Entries of clients that are gone: kept so that slow sessions learn of it.
    gone: usize,
    gone_max: usize,
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    gone: bool,
    state: Arc<Shared<AwarenessState>>,
}

impl AwarenessTable {
    /// An empty table that remembers at most `gone_max` clients that are gone.
    ///
    /// `now_ms` is the wall time: clocks begin with its seconds, so that they go on growing when the
    /// room is loaded anew and clients remember the clocks from before.
    #[must_use]
    pub(super) fn new(now_ms: u64, gone_max: usize) -> Self {
        let (by_version, by_client) = (BTreeMap::new(), HashMap::new());
        Self { version: now_ms / 1000, by_version, by_client, gone: 0, gone_max }
    }

    /// The version of the last change.
    #[must_use]
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Sets the state that `session` announces for `client_id`; empty means that it is gone. The
    /// last session to announce a client id has it, because a client that comes back may be faster
    /// than the end of its old session.
    pub(super) fn set(&mut self, session: SessionId, client_id: u64, state: Bytes) {
        let before = self.by_client.get(&client_id).and_then(|v| self.by_version.get(v));
        let gone = state.is_empty();
        if gone && before.is_none_or(|entry| entry.gone || entry.session != session) {
            return;
        }
        self.remove_entry(client_id);
        self.version += 1;
        let clock = self.version;
        let state = Shared::new(AwarenessState { client_id, clock, state });
        self.by_version.insert(clock, Entry { session, gone, state });
        self.by_client.insert(client_id, clock);
        self.gone += usize::from(gone);
        while self.gone > self.gone_max {
            let oldest = self.by_version.iter().find(|(_, entry)| entry.gone);
            let Some(client_id) = oldest.map(|(_, entry)| entry.state.get().client_id) else {
                break;
            };
            self.remove_entry(client_id);
        }
    }

    fn remove_entry(&mut self, client_id: u64) {
        let version = self.by_client.remove(&client_id);
        if let Some(entry) = version.and_then(|version| self.by_version.remove(&version)) {
            self.gone -= usize::from(entry.gone);
        }
    }

    /// The changes after `version` that are not of `session` itself. Somebody who begins at 0 has
    /// never heard of those who are gone, and does not now.
    pub(super) fn after(
        &self,
        version: u64,
        session: SessionId,
    ) -> impl Iterator<Item = Arc<Shared<AwarenessState>>> + '_ {
        let newer = self.by_version.range(version + 1..).map(|(_, entry)| entry);
        newer
            .filter(move |entry| entry.session != session && !(version == 0 && entry.gone))
            .map(|entry| Arc::clone(&entry.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(table: &AwarenessTable, after: u64, session: SessionId) -> Vec<(u64, Bytes)> {
        let states = table.after(after, session);
        states.map(|s| (s.get().client_id, s.get().state.clone())).collect()
    }

    #[test]
    fn only_the_latest_state_of_a_client_is_told_and_not_to_itself() {
        let (alice, bob) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(0, 10);
        for i in 0..100_u8 {
            table.set(alice, 11, Bytes::from(vec![i]));
        }
        assert_eq!(states(&table, 0, bob), [(11, Bytes::from(vec![99]))]);
        assert_eq!(states(&table, 0, alice), []);
        assert_eq!(states(&table, table.version(), bob), []);
    }

    #[test]
    fn a_client_that_is_gone_is_told_to_those_who_knew_it() {
        let (alice, bob) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(5000, 10);
        table.set(alice, 11, Bytes::from_static(b"{}"));
        let seen = table.version();
        table.set(alice, 11, Bytes::new());
        assert_eq!(states(&table, seen, bob), [(11, Bytes::new())]);
        assert_eq!(states(&table, 0, bob), []);
        let version = table.version();
        table.set(alice, 11, Bytes::new());
        assert_eq!(table.version(), version, "gone is gone");
    }

    #[test]
    fn the_end_of_an_old_session_does_not_remove_the_client_that_came_back() {
        let (old, new) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(0, 10);
        table.set(old, 11, Bytes::from_static(b"1"));
        table.set(new, 11, Bytes::from_static(b"2"));
        table.set(old, 11, Bytes::new());
        assert_eq!(states(&table, 0, old), [(11, Bytes::from_static(b"2"))]);
    }

    #[test]
    fn the_memory_of_those_who_are_gone_is_bounded() {
        let mut table = AwarenessTable::new(0, 3);
        for client in 0..100 {
            table.set(SessionId::from_u64(client), client, Bytes::from_static(b"{}"));
            table.set(SessionId::from_u64(client), client, Bytes::new());
        }
        assert_eq!(table.by_version.len(), 3);
        assert_eq!(table.by_client.len(), 3);
    }
}
