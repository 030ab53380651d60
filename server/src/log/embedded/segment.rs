//! Segment files: a header, then frames. A frame is one commit.
//!
//! ```text
//! header: magic 8 | version u32 | segment u32 | first frame u64 | crc32c u32 | zeros 4
//! frame:  length u32 | crc32c u32 | number u64 | witness | entries, then zeros up to 8 bytes
//! witness: from u64 | count u32 | count x (crc32c of a document id u32, frames back u16)
//! ```
//!
//! Frame numbers count through all segments without a gap. The checksum is over the salt of the log
//! (random, kept in the catalogue), the segment, the length, the number and the content: a stale
//! frame of another file does not pass, and nobody can send an update that looks like a frame to
//! somebody who looks for frames in damaged bytes.
//!
//! The witness of a frame names the documents of the frames before it, from the frame `from` on, and
//! for each how many frames back it was last written. It bounds the damage when some of those frames
//! are lost: any other document had nothing in them. It reaches back over [`WITNESS_BYTES`] of log,
//! so that it survives the loss of a whole page.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::disk::{Disk, DiskFile};
use crate::ids::DocumentId;

/// The version of the segment format.
pub(super) const FORMAT: u32 = 1;

/// The size of the header, and the offset of the first frame.
pub(super) const HEADER_BYTES: u32 = 32;

/// Frames begin at multiples of this.
const ALIGN: usize = 8;

/// Length, checksum and number.
pub(super) const FRAME_HEADER_BYTES: usize = 16;

/// How far back a witness reaches. 8 KiB: two pages of 4 KiB, as damage rarely keeps to the bounds
/// of one; more would make small frames bigger for little.
const WITNESS_BYTES: u64 = 8 << 10;

/// A hash and a distance.
const WITNESS_ENTRY_BYTES: usize = 6;

const MAGIC: [u8; 8] = *b"COWRSEG\n";

/// What is read of a segment at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// A place in the log. Ordered by segment and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The number of the segment.
    pub(super) segment: u32,
    /// The byte in it.
    pub(super) offset: u32,
    /// The number of the frame that is or will be there.
    pub(super) frame: u64,
}

impl Position {
    /// Where an empty log begins.
    pub(super) const START: Self = Self { segment: 1, offset: HEADER_BYTES, frame: 1 };
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// It is good. Its first frame has this number: all before it were durable when it was made.
    Good { first: u64 },
    /// It was written by a version that this one does not know.
    Newer(u32),
    /// It is damaged, or was never written.
    Bad,
}

/// The path of a segment.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// The number in the name of a segment; `None` for any other file.
pub(super) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok().filter(|&number: &u32| number > 0)?;
    (format!("{number:08}") == digits).then_some(number)
}

