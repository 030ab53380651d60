//! The strict structural check of Yjs v1 bytes that runs before yrs sees them.
//!
//! yrs trusts its input in places: counts are reserved before the bytes behind them are seen, values
//! nest without a limit, clocks may wrap. This scan accepts what Yjs and yrs write and refuses the
//! rest, in one pass and without allocating for ordinary updates. Nothing here looks at content.
//!
//! An update is `clients, { structs, client, clock, struct.. }.., delete set`; numbers are unsigned
//! LEB128. The grammar is that of `lib0` encoding version 1.
//!
//! What can only be judged with the document at hand, `outline` does.

use smallvec::SmallVec;

use super::by_client::ByClient;

/// The deepest nesting of a JSON-like value. Deeper ones overflow the stack of whoever walks them.
pub const VALUE_DEPTH_MAX: usize = 64;

/// The first clock that is not allowed: yrs and JavaScript calculate with 32-bit clocks, and sums of
/// a clock and a length must not wrap.
pub const CLOCK_MAX: u64 = 1 << 31;

/// The largest client id: 53 bits, what a JavaScript number holds exactly.
pub const CLIENT_ID_MAX: u64 = (1 << 53) - 1;

/// The most clients in a state vector. A document with more has outgrown yrs as well.
pub const STATE_VECTOR_CLIENTS_MAX: u64 = 100_000;

/// What is wrong with bytes from a client. For people and logs; it has no content in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// The rule that is broken.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

/// A run of clocks of one client: from `start` up to and without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRange {
    /// Whose.
    pub client: u64,
    /// The first clock.
    pub start: u32,
    /// The clock after the last.
    pub end: u32,
}

/// One clock of one client: the name of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StructId {
    /// Whose.
    pub client: u64,
    /// Which.
    pub clock: u32,
}

/// What an update brings and what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The structs in it, a run of clocks each, in the order in which they stand.
    pub structs: SmallVec<[ClockRange; 2]>,
    /// For each client, the highest clock that a struct or a deletion refers to.
    pub needs: SmallVec<[(u64, u32); 4]>,
    /// There are deletions in it.
    pub deletes: bool,
    /// How many structs and ranges of deletions it is made of: what it costs to apply.
    pub parts: usize,
}

/// A struct of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Struct<'a> {
    /// Its clocks.
    pub(super) clocks: ClockRange,
    /// What it is.
    pub(super) kind: Kind,
    /// Where it belongs.
    pub(super) place: Place<'a>,
}

/// What a struct is, as far as anything depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Collected: only its clocks are left.
    Collected,
    /// Deleted: its place is known, its content is gone.
    Deleted,
    /// Text: neighbours become one struct.
    Text,
    /// Values: neighbours become one struct.
    Values,
    /// A shared type, which other structs can be in.
    Type,
    /// A subdocument.
    Subdocument,
    /// Anything else, which is one clock long.
    Single,
}

impl Kind {
    /// Neighbours become one struct.
    pub(super) fn is_joined(self) -> bool {
        matches!(self, Self::Text | Self::Values)
    }
}

/// Where a struct says that it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// It was collected.
    Nowhere,
    /// Into the root with this name, which is created if it does not exist, for this key if it is a
    /// map.
    Root { name: &'a str, key: Option<&'a str> },
    /// Into this shared type.
    Within { id: StructId, key: Option<&'a str> },
    /// To where its neighbours are, of which there is one at least.
    Beside { left: Option<StructId>, right: Option<StructId> },
}

/// Checks a Yjs v1 update.
///
/// # Errors
///
/// The first rule that is broken.
pub fn update(bytes: &[u8]) -> Result<Scan, Malformed> {
    let mut scan = Scan::default();
    let mut needs = ByClient::default();
    let mut count = 0;
    walk(bytes, &mut |visit| {
        match visit {
            Visit::Struct(item) => {
                count += 1;
                let run = item.clocks;
                match scan.structs.last_mut() {
                    Some(last) if last.client == run.client && last.end == run.start => {
                        last.end = run.end;
                    }
                    _ => scan.structs.push(run),
                }
                match item.place {
                    Place::Nowhere | Place::Root { .. } => {}
                    Place::Within { id, .. } => note(&mut needs, id),
                    Place::Beside { left, right } => {
                        left.into_iter().chain(right).for_each(|id| note(&mut needs, id));
                    }
                }
            }
            Visit::Deletion(ClockRange { client, end, .. }) => {
                count += 1;
                scan.deletes = true;
                note(&mut needs, StructId { client, clock: end - 1 });
            }
        }
        Ok(())
    })?;
    (scan.needs, scan.parts) = (needs.into_iter().collect(), count);
    Ok(scan)
}

