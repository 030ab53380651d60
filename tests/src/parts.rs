//! Yjs v1 updates built struct by struct, for what no editor writes.

use bytes::Bytes;

/// Content of one clock: the value `null`.
pub const NULL: &[u8] = &[1, 126];

/// Builds an update.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    sections: Vec<(u64, u32, Vec<Vec<u8>>)>,
    deletions: Vec<(u64, u32, u32)>,
}

/// Appends a number as lib0 writes it.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn reference(out: &mut Vec<u8>, (client, clock): (u64, u32)) {
    number(out, client);
    number(out, clock.into());
}

/// An item of this kind with this content in the root `name`.
#[must_use]
pub fn in_root(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 1];
    number(&mut out, name.len() as u64);
    out.extend(name.as_bytes());
    out.extend(content);
    out
}

/// An item of this kind with this content in the shared type of this name.
#[must_use]
pub fn within(kind: u8, parent: (u64, u32), content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    reference(&mut out, parent);
    out.extend(content);
    out
}

/// An item of this kind with this content to the right of another.
#[must_use]
pub fn after(kind: u8, left: (u64, u32), content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind | 0x80];
    reference(&mut out, left);
    out.extend(content);
    out
}

/// An item of this kind with this content to the left of another.
#[must_use]
pub fn before(kind: u8, right: (u64, u32), content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind | 0x40];
    reference(&mut out, right);
    out.extend(content);
    out
}

/// This many clocks that were collected.
#[must_use]
pub fn collected(clocks: u32) -> Vec<u8> {
    let mut out = vec![0];
    number(&mut out, clocks.into());
    out
}

impl Parts {
    /// Structs of a client from a clock on. Clients come in falling order.
    #[must_use]
    pub fn client(mut self, client: u64, clock: u32, structs: Vec<Vec<u8>>) -> Self {
        self.sections.push((client, clock, structs));
        self
    }

    /// The deletion of clocks of a client.
    #[must_use]
    pub fn delete(mut self, client: u64, start: u32, length: u32) -> Self {
        self.deletions.push((client, start, length));
        self
    }

    /// The update.
    #[must_use]
    pub fn build(&self) -> Bytes {
        let mut out = Vec::new();
        number(&mut out, self.sections.len() as u64);
        for (client, clock, structs) in &self.sections {
            number(&mut out, structs.len() as u64);
            reference(&mut out, (*client, *clock));
            out.extend(structs.concat());
        }
        number(&mut out, self.deletions.len() as u64);
        for (client, start, length) in &self.deletions {
            number(&mut out, *client);
            number(&mut out, 1);
            number(&mut out, (*start).into());
            number(&mut out, (*length).into());
        }
        out.into()
    }
}
