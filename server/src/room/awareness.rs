//! Who is here, and where: the latest awareness state of each session of a room.
//!
//! States are never queued. Each change gets a version; an outbox remembers the version that it has
//! sent and fetches what is newer when its session is ready to take it.
//!
//! Clocks: a client of our own protocol has none, and gets the version. A Yjs client has its own,
//! and is told with it wherever that is newer than what was told before: browsers pass awareness on
//! from tab to tab, and a clock that only grew on its way through the server would come back to its
//! owner as news, for ever. Whoever keeps the same state is told again, with the next clock, every
//! [`RENEW_AFTER`] by the room ([`AwarenessTable::renew`]), because Yjs clients forget a state that
//! is not renewed for 30 s; so that a client's own renewals need not be passed on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::outbox::Shared;
use crate::{
    ids::{Principal, SessionId},
    time::{Duration, Instant},
};

/// A state that was told this long ago is told again. With [`RENEW_INTERVAL`] that is at most 25 s,
/// and Yjs clients forget after 30 s.
const RENEW_AFTER: Duration = Duration::from_secs(15);

/// How often a room looks for such states.
pub(super) const RENEW_INTERVAL: Duration = Duration::from_secs(10);

/// How far the clock of a Yjs client of which nothing is known here is advanced: others may remember
/// it from before the room was loaded, with the clock that it had then, or one renewed since.
const FRESH_CLOCKS: u64 = 3;

/// The largest clock that is taken from a Yjs client: each change makes it larger here, and one above
/// 53 bits ends the sessions of all who repeat it.
const CLOCK_MAX: u64 = 1 << 52;

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
    principal: Principal,
    gone: bool,
    /// When it was told.
    told: Instant,
    /// When its clock grew last.
    grown: Instant,
    state: Arc<Shared<AwarenessState>>,
}

/// A clock that has grown this recently has grown since anybody who comes back now was away.
const FRESH_FOR: Duration = Duration::from_millis(20);

