//! Crash images: a scripted run on a simulated disk, a crash at every operation of it, and for each
//! crash many ways in which what was not synced may have come out. Every image has to open, with
//! everything that was acknowledged, and with nothing else.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    EmbeddedLog, Tuning, read,
    sim::{Image, Op, SimDisk, Snapshot},
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, Checkpoint, Config, Loaded, NewRecord, Record, UpdateLog as _},
    metrics::{LogMetrics, Metrics},
};

const SECTOR: usize = 512;

/// Small enough that the run fills dozens of segments and has states in files.
pub(super) const TUNING: Tuning = Tuning {
    segment_bytes: 4096,
    frame_bytes: 3000,
    inline_bytes: 300,
    probe_interval: Duration::from_millis(5),
};

pub(super) fn config() -> Config {
    Config {
        directory: PathBuf::from("log"),
        commit_interval: Duration::ZERO,
        history_retention: Duration::ZERO,
        ..Config::default()
    }
}

pub(super) fn open(disk: &SimDisk) -> Result<EmbeddedLog, super::OpenError> {
    open_with(disk, Metrics::new().log)
}

fn open_with(disk: &SimDisk, metrics: LogMetrics) -> Result<EmbeddedLog, super::OpenError> {
    EmbeddedLog::open_on(&config(), TUNING, Arc::new(disk.clone()), metrics)
}

/// A small generator, so that a seed means the same for ever.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What was asked of a document, in order.
#[derive(Debug)]
enum What {
    Create(Epoch),
    Append { time_ms: u64, updates: Vec<NewRecord> },
    Delete,
}

/// A request, and the operations of the disk that were done when it was made and acknowledged.
#[derive(Debug)]
struct Event {
    what: What,
    submitted: usize,
    acked: usize,
}

/// A checkpoint that was acknowledged.
#[derive(Debug)]
struct Stored {
    epoch: Epoch,
    sequence: Sequence,
    acked: usize,
}

#[derive(Debug, Default)]
struct Model {
    events: Vec<Event>,
    checkpoints: Vec<Stored>,
    /// What there is after so many events. Filled when the run is over.
    histories: Vec<History>,
}

/// The state of a document: nothing, or its history.
type History = Option<(Epoch, Vec<Record>)>;

impl Model {
    fn history(&self, events: usize) -> History {
        let mut history: History = None;
        for event in &self.events[..events] {
            match &event.what {
                What::Create(epoch) => history = Some((*epoch, Vec::new())),
                What::Delete => history = None,
                What::Append { time_ms, updates } => {
                    let (_, records) = history.as_mut().unwrap();
                    for new in updates {
                        records.push(Record {
                            sequence: Sequence(records.len() as u64 + 1),
                            time_ms: *time_ms,
                            principal: new.principal.clone(),
                            session: new.session,
                            update: new.update.clone(),
                        });
                    }
                }
            }
        }
        history
    }
}

/// The state that a checkpoint has: it says what it is.
pub(super) fn state(epoch: Epoch, sequence: Sequence) -> Bytes {
    let size = 20 + (sequence.0 as usize % 5) * 100;
    let mut state = format!("{epoch:?} {sequence} ").into_bytes();
    state.resize(state.len().max(size), b'.');
    state.into()
}

/// The run: what was asked of the log, and what that did to the disk.
struct Run {
    ops: Vec<Op>,
    documents: BTreeMap<DocumentId, Model>,
    segments_dropped: u64,
    metrics: LogMetrics,
}

