//! A scripted run of the log on a simulated disk, and what documents may be after a crash in it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    EmbeddedLog, Tuning, read,
    sim::{Image, Op, SimDisk},
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, Checkpoint, Config, Loaded, NewRecord, OpenError, Record, UpdateLog as _},
    metrics::{LogMetrics, Metrics},
};

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

pub(super) fn open(disk: &SimDisk) -> Result<EmbeddedLog, OpenError> {
    open_with(disk, Metrics::new().log)
}

fn open_with(disk: &SimDisk, metrics: LogMetrics) -> Result<EmbeddedLog, OpenError> {
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
pub(super) struct Run {
    /// What was done to the disk.
    pub(super) ops: Vec<Op>,
    documents: BTreeMap<DocumentId, Model>,
    segments_dropped: u64,
    metrics: LogMetrics,
}

impl Run {
    pub(super) fn play(seed: u64, steps: usize) -> Self {
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
    pub(super) fn is_worth_it(&self) {
        let named = |text: &str| {
            let names = self.ops.iter().filter_map(|op| match op {
                Op::Name { path, file: Some(_) } => Some(path.to_str().unwrap()),
                Op::Name { file: None, .. }
                | Op::Write { .. }
                | Op::Size { .. }
                | Op::Sync { .. }
                | Op::SyncDir { .. }
                | Op::Commit { .. } => None,
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
    pub(super) fn check(&self, image: Image, boundary: usize) -> Result<(), String> {
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
