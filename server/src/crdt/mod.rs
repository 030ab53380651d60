//! The documents in memory: the only folder that imports yrs.
//!
//! What we know of yrs 0.28 and build on: several updates applied in one transaction give one event,
//! which is several times smaller than they are; `encode_diff` leaves out what is pending while
//! `encode_state_as_update` panics over it; blocks behind a gap are integrated without a word; some
//! well-formed input makes it panic, overflow the stack, or search for minutes. So there is a wall in
//! front of it: [`validate`] checks the bytes, `outline` what they mean in the document at hand,
//! `owners` who may write under which client id; updates must be causally complete, panics are caught
//! here and end the room, and nothing is ever pending.

mod by_client;
mod canonical;
mod checkpoint;
mod document;
mod error;
mod outline;
mod owners;
pub mod validate;

pub use self::{
    document::{Batch, CheckpointParts, Document, Logged, Terms, faithful_checkpoint, is_same},
    error::{Fault, Incomplete, Rejection},
    outline::{Excess, Quotas, TYPE_DEPTH_MAX},
    owners::Author,
};

/// Reads what stands in front of the yrs update in a checkpoint, for fuzz targets.
#[cfg(fuzzing)]
pub fn read_owners(bytes: &[u8]) {
    if let Ok((owners, _)) = checkpoint::open(bytes) {
        drop(owners::Owners::decode(owners));
    }
}

#[cfg(test)]
mod tests;
