//! Whose the client ids of a document are: of the first who wrote under them.
//!
//! What somebody writes is known by the client id. Who could write under that of another could take
//! clocks away from him, so that his next edits are taken for known and vanish. Nobody owns what was
//! written by nobody, as where no credentials are asked for, and what was imported: it is his who goes
//! on with it first.

use bytes::Bytes;
use foldhash::HashMap;
use yrs::encoding::write::Write as _;

use super::validate::{Cursor, Malformed};
use crate::ids::Principal;

/// Somebody who writes in a document, by a number that holds for as long as the document is in
/// memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author(u32);

impl Author {
    /// Somebody who is not known, or who does not want to own anything.
    pub const NOBODY: Self = Self(0);
}

/// Whose the client ids of a document are.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By number, from 1 on.
    names: Vec<Principal>,
    numbers: HashMap<Principal, Author>,
    of: HashMap<u64, Author>,
}

impl Owners {
    /// The number of somebody.
    pub(super) fn author(&mut self, principal: &Principal) -> Author {
        if principal.is_anonymous() {
            return Author::NOBODY;
        }
        if let Some(author) = self.numbers.get(principal) {
            return *author;
        }
        self.names.push(principal.clone());
        let author = Author(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.numbers.insert(principal.clone(), author);
        author
    }

    /// Whether `author` may write under `client`.
    pub(super) fn may_write(&self, client: u64, author: Author) -> bool {
        author == Author::NOBODY || self.of.get(&client).is_none_or(|owner| *owner == author)
    }

    /// Gives `client` to `author`, if it is nobody's.
    pub(super) fn claim(&mut self, client: u64, author: Author) {
        if author != Author::NOBODY {
            self.of.entry(client).or_insert(author);
        }
    }

    /// All of it: `names, name.., clients, { client, number }..`, as in lib0. Empty for nothing.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        if self.of.is_empty() {
            return out.into();
        }
        out.write_var(self.names.len());
        for name in &self.names {
            out.write_buf(name.as_str());
        }
        let mut entries: Vec<_> = self.of.iter().collect();
        entries.sort_unstable_by_key(|(client, _)| **client);
        out.write_var(entries.len());
        for (client, Author(number)) in entries {
            out.write_var(*client);
            out.write_var(*number);
        }
        out.into()
    }

    /// Reads what [`Self::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut owners = Self::default();
        if bytes.is_empty() {
            return Ok(owners);
        }
        let mut cursor = Cursor { bytes, at: 0 };
        for _ in 0..cursor.count(1, "more names than bytes")? {
            let name = Principal::new(cursor.string()?);
            owners.author(&name.ok_or_else(|| cursor.malformed("a name that is none"))?);
        }
        for _ in 0..cursor.count(2, "more clients than bytes")? {
            let (client, number) = (cursor.client()?, cursor.clock()?);
            owners.of.insert(client, Author(number));
        }
        cursor.end()?;
        Ok(owners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_of_the_first_who_wrote_under_it_and_stays_so() {
        let mut owners = Owners::default();
        let [alice, bob] =
            ["alice", "bob"].map(|name| owners.author(&Principal::new(name).unwrap()));
        assert_eq!(owners.author(&Principal::anonymous()), Author::NOBODY);
        owners.claim(7, Author::NOBODY);
        assert!(owners.may_write(7, bob), "nobody owns nothing");
        owners.claim(7, alice);
        owners.claim(7, bob);
        owners.claim(9, bob);
        let mut again = Owners::decode(&owners.encode()).unwrap();
        let [alice, bob] =
            ["alice", "bob"].map(|name| again.author(&Principal::new(name).unwrap()));
        let carol = again.author(&Principal::new("carol").unwrap());
        for owners in [&owners, &again] {
            assert!(owners.may_write(7, alice) && !owners.may_write(7, bob));
            assert!(owners.may_write(9, bob) && !owners.may_write(9, alice));
            assert!(owners.may_write(1, bob) && owners.may_write(7, Author::NOBODY));
        }
        assert!(!again.may_write(7, carol) && !again.may_write(9, carol));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let mut owners = Owners::default();
        let alice = owners.author(&Principal::new("alice").unwrap());
        owners.claim(7, alice);
        let bytes = owners.encode();
        for end in 1..bytes.len() {
            assert!(Owners::decode(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(Owners::default().encode(), "");
    }
}
