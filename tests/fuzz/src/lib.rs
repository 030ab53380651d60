//! What the fuzz targets have in common: the limit of time, and documents from hostile updates.

use std::time::Duration;

use bytes::Bytes;
use cowrite_server::crdt::{Author, Batch, Document, Quotas, Terms, validate};
use rustix::time::{ClockId, clock_gettime};

/// The most processor time that one input may take. A room that takes longer is felt by everybody in
/// it. Sanitizers take a part of that, some five times what the work takes without them.
const INPUT_MAX: Duration = Duration::from_millis(100);

/// Runs `work`, which may take [`INPUT_MAX`].
///
/// # Panics
///
/// It took longer.
pub fn in_time(work: impl FnOnce()) {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    let start = now();
    work();
    let took = now() - start;
    assert!(took <= INPUT_MAX, "the input takes {took:?}");
}

/// Quotas that a small input can reach.
pub const QUOTAS: Quotas = Quotas { clients_max: 50, roots_max: 20, subdocuments_max: 10 };

/// The parts of an input that has several: each behind its length in two bytes.
pub fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_at_checked(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (part, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        Some(part)
    })
}

/// A document of those of `updates` that the wall lets in. The first byte of each says who sends it,
/// whether that one may only comment, and whether it is with others in one batch.
///
/// # Panics
///
/// yrs faults on something that the wall let in.
pub fn document<'a>(updates: impl Iterator<Item = &'a [u8]>) -> Document {
    let mut document = Document::new();
    let names = ["", "alice", "bob"];
    let authors = names.map(|name| {
        let name = cowrite_server::ids::Principal::new(name).expect("a short name");
        document.author(&name)
    });
    let mut batch = Batch::default();
    for part in updates {
        let Some((flags, bytes)) = part.split_first() else { continue };
        let update = Bytes::copy_from_slice(bytes);
        let Ok(scan) = validate::update(&update) else { continue };
        let author = authors.get(usize::from(flags & 3)).copied().unwrap_or(Author::NOBODY);
        let only_root = (flags & 4 != 0).then_some("c");
        let is_difference = flags & 8 != 0;
        let terms = Terms { author, only_root, quotas: &QUOTAS, is_difference };
        if is_difference {
            document.contains(&update, &scan).expect("yrs bears the question");
        }
        let checked = document.check(&mut batch, &update, &scan, terms);
        // What is refused leaves everything as it was.
        let _ = checked.expect("yrs bears the check");
        if flags & 16 != 0 {
            document.apply(&mut std::mem::take(&mut batch)).expect("yrs bears what was let in");
        }
    }
    document.apply(&mut batch).expect("yrs bears what was let in");
    document
}
