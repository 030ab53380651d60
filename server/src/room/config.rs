//! The settings of rooms.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{memory::Weights, outbox::OutboxLimits};
use crate::crdt::{Quotas, validate::STATE_VECTOR_CLIENTS_MAX};

/// The settings of rooms: the table `[room]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rooms in memory at most. Beyond, rooms in which nobody is leave; if there is none, nobody gets
    /// into another document.
    pub rooms_max: usize,
    /// What all rooms may take of the memory, about, in bytes; 0 is no limit. Beyond, rooms in which
    /// nobody is leave; if that is not enough, nobody gets into another document. 4 GiB and not a part
    /// of what the machine has, because what else runs there is not known here.
    pub memory_bytes_max: usize,
    /// Sessions in a room at most.
    pub sessions_max: usize,
    /// The largest document, encoded as one yrs v1 update, in bytes.
    pub document_bytes_max: usize,
    /// Yjs clients that may have written in a document; every page that is loaded and typed into is
    /// one, for ever. A state vector has an entry for each, and may have no more.
    pub clients_max: usize,
    /// Shared types at the root of a document. One without content takes 700 bytes of memory.
    pub roots_max: usize,
    /// Subdocuments in a document, each of which takes 1 KiB of memory; 0 to refuse them.
    pub subdocuments_max: usize,
    /// The shared type at the root that who may comment may change.
    pub comments_root: String,
    /// A Yjs client id belongs to the principal who first wrote under it, and nobody else may. Turn it
    /// off where clients pass on to the server what they have from others before those have sent it,
    /// as with a peer-to-peer provider beside this one.
    pub client_ids_owned: bool,
    /// Updates that wait in a room's mailbox at most.
    pub mailbox_items_max: usize,
    /// Bytes of updates that wait in a room's mailbox at most.
    pub mailbox_bytes_max: u32,
    /// How long a session waits for a room that does not keep up before it is ended.
    #[serde(with = "humantime_serde")]
    pub mailbox_wait: Duration,
    /// Updates that wait for one session at most; beyond, it gets a difference instead.
    pub outbox_items_max: usize,
    /// Bytes of updates that wait for one session at most.
    pub outbox_bytes_max: usize,
    /// Bytes of recent updates that a room keeps for sessions that come back.
    pub recent_bytes_max: usize,
    /// The shortest time between two fan-outs, for each session in the room. An update after a pause
    /// is passed on at once; under load this gathers updates, because what one fan-out costs does
    /// not depend on how many there are in it. 40 us is about three times what a delivery costs.
    #[serde(with = "humantime_serde")]
    pub pace_per_session: Duration,
    /// The longest time between two fan-outs by that rule.
    #[serde(with = "humantime_serde")]
    pub pace_max: Duration,
    /// The shortest time between two fan-outs of awareness.
    #[serde(with = "humantime_serde")]
    pub awareness_interval: Duration,
    /// Updates of a Yjs client that are held at most until what they need has arrived.
    pub held_items_max: usize,
    /// Bytes of such updates at most.
    pub held_bytes_max: usize,
    /// How long they are held before the session is ended.
    #[serde(with = "humantime_serde")]
    pub held_max: Duration,
    /// Documents that are loaded at the same time at most.
    pub catch_ups_max: usize,
    /// Bytes of differences that wait for sessions to take them, on the whole server: those that one
    /// session alone gets, because it has a part of the document already. Beyond, joins that would
    /// need one are refused for now.
    pub catch_up_bytes_max: usize,
    /// How long a session may be lagging, or take nothing of the state that it joined with, before it
    /// is ended.
    #[serde(with = "humantime_serde")]
    pub lagging_max: Duration,
    /// How long a room without sessions stays in memory.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A checkpoint is made after this many updates, and more for large documents.
    pub checkpoint_updates: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rooms_max: 10_000,
            memory_bytes_max: 4 << 30,
            sessions_max: 2_000,
            document_bytes_max: 64 << 20,
            clients_max: 100_000,
            roots_max: 10_000,
            subdocuments_max: 1000,
            comments_root: "comments".to_owned(),
            client_ids_owned: true,
            mailbox_items_max: 1024,
            mailbox_bytes_max: 4 << 20,
            mailbox_wait: Duration::from_secs(5),
            outbox_items_max: 1024,
            outbox_bytes_max: 256 << 10,
            recent_bytes_max: 64 << 10,
            pace_per_session: Duration::from_micros(40),
            pace_max: Duration::from_millis(15),
            awareness_interval: Duration::from_millis(50),
            held_items_max: 256,
            held_bytes_max: 1 << 20,
            held_max: Duration::from_secs(10),
            catch_ups_max: 64,
            catch_up_bytes_max: 256 << 20,
            lagging_max: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            checkpoint_updates: 1000,
        }
    }
}