/// Notes the highest clock that is needed of a client.
#[inline]
fn note(needs: &mut ByClient<u32>, id: StructId) {
    match needs.get_mut(id.client) {
        Some(highest) => *highest = id.clock.max(*highest),
        None => needs.add(id.client, id.clock),
    }
}

/// What is met on a walk through an update, in the order in which it stands there.
pub(super) enum Visit<'a> {
    /// A struct.
    Struct(Struct<'a>),
    /// A range of deletions, not empty.
    Deletion(ClockRange),
}

/// Walks through a Yjs v1 update, and checks it on the way.
///
/// # Errors
///
/// The first rule that is broken, or what `visit` says.
#[inline]
pub(super) fn walk<'a, E: From<Malformed>>(
    bytes: &'a [u8],
    visit: &mut impl FnMut(Visit<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut scanner = Scanner { cursor: Cursor { bytes, at: 0 } };
    let clients = scanner.cursor.count(4, "more clients than bytes")?;
    let mut seen = ByClient::default();
    for _ in 0..clients {
        scanner.client_section(&mut seen, visit)?;
    }
    scanner.delete_set(visit)?;
    Ok(scanner.cursor.end()?)
}

/// Checks a Yjs v1 state vector and returns its entries, each client once.
///
/// # Errors
///
/// The first rule that is broken.
pub fn state_vector(bytes: &[u8]) -> Result<Vec<(u64, u32)>, Malformed> {
    let mut cursor = Cursor { bytes, at: 0 };
    let count = cursor.count(2, "more clients than bytes")?;
    if count > STATE_VECTOR_CLIENTS_MAX {
        return Err(cursor.malformed("too many clients"));
    }
    let mut seen = ByClient::default();
    // Bounded by the bytes that are there: `count` was checked against them.
    let mut entries = Vec::new();
    for _ in 0..count {
        let client = cursor.client()?;
        let clock = cursor.clock()?;
        if !add(&mut seen, client) {
            return Err(cursor.malformed("a client twice"));
        }
        entries.push((client, clock));
    }
    cursor.end()?;
    Ok(entries)
}

/// Checks an awareness state: nothing, or JSON in UTF-8, nested at most [`VALUE_DEPTH_MAX`] deep.
///
/// # Errors
///
/// The rule that is broken.
pub fn awareness_state(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_empty() {
        return Ok(());
    }
    json(bytes, 0)
}

/// Adds `client`, and says whether it was new.
fn add(seen: &mut ByClient<()>, client: u64) -> bool {
    let is_new = seen.get(client).is_none();
    if is_new {
        seen.add(client, ());
    }
    is_new
}