/// A state that somebody announces.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) session: SessionId,
    /// Whose session it is.
    pub(super) principal: Principal,
    pub(super) client_id: u64,
    /// The clock of a Yjs client.
    pub(super) clock: Option<u64>,
    /// Not empty.
    pub(super) state: Bytes,
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

    /// Whether anything is remembered of `client_id`.
    pub(super) fn knows(&self, client_id: u64) -> bool {
        self.by_client.contains_key(&client_id)
    }

    /// Sets the state of a client; returns whether there is something to tell. The last session to
    /// announce a client id has it, because a client that comes back may be faster than the end of
    /// its old session; but nobody takes that of another principal who is here.
    pub(super) fn set(&mut self, now: Instant, announced: Announced) -> bool {
        let Announced { session, principal, client_id, clock, state } = announced;
        let clock = clock.map(|clock| clock.min(CLOCK_MAX));
        let before = self.entry(client_id);
        if before.is_some_and(|entry| !entry.gone && entry.principal != principal) {
            return false;
        }
        let told = before.map(|entry| entry.state.get().clock);
        if clock.is_some()
            && let Some(entry) = before
            && !entry.gone
            && entry.session == session
            && entry.state.get().state == state
        {
            // A renewal, or an echo.
            return false;
        }
        let clock = match (clock, told) {
            (None, told) => told.map_or(0, |told| told + 1).max(self.version + 1),
            (Some(clock), Some(told)) => clock.max(told + 1),
            (Some(clock), None) => clock.saturating_add(FRESH_CLOCKS),
        };
        let state = AwarenessState { client_id, clock, state };
        let state = Shared::new(state);
        self.put(Entry { session, principal, gone: false, told: now, grown: now, state });
        true
    }

    /// Says that the client of `session` is gone, if it still has it; returns whether there is
    /// something to tell.
    pub(super) fn remove(&mut self, session: SessionId, client_id: u64) -> bool {
        let Some(entry) = self.entry(client_id) else { return false };
        if entry.gone || entry.session != session {
            return false;
        }
        let (told, grown, clock) = (entry.told, entry.grown, entry.state.get().clock + 1);
        let principal = entry.principal.clone();
        let state = AwarenessState { client_id, clock, state: Bytes::new() };
        let state = Shared::new(state);
        self.put(Entry { session, principal, gone: true, told, grown, state });
        while self.gone > self.gone_max {
            let oldest = self.by_version.iter().find(|(_, entry)| entry.gone);
            let Some(client_id) = oldest.map(|(_, entry)| entry.state.get().client_id) else {
                break;
            };
            self.remove_entry(client_id);
        }
        true
    }

    /// Tells again, with the next clock, what was told too long ago; returns whether there is any.
    pub(super) fn renew(&mut self, now: Instant) -> bool {
        let old = self.by_version.values().filter(|e| !e.gone && e.told + RENEW_AFTER <= now);
        let old: Vec<_> =
            old.map(|e| (e.session, e.principal.clone(), e.state.get().clone())).collect();
        for (session, principal, state) in &old {
            let state = AwarenessState { clock: state.clock + 1, ..state.clone() };
            self.put(Entry {
                session: *session,
                principal: principal.clone(),
                gone: false,
                told: now,
                grown: now,
                state: Shared::new(state),
            });
        }
        !old.is_empty()
    }

    /// Lets the clocks of those who are here grow, so that somebody who comes back takes their states
    /// for new: a Yjs client that loses its connection forgets the states of others, and not their
    /// clocks. Nobody else is told.
    pub(super) fn freshen(&mut self, now: Instant) {
        for entry in self.by_version.values_mut() {
            if !entry.gone && entry.grown + FRESH_FOR <= now {
                let state = entry.state.get();
                let state = AwarenessState { clock: state.clock + 1, ..state.clone() };
                (entry.state, entry.grown) = (Shared::new(state), now);
            }
        }
    }

    /// Whether somebody else is here under this client id.
    pub(super) fn is_anothers(&self, client_id: u64, principal: &Principal) -> bool {
        self.entry(client_id).is_some_and(|entry| !entry.gone && entry.principal != *principal)
    }

    fn entry(&self, client_id: u64) -> Option<&Entry> {
        self.by_client.get(&client_id).and_then(|version| self.by_version.get(version))
    }

    fn put(&mut self, entry: Entry) {
        let client_id = entry.state.get().client_id;
        self.remove_entry(client_id);
        self.version += 1;
        self.gone += usize::from(entry.gone);
        self.by_version.insert(self.version, entry);
        self.by_client.insert(client_id, self.version);
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

    /// A state with the clock of a Yjs client, or without.
    fn announced(session: SessionId, client_id: u64, clock: Option<u64>, json: &str) -> Announced {
        let (principal, state) = (Principal::anonymous(), Bytes::copy_from_slice(json.as_bytes()));
        Announced { session, principal, client_id, clock, state }
    }

    /// As [`announced`], by somebody with a name.
    fn announced_by(name: &str, session: SessionId, client_id: u64, json: &str) -> Announced {
        let principal = Principal::new(name).unwrap();
        Announced { principal, ..announced(session, client_id, None, json) }
    }

    fn clock(table: &AwarenessTable, client_id: u64) -> u64 {
        table.entry(client_id).unwrap().state.get().clock
    }

    #[test]
    fn only_the_latest_state_of_a_client_is_told_and_not_to_itself() {
        let (alice, bob) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(0, 10);
        for i in 0..100 {
            assert!(table.set(crate::time::now(), announced(alice, 11, None, &i.to_string())));
        }
        assert_eq!(states(&table, 0, bob), [(11, Bytes::from_static(b"99"))]);
        assert_eq!(states(&table, 0, alice), []);
        assert_eq!(states(&table, table.version(), bob), []);
    }

    #[test]
    fn a_client_that_is_gone_is_told_to_those_who_knew_it() {
        let (alice, bob) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(5000, 10);
        table.set(crate::time::now(), announced(alice, 11, None, "{}"));
        let (seen, told) = (table.version(), clock(&table, 11));
        assert!(table.remove(alice, 11));
        assert_eq!(states(&table, seen, bob), [(11, Bytes::new())]);
        assert_eq!(states(&table, 0, bob), []);
        assert!(clock(&table, 11) > told, "a Yjs client takes no older clock");
        assert!(!table.remove(alice, 11), "gone is gone");
    }

    #[test]
    fn the_end_of_an_old_session_does_not_remove_the_client_that_came_back() {
        let (old, new) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(0, 10);
        table.set(crate::time::now(), announced(old, 11, None, "1"));
        table.set(crate::time::now(), announced(new, 11, None, "2"));
        assert!(!table.remove(old, 11));
        assert_eq!(states(&table, 0, old), [(11, Bytes::from_static(b"2"))]);
    }

    #[test]
    fn nobody_takes_the_client_id_of_another_who_is_here() {
        let [alice, bob, again] = [1, 2, 3].map(SessionId::from_u64);
        let (now, mut table) = (crate::time::now(), AwarenessTable::new(0, 10));
        table.set(now, announced_by("alice", alice, 11, "1"));
        for forged in ["2", "3"] {
            assert!(!table.set(now, announced_by("bob", bob, 11, forged)));
        }
        assert!(!table.remove(bob, 11), "nor sends away");
        assert_eq!(states(&table, 0, bob), [(11, Bytes::from_static(b"1"))]);
        assert!(table.set(now, announced_by("alice", again, 11, "4")), "she comes back");
        assert!(table.remove(again, 11));
        assert!(table.set(now, announced_by("bob", bob, 11, "5")), "it is free");
    }

    #[test]
    fn no_clock_of_a_client_grows_beyond_53_bits() {
        let (alice, mut table) = (SessionId::from_u64(1), AwarenessTable::new(0, 10));
        for n in 0..10 {
            let state = announced(alice, 11, Some((1 << 53) - 1), &n.to_string());
            assert!(table.set(crate::time::now(), state));
        }
        assert!(clock(&table, 11) < (1 << 52) + 100);
    }

    #[test]
    fn the_memory_of_those_who_are_gone_is_bounded() {
        let mut table = AwarenessTable::new(0, 3);
        for client in 0..100 {
            let session = SessionId::from_u64(client);
            table.set(crate::time::now(), announced(session, client, None, "{}"));
            table.remove(session, client);
        }
        assert_eq!(table.by_version.len(), 3);
        assert_eq!(table.by_client.len(), 3);
    }

    #[test]
    fn a_yjs_client_is_told_with_its_own_clock_so_that_an_echo_is_no_news_to_it() {
        let now = crate::time::now();
        let (alice, mut table) = (SessionId::from_u64(1), AwarenessTable::new(9_000_000, 10));
        table.set(now, announced(alice, 11, Some(0), "0"));
        assert_eq!(clock(&table, 11), FRESH_CLOCKS, "others may remember it from before");
        table.set(now, announced(alice, 11, Some(7), "7"));
        assert_eq!(clock(&table, 11), 7);
        // An echo, a renewal: nothing to tell, whatever the clock.
        for clock in [7, 6, 8, 100] {
            assert!(!table.set(now, announced(alice, 11, Some(clock), "7")));
        }
        table.set(now, announced(alice, 11, Some(8), "8"));
        assert_eq!(clock(&table, 11), 8);
    }

    #[test]
    fn a_client_that_comes_back_with_an_old_clock_is_news_to_those_who_were_told_of_its_end() {
        let now = crate::time::now();
        let (old, new) = (SessionId::from_u64(1), SessionId::from_u64(2));
        let mut table = AwarenessTable::new(0, 10);
        table.set(now, announced(old, 11, Some(7), "x"));
        table.remove(old, 11);
        let told = clock(&table, 11);
        assert!(table.set(now, announced(new, 11, Some(7), "x")));
        assert!(clock(&table, 11) > told);
    }

    #[test]
    fn what_was_told_too_long_ago_is_told_again_and_what_is_gone_is_not() {
        let start = crate::time::now();
        let mut table = AwarenessTable::new(0, 10);
        let sessions: Vec<_> = (1..=3).map(SessionId::from_u64).collect();
        table.set(start, announced(sessions[0], 1, None, "1"));
        table.set(start, announced(sessions[1], 2, Some(5), "2"));
        table.set(start + RENEW_AFTER / 2, announced(sessions[2], 3, Some(5), "3"));
        table.remove(sessions[1], 2);
        assert!(!table.renew(start + RENEW_AFTER - Duration::from_millis(1)));
        let (seen, told) = (table.version(), clock(&table, 1));
        assert!(table.renew(start + RENEW_AFTER));
        assert_eq!(states(&table, seen, sessions[1]), [(1, Bytes::from_static(b"1"))]);
        assert_eq!(clock(&table, 1), told + 1);
        assert!(!table.renew(start + RENEW_AFTER), "once");
    }
}