impl Config {
    /// What an outbox holds.
    #[must_use]
    pub fn outbox_limits(&self) -> OutboxLimits {
        OutboxLimits { items_max: self.outbox_items_max, bytes_max: self.outbox_bytes_max }
    }

    /// How much of a document there may be.
    pub(super) fn quotas(&self) -> Quotas {
        let Self { clients_max, roots_max, subdocuments_max, .. } = *self;
        Quotas { clients_max, roots_max, subdocuments_max }
    }

    /// The bytes of the mailbox that an update of this size takes: at least its share of the items,
    /// so that small updates are bounded in number, and at most all, so that a large one fits.
    pub(super) fn mailbox_charge(&self, bytes: usize) -> u32 {
        let items_max = u32::try_from(self.mailbox_items_max).unwrap_or(u32::MAX).max(1);
        let share = (self.mailbox_bytes_max / items_max).max(1);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        bytes.max(share).min(self.mailbox_bytes_max)
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value) in [
            ("rooms_max", self.rooms_max),
            ("sessions_max", self.sessions_max),
            ("document_bytes_max", self.document_bytes_max),
            ("clients_max", self.clients_max),
            ("roots_max", self.roots_max),
            ("mailbox_items_max", self.mailbox_items_max),
            ("mailbox_bytes_max", usize::try_from(self.mailbox_bytes_max).unwrap_or(usize::MAX)),
            ("outbox_items_max", self.outbox_items_max),
            ("outbox_bytes_max", self.outbox_bytes_max),
            ("catch_ups_max", self.catch_ups_max),
            ("catch_up_bytes_max", self.catch_up_bytes_max),
            ("checkpoint_updates", usize::try_from(self.checkpoint_updates).unwrap_or(usize::MAX)),
        ] {
            if value == 0 {
                return Err(format!("room.{key} must be at least 1"));
            }
        }
        if self.document_bytes_max > 1 << 30 {
            return Err("room.document_bytes_max must be at most 1073741824 (1 GiB)".to_owned());
        }
        if self.clients_max as u64 > STATE_VECTOR_CLIENTS_MAX {
            return Err(format!(
                "room.clients_max must be at most {STATE_VECTOR_CLIENTS_MAX}, what a state vector has"
            ));
        }
        if self.comments_root.is_empty() {
            return Err("room.comments_root must name a shared type".to_owned());
        }
        let largest = Weights { document_bytes: self.document_bytes_max, ..Weights::default() };
        if self.memory_bytes_max > 0 && self.memory_bytes_max < largest.bytes() {
            return Err(format!(
                "room.memory_bytes_max must be 0 or at least {}, which is what a document of \
                 room.document_bytes_max takes",
                largest.bytes()
            ));
        }
        if self.pace_max > Duration::from_secs(1) {
            return Err("room.pace_max must be at most 1s: edits wait for it".to_owned());
        }
        if self.lagging_max.is_zero() {
            return Err("room.lagging_max must be more than 0s".to_owned());
        }
        if self.held_max.is_zero() {
            return Err("room.held_max must be more than 0s".to_owned());
        }
        if self.mailbox_wait.is_zero() {
            return Err("room.mailbox_wait must be more than 0s".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_holds_no_more_small_updates_than_items_and_always_one_large_update() {
        let config = Config { mailbox_items_max: 8, mailbox_bytes_max: 800, ..Config::default() };
        assert_eq!(config.mailbox_charge(0), 100);
        assert_eq!(config.mailbox_charge(100), 100);
        assert_eq!(config.mailbox_charge(101), 101);
        assert_eq!(config.mailbox_charge(5000), 800);
    }
}
