//! A reader of LevelDB directories: what is stored, in the order of the keys, without writing a byte.
//!
//! Opening a directory with LevelDB itself, or with a port of it, recovers its log into tables and
//! removes files. What is to be imported belongs to somebody else, who may want to go back, so it is
//! only read here: `CURRENT` names the manifest, the manifest names the tables and the log, and the
//! newest entry of each key counts. Every checksum is looked at, and damage is an error: an import
//! that leaves something out in silence is worse than one that does not take place.
//!
//! Only the log and one block of each table that has been begun are in memory.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, HashMap},
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rustix::fs::FlockOperation;

use super::error::SourceError;

/// The size of the blocks that a log is divided into.
const LOG_BLOCK_BYTES: usize = 32 << 10;
/// Checksum, length and kind of a part of a record.
const LOG_HEADER_BYTES: usize = 7;
/// Two handles of at most 20 bytes each, filled up, and the magic number.
const FOOTER_BYTES: usize = 48;
/// The last bytes of a table.
const TABLE_MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// The kind of compression and a checksum follow each block.
const BLOCK_TRAILER_BYTES: usize = 5;
/// The order of keys that is understood: that of their bytes.
const COMPARATOR: &[u8] = b"leveldb.BytewiseComparator";
/// The largest file that is read at once, 1 GiB: manifests and logs, which have a few MiB.
const WHOLE_FILE_BYTES_MAX: u64 = 1 << 30;
/// The largest block, unpacked, 1 GiB: a block is as large as its largest value.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// An open LevelDB directory: an iterator over its keys and values. No process that writes it can
/// have it open meanwhile.
#[derive(Debug)]
pub(super) struct LevelDb {
    runs: BinaryHeap<Run>,
    /// The key whose newest entry has been seen.
    last: Option<Vec<u8>>,
    /// Held until the end.
    _lock: File,
}

/// What is wrong inside of a file.
type Damage = &'static str;

impl LevelDb {
    /// Opens the directory and reads its manifest and its log.
    pub(super) fn open(directory: &Path) -> Result<Self, SourceError> {
        let lock = lock(directory)?;
        let current = directory.join("CURRENT");
        let name = read_whole(&current)?;
        let name = std::str::from_utf8(&name).ok().and_then(|name| name.strip_suffix('\n'));
        let name = name.filter(|name| name.starts_with("MANIFEST-") && !name.contains('/'));
        let Some(name) = name else {
            return Err(SourceError::damaged(&current, "it names no manifest"));
        };
        let path = directory.join(name);
        let manifest = Manifest::parse(&read_whole(&path)?)
            .map_err(|what| SourceError::damaged(&path, what))?;

        let mut runs = BinaryHeap::new();
        for (number, table) in manifest.tables {
            let path = table_path(directory, number);
            let head = Entry { key: InternalKey::split(&table.smallest), value: Bytes::new() };
            let Some(key) = head.key else {
                return Err(SourceError::damaged(&path, "the manifest has no first key of it"));
            };
            let rest = Rest::Unopened { path, bytes: table.bytes };
            runs.push(Run { key, value: None, rest });
        }
        for number in log_numbers(directory, manifest.log, manifest.previous_log)? {
            let path = directory.join(format!("{number:06}.log"));
            let mut memory = BTreeMap::new();
            read_log(&path, &mut memory)?;
            runs.extend(Run::begin(Rest::Memory(memory.into_iter()))?);
        }
        Ok(Self { runs, last: None, _lock: lock })
    }

    /// The next key and its value.
    pub(super) fn next(&mut self) -> Result<Option<(Vec<u8>, Bytes)>, SourceError> {
        while let Some(run) = self.runs.pop() {
            let Some(value) = run.value else {
                // A table whose turn has come.
                self.runs.extend(Run::begin(run.rest.opened()?)?);
                continue;
            };
            let key = run.key;
            self.runs.extend(Run::begin(run.rest)?);
            // The newest entry of a key comes first; the others are history.
            if self.last.as_ref() == Some(&key.user) {
                continue;
            }
            self.last = Some(key.user.clone());
            match key.kind {
                Kind::Value => return Ok(Some((key.user, value))),
                Kind::Deletion => {}
            }
        }
        Ok(None)
    }
}

/// Takes the lock that LevelDB takes. Shared, so that the file need not be writable.
fn lock(directory: &Path) -> Result<File, SourceError> {
    let path = directory.join("LOCK");
    let file = File::open(&path).map_err(|source| SourceError::io(&path, source))?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            Err(SourceError::InUse { path: directory.to_owned() })
        }
        Err(error) => Err(SourceError::io(&path, error.into())),
    }
}