/// The bytes of the header of the segment that begins at `start`.
fn encode_header(start: Position) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&start.segment.to_le_bytes());
    header[16..24].copy_from_slice(&start.frame.to_le_bytes());
    let crc = crc32c::crc32c(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Makes the file of the segment that begins at `start`, with room for `size` bytes, and writes the
/// header. Neither is durable yet.
pub(super) fn create(
    disk: &dyn Disk,
    path: &Path,
    start: Position,
    size: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(path)?;
    file.allocate(size)?;
    file.write_at(0, &encode_header(start))?;
    Ok(file)
}

/// Reads the header of segment `number`.
pub(super) fn read_header(file: &dyn DiskFile, number: u32) -> io::Result<Header> {
    let mut header = [0; HEADER_BYTES as usize];
    file.read_at(0, &mut header)?;
    let word = |at: usize| -> u32 {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if header[..8] != MAGIC || word(24) != crc32c::crc32c(&header[..24]) || word(12) != number {
        return Ok(Header::Bad);
    }
    let first = u64::from(word(16)) | u64::from(word(20)) << 32;
    Ok(if word(8) == FORMAT { Header::Good { first } } else { Header::Newer(word(8)) })
}

/// The hash by which a witness names a document.
pub(super) fn witness_hash(document: &DocumentId) -> u32 {
    crc32c::crc32c(document.as_str().as_bytes())
}

/// The documents of the last frames, for the witness of the next one.
#[derive(Debug, Default)]
pub(super) struct Recent {
    frames: VecDeque<RecentFrame>,
    bytes: u64,
    scratch: Vec<(u32, u16)>,
}

#[derive(Debug)]
struct RecentFrame {
    number: u64,
    bytes: u64,
    documents: Box<[u32]>,
}

impl Recent {
    /// Takes note of a frame and forgets those that are too far back. A frame that does not follow
    /// on the last one is the first of a new row.
    pub(super) fn push(&mut self, number: u64, bytes: usize, documents: &[u32]) {
        if self.frames.back().is_some_and(|last| last.number + 1 != number) {
            self.frames.clear();
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
        self.frames.push_back(RecentFrame {
            number,
            bytes: bytes as u64,
            documents: documents.into(),
        });
        while let Some(first) = self.frames.front()
            && self.bytes - first.bytes >= WITNESS_BYTES
        {
            self.bytes -= first.bytes;
            self.frames.pop_front();
        }
    }
}

/// The one buffer in which frames are built.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer(Vec<u8>);

impl FrameBuffer {
    /// Starts frame `number`.
    pub(super) fn begin(&mut self, number: u64, recent: &mut Recent) {
        let from = recent.frames.front().map_or(number, |frame| frame.number);
        recent.scratch.clear();
        for frame in &recent.frames {
            // One that is too far back for the field seems nearer, which only costs.
            let back = u16::try_from(number - frame.number).unwrap_or(u16::MAX);
            recent.scratch.extend(frame.documents.iter().map(|&hash| (hash, back)));
        }
        recent.scratch.sort_unstable();
        recent.scratch.dedup_by_key(|(hash, _)| *hash);
        self.0.clear();
        self.0.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        self.0.extend_from_slice(&from.to_le_bytes());
        self.0.extend_from_slice(&(recent.scratch.len() as u32).to_le_bytes());
        for (hash, back) in &recent.scratch {
            self.0.extend_from_slice(&hash.to_le_bytes());
            self.0.extend_from_slice(&back.to_le_bytes());
        }
    }

    /// Where entries are added. Their offsets in it are their offsets in the frame.
    pub(super) fn entries(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The bytes that the frame will take.
    pub(super) fn len(&self) -> usize {
        self.0.len().next_multiple_of(ALIGN)
    }

    /// Completes the frame for its place, and returns its bytes.
    pub(super) fn finish(&mut self, salt: u64, segment: u32, number: u64) -> &[u8] {
        let length = (self.0.len() - FRAME_HEADER_BYTES) as u32;
        let seal = Seal { salt, segment, length, number };
        let crc = seal.checksum(&self.0[FRAME_HEADER_BYTES..]);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[4..8].copy_from_slice(&crc.to_le_bytes());
        self.0[8..16].copy_from_slice(&number.to_le_bytes());
        self.0.resize(self.len(), 0);
        &self.0
    }
}

struct Seal {
    salt: u64,
    segment: u32,
    length: u32,
    number: u64,
}

impl Seal {
    fn checksum(&self, content: &[u8]) -> u32 {
        let mut seal = [0; 24];
        seal[..8].copy_from_slice(&self.salt.to_le_bytes());
        seal[8..12].copy_from_slice(&self.segment.to_le_bytes());
        seal[12..16].copy_from_slice(&self.length.to_le_bytes());
        seal[16..].copy_from_slice(&self.number.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&seal), content)
    }
}

/// A frame that was read, and checked.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// Its number.
    pub(super) number: u64,
    /// The bytes that it takes in the file.
    pub(super) bytes: u32,
    witness_from: u64,
    witness: &'a [u8],
    /// Where its entries begin, from its beginning.
    pub(super) entries_at: u32,
    /// Its entries.
    pub(super) entries: &'a [u8],
}

impl Frame<'_> {
    /// The documents that the frames from `from` up to this one had, as hashes; `None` if it cannot
    /// tell.
    pub(super) fn witness(&self, from: u64) -> Option<Vec<u32>> {
        let entries = self.witness.as_chunks::<WITNESS_ENTRY_BYTES>().0.iter();
        let documents = entries.filter_map(|&[a, b, c, d, e, f]| {
            let last = self.number.saturating_sub(u64::from(u16::from_le_bytes([e, f])));
            (last >= from).then_some(u32::from_le_bytes([a, b, c, d]))
        });
        (self.witness_from <= from).then(|| documents.collect())
    }
}

/// Reads the frames of a segment.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn DiskFile>,
    segment: u32,
    salt: u64,
    size: u64,
    window_at: u64,
    window: Vec<u8>,
}

impl Scanner {
    /// Reads `file`, which is the segment `segment` of the log with this salt.
    pub(super) fn new(file: Arc<dyn DiskFile>, segment: u32, salt: u64) -> io::Result<Self> {
        let size = file.size()?.min(u64::from(u32::MAX));
        Ok(Self { file, segment, salt, size, window_at: 0, window: Vec::new() })
    }

