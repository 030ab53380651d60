//! Sessions that take the state that they joined with, and what waits for them meanwhile.

use std::time::Duration;

use bytes::Bytes;

use super::{State, closed, count_closed, differences::charged_chunks};
use crate::{
    crdt::{Fault, validate::Malformed},
    ids::SessionId,
    room::{error::CloseReason, memory::Weights, outbox::Event},
    time::{self, Instant},
};

/// How often it is looked whether there is room again for a difference that waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a session may take nothing of its state while others wait for room; and how often it is
/// looked. A part has up to 256 KiB, so that 50 KiB/s are enough.
const STALLED_MAX: Duration = Duration::from_secs(5);

/// How long each part may take on top of `room.lagging_max`, altogether: 64 KiB/s.
const PART_MAX: Duration = Duration::from_secs(4);

/// A session that takes the state that it joined with.
#[derive(Debug)]
pub(super) struct CatchingUp {
    /// Parts that it had not taken when it was last looked.
    left: usize,
    /// When it was last seen to have taken one.
    moved: Instant,
    /// When it has to have taken all.
    ends: Instant,
}

impl State {
    /// What somebody lacks who has `state_vector` (yrs v1), in parts; `None` if too much waits for
    /// others already.
    pub(super) fn private(
        &mut self,
        state_vector: &Bytes,
        asked: Option<&Bytes>,
    ) -> Result<Result<Option<Vec<Event>>, Malformed>, Fault> {
        // Looked at first, because making one for nothing is what is to be avoided.
        let charged = if self.catch_ups.has_room() {
            match self.document.diff(state_vector)? {
                Ok(diff) => self.catch_ups.charge(diff.len()).map(|charge| (diff, charge)),
                Err(malformed) => return Ok(Err(malformed)),
            }
        } else {
            None
        };
        self.look_at = charged.is_none().then(|| time::now() + LOOK_INTERVAL);
        let chunks = |(diff, charge)| charged_chunks(&diff, self.head, asked, Some(&charge));
        Ok(Ok(charged.map(chunks)))
    }

    /// The session has been given a state that it has to take in time.
    pub(super) fn catch_up_begins(&mut self, session: SessionId) {
        let now = time::now();
        let lagging_max = self.config.lagging_max;
        if let Some(member) = self.members.get_mut(&session) {
            let left = member.outbox.chunks();
            let parts = u32::try_from(left).unwrap_or(u32::MAX);
            let ends = now + lagging_max + PART_MAX.saturating_mul(parts);
            member.catching_up = Some(CatchingUp { left, moved: now, ends });
            self.look_up_at.get_or_insert(now + STALLED_MAX.min(lagging_max));
        }
    }

    /// Ends those who do not take it.
    pub(super) fn end_catching_up(&mut self, now: Instant) {
        if self.look_up_at.is_none_or(|at| at > now) {
            return;
        }
        let max = self.config.lagging_max;
        let is_wanted = self.catch_ups.is_wanted(now, STALLED_MAX);
        let still = if is_wanted { STALLED_MAX.min(max) } else { max };
        let mut late = Vec::new();
        self.look_up_at = None;
        for (session, member) in &mut self.members {
            let Some(catching_up) = &mut member.catching_up else { continue };
            let left = member.outbox.chunks();
            if left < catching_up.left {
                (catching_up.left, catching_up.moved) = (left, now);
            }
            if left == 0 {
                member.catching_up = None;
            } else if catching_up.moved + still <= now || catching_up.ends <= now {
                late.push(*session);
            } else {
                self.look_up_at = Some(now + STALLED_MAX.min(max));
            }
        }
        for session in late {
            if let Some(member) = self.remove(session) {
                let reason = CloseReason::TooSlow(max);
                count_closed(&self.metrics, &reason);
                // What waits for it is wanted by others.
                member.outbox.abandon(closed(reason));
            }
        }
    }

    /// When there is something to do again for those who catch up.
    pub(super) fn catch_up_at(&self) -> Option<Instant> {
        [self.look_up_at, self.look_at].into_iter().flatten().min()
    }

    /// What the room takes of the memory is reckoned from this.
    pub(in crate::room) fn weights(&self) -> Weights {
        // The whole document, encoded, is kept until it changes.
        let full = if self.full.is_some() { self.document_bytes } else { 0 };
        Weights {
            document_bytes: self.document_bytes,
            structs: Some(self.document.structs()),
            encoded_bytes: full + self.recent.bytes,
            sessions: self.members.len(),
        }
    }

    /// Since when nobody is in the room and nothing waits.
    pub(in crate::room) fn empty_since(&self) -> Option<Instant> {
        self.idle_since
    }
}