fn read_whole(path: &Path) -> Result<Vec<u8>, SourceError> {
    let io = |source| SourceError::io(path, source);
    if path.metadata().map_err(io)?.len() > WHOLE_FILE_BYTES_MAX {
        return Err(SourceError::damaged(path, "it is larger than 1 GiB"));
    }
    std::fs::read(path).map_err(io)
}

/// Tables were called otherwise once.
fn table_path(directory: &Path, number: u64) -> PathBuf {
    let path = directory.join(format!("{number:06}.ldb"));
    if path.exists() { path } else { directory.join(format!("{number:06}.sst")) }
}

/// The logs that are not in tables yet, oldest first.
fn log_numbers(directory: &Path, log: u64, previous: u64) -> Result<Vec<u64>, SourceError> {
    let io = |source| SourceError::io(directory, source);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        // `LOG`, which is for people, is no number.
        numbers.extend(number.filter(|number| *number >= log || *number == previous));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether an entry sets a key or removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Deletion,
}

/// A key with the number of its change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InternalKey {
    user: Vec<u8>,
    sequence: u64,
    kind: Kind,
}

impl InternalKey {
    /// From its form in tables: the key, and 8 bytes of number and kind.
    fn split(bytes: &[u8]) -> Option<Self> {
        let (user, tag) = bytes.split_last_chunk::<8>()?;
        let tag = u64::from_le_bytes(*tag);
        let kind = Kind::from_byte(tag as u8)?;
        Some(Self { user: user.to_owned(), sequence: tag >> 8, kind })
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Deletion),
            1 => Some(Self::Value),
            _ => None,
        }
    }
}

impl Ord for InternalKey {
    /// By key; the newest change of a key first.
    fn cmp(&self, other: &Self) -> Ordering {
        self.user.cmp(&other.user).then_with(|| other.sequence.cmp(&self.sequence))
    }
}

impl PartialOrd for InternalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Entry<K> {
    key: K,
    value: Bytes,
}

/// Entries in order: the first one, and where the others are.
#[derive(Debug)]
struct Run {
    key: InternalKey,
    /// `None` while it is only known where the run begins.
    value: Option<Bytes>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Memory(std::collections::btree_map::IntoIter<InternalKey, Bytes>),
    Unopened { path: PathBuf, bytes: u64 },
    Table(Box<Table>),
}

impl Run {
    /// `rest` with its first entry; `None` when there is none.
    fn begin(mut rest: Rest) -> Result<Option<Self>, SourceError> {
        let entry = match &mut rest {
            Rest::Memory(entries) => entries.next().map(|(key, value)| Entry { key, value }),
            Rest::Table(table) => table.next()?,
            Rest::Unopened { .. } => None,
        };
        Ok(entry.map(|Entry { key, value }| Self { key, value: Some(value), rest }))
    }
}

impl Rest {
    fn opened(self) -> Result<Self, SourceError> {
        match self {
            Self::Unopened { path, bytes } => Ok(Self::Table(Box::new(Table::open(path, bytes)?))),
            Self::Memory(_) | Self::Table(_) => Ok(self),
        }
    }
}

impl Ord for Run {
    /// Turned around: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Run {}

/// The tables and logs that count.
#[derive(Debug, Default)]
struct Manifest {
    tables: HashMap<u64, TableFile>,
    log: u64,
    previous_log: u64,
}

#[derive(Debug)]
struct TableFile {
    bytes: u64,
    /// An internal key.
    smallest: Vec<u8>,
}

impl Manifest {
    fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let mut manifest = Self::default();
        let mut compares = false;
        for record in log_records(bytes)? {
            let mut cursor = Cursor(&record);
            while !cursor.0.is_empty() {
                match cursor.number()? {
                    1 if cursor.bytes()? == COMPARATOR => compares = true,
                    1 => return Err("its keys are ordered in another way than by their bytes"),
                    2 => manifest.log = cursor.number()?,
                    // The next file number, and the last number of a change.
                    3 | 4 => drop(cursor.number()?),
                    // How far compaction has come on a level.
                    5 => {
                        cursor.number()?;
                        cursor.bytes()?;
                    }
                    6 => {
                        cursor.number()?;
                        manifest.tables.remove(&cursor.number()?);
                    }
                    7 => {
                        cursor.number()?;
                        let (number, bytes) = (cursor.number()?, cursor.number()?);
                        let smallest = cursor.bytes()?.to_owned();
                        cursor.bytes()?;
                        manifest.tables.insert(number, TableFile { bytes, smallest });
                    }
                    9 => manifest.previous_log = cursor.number()?,
                    _ => return Err("it has an entry of a kind that is not known"),
                }
            }
        }
        if compares { Ok(manifest) } else { Err("it does not say how keys are ordered") }
    }
}