struct Scanner<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Scanner<'a> {
    #[inline]
    fn client_section<E: From<Malformed>>(
        &mut self,
        seen: &mut ByClient<()>,
        visit: &mut impl FnMut(Visit<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        // The smallest struct has two bytes: a kind and a length.
        let count = self.cursor.count(2, "more structs than bytes")?;
        let client = self.cursor.client()?;
        let mut clock = self.cursor.clock()?;
        if count == 0 {
            return Err(self.cursor.malformed("a client without structs").into());
        }
        if !add(seen, client) {
            return Err(self.cursor.malformed("a client twice").into());
        }
        for _ in 0..count {
            let byte = self.cursor.byte()?;
            let skip = byte == 10;
            let (kind, place, length) = if skip || byte == 0 {
                let length = self.cursor.var(CLOCK_MAX, "a length out of range")?;
                (Kind::Collected, Place::Nowhere, length)
            } else {
                self.item(byte)?
            };
            if length == 0 {
                return Err(self.cursor.malformed("an empty struct").into());
            }
            let end = match u32::try_from(u64::from(clock) + length) {
                Ok(end) if u64::from(end) < CLOCK_MAX => end,
                _ => return Err(self.cursor.malformed("a clock out of range").into()),
            };
            // A gap is no struct: those around it are two runs.
            if !skip {
                let clocks = ClockRange { client, start: clock, end };
                visit(Visit::Struct(Struct { clocks, kind, place }))?;
            }
            clock = end;
        }
        Ok(())
    }

    /// Reads an item that begins with this byte: what it is, where, and its length in clocks.
    #[inline]
    fn item(&mut self, byte: u8) -> Result<(Kind, Place<'a>, u64), Malformed> {
        let (origin, right_origin, has_key) =
            (byte & 0x80 != 0, byte & 0x40 != 0, byte & 0x20 != 0);
        let left = if origin { Some(self.reference()?) } else { None };
        let right = if right_origin { Some(self.reference()?) } else { None };
        let place = if origin || right_origin {
            Place::Beside { left, right }
        } else {
            let root = match self.cursor.var(1, "a parent that is neither a root nor an item")? {
                1 => Ok(self.cursor.string()?),
                _ => Err(self.reference()?),
            };
            let key = if has_key { Some(self.cursor.string()?) } else { None };
            match root {
                Ok(name) => Place::Root { name, key },
                Err(id) => Place::Within { id, key },
            }
        };
        let (kind, length) = match byte & 0x1f {
            1 => (Kind::Deleted, self.cursor.var(CLOCK_MAX, "a length out of range")?),
            // Binary.
            3 => self.cursor.blob().map(|_| (Kind::Single, 1))?,
            // Text, whose length is counted in UTF-16 code units.
            4 => (Kind::Text, utf16_length(self.cursor.string()?)),
            // Embed.
            5 => self.cursor.json().map(|()| (Kind::Single, 1))?,
            // Format: a key and a value.
            6 => {
                self.cursor.string()?;
                self.cursor.json().map(|()| (Kind::Single, 1))?
            }
            7 => self.shared_type().map(|()| (Kind::Type, 1))?,
            // Values, a clock each.
            8 => {
                let count = self.cursor.count(1, "more values than bytes")?;
                for _ in 0..count {
                    self.cursor.value(VALUE_DEPTH_MAX)?;
                }
                (Kind::Values, count)
            }
            // Subdocument: a guid and its options.
            9 => {
                self.cursor.string()?;
                self.cursor.value(VALUE_DEPTH_MAX).map(|()| (Kind::Subdocument, 1))?
            }
            // 2 is JSON of Yjs before version 13, which yrs reads wrongly.
            _ => return Err(self.cursor.malformed("an unknown kind of content")),
        };
        Ok((kind, place, length))
    }

    fn shared_type(&mut self) -> Result<(), Malformed> {
        match self.cursor.byte()? {
            // Array, map, text, XML fragment, XML text.
            0 | 1 | 2 | 4 | 6 => Ok(()),
            // XML element: its name.
            3 => self.cursor.string().map(drop),
            // 5, the XML hook, carries a name in Yjs but not in yrs; 7 is an experiment of yrs.
            _ => Err(self.cursor.malformed("an unknown shared type")),
        }
    }

    #[inline]
    fn delete_set<E: From<Malformed>>(
        &mut self,
        visit: &mut impl FnMut(Visit<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let clients = self.cursor.count(2, "more clients than bytes")?;
        let mut seen = ByClient::default();
        for _ in 0..clients {
            let client = self.cursor.client()?;
            if !add(&mut seen, client) {
                return Err(self.cursor.malformed("a client twice").into());
            }
            let ranges = self.cursor.count(2, "more deletions than bytes")?;
            let mut free = 0;
            for _ in 0..ranges {
                let start = self.cursor.clock()?;
                let length = self.cursor.var(CLOCK_MAX, "a length out of range")?;
                let end = match u32::try_from(u64::from(start) + length) {
                    Ok(end) if length > 0 && u64::from(end) < CLOCK_MAX => end,
                    _ => return Err(self.cursor.malformed("a deletion out of range").into()),
                };
                // Both write them sorted and merged, and yrs relies on it when it reads them.
                if start < free {
                    return Err(self.cursor.malformed("deletions that overlap").into());
                }
                free = end;
                visit(Visit::Deletion(ClockRange { client, start, end }))?;
            }
        }
        Ok(())
    }

    #[inline]
    fn reference(&mut self) -> Result<StructId, Malformed> {
        Ok(StructId { client: self.cursor.client()?, clock: self.cursor.clock()? })
    }
}

/// The length in UTF-16 code units: characters outside the basic plane count twice.
pub(super) fn utf16_length(text: &str) -> u64 {
    if text.is_ascii() {
        return text.len() as u64;
    }
    text.chars().map(|c| c.len_utf16() as u64).sum()
}

/// Checks that something is JSON in UTF-8, nested at most [`VALUE_DEPTH_MAX`] deep.
fn json(bytes: &[u8], at: usize) -> Result<(), Malformed> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Malformed { what: "text that is not UTF-8", at });
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > VALUE_DEPTH_MAX {
                    return Err(Malformed { what: "values nested too deep", at });
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    // One definition of JSON for all: that of the parser, which stores nothing here.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
        .map(drop)
        .map_err(|error| Malformed { what: "not JSON", at: at + error.column() })
}

