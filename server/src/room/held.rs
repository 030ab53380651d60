//! Updates that arrived before what they need: kept for a while, within bounds.
//!
//! A Yjs client that comes back types on before it has sent what it typed while it was away, so that
//! its newest update arrives before the ones that it builds on. Those come with the answer to our
//! state vector a moment later.

use std::collections::VecDeque;

use super::{CheckedUpdate, Incoming, UpdateKind, config::Config};
use crate::{crdt::Incomplete, time::Instant};

/// The updates of one session that wait for what they need.
#[derive(Debug)]
pub(super) struct Held {
    updates: VecDeque<HeldUpdate>,
    bytes: usize,
    /// When the first of them arrived.
    pub(super) since: Instant,
    /// What the last one lacks.
    pub(super) lacks: Incomplete,
}

#[derive(Debug)]
pub(super) struct HeldUpdate {
    pub(super) update_id: u64,
    pub(super) update: CheckedUpdate,
    pub(super) kind: UpdateKind,
    pub(super) arrived: Instant,
}

impl Held {
    /// Holds nothing yet; `lacks` is what the first update will.
    pub(super) fn new(now: Instant, lacks: Incomplete) -> Self {
        Self { updates: VecDeque::new(), bytes: 0, since: now, lacks }
    }

    /// Holds an update; returns whether it is within the bounds.
    pub(super) fn push(&mut self, incoming: Incoming, lacks: Incomplete, config: &Config) -> bool {
        let Incoming { update_id, update, kind, arrived, .. } = incoming;
        self.bytes += update.bytes.len();
        self.lacks = lacks;
        // Its permit is given back: what is held does not take from the mailbox. The bytes are
        // copied, because they are a part of whatever was read from the connection at once.
        let bytes = bytes::Bytes::copy_from_slice(&update.bytes);
        let update = CheckedUpdate { bytes, ..update };
        self.updates.push_back(HeldUpdate { update_id, update, kind, arrived });
        self.updates.len() <= config.held_items_max && self.bytes <= config.held_bytes_max
    }

    /// The lowest update id that is held.
    pub(super) fn first_id(&self) -> Option<u64> {
        self.updates.iter().map(|held| held.update_id).min()
    }

    /// Takes out the updates that lack nothing any more, as `is_complete` says, one building on the
    /// other.
    pub(super) fn release(
        &mut self,
        mut is_complete: impl FnMut(&HeldUpdate) -> bool,
    ) -> Vec<HeldUpdate> {
        let mut released = Vec::new();
        loop {
            let before = released.len();
            for held in std::mem::take(&mut self.updates) {
                if is_complete(&held) {
                    self.bytes -= held.update.bytes.len();
                    released.push(held);
                } else {
                    self.updates.push_back(held);
                }
            }
            if released.len() == before {
                return released;
            }
        }
    }
}