/// The changes in a log. A record that was cut off at the end of it was never finished, and does not
/// count.
fn read_log(path: &Path, into: &mut BTreeMap<InternalKey, Bytes>) -> Result<(), SourceError> {
    let damaged = |what| SourceError::damaged(path, what);
    for record in log_records(&read_whole(path)?).map_err(damaged)? {
        batch(&record, into).map_err(damaged)?;
    }
    Ok(())
}

fn batch(record: &[u8], into: &mut BTreeMap<InternalKey, Bytes>) -> Result<(), Damage> {
    let short = "it has a batch that is too short";
    let (sequence, rest) = record.split_first_chunk::<8>().ok_or(short)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
    let sequence = u64::from_le_bytes(*sequence);
    let mut cursor = Cursor(rest);
    for change in 0..u64::from(u32::from_le_bytes(*count)) {
        let kind = cursor.take(1)?.first().copied().and_then(Kind::from_byte);
        let kind = kind.ok_or("it has a change of a kind that is not known")?;
        let user = cursor.bytes()?.to_owned();
        let value = match kind {
            Kind::Value => Bytes::copy_from_slice(cursor.bytes()?),
            Kind::Deletion => Bytes::new(),
        };
        let sequence = sequence.checked_add(change).ok_or("its numbers are at their end")?;
        into.insert(InternalKey { user, sequence, kind }, value);
    }
    if cursor.0.is_empty() { Ok(()) } else { Err("it has a batch that is too long") }
}

/// The records of a log or a manifest, put together from their parts.
fn log_records(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Damage> {
    let mut records = Vec::new();
    let mut partial: Option<Vec<u8>> = None;
    for block in bytes.chunks(LOG_BLOCK_BYTES) {
        let mut rest = block;
        while let Some((header, body)) = rest.split_first_chunk::<LOG_HEADER_BYTES>() {
            let [c0, c1, c2, c3, l0, l1, kind] = *header;
            let length = usize::from(u16::from_le_bytes([l0, l1]));
            if kind == 0 && length == 0 {
                // Space that was reserved and not used.
                break;
            }
            let Some((part, after)) = body.split_at_checked(length) else {
                if block.len() < LOG_BLOCK_BYTES {
                    // The end of the file came before the end of the record.
                    return Ok(records);
                }
                return Err("it has a record that is longer than its block");
            };
            let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), part);
            if unmask(u32::from_le_bytes([c0, c1, c2, c3])) != crc {
                return Err("a checksum is wrong");
            }
            rest = after;
            match (kind, &mut partial) {
                (1, None) => records.push(part.to_owned()),
                (2, None) => partial = Some(part.to_owned()),
                (3 | 4, Some(begun)) => {
                    begun.extend_from_slice(part);
                    if kind == 4 {
                        records.extend(partial.take());
                    }
                }
                _ => return Err("the parts of its records are not in order"),
            }
        }
    }
    Ok(records)
}

/// Checksums are stored in another form than they are computed in.
fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_right(17)
}

/// A table that is being read from its beginning.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    file: File,
    bytes: u64,
    index: Block,
    block: Block,
}