/// What is left of bytes that are being read.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("bytes at the end")) }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.malformed("the end too early"))?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads an unsigned LEB128 number of at most `max`, which is below 2^63.
    fn var(&mut self, max: u64, what: &'static str) -> Result<u64, Malformed> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x7f);
        if first >= 0x80 {
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
                if shift > 56 {
                    return Err(self.malformed(what));
                }
            }
        }
        if value > max { Err(self.malformed(what)) } else { Ok(value) }
    }

    /// Reads a count of things that take at least `bytes_each` bytes, which must be there.
    pub(super) fn count(&mut self, bytes_each: u64, what: &'static str) -> Result<u64, Malformed> {
        let count = self.var(u64::from(u32::MAX), what)?;
        let left = (self.bytes.len() - self.at) as u64;
        if count.saturating_mul(bytes_each) > left {
            return Err(self.malformed(what));
        }
        Ok(count)
    }

    pub(super) fn client(&mut self) -> Result<u64, Malformed> {
        self.var(CLIENT_ID_MAX, "a client id out of range")
    }

    pub(super) fn clock(&mut self) -> Result<u32, Malformed> {
        let clock = self.var(CLOCK_MAX - 1, "a clock out of range")?;
        u32::try_from(clock).map_err(|_| self.malformed("a clock out of range"))
    }

    fn skip(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        let slice = slice.ok_or_else(|| self.malformed("the end too early"))?;
        self.at += length;
        Ok(slice)
    }

    pub(super) fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.var(u64::from(u32::MAX), "a length out of range")?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.skip(length)
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Malformed> {
        let at = self.at;
        let bytes = self.blob()?;
        std::str::from_utf8(bytes).map_err(|_| Malformed { what: "text that is not UTF-8", at })
    }

    fn json(&mut self) -> Result<(), Malformed> {
        let at = self.at;
        json(self.blob()?, at)
    }

    /// Reads a JSON-like value that may nest `depth` deep.
    pub(super) fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.malformed("values nested too deep"));
        };
        match self.byte()? {
            // Undefined, null, false, true.
            127 | 126 | 121 | 120 => Ok(()),
            // Integer: a sign bit in the first byte, then as unsigned.
            125 => {
                for _ in 0..9 {
                    if self.byte()? < 0x80 {
                        return Ok(());
                    }
                }
                Err(self.malformed("a number out of range"))
            }
            124 => self.skip(4).map(drop),
            123 | 122 => self.skip(8).map(drop),
            119 => self.string().map(drop),
            118 => {
                for _ in 0..self.count(2, "more values than bytes")? {
                    self.string()?;
                    self.value(depth)?;
                }
                Ok(())
            }
            117 => {
                for _ in 0..self.count(1, "more values than bytes")? {
                    self.value(depth)?;
                }
                Ok(())
            }
            116 => self.blob().map(drop),
            _ => Err(self.malformed("an unknown kind of value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use yrs::{
        Any, Array, Doc, Map, ReadTxn, StateVector, Text, Transact, Update, XmlElementPrelim,
        XmlFragment, XmlTextPrelim,
        types::Attrs,
        updates::{decoder::Decode, encoder::Encode},
    };

    use super::*;

    /// A document that has every kind of content which Yjs editors write.
    fn rich_document() -> Doc {
        let doc = Doc::with_client_id(7);
        let text = doc.get_or_insert_text("text");
        let map = doc.get_or_insert_map("map");
        let array = doc.get_or_insert_array("array");
        let xml = doc.get_or_insert_xml_fragment("xml");
        let mut txn = doc.transact_mut();
        text.insert(&mut txn, 0, "plain text, häßlich 🙂");
        let bold = Attrs::from([("bold".into(), Any::from(true))]);
        text.format(&mut txn, 1, 3, bold);
        text.insert_embed(&mut txn, 2, Any::from("embedded"));
        map.insert(&mut txn, "k", Any::from(vec![Any::from(1), Any::Null, Any::from("x")]));
        map.insert(&mut txn, "k", Any::from(2.5));
        array.insert(&mut txn, 0, Any::Buffer(vec![1_u8, 2, 3].into()));
        array.push_back(&mut txn, Any::from(1_i64 << 40));
        let paragraph = xml.push_back(&mut txn, XmlElementPrelim::empty("paragraph"));
        paragraph.push_back(&mut txn, XmlTextPrelim::new("inside"));
        text.remove_range(&mut txn, 0, 4);
        drop(txn);
        doc
    }

    fn state(doc: &Doc) -> Vec<u8> {
        doc.transact().encode_diff_v1(&StateVector::default())
    }

    #[test]
    fn the_scan_agrees_with_yrs_on_the_clocks_of_every_kind_of_content() {
        let doc = rich_document();
        let bytes = state(&doc);
        let scan = update(&bytes).unwrap();
        let clock =
            Update::decode_v1(&bytes).unwrap().state_vector().get(&yrs::block::ClientID::new(7));
        assert_eq!(scan.structs.as_slice(), [ClockRange { client: 7, start: 0, end: clock }]);
        assert!(scan.deletes);
    }

    #[test]
    fn a_state_vector_of_yrs_is_read() {
        let vector = rich_document().transact().state_vector();
        let entries = state_vector(&vector.encode_v1()).unwrap();
        assert_eq!(entries, [(7, vector.get(&yrs::block::ClientID::new(7)))]);
        assert_eq!(state_vector(&[0]).unwrap(), []);
    }

    #[test]
    fn every_truncation_and_every_trailing_byte_is_refused() {
        let bytes = state(&rich_document());
        for length in 0..bytes.len() {
            assert!(update(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert_eq!(update(&longer).unwrap_err().what, "bytes at the end");
    }

    /// An update of client 1 at clock 0 with these structs (their count first) and no deletions.
    fn structs(count: u8, body: &[u8]) -> Vec<u8> {
        [&[1, count, 1, 0], body, &[0]].concat()
    }

    /// The parent of an item: a root named "r".
    const ROOT: [u8; 3] = [1, 1, b'r'];

    #[test]
    fn each_rule_of_the_structure_is_enforced() {
        let deep = |n: usize| {
            let body = [vec![8], ROOT.to_vec(), vec![1], [117, 1].repeat(n), vec![126]];
            structs(1, &body.concat())
        };
        assert!(update(&deep(VALUE_DEPTH_MAX - 1)).is_ok());
        let nested = format!("{}1{}", "[".repeat(65), "]".repeat(65));
        let json_length = u8::try_from(nested.len()).unwrap();
        let cases: [(Vec<u8>, &str); 24] = [
            (deep(VALUE_DEPTH_MAX), "values nested too deep"),
            (
                structs(
                    1,
                    &[&[5], &ROOT[..], &[json_length | 0x80, 1], nested.as_bytes()].concat(),
                ),
                "values nested too deep",
            ),
            (structs(1, &[&[5], &ROOT[..], &[4, b'T', b'r', b'u', b'e']].concat()), "not JSON"),
            (structs(1, &[&[6], &ROOT[..], &[1, b'b', 1, b'{']].concat()), "not JSON"),
            (structs(1, &[0, 0]), "an empty struct"),
            (structs(1, &[10, 0]), "an empty struct"),
            (structs(1, &[&[4], &ROOT[..], &[0]].concat()), "an empty struct"),
            (vec![1, 0, 1, 0, 0], "a client without structs"),
            (vec![2, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0], "a client twice"),
            (vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0], "more clients than bytes"),
            (vec![1, 0xff, 0xff, 3, 1, 0, 0, 1, 0], "more structs than bytes"),
            (structs(1, &[&[8], &ROOT[..], &[200, 1, 126]].concat()), "more values than bytes"),
            (structs(1, &[&[4], &ROOT[..], &[1, 0xc3]].concat()), "text that is not UTF-8"),
            (structs(1, &[&[2], &ROOT[..], &[1, 1, b'1']].concat()), "an unknown kind of content"),
            (structs(1, &[&[11], &ROOT[..], &[1]].concat()), "an unknown kind of content"),
            (structs(1, &[&[7], &ROOT[..], &[5, 1, b'h']].concat()), "an unknown shared type"),
            (structs(1, &[&[8], &ROOT[..], &[1, 99]].concat()), "an unknown kind of value"),
            (structs(1, &[1, 2, 1, 1]), "a parent that is neither a root nor an item"),
            // A struct that would end at 2^31.
            (vec![1, 1, 1, 0xff, 0xff, 0xff, 0xff, 7, 0, 1, 0], "a clock out of range"),
            (vec![1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 1, 0], "a clock out of range"),
            (
                vec![1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 1, 0],
                "a client id out of range",
            ),
            (vec![0, 1, 1, 1, 0, 0], "a deletion out of range"),
            (vec![0, 1, 1, 2, 5, 2, 6, 1], "deletions that overlap"),
            (vec![0, 2, 1, 1, 0, 1, 1, 1, 3, 1], "a client twice"),
        ];
        for (bytes, what) in cases {
            assert_eq!(update(&bytes).map_err(|e| e.what), Err(what), "{bytes:?}");
        }
        for (bytes, what) in [
            (vec![0xff, 0xff, 0xff, 0x7f], "more clients than bytes"),
            (vec![2, 1, 1, 1, 2], "a client twice"),
            (vec![1, 1, 1, 0], "bytes at the end"),
        ] {
            assert_eq!(state_vector(&bytes).map_err(|e| e.what), Err(what), "{bytes:?}");
        }
    }

    #[test]
    fn a_gap_divides_the_structs_of_a_client_into_two_runs() {
        let scan = update(&structs(3, &[0, 2, 10, 3, 0, 4])).unwrap();
        assert_eq!(
            scan.structs.as_slice(),
            [
                ClockRange { client: 1, start: 0, end: 2 },
                ClockRange { client: 1, start: 5, end: 9 }
            ]
        );
    }

    #[test]
    fn needs_keep_the_highest_clock_of_each_of_many_clients() {
        let mut needs = ByClient::default();
        for round in 0..3_u32 {
            for client in 0..100 {
                note(&mut needs, StructId { client, clock: 10 - round });
            }
        }
        assert_eq!(needs.iter().len(), 100);
        assert!(needs.iter().all(|(_, clock)| *clock == 10));
    }

    #[test]
    fn an_awareness_state_is_json_of_limited_depth() {
        assert!(awareness_state(br#"{"user":{"name":"a\"[b"}}"#).is_ok());
        assert!(awareness_state(b"null").is_ok());
        assert!(awareness_state(b"").is_ok());
        for bad in [&b"{"[..], b"\xff", b"{} x", "[".repeat(65).as_bytes()] {
            assert!(awareness_state(bad).is_err(), "{bad:?}");
        }
    }
}
