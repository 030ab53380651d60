//! When a checkpoint is made, and of what.

use super::{State, chunks};
use crate::{
    crdt::{CheckpointParts, Fault},
    ids::Sequence,
};

/// A room is not worth a checkpoint before it leaves memory if this few updates would be replayed.
const UNLOAD_UPDATES: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct SinceCheckpoint {
    pub(super) sequence: Sequence,
    pub(super) updates: u64,
    pub(super) bytes: usize,
    /// The size of the document at the last checkpoint.
    pub(super) checkpoint_bytes: usize,
    pub(super) running: bool,
}

/// A checkpoint to be made, verified and stored.
#[derive(Debug)]
pub(in crate::room) struct CheckpointJob {
    /// What is in it.
    pub(in crate::room) sequence: Sequence,
    /// The document, and whose its client ids are.
    pub(in crate::room) parts: CheckpointParts,
}

impl State {
    /// A checkpoint, when it is time for one, or, `unloading`, when there is anything to be gained.
    pub(in crate::room) fn checkpoint(
        &mut self,
        unloading: bool,
    ) -> Result<Option<CheckpointJob>, Fault> {
        let since = &self.since_checkpoint;
        // The work of a checkpoint grows with the document; so does the time to the next one: until
        // as much was added as the checkpoint has, or, by keystrokes, until a load would replay for
        // 5 ms (4000 updates), or for longer if it takes long anyway, up to a tenth of a second.
        let least = self.config.checkpoint_updates;
        let replayed = (since.checkpoint_bytes as u64 / 64).clamp(4 * least, 100 * least);
        let due = since.updates >= least
            && (since.bytes >= since.checkpoint_bytes || since.updates >= replayed);
        let due = due || (unloading && since.updates >= UNLOAD_UPDATES);
        if !due || since.running || self.writing || since.sequence == self.head {
            return Ok(None);
        }
        let parts = self.document.checkpoint_parts()?;
        let state = parts.state();
        self.document.recount(state)?;
        self.document_bytes = state.len();
        self.full = Some(chunks(state, self.head, Some(&self.document.state_vector())));
        self.since_checkpoint = SinceCheckpoint {
            sequence: self.head,
            updates: 0,
            bytes: 0,
            checkpoint_bytes: state.len(),
            running: true,
        };
        Ok(Some(CheckpointJob { sequence: self.head, parts }))
    }

    /// The checkpoint that was made last has been stored, or not: then there will be another one
    /// when it is time again.
    pub(in crate::room) fn checkpoint_done(&mut self) {
        self.since_checkpoint.running = false;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        ids::{DocumentId, Epoch, Principal, SessionId},
        log::{Loaded, Record},
        metrics::Metrics,
        room::{catch_up::CatchUps, config::Config},
    };

    /// A room without sessions, whose document was loaded from this many updates, at most 128.
    pub(in crate::room::state) fn idle_room(updates: u8) -> State {
        let record = |clock: u8| {
            // One struct of client 1: the text "x" in front of the root "r"; no deletions.
            let update = Bytes::from(vec![1, 1, 1, clock, 4, 1, 1, b'r', 1, b'x', 0]);
            let (principal, session) = (Principal::anonymous(), SessionId::from_u64(1));
            let sequence = Sequence(u64::from(clock) + 1);
            Record { sequence, time_ms: 0, principal, session, update }
        };
        let tail = (0..updates).map(record).collect();
        let loaded = Loaded { epoch: Epoch([1; 16]), checkpoint: None, tail };
        let (id, config) = (DocumentId::parse("doc").unwrap(), Arc::new(Config::default()));
        let (metrics, sessions) = (Metrics::new().room, Arc::default());
        let catch_ups = Arc::new(CatchUps::new(1, 1, metrics.clone()));
        State::new(id, config, metrics, Some(&loaded), sessions, catch_ups, false).unwrap()
    }

    #[test]
    fn an_idle_room_that_waits_for_its_checkpoint_has_no_deadline() {
        let mut room = idle_room(100);
        assert!(room.deadline().is_some());
        let job = room.checkpoint(true).unwrap().unwrap();
        assert_eq!(job.sequence, Sequence(100));
        assert_eq!(room.deadline(), None);
        room.checkpoint_done();
        assert!(room.deadline().is_some());
        assert!(room.checkpoint(true).unwrap().is_none(), "nothing has changed since");
    }

    #[test]
    fn a_room_with_few_updates_leaves_without_a_checkpoint() {
        assert!(idle_room(99).checkpoint(true).unwrap().is_none());
    }
}