impl Table {
    fn open(path: PathBuf, bytes: u64) -> Result<Self, SourceError> {
        let io = |source| SourceError::io(&path, source);
        let file = File::open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.len() != bytes {
            return Err(SourceError::damaged(&path, "its size is not that in the manifest"));
        }
        let mut footer = [0; FOOTER_BYTES];
        let Some(at) = bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Err(SourceError::damaged(&path, "it is too short"));
        };
        file.read_exact_at(&mut footer, at).map_err(io)?;
        let (handles, magic) = footer.split_at(FOOTER_BYTES - 8);
        if magic != TABLE_MAGIC.to_le_bytes() {
            return Err(SourceError::damaged(&path, "it does not end like a table"));
        }
        let mut cursor = Cursor(handles);
        let index = handle(&mut cursor).and_then(|_| handle(&mut cursor));
        let index = index.map_err(|what| SourceError::damaged(&path, what))?;
        let mut table = Self { path, file, bytes, index: Block::empty(), block: Block::empty() };
        table.index = table.block(index)?;
        Ok(table)
    }

    fn next(&mut self) -> Result<Option<Entry<InternalKey>>, SourceError> {
        loop {
            if let Some(entry) = self.block.next().map_err(|what| self.damaged(what))? {
                let key = InternalKey::split(&entry.key);
                let key = key.ok_or_else(|| self.damaged("it has a key that is too short"))?;
                return Ok(Some(Entry { key, value: entry.value }));
            }
            let Some(next) = self.index.next().map_err(|what| self.damaged(what))? else {
                return Ok(None);
            };
            let at = handle(&mut Cursor(&next.value)).map_err(|what| self.damaged(what))?;
            self.block = self.block(at)?;
        }
    }

    /// Reads and unpacks a block.
    fn block(&self, (offset, length): (u64, u64)) -> Result<Block, SourceError> {
        let trailer = BLOCK_TRAILER_BYTES as u64;
        let end = offset.checked_add(length).and_then(|end| end.checked_add(trailer));
        if end.is_none_or(|end| end > self.bytes) || length > BLOCK_BYTES_MAX as u64 {
            return Err(self.damaged("it has a block that is not inside of it"));
        }
        let mut bytes = vec![0; length as usize + BLOCK_TRAILER_BYTES];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|source| SourceError::io(&self.path, source))?;
        let Some((body, stored)) = bytes.split_last_chunk::<4>() else {
            return Err(self.damaged("it has a block that is too short"));
        };
        if unmask(u32::from_le_bytes(*stored)) != crc32c::crc32c(body) {
            return Err(self.damaged("a checksum is wrong"));
        }
        let unpacked = match body.split_last() {
            Some((0, raw)) => raw.to_owned(),
            Some((1, packed)) => {
                let size = snap::raw::decompress_len(packed);
                if size.is_ok_and(|size| size > BLOCK_BYTES_MAX) {
                    return Err(self.damaged("it has a block that is larger than 1 GiB"));
                }
                let unpacked = snap::raw::Decoder::new().decompress_vec(packed);
                unpacked.map_err(|_| self.damaged("it has a block that cannot be unpacked"))?
            }
            _ => return Err(self.damaged("it is packed in a way that is not known")),
        };
        Block::new(unpacked).map_err(|what| self.damaged(what))
    }

    fn damaged(&self, what: Damage) -> SourceError {
        SourceError::damaged(&self.path, what)
    }
}

/// Offset and length of a block.
fn handle(cursor: &mut Cursor<'_>) -> Result<(u64, u64), Damage> {
    Ok((cursor.number()?, cursor.number()?))
}

/// A block that is being read from its beginning.
#[derive(Debug)]
struct Block {
    bytes: Bytes,
    at: usize,
    key: Vec<u8>,
}

impl Block {
    const fn empty() -> Self {
        Self { bytes: Bytes::new(), at: 0, key: Vec::new() }
    }

    /// Without the list of places to begin at, which ends with its length.
    fn new(bytes: Vec<u8>) -> Result<Self, Damage> {
        let wrong = "it has a block that is too short";
        let (rest, count) = bytes.split_last_chunk::<4>().ok_or(wrong)?;
        let places = (u32::from_le_bytes(*count) as usize).checked_mul(4).ok_or(wrong)?;
        let length = rest.len().checked_sub(places).ok_or(wrong)?;
        Ok(Self { bytes: Bytes::from(bytes).slice(..length), at: 0, key: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<Entry<Vec<u8>>>, Damage> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let mut cursor = Cursor(self.bytes.get(self.at..).unwrap_or_default());
        // A key is stored as what it has in common with the one before, and the rest.
        let shared = cursor.number()?;
        let (length, value) = (cursor.number()?, cursor.number()?);
        let key = cursor.take(length)?;
        let shared = usize::try_from(shared).ok().filter(|shared| *shared <= self.key.len());
        self.key.truncate(shared.ok_or("it has a key that goes on from nothing")?);
        self.key.extend_from_slice(key);
        let value = self.bytes.slice_ref(cursor.take(value)?);
        self.at = self.bytes.len() - cursor.0.len();
        Ok(Some(Entry { key: self.key.clone(), value }))
    }
}

/// What is left of bytes that are being read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// A number in groups of 7 bits, the lowest first.
    fn number(&mut self) -> Result<u64, Damage> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("it has a number that is too long")
    }

    /// A length and as many bytes.
    fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.number()?;
        self.take(length)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Damage> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }
}
