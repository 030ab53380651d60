//! Crash images: a scripted run on a simulated disk, a crash at every operation of it, and for each
//! crash many ways in which what was not synced may have come out. Every image has to open, with
//! everything that was acknowledged, and with nothing else.

use std::{collections::HashSet, path::Path, sync::Arc};

use super::{
    script::{Random, Run},
    sim::{Image, Op, Snapshot},
};

const SECTOR: usize = 512;

/// What a disk has for certain after some operations, and what may have reached it besides.
#[derive(Default)]
pub(super) struct Crash {
    durable: Image,
    files: Vec<Vec<Op>>,
    names: Vec<Op>,
}

/// A way for the operations that were not synced to come out.
enum Outcome<'a> {
    Nothing,
    Everything,
    /// Of the last write only so many bytes; of the rest everything, or nothing.
    Torn {
        bytes: usize,
        rest: bool,
    },
    /// Each sector, size and name by chance.
    Chance(&'a mut Random),
}

impl Crash {
    /// Takes in an operation.
    pub(super) fn step(&mut self, op: &Op, syncs_work: bool) {
        match op {
            Op::Write { file, .. } | Op::Size { file, .. } => self.files[*file].push(op.clone()),
            Op::Name { file, .. } => {
                if let Some(file) = file
                    && *file == self.files.len()
                {
                    self.files.push(Vec::new());
                    self.durable.files.push(Arc::default());
                }
                self.names.push(op.clone());
            }
            Op::Commit { catalogue } => self.durable.catalogue = Some(Snapshot::clone(catalogue)),
            Op::Sync { .. } | Op::SyncDir { .. } if !syncs_work => {}
            Op::Sync { file } => {
                for op in std::mem::take(&mut self.files[*file]) {
                    apply(&mut self.durable, &op);
                }
            }
            Op::SyncDir { dir } => {
                let (here, other) = std::mem::take(&mut self.names).into_iter().partition(
                    |op| matches!(op, Op::Name { path, .. } if path.parent() == Some(dir)),
                );
                self.names = other;
                let here: Vec<Op> = here;
                here.iter().for_each(|op| apply(&mut self.durable, op));
            }
        }
    }

    /// What there is for certain.
    pub(super) fn into_durable(self) -> Image {
        self.durable
    }

    fn is_settled(&self) -> bool {
        self.names.is_empty() && self.files.iter().all(Vec::is_empty)
    }

    fn image(&self, mut outcome: Outcome<'_>, last: &Op) -> Image {
        let mut image = self.durable.clone();
        let mut keep = |whole_last: bool| match &mut outcome {
            Outcome::Nothing => false,
            Outcome::Everything => true,
            Outcome::Torn { rest, .. } => *rest && !whole_last,
            Outcome::Chance(random) => random.below(2) == 0,
        };
        for op in self.files.iter().flatten() {
            let Op::Write { file, offset, bytes } = op else {
                if keep(false) {
                    apply(&mut image, op);
                }
                continue;
            };
            let is_last = matches!(last, Op::Write { bytes: last, .. } if Arc::ptr_eq(last, bytes));
            let mut start = 0;
            while start < bytes.len() {
                let end = ((offset + start) / SECTOR + 1) * SECTOR - offset;
                let end = end.min(bytes.len());
                if keep(is_last) {
                    image.write(*file, offset + start, &bytes[start..end]);
                }
                start = end;
            }
        }
        for op in &self.names {
            if keep(false) {
                apply(&mut image, op);
            }
        }
        if let (Outcome::Torn { bytes: torn, .. }, Op::Write { file, offset, bytes }) =
            (outcome, last)
        {
            image.write(*file, *offset, &bytes[..torn]);
        }
        image
    }
}

fn apply(image: &mut Image, op: &Op) {
    match op {
        Op::Write { file, offset, bytes } => image.write(*file, *offset, bytes),
        Op::Size { file, bytes } => image.resize(*file, *bytes),
        Op::Name { path, file: Some(file) } => drop(image.names.insert(path.clone(), *file)),
        Op::Name { path, file: None } => drop(image.names.remove(path)),
        Op::Sync { .. } | Op::SyncDir { .. } | Op::Commit { .. } => {}
    }
}

/// The same for the same content.
fn fingerprint(image: &Image) -> u64 {
    let mut sums = [0_u32, !0];
    for (path, file) in &image.names {
        for sum in &mut sums {
            *sum = crc32c::crc32c_append(*sum, path_bytes(path));
            *sum = crc32c::crc32c_append(*sum, &image.files[*file]);
            *sum = sum.rotate_left(5).wrapping_mul(0x9e37_79b1);
        }
    }
    u64::from(sums[0]) << 32 | u64::from(sums[1])
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// Checks the crashes of a run; returns how many different ones, and what was wrong.
fn crashes(run: &Run, syncs_work: bool, seed: u64, every: usize) -> (usize, Vec<String>) {
    let random = &mut Random(seed);
    let mut crash = Crash::default();
    let (mut images, mut violations) = (0, Vec::new());
    for (done, op) in run.ops.iter().enumerate() {
        crash.step(op, syncs_work);
        if done % every != 0 {
            continue;
        }
        if syncs_work && violations.len() > 20 {
            break;
        }
        let mut seen = HashSet::new();
        let mut try_one = |outcome: Outcome<'_>| {
            let image = crash.image(outcome, op);
            if seen.insert(fingerprint(&image)) {
                images += 1;
                if let Err(what) = run.check(image, done + 1) {
                    violations.push(format!("seed {seed}, operation {done}, {op:?}: {what}"));
                }
            }
        };
        try_one(Outcome::Nothing);
        if crash.is_settled() {
            continue;
        }
        try_one(Outcome::Everything);
        for _ in 0..12 {
            try_one(Outcome::Chance(random));
        }
        if let Op::Write { bytes, .. } = op {
            for n in 0..36 {
                let torn = random.below(bytes.len());
                try_one(Outcome::Torn { bytes: torn, rest: n % 2 == 0 });
            }
        }
    }
    (images, violations)
}

#[test]
fn no_crash_loses_or_invents_anything() {
    let (mut images, mut seed) = (0, 1);
    // Distinct images, not attempts.
    while images < 50_000 {
        let run = Run::play(seed, 450);
        run.is_worth_it();
        let (more, violations) = crashes(&run, true, seed, 1);
        assert!(violations.is_empty(), "{} of {more}: {:#?}", violations.len(), violations.first());
        images += more;
        seed += 1;
    }
    println_stats(images, seed - 1);
}

#[test]
fn the_crash_images_find_a_disk_that_does_not_sync() {
    let run = Run::play(1, 120);
    let (images, violations) = crashes(&run, false, 1, 10);
    assert!(images > 500, "{images}");
    assert!(violations.len() > images / 4, "{} of {images}", violations.len());
}

#[expect(clippy::print_stdout, reason = "says what a green test has looked at")]
fn println_stats(images: usize, runs: u64) {
    println!("{images} crash images of {runs} runs");
}
