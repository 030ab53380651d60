//! What brings a session up to date: the whole document, a difference, or the updates since.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{Member, State};
use crate::{
    crdt::Fault,
    ids::{Sequence, SessionId},
    room::{
        catch_up::Charge,
        error::CloseReason,
        outbox::{Chunk, Event, Shared, Update},
    },
    time::Instant,
};

/// The largest part of a difference, in bytes: a frame that fits any message limit.
const CHUNK_BYTES_MAX: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Asked {
    /// What the session has (yrs v1 state vector).
    pub(super) state_vector: Bytes,
    /// The last update that it sent before.
    pub(super) after: u64,
}

/// Updates for sessions that come back.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) updates: VecDeque<Arc<Shared<Update>>>,
    pub(super) bytes: usize,
    /// The sequence before the first of `updates`.
    pub(super) from: Sequence,
}

impl State {
    pub(super) fn full(&mut self) -> Result<Vec<Event>, Fault> {
        if let Some(full) = &self.full {
            return Ok(full.clone());
        }
        let state = self.document.state()?;
        self.document_bytes = state.len();
        let full = chunks(&state, self.head, Some(&self.document.state_vector()));
        self.full = Some(full.clone());
        Ok(full)
    }

    /// Sends a difference to each session that has asked for one and has taken the one before. It
    /// ends a session's lagging, because it goes up to now.
    pub(super) fn answer(&mut self) -> Result<(), Fault> {
        if self.asking == 0 {
            return Ok(());
        }
        let wants = |member: &Member| member.asked.is_some() && member.outbox.takes_difference();
        // What it sent before it asked is in the answer.
        let waits = |id: SessionId, member: &Member| {
            let after = member.asked.as_ref().map_or(0, |asked| asked.after);
            self.staged.iter().any(|other| other.session == id && other.update_id <= after)
        };
        let asking =
            self.members.iter().filter(|(id, member)| wants(member) && !waits(**id, member));
        let asking: Vec<_> = asking.map(|(id, _)| *id).collect();
        for session in asking {
            let asked = self.members.get(&session).and_then(|member| member.asked.as_ref());
            let Some(state_vector) = asked.map(|asked| asked.state_vector.clone()) else {
                continue;
            };
            // An empty state vector is a count of 0.
            let difference = if matches!(state_vector[..], [] | [0]) {
                Some(self.full()?)
            } else {
                let document = self.document.state_vector();
                match self.private(&state_vector, Some(&document))? {
                    Ok(difference) => difference,
                    Err(malformed) => return Err(Fault { what: malformed.to_string() }),
                }
            };
            // It waits for others to take theirs.
            let Some(difference) = difference else { continue };
            self.catch_up_begins(session);
            let Some(member) = self.members.get_mut(&session) else { continue };
            member.asked = None;
            self.asking -= 1;
            self.lagging -= usize::from(member.lagging.take().is_some());
            member.outbox.resync(difference);
        }
        Ok(())
    }

    /// Sends a difference to each lagging session that has taken everything.
    pub(super) fn resync_lagging(&mut self) -> Result<(), Fault> {
        if self.lagging == 0 {
            return Ok(());
        }
        let drained = |(session, member): (&SessionId, &Member)| {
            let lagging = member.lagging.as_ref().filter(|_| member.outbox.is_drained())?;
            Some((*session, lagging.state_vector.clone()))
        };
        let drained: Vec<_> = self.members.iter().filter_map(drained).collect();
        for (session, state_vector) in drained {
            let difference = match self.private(&state_vector, None)? {
                Ok(difference) => difference,
                Err(malformed) => return Err(Fault { what: malformed.to_string() }),
            };
            let Some(member) = self.members.get_mut(&session) else { continue };
            // Else it waits for others to take theirs.
            if let Some(difference) = difference {
                member.outbox.resync(difference);
                member.lagging = None;
                self.lagging -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn end_lagging(&mut self, now: Instant) {
        if self.lagging == 0 {
            return;
        }
        let max = self.config.lagging_max;
        let late = |member: &Member| member.lagging.as_ref().is_some_and(|l| l.since + max <= now);
        let late: Vec<_> =
            self.members.iter().filter(|(_, member)| late(member)).map(|(id, _)| *id).collect();
        for session in late {
            self.end(session, CloseReason::TooSlow(max));
        }
    }
}

impl Recent {
    pub(super) fn push(&mut self, update: Arc<Shared<Update>>, bytes_max: usize) {
        self.bytes += update.get().update.len();
        self.updates.push_back(update);
        while self.bytes > bytes_max {
            let Some(oldest) = self.updates.pop_front() else { break };
            self.bytes -= oldest.get().update.len();
            self.from = oldest.get().sequence;
        }
    }

    /// The updates after `sequence`, if they are all here.
    pub(super) fn after(&self, sequence: Sequence, head: Sequence) -> Option<Vec<Event>> {
        if sequence < self.from || sequence > head {
            return None;
        }
        let newer = self.updates.iter().filter(|update| update.get().sequence > sequence);
        Some(newer.map(|update| Event::Update(Arc::clone(update))).collect())
    }
}

/// An update (yrs v1) in parts.
pub(super) fn chunks(update: &Bytes, sequence: Sequence, asked: Option<&Bytes>) -> Vec<Event> {
    charged_chunks(update, sequence, asked, None)
}

/// An update (yrs v1) in parts, which are counted together.
pub(super) fn charged_chunks(
    update: &Bytes,
    sequence: Sequence,
    asked: Option<&Bytes>,
    charge: Option<&Arc<Charge>>,
) -> Vec<Event> {
    let parts = update.len().div_ceil(CHUNK_BYTES_MAX).max(1);
    let part = |i: usize| {
        let bytes = update.slice(i * CHUNK_BYTES_MAX..update.len().min((i + 1) * CHUNK_BYTES_MAX));
        let (last, total, asked) = (i + 1 == parts, update.len(), asked.cloned());
        let chunk = Chunk { bytes, last, sequence, total, asked };
        Event::Chunk(Shared::charged(chunk, charge.cloned()))
    };
    (0..parts).map(part).collect()
}

pub(super) fn event_bytes(event: &Event) -> usize {
    if let Event::Chunk(chunk) = event { chunk.get().bytes.len() } else { 0 }
}
