//! The documents in memory: the only folder that imports yrs.
//!
//! What we know of yrs 0.28 and build on: several updates applied in one transaction give one event,
//! which is several times smaller than they are; `encode_diff` leaves out what is pending while
//! `encode_state_as_update` panics over it; blocks behind a gap are integrated without a word; some
//! well-formed input makes it panic. So bytes are checked in [`validate`] first, updates must be
//! causally complete, panics are caught here and end the room, and nothing is ever pending.

mod canonical;
mod document;
mod error;
pub mod validate;

pub use self::{
    document::{Batch, Document, faithful_checkpoint, is_same},
    error::{Fault, Incomplete},
};
