//! Which updates of a document the client is still to be told about: each one, in order.

use std::collections::BTreeSet;

/// The updates of one document, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// The last that came.
    last: u64,
    /// The last that the client was told about.
    told: u64,
    /// The last that is durable, with all before it that were not refused.
    durable: u64,
    /// Those that were refused and not told about.
    refused: BTreeSet<u64>,
}

impl Acks {
    /// Numbers an update that came.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Updates up to this one are durable.
    pub(super) fn acknowledge(&mut self, update_id: u64) {
        self.durable = self.durable.max(update_id);
    }

    /// An update was not taken.
    pub(super) fn refuse(&mut self, update_id: u64) {
        self.refused.insert(update_id);
    }

    /// What to say of the next update; `None` while it is not known.
    pub(super) fn next(&mut self) -> Option<bool> {
        let next = self.told + 1;
        let is_taken = if self.refused.remove(&next) {
            false
        } else if next <= self.durable.min(self.last) {
            true
        } else {
            return None;
        };
        self.told = next;
        Some(is_taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_update_is_told_about_once_and_in_order() {
        let mut acks = Acks::default();
        let ids: Vec<_> = (0..6).map(|_| acks.number()).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
        assert_eq!(acks.next(), None);
        // Too large: known before those that came earlier.
        acks.refuse(3);
        acks.acknowledge(2);
        let told = |acks: &mut Acks| std::iter::from_fn(|| acks.next()).collect::<Vec<_>>();
        assert_eq!(told(&mut acks), [true, true, false]);
        acks.refuse(5);
        acks.acknowledge(6);
        assert_eq!(told(&mut acks), [true, false, true]);
        acks.acknowledge(9);
        assert!(told(&mut acks).is_empty(), "nothing was sent since");
    }
}