    /// The size of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The frame at `offset`, if a good one with a number of at least `number_min` is there.
    pub(super) fn frame(&mut self, offset: u32, number_min: u64) -> io::Result<Option<Frame<'_>>> {
        let (segment, salt, size) = (self.segment, self.salt, self.size);
        let header = self.bytes(offset, FRAME_HEADER_BYTES)?;
        let Some((length, crc, number)) = decode_frame_header(header) else { return Ok(None) };
        let end = u64::from(offset) + FRAME_HEADER_BYTES as u64 + u64::from(length);
        if number < number_min || length < 12 || end > size {
            return Ok(None);
        }
        let content = self.bytes(offset, FRAME_HEADER_BYTES + length as usize)?;
        let Some(content) = content.get(FRAME_HEADER_BYTES..) else { return Ok(None) };
        if (Seal { salt, segment, length, number }).checksum(content) != crc {
            return Ok(None);
        }
        Ok(decode_frame(content, number))
    }

    /// The offset of the next good frame from `offset` on, with a number of at least `number_min`.
    pub(super) fn search(&mut self, offset: u32, number_min: u64) -> io::Result<Option<u32>> {
        let mut offset = offset.next_multiple_of(ALIGN as u32);
        while u64::from(offset) + (FRAME_HEADER_BYTES as u64) <= self.size {
            if self.frame(offset, number_min)?.is_some() {
                return Ok(Some(offset));
            }
            // Most of what is searched are the zeros that a segment is preallocated with.
            let step = self.zeros(offset)?.max(ALIGN as u32);
            offset = offset.saturating_add(step);
        }
        Ok(None)
    }

    /// There is anything but zeros from `offset` to the end.
    pub(super) fn anything_after(&mut self, offset: u32) -> io::Result<bool> {
        let mut offset = offset;
        while u64::from(offset) < self.size {
            let bytes = self.bytes(offset, WINDOW_BYTES)?;
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(true);
            }
            offset = offset.saturating_add(bytes.len().max(1) as u32);
        }
        Ok(false)
    }

    /// How many bytes from `offset` on are surely zero: whole words, as far as the window goes, but
    /// one header less, as the word that ends them may be the number of a frame.
    fn zeros(&mut self, offset: u32) -> io::Result<u32> {
        let left = (self.size - u64::from(offset)).min(WINDOW_BYTES as u64 / 2) as usize;
        let bytes = self.bytes(offset, left)?;
        let (words, rest) = bytes.as_chunks::<ALIGN>();
        let zeros = words.iter().take_while(|word| **word == [0; ALIGN]).count();
        if zeros == words.len() && rest.iter().all(|&byte| byte == 0) {
            return Ok((zeros * ALIGN + rest.len()) as u32);
        }
        Ok((zeros * ALIGN).saturating_sub(ALIGN) as u32)
    }

    /// The bytes from `offset`, fewer where the file ends.
    fn bytes(&mut self, offset: u32, length: usize) -> io::Result<&[u8]> {
        let offset = u64::from(offset);
        let end = (offset + length as u64).min(self.size.max(offset));
        let inside = offset >= self.window_at && end <= self.window_at + self.window.len() as u64;
        if !inside {
            let want = length.max(WINDOW_BYTES).min((self.size - offset.min(self.size)) as usize);
            self.window.resize(want, 0);
            self.window_at = offset;
            let read = self.file.read_at(offset, &mut self.window)?;
            self.window.truncate(read);
        }
        let start = (offset - self.window_at) as usize;
        let end = ((end - self.window_at) as usize).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
}

fn decode_frame_header(header: &[u8]) -> Option<(u32, u32, u64)> {
    let length = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
    let crc = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?);
    let number = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
    Some((length, crc, number))
}

fn decode_frame(content: &[u8], number: u64) -> Option<Frame<'_>> {
    let witness_from = u64::from_le_bytes(content.get(..8)?.try_into().ok()?);
    let count = u32::from_le_bytes(content.get(8..12)?.try_into().ok()?) as usize;
    let witness = content.get(12..12 + count.checked_mul(WITNESS_ENTRY_BYTES)?)?;
    let entries = content.get(12 + witness.len()..)?;
    let bytes = (FRAME_HEADER_BYTES + content.len()).next_multiple_of(ALIGN) as u32;
    let entries_at = (FRAME_HEADER_BYTES + 12 + witness.len()) as u32;
    Some(Frame { number, bytes, witness_from, witness, entries_at, entries })
}