impl Run {
    fn play(seed: u64, steps: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Self::script(seed, steps))
    }

    async fn script(seed: u64, steps: usize) -> Self {
        let random = &mut Random(seed);
        let disk = SimDisk::recording();
        let metrics = Metrics::new().log;
        let reopen = || open_with(&disk, metrics.clone()).unwrap();
        let mut log = reopen();
        let names: Vec<_> =
            (0..6).map(|n| DocumentId::parse(&format!("doc/{n}")).unwrap()).collect();
        let mut documents: BTreeMap<_, _> =
            names.iter().map(|name| (name.clone(), Model::default())).collect();
        for step in 0..steps {
            let name = &names[random.below(names.len())];
            let model = documents.get_mut(name).unwrap();
            let history = model.history(model.events.len());
            let submitted = disk.now();
            match (random.below(100), history) {
                (0..4, _) => drop(log.compact().await.unwrap()),
                (4..6, _) => {
                    log.close().await;
                    log = reopen();
                }
                (6..8, _) => {
                    drop(log);
                    log = reopen();
                }
                (_, None) => {
                    let epoch = Epoch((step as u128).to_be_bytes());
                    log.create(name, epoch).await.unwrap();
                    let (what, acked) = (What::Create(epoch), disk.now());
                    model.events.push(Event { what, submitted, acked });
                }
                (8..10, Some(_)) => {
                    log.delete(name).await.unwrap();
                    let (what, acked) = (What::Delete, disk.now());
                    model.events.push(Event { what, submitted, acked });
                }
                (10..22, Some((epoch, records))) => {
                    let back = random.below(3).min(records.len());
                    let sequence = Sequence((records.len() - back) as u64);
                    let state = state(epoch, sequence);
                    // It may be too old: that is for other tests.
                    if log.put_checkpoint(name, Checkpoint { sequence, state }).await.is_ok() {
                        let acked = disk.now();
                        model.checkpoints.push(Stored { epoch, sequence, acked });
                    }
                }
                (_, Some(_)) => append(&log, &disk, &mut documents, random, step).await,
            }
        }
        log.close().await;
        for model in documents.values_mut() {
            model.histories = (0..=model.events.len()).map(|n| model.history(n)).collect();
        }
        let segments_dropped = metrics.segments_dropped.get();
        Self { ops: disk.ops(), documents, segments_dropped, metrics }
    }

    /// The run does what crashes could spoil.
    fn is_worth_it(&self) {
        let named = |text: &str| {
            let names = self.ops.iter().filter_map(|op| match op {
                Op::Name { path, file: Some(_) } => Some(path.to_str().unwrap()),
                _ => None,
            });
            names.filter(|name| name.contains(text)).count()
        };
        assert!(named("segments/") > 20 && named("checkpoints/") > 20);
        assert!(self.segments_dropped > 10, "{}", self.segments_dropped);
        let events = self.documents.values().flat_map(|model| &model.events);
        assert!(events.filter(|event| matches!(event.what, What::Delete)).count() > 2);
        assert!(self.ops.iter().filter(|op| matches!(op, Op::Commit { .. })).count() > 30);
    }

    /// What is wrong with an image of the first `boundary` operations.
    fn check(&self, image: Image, boundary: usize) -> Result<(), String> {
        let log = open_with(&SimDisk::of(image), self.metrics.clone())
            .map_err(|error| format!("open: {error:?}"))?;
        let listed: BTreeMap<_, _> =
            log.list(None, 99).into_iter().map(|line| (line.document, line.head)).collect();
        for (name, model) in &self.documents {
            let loaded = read::load(&log.shared, name).map_err(|error| format!("{error:?}"))?;
            let head = loaded.as_ref().map(Loaded::head);
            if listed.get(name).copied() != head {
                return Err(format!("{name}: loads {head:?}, listed as {:?}", listed.get(name)));
            }
            model.check(loaded, boundary).map_err(|what| format!("{name}: {what}"))?;
        }
        Ok(())
    }
}

/// Appends to some documents at once, so that a frame has several.
async fn append(
    log: &EmbeddedLog,
    disk: &SimDisk,
    documents: &mut BTreeMap<DocumentId, Model>,
    random: &mut Random,
    step: usize,
) {
    let mut pending = Vec::new();
    let submitted = disk.now();
    for (name, model) in documents {
        if model.history(model.events.len()).is_none() || random.below(2) == 0 {
            continue;
        }
        let updates = (0..1 + random.below(3)).map(|n| {
            let mut update = format!("{step}/{n} of {name}").into_bytes();
            update.resize(update.len() + random.below(400), n as u8);
            NewRecord {
                principal: Principal::new(&format!("p{n}")).unwrap(),
                session: SessionId::from_u64(random.next()),
                update: update.into(),
            }
        });
        let updates: Vec<_> = updates.collect();
        let time_ms = step as u64;
        let append = Append { document: name.clone(), time_ms, updates: updates.clone() };
        pending.push((model, log.append(append), What::Append { time_ms, updates }));
    }
    for (model, appending, what) in pending {
        appending.await.unwrap();
        model.events.push(Event { what, submitted, acked: disk.now() });
    }
}

impl Model {
    fn check(&self, loaded: Option<Loaded>, boundary: usize) -> Result<(), String> {
        let acked = self.events.iter().take_while(|event| event.acked <= boundary).count();
        let possible = self.events.iter().take_while(|event| event.submitted < boundary).count();
        let head = loaded.as_ref().map(|loaded| (loaded.epoch, loaded.head().0 as usize));
        // One of the states from what was acknowledged to what was asked for.
        let fits = |history: &&History| {
            history.as_ref().map(|(epoch, records)| (*epoch, records.len())) == head
        };
        let Some(history) = self.histories[acked..=possible].iter().find(fits) else {
            return Err(format!("{head:?} is none of the states {acked} to {possible}"));
        };
        let (Some(loaded), Some((epoch, records))) = (loaded, history) else { return Ok(()) };
        let base = loaded.checkpoint.as_ref().map_or(0, |stored| stored.sequence.0);
        let needed = self.checkpoints.iter().filter(|stored| stored.acked <= boundary);
        let needed = needed.filter(|stored| stored.epoch == *epoch).map(|stored| stored.sequence.0);
        if needed.max().unwrap_or_default() > base {
            return Err(format!("the checkpoint is the one at {base}"));
        }
        if loaded.checkpoint.is_some_and(|stored| stored.state != state(*epoch, stored.sequence)) {
            return Err("the state is another one".to_owned());
        }
        if loaded.tail != records[base as usize..] {
            return Err(format!("other updates than the {} after {base}", records.len()));
        }
        Ok(())
    }
}

/// What a disk has for certain after some operations, and what may have reached it besides.
#[derive(Default)]
struct Crash {
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
    fn step(&mut self, op: &Op, syncs_work: bool) {
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
