//! Something for each of a few clients, or of many: looked up from end to end while they are few, which
//! allocates nothing, and by hash from then on.

use foldhash::HashMap;
use smallvec::SmallVec;

/// From how many entries on they are looked up by hash.
const LINEAR_MAX: usize = 16;

/// A map by client id, in the order in which clients were added.
#[derive(Debug)]
pub(super) struct ByClient<T> {
    list: SmallVec<[(u64, T); 2]>,
    /// Client to index in `list`, kept once the list is long.
    index: HashMap<u64, usize>,
    /// The entry that was added last: what is said of one client mostly comes together.
    last: usize,
}

impl<T> Default for ByClient<T> {
    fn default() -> Self {
        Self { list: SmallVec::new(), index: HashMap::default(), last: 0 }
    }
}

impl<T> ByClient<T> {
    fn position(&self, client: u64) -> Option<usize> {
        match self.list.get(self.last) {
            Some((last, _)) if *last == client => Some(self.last),
            _ if self.index.is_empty() => self.list.iter().position(|(other, _)| *other == client),
            _ => self.index.get(&client).copied(),
        }
    }

    /// What there is for `client`.
    #[inline]
    pub(super) fn get(&self, client: u64) -> Option<&T> {
        self.position(client).and_then(|at| self.list.get(at)).map(|(_, value)| value)
    }

    /// What there is for `client`, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, client: u64) -> Option<&mut T> {
        self.position(client).and_then(|at| self.list.get_mut(at)).map(|(_, value)| value)
    }

    /// Adds `client`, for which there is nothing yet.
    pub(super) fn add(&mut self, client: u64, value: T) {
        self.last = self.list.len();
        self.list.push((client, value));
        if self.list.len() == LINEAR_MAX {
            self.index =
                self.list.iter().enumerate().map(|(i, (client, _))| (*client, i)).collect();
        } else if self.list.len() > LINEAR_MAX {
            self.index.insert(client, self.last);
        }
    }

    /// Everything, in the order in which it was added.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &(u64, T)> {
        self.list.iter()
    }
}

impl<T> IntoIterator for ByClient<T> {
    type Item = (u64, T);
    type IntoIter = smallvec::IntoIter<[(u64, T); 2]>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_found_as_they_were_added() {
        for count in [0, 1, 2, 15, 16, 17, 1000] {
            let mut map = ByClient::default();
            for client in 0..count {
                assert!(map.get(client * 3).is_none());
                map.add(client * 3, client);
            }
            for client in 0..count {
                *map.get_mut(client * 3).unwrap() += 1;
            }
            for client in 0..count {
                assert_eq!(map.get(client * 3), Some(&(client + 1)));
                assert_eq!(map.get(client * 3 + 1), None);
            }
            let list: Vec<_> = map.into_iter().collect();
            assert_eq!(list, (0..count).map(|i| (i * 3, i + 1)).collect::<Vec<_>>());
        }
    }
}
