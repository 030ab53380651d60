//! Where each struct of a document is: in which root or shared type, and how deep.
//!
//! yrs keeps this in items that only it sees, and trusts what an update says of it. Here it is kept
//! beside yrs, in runs: what one client typed in one place is one run, however long. With it an update
//! is judged before yrs applies it. Refused is what makes yrs fault, recurse or search without end,
//! and what no Yjs client ever writes: structs that wait for themselves, an item in something that is
//! no shared type or between two of them, shared types nested too deep, items by the thousand that all
//! claim one place, and what is divided into pieces for yrs to put together. It also says which structs
//! are comments.

use std::hash::{BuildHasher as _, Hash};

// Keyed anew in every process, so that nobody can choose ids that collide, and five times as fast as
// the default: a keystroke is looked up some ten times.
use foldhash::{HashMap, fast::RandomState};
use smallvec::SmallVec;

use super::{
    by_client::ByClient,
    error::Rejection,
    validate::{self, ClockRange, Kind, Malformed, Place, Struct, StructId, Visit},
};

/// The deepest nesting of shared types. yrs deletes them recursively, and overflows a stack of 2 MiB
/// at some 10 000; editors nest a few dozen.
pub const TYPE_DEPTH_MAX: u16 = 256;

/// How many steps an update may make yrs take at most while it looks for the places of items that
/// claim the same one, 40 ns each (measured): 2 s, where an editor's update takes a few.
const STEPS_MAX: u64 = 50_000_000;

/// How many bytes yrs may copy at most while it joins the structs of one transaction: those of one client
/// that stand in a row become one, and each is copied once for each that is in front of it, all of which
/// it keeps until the end. Yjs joins them itself, so that an update has few; in a batch there are the
/// keystrokes of one client, half a megabyte for a thousand.
pub(super) const JOINED_MAX: u64 = 128 << 20;

/// What a value takes in yrs, in bytes, without what it refers to.
const VALUE_BYTES: u64 = 24;

/// How many values an update may make yrs copy at most by splitting what they are in: 2.5 ns each
/// (measured), 10 s. In an array of 100 000 values somebody can change 40 000 places at once.
const COPIED_MAX: u64 = 4_000_000_000;

/// How many values are copied in a step.
const COPIED_PER_STEP: u64 = 16;

/// A root or a shared type, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Spot(u32);

impl Spot {
    /// Where what was collected is, and what was put into it.
    const NOWHERE: Self = Self(u32::MAX);

    fn new(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What is known of a root or a shared type.
#[derive(Clone, Copy, Debug)]
struct SpotInfo {
    /// The root that it is in, or itself.
    root: Spot,
    /// 0 for a root.
    depth: u16,
    /// The structs in it, those in shared types in it not counted.
    structs: u32,
}

/// A run of clocks of one client in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u32,
    end: u32,
    spot: Spot,
    /// Its content is gone, so that what is put into it goes nowhere.
    is_deleted: bool,
    has_values: bool,
}

/// Where the structs of a client do not just go on: what one of them stands between. Those after it, up
/// to the next leap, each stand behind the one before and in front of the same.
#[derive(Clone, Copy, Debug)]
struct Leap {
    clock: u32,
    left: Option<StructId>,
    right: Option<StructId>,
}

/// What is known of one client.
#[derive(Clone, Debug, Default)]
struct Client {
    /// In order, without a gap.
    runs: SmallVec<[Run; 1]>,
    /// In order.
    leaps: SmallVec<[Leap; 1]>,
    /// What its last struct is and what was to the right of it, by which yrs decides whether the next
    /// one becomes a part of it.
    last: Option<(Kind, Option<StructId>)>,
}

impl Client {
    fn clock(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end)
    }

    fn run(&self, clock: u32) -> Option<Run> {
        let found = match self.runs.last() {
            Some(last) if last.start <= clock => Some(last),
            _ => self.runs.get(self.runs.partition_point(|run| run.end <= clock)),
        };
        found.copied().filter(|run| (run.start..run.end).contains(&clock))
    }

    /// Where the struct that `clock` is in ends, at the latest.
    fn end_of_struct(&self, run: Run, clock: u32) -> u32 {
        let after = self.leaps.partition_point(|leap| leap.clock <= clock);
        self.leaps.get(after).map_or(run.end, |leap| leap.clock.min(run.end))
    }

    /// The last leap up to a clock that there is.
    fn leap(&self, clock: u32) -> Option<Leap> {
        match self.leaps.last() {
            Some(last) if last.clock <= clock => Some(*last),
            _ => {
                let after = self.leaps.partition_point(|leap| leap.clock <= clock);
                self.leaps.get(after.checked_sub(1)?).copied()
            }
        }
    }
}

/// How much of a document there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Clients that have written in it.
    pub clients_max: usize,
    /// Roots.
    pub roots_max: usize,
    /// Subdocuments, also those that were deleted.
    pub subdocuments_max: usize,
}

impl Quotas {
    /// No limits.
    pub const NONE: Self =
        Self { clients_max: usize::MAX, roots_max: usize::MAX, subdocuments_max: usize::MAX };
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Clients.
    #[error("the document has edits of {0} Yjs clients, as many as it may have")]
    Clients(usize),
    /// Roots.
    #[error("the document has {0} shared types at its root, as many as it may have")]
    Roots(usize),
    /// Subdocuments.
    #[error("the document has {0} subdocuments, as many as it may have")]
    Subdocuments(usize),
    /// Items that claim one place.
    #[error("the update has too many items for one place in a document of this size")]
    Steps,
    /// Structs that are one.
    #[error("the update is divided into too many pieces of what is one")]
    Pieces,
}

/// Where each struct of a document is.
#[derive(Debug, Default)]
pub(super) struct Outline {
    clients: HashMap<u64, Client>,
    roots: HashMap<Box<str>, Spot>,
    /// The shared types that are not roots, by their structs.
    types: HashMap<StructId, Spot>,
    spots: Vec<SpotInfo>,
    joints: Joints,
    subdocuments: usize,
    structs: usize,
}

/// Where a document was not typed from left to right, by which it shows how long yrs looks for the
/// place of an item: for each place to the right of which something was put later, what was put there
/// last. Everything is a keyed hash, for size: of two that meet one too few is counted.
#[derive(Debug, Default)]
struct Joints {
    hasher: RandomState,
    newest: HashMap<u64, u64>,
}

/// A place where an item can be put.
#[derive(Clone, Copy, Debug, Hash)]
enum Anchor<'a> {
    /// To the right of this.
    After(StructId),
    /// At the beginning of this, or for a key of it.
    Head(Spot, Option<&'a str>),
}

impl Joints {
    fn hash(&self, what: impl Hash) -> u64 {
        self.hasher.hash_one(what)
    }
}

/// How an update is judged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strictness<'a> {
    /// It is from a client.
    Client(&'a Quotas),
    /// It is our own, perhaps from before a rule was made.
    Own,
}

/// What an update adds to an outline.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    steps: SmallVec<[Step; 1]>,
    /// What of each client is planned.
    planned: ByClient<Planned>,
    /// New roots.
    roots: HashMap<&'a str, Spot>,
    /// New shared types.
    types: HashMap<StructId, Spot>,
    /// The new roots and shared types, in the order of their indices.
    spots: SmallVec<[SpotInfo; 1]>,
    /// As in [`Joints`].
    newest: HashMap<u64, u64>,
    subdocuments: usize,
    /// Steps that yrs may take.
    work: u64,
    /// Bytes that it may copy while it joins structs.
    joined: u64,
    /// Values that it may copy while it splits structs.
    copied: u64,
}

/// What one client put in a row in a transaction, which yrs joins at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    kind: Kind,
    right: Option<StructId>,
    /// How many there are in front of the next one.
    count: u64,
}

/// The last row of each client in a transaction.
pub(super) type Rows = HashMap<u64, Row>;

/// What of a client is planned.
#[derive(Clone, Debug)]
struct Planned {
    /// Its last row, in the transaction.
    row: Option<Row>,
    /// Its next clock.
    clock: u32,
    /// Its steps by index, in the order of their clocks.
    steps: SmallVec<[u32; 2]>,
    /// Its leaps, in the order of their clocks.
    leaps: SmallVec<[Leap; 1]>,
}

/// A struct in its place.
#[derive(Clone, Copy, Debug)]
struct Step {
    clocks: ClockRange,
    kind: Kind,
    right: Option<StructId>,
    spot: Spot,
    /// It stands behind the last struct of its client.
    follows: bool,
}

impl Plan<'_> {
    /// What the update brings, for each client.
    pub(super) fn news(&self) -> impl Iterator<Item = ClockRange> + '_ {
        self.planned.iter().filter_map(|(client, planned)| {
            let first = planned.steps.first().and_then(|at| self.step(*at))?;
            Some(ClockRange { client: *client, start: first.clocks.start, end: planned.clock })
        })
    }

    /// How many steps yrs takes, at most, besides those for each struct.
    pub(super) fn work(&self) -> u64 {
        self.work
    }

    /// How many bytes yrs copies, at most, while it joins what the update brings.
    pub(super) fn joined(&self) -> u64 {
        self.joined
    }

    /// The last rows of the clients.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, Row)> + '_ {
        self.planned.iter().filter_map(|(client, planned)| Some((*client, planned.row?)))
    }

    fn step(&self, at: u32) -> Option<&Step> {
        self.steps.get(usize::try_from(at).ok()?)
    }
}

impl Outline {
    /// The next clock of a client.
    pub(super) fn clock(&self, client: u64) -> u32 {
        self.clients.get(&client).map_or(0, Client::clock)
    }

    /// How many clients have written.
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The next clocks of all clients, in no order.
    pub(super) fn clocks(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.clients.iter().map(|(id, client)| (*id, client.clock()))
    }

    /// How many structs there are, at most: yrs joins more of them than is known here.
    pub(super) fn structs(&self) -> usize {
        self.structs
    }

    /// There are this many.
    pub(super) fn recount(&mut self, structs: usize) {
        self.structs = structs;
    }

    /// Finds the place of what is new in `update` (Yjs v1, checked). Whatever it needs is in the outline
    /// or in the update itself.
    pub(super) fn plan<'a>(
        &self,
        update: &'a [u8],
        rows: &Rows,
        strictness: Strictness<'_>,
    ) -> Result<Plan<'a>, Rejection> {
        let mut planner = Planner { outline: self, rows, plan: Plan::default(), strictness };
        let mut structs: SmallVec<[Struct<'a>; 1]> = SmallVec::new();
        // For each client, its next struct and the one after its last.
        let mut sections: SmallVec<[(u64, usize, usize); 1]> = SmallVec::new();
        validate::walk(update, &mut |visit| {
            match visit {
                Visit::Struct(item) => {
                    let (client, at) = (item.clocks.client, structs.len());
                    match sections.last_mut() {
                        Some((last, _, end)) if *last == client => *end = at + 1,
                        _ => sections.push((client, at, at + 1)),
                    }
                    structs.push(item);
                }
                Visit::Deletion(range) => planner.delete(range),
            }
            Ok::<(), Malformed>(())
        })?;
        if sections.len() <= 1 {
            for item in &structs {
                if planner.missing(item).is_some() {
                    return Err(loops());
                }
                planner.place(item)?;
            }
        } else {
            planner.place_in_turn(&structs, &mut sections)?;
        }
        let plan = planner.plan;
        if let Strictness::Client(quotas) = strictness {
            if plan.copied > COPIED_MAX {
                return Err(Rejection::Excess(Excess::Steps));
            }
            self.check(&plan, quotas)?;
        }
        Ok(plan)
    }

    fn check(&self, plan: &Plan<'_>, quotas: &Quotas) -> Result<(), Rejection> {
        let is_new = |(client, _): &&(u64, Planned)| !self.clients.contains_key(client);
        let clients = plan.planned.iter().filter(is_new).count();
        let excess = if clients > 0 && self.clients.len() + clients > quotas.clients_max {
            Excess::Clients(quotas.clients_max)
        } else if !plan.roots.is_empty() && self.roots.len() + plan.roots.len() > quotas.roots_max {
            Excess::Roots(quotas.roots_max)
        } else if plan.subdocuments > 0
            && self.subdocuments + plan.subdocuments > quotas.subdocuments_max
        {
            Excess::Subdocuments(quotas.subdocuments_max)
        } else {
            return Ok(());
        };
        Err(Rejection::Excess(excess))
    }

    fn info(&self, plan: &Plan<'_>, spot: Spot) -> Option<SpotInfo> {
        match spot.index().checked_sub(self.spots.len()) {
            None => self.spots.get(spot.index()).copied(),
            Some(new) => plan.spots.get(new).copied(),
        }
    }

    /// Whether everything that the plan adds is in the root `name`, or nowhere.
    pub(super) fn is_within(&self, plan: &Plan<'_>, name: &str) -> bool {
        let root = self.roots.get(name).or_else(|| plan.roots.get(name)).copied();
        plan.steps.iter().all(|step| {
            let info = self.info(plan, step.spot);
            step.spot == Spot::NOWHERE || info.is_some_and(|info| Some(info.root) == root)
        })
    }

    /// Calls `visit` with the parts of `range` that are elsewhere than in the root `name`.
    pub(super) fn outside(
        &self,
        range: ClockRange,
        name: &str,
        visit: &mut impl FnMut(ClockRange),
    ) {
        let ClockRange { client, start, end } = range;
        let root = self.roots.get(name).copied();
        let runs = self.clients.get(&client).map(|client| &client.runs[..]).unwrap_or_default();
        let first = runs.partition_point(|run| run.end <= start);
        for run in runs.get(first..).unwrap_or_default() {
            if run.start >= end {
                break;
            }
            let info = self.spots.get(run.spot.index());
            if !info.is_some_and(|info| Some(info.root) == root) {
                visit(ClockRange { client, start: run.start.max(start), end: run.end.min(end) });
            }
        }
    }

    /// Takes in what a plan adds. The plan was made for this outline as it is now.
    pub(super) fn carry_out(&mut self, plan: Plan<'_>) {
        self.spots.extend(plan.spots);
        self.roots.extend(plan.roots.into_iter().map(|(name, spot)| (Box::from(name), spot)));
        self.types.extend(plan.types);
        self.joints.newest.extend(plan.newest);
        self.subdocuments += plan.subdocuments;
        for (client, planned) in plan.planned {
            self.clients.entry(client).or_default().leaps.extend(planned.leaps);
        }
        for Step { clocks, kind, right, spot, follows } in plan.steps {
            let ClockRange { client, start, end } = clocks;
            let client = self.clients.entry(client).or_default();
            let joins = follows && kind.is_joined() && client.last == Some((kind, right));
            if !joins {
                self.structs += 1;
                if let Some(info) = self.spots.get_mut(spot.index()) {
                    info.structs = info.structs.saturating_add(1);
                }
            }
            client.last = Some((kind, right));
            let (is_deleted, has_values) = (kind == Kind::Deleted, kind == Kind::Values);
            let run = Run { start, end, spot, is_deleted, has_values };
            match client.runs.last_mut() {
                Some(last) if (Run { start: last.start, end: last.end, ..run }) == *last => {
                    last.end = end;
                }
                _ => client.runs.push(run),
            }
        }
    }
}

#[cfg(test)]
impl Outline {
    /// The root that something is in, and how deep; `None` for nothing and for what was collected.
    pub(super) fn whereabouts(&self, client: u64, clock: u32) -> Option<(&str, u16)> {
        let spot = self.clients.get(&client)?.run(clock)?.spot;
        let SpotInfo { root, depth, .. } = self.spots.get(spot.index())?;
        let name = self.roots.iter().find(|(_, spot)| *spot == root)?.0;
        Some((name, *depth))
    }
}

/// Makes a plan.
struct Planner<'o, 'q, 'a> {
    outline: &'o Outline,
    rows: &'o Rows,
    plan: Plan<'a>,
    strictness: Strictness<'q>,
}

impl<'a> Planner<'_, '_, 'a> {
    fn is_strict(&self) -> bool {
        matches!(self.strictness, Strictness::Client(_))
    }

    fn clock(&self, client: u64) -> u32 {
        let planned = self.plan.planned.get(client);
        planned.map_or_else(|| self.outline.clock(client), |planned| planned.clock)
    }

    /// Places the structs of several clients, which can refer to each other in any order: those of a
    /// client one after the other, each after what it refers to, as yrs does it.
    fn place_in_turn(
        &mut self,
        structs: &[Struct<'a>],
        sections: &mut [(u64, usize, usize)],
    ) -> Result<(), Rejection> {
        let mut index = ByClient::default();
        for (i, (client, ..)) in sections.iter().enumerate() {
            index.add(*client, i);
        }
        // For each section, those that wait for one of its clocks.
        let mut waiting: HashMap<usize, Vec<(u32, usize)>> = HashMap::default();
        let mut ready: Vec<usize> = (0..sections.len()).rev().collect();
        let mut left = structs.len();
        while let Some(turn) = ready.pop() {
            let Some((client, next, end)) = sections.get_mut(turn) else { continue };
            for item in structs.get(*next..*end).unwrap_or_default() {
                if let Some(id) = self.missing(item) {
                    let other = index.get(id.client).ok_or_else(loops)?;
                    waiting.entry(*other).or_default().push((id.clock, turn));
                    break;
                }
                self.place(item)?;
                *next += 1;
                left -= 1;
            }
            if let Some(list) = waiting.get_mut(&turn) {
                let clock = self.clock(*client);
                ready.extend(list.extract_if(.., |(awaited, _)| *awaited < clock).map(|(_, w)| w));
            }
        }
        if left == 0 { Ok(()) } else { Err(loops()) }
    }

    /// What a struct refers to and neither the document nor the plan has.
    fn missing(&self, item: &Struct<'_>) -> Option<StructId> {
        let ClockRange { client, start, .. } = item.clocks;
        let before = start.checked_sub(1).map(|clock| StructId { client, clock });
        let (one, other) = match item.place {
            Place::Nowhere | Place::Root { .. } => (None, None),
            Place::Within { id, .. } => (Some(id), None),
            Place::Beside { left, right } => (left, right),
        };
        [before, one, other].into_iter().flatten().find(|id| id.clock >= self.clock(id.client))
    }

    fn place(&mut self, item: &Struct<'a>) -> Result<(), Rejection> {
        let ClockRange { client, start, end } = item.clocks;
        let clock = self.clock(client);
        if end <= clock {
            return Ok(());
        }
        let before = clock.checked_sub(1).map(|clock| StructId { client, clock });
        let clocks = ClockRange { client, start: clock, end };
        let (mut left, mut right, mut key) = (None, None, None);
        let spot = match item.place {
            Place::Nowhere => Spot::NOWHERE,
            // Its beginning is known: the rest stands behind that.
            Place::Root { .. } | Place::Within { .. } | Place::Beside { .. } if start < clock => {
                left = before;
                if let Place::Beside { right: next, .. } = item.place {
                    right = next;
                }
                self.spot_of(left).unwrap_or(Spot::NOWHERE)
            }
            Place::Root { name, key: of } => {
                key = of;
                self.root(name)
            }
            Place::Within { id, key: of } => {
                key = of;
                self.within(id)?
            }
            Place::Beside { left: before, right: next } => {
                (left, right) = (before, next);
                self.beside(left, right)?
            }
        };
        let follows = left.is_some() && left == before;
        let goes_on =
            follows && before.and_then(|id| self.leap(id)).is_some_and(|leap| leap.right == right);
        if let (Some(left), Some(right)) = (left, right)
            && spot != Spot::NOWHERE
            && !goes_on
        {
            self.between(left, right, spot)?;
        }
        if spot != Spot::NOWHERE {
            // What stands behind something that was collected stands at the beginning.
            let behind = left.filter(|_| self.spot_of(left).is_some());
            let anchor = behind.map_or(Anchor::Head(spot, key), Anchor::After);
            self.join(anchor, clocks, right, follows, spot)?;
            if item.kind == Kind::Type {
                self.add_type(StructId { client, clock }, spot)?;
            }
        }
        if let Some(left) = left {
            self.split(left, 1);
        }
        // What stands right behind `left` begins there since then.
        let behind = left.map(|left| StructId { clock: left.clock + 1, ..left });
        if let Some(next) = right.filter(|_| !goes_on && behind != right) {
            self.split(next, 0);
        }
        let row = self.join_row(item.kind, clocks, right, follows);
        self.plan.subdocuments += usize::from(item.kind == Kind::Subdocument);
        let at = u32::try_from(self.plan.steps.len()).unwrap_or(u32::MAX);
        self.plan.steps.push(Step { clocks, kind: item.kind, right, spot, follows });
        match self.plan.planned.get_mut(client) {
            Some(planned) => {
                planned.clock = end;
                planned.row = row;
                planned.steps.push(at);
            }
            None => {
                let steps = SmallVec::from_buf_and_len([at, 0], 1);
                let leaps = SmallVec::new();
                self.plan.planned.add(client, Planned { row, clock: end, steps, leaps });
            }
        }
        if !goes_on && let Some(planned) = self.plan.planned.get_mut(client) {
            planned.leaps.push(Leap { clock, left, right });
        }
        Ok(())
    }

    /// Counts what yrs copies while it joins a struct with those in front of it, and returns the row that
    /// it is in.
    fn join_row(
        &mut self,
        kind: Kind,
        clocks: ClockRange,
        right: Option<StructId>,
        follows: bool,
    ) -> Option<Row> {
        let bytes = match kind {
            Kind::Text => 1,
            Kind::Values => VALUE_BYTES,
            Kind::Collected | Kind::Deleted | Kind::Type | Kind::Subdocument | Kind::Single => {
                return None;
            }
        };
        let row = match self.plan.planned.get(clocks.client) {
            Some(planned) => planned.row,
            None => self.rows.get(&clocks.client).copied(),
        };
        let row = row.filter(|row| follows && (row.kind, row.right) == (kind, right));
        // The first may follow what is in the document.
        let count = row.map_or(1, |row| row.count + 1);
        let length = u64::from(clocks.end - clocks.start);
        self.plan.joined += row.map_or(0, |row| row.count) * length * bytes;
        Some(Row { kind, right, count })
    }

    /// Counts the values that yrs copies when it splits a struct of them `after` values behind `id`.
    fn split(&mut self, id: StructId, after: u32) {
        let Some(client) = self.outline.clients.get(&id.client) else { return };
        let Some(run) = client.run(id.clock).filter(|run| run.has_values) else { return };
        let is_first = client.leap(id.clock).is_some_and(|leap| leap.clock == id.clock);
        if after == 0 && (is_first || id.clock == run.start) {
            return;
        }
        let copied = client.end_of_struct(run, id.clock).saturating_sub(id.clock + after);
        self.plan.copied = self.plan.copied.saturating_add(copied.into());
        self.plan.work += u64::from(copied) / COPIED_PER_STEP;
    }

    /// Counts what the deletion of a range costs.
    fn delete(&mut self, range: ClockRange) {
        let ClockRange { client, start, end } = range;
        self.split(StructId { client, clock: start }, 0);
        if let Some(last) = end.checked_sub(1) {
            self.split(StructId { client, clock: last }, 1);
        }
    }

    /// An item that is to stand between two others, of which it is not known that the one is to the left
    /// of the other. Undo in Yjs also makes such for which it is the other way round, or that have the
    /// same neighbour on both sides: yrs looks for their places as far as the end.
    fn between(&mut self, left: StructId, right: StructId, spot: Spot) -> Result<(), Rejection> {
        let is_known = self.leap(left).is_some_and(|leap| leap.right == Some(right))
            || self.left_of(right) == Some(left);
        if is_known {
            return Ok(());
        }
        let structs = self.outline.info(&self.plan, spot).map_or(0, |info| info.structs);
        self.add_work(u64::from(structs) + self.plan.steps.len() as u64)
    }

    fn left_of(&self, id: StructId) -> Option<StructId> {
        let leap = self.leap(id)?;
        if leap.clock == id.clock {
            return leap.left;
        }
        id.clock.checked_sub(1).map(|clock| StructId { clock, ..id })
    }

    fn leap(&self, id: StructId) -> Option<Leap> {
        if let Some(planned) = self.plan.planned.get(id.client) {
            let after = planned.leaps.partition_point(|leap| leap.clock <= id.clock);
            if let Some(leap) = after.checked_sub(1).and_then(|at| planned.leaps.get(at)) {
                return Some(*leap);
            }
        }
        self.outline.clients.get(&id.client)?.leap(id.clock)
    }

    fn add_work(&mut self, steps: u64) -> Result<(), Rejection> {
        self.plan.work += steps;
        if self.plan.work > STEPS_MAX && self.is_strict() {
            return Err(Rejection::Excess(Excess::Steps));
        }
        Ok(())
    }

    /// Notes that something is put to the right of `anchor`. Where something stands there that its
    /// author did not know, yrs looks through what was put there since.
    fn join(
        &mut self,
        anchor: Anchor<'_>,
        clocks: ClockRange,
        right: Option<StructId>,
        follows: bool,
        spot: Spot,
    ) -> Result<(), Rejection> {
        let joints = &self.outline.joints;
        let key = joints.hash(anchor);
        let newest = self.plan.newest.get(&key).or_else(|| joints.newest.get(&key)).copied();
        let newest = newest.or_else(|| {
            // What its own author put there by going on.
            let Anchor::After(StructId { client, clock }) = anchor else { return None };
            let next = StructId { client, clock: clock + 1 };
            let is_there = next.clock < self.clock(client);
            (is_there && self.left_of(next) == Some(StructId { client, clock }))
                .then(|| joints.hash(next))
        });
        let known = right.map(|right| joints.hash(right));
        if newest.is_some() && newest != known {
            let structs = self.outline.info(&self.plan, spot).map_or(0, |info| info.structs);
            self.add_work(u64::from(structs) + self.plan.steps.len() as u64)?;
        }
        if !follows {
            let id = StructId { client: clocks.client, clock: clocks.start };
            self.plan.newest.insert(key, joints.hash(id));
        }
        Ok(())
    }

    fn root(&mut self, name: &'a str) -> Spot {
        let known = self.outline.roots.get(name).or_else(|| self.plan.roots.get(name));
        if let Some(spot) = known {
            return *spot;
        }
        let root = self.new_spot();
        self.plan.roots.insert(name, root);
        self.plan.spots.push(SpotInfo { root, depth: 0, structs: 0 });
        root
    }

    fn within(&self, id: StructId) -> Result<Spot, Rejection> {
        if let Some(spot) = self.plan.types.get(&id).or_else(|| self.outline.types.get(&id)) {
            return Ok(*spot);
        }
        match self.run(id) {
            // In what was collected or deleted: yrs collects it at once.
            Some(run) if run.spot == Spot::NOWHERE || run.is_deleted => Ok(Spot::NOWHERE),
            _ if !self.is_strict() => Ok(Spot::NOWHERE),
            _ => Err(broken("an item in something that is no shared type")),
        }
    }

    fn beside(&self, left: Option<StructId>, right: Option<StructId>) -> Result<Spot, Rejection> {
        match (self.spot_of(left), self.spot_of(right)) {
            (Some(left), Some(right)) if left != right && self.is_strict() => {
                Err(broken("an item between two shared types"))
            }
            (Some(spot), _) | (None, Some(spot)) => Ok(spot),
            (None, None) => Ok(Spot::NOWHERE),
        }
    }

    fn add_type(&mut self, id: StructId, parent: Spot) -> Result<(), Rejection> {
        let Some(SpotInfo { root, depth, .. }) = self.outline.info(&self.plan, parent) else {
            return Ok(());
        };
        if depth >= TYPE_DEPTH_MAX && self.is_strict() {
            return Err(broken("shared types nested too deep"));
        }
        let spot = self.new_spot();
        self.plan.types.insert(id, spot);
        self.plan.spots.push(SpotInfo { root, depth: depth.saturating_add(1), structs: 0 });
        Ok(())
    }

    fn new_spot(&self) -> Spot {
        Spot::new(self.outline.spots.len() + self.plan.spots.len())
    }

    /// Where something is; `None` for nothing and for what was collected.
    fn spot_of(&self, id: Option<StructId>) -> Option<Spot> {
        id.and_then(|id| self.run(id)).map(|run| run.spot).filter(|spot| *spot != Spot::NOWHERE)
    }

    fn run(&self, id: StructId) -> Option<Run> {
        let known = self.outline.clients.get(&id.client).and_then(|client| client.run(id.clock));
        known.or_else(|| {
            let steps = &self.plan.planned.get(id.client)?.steps;
            let step = |at: &u32| self.plan.step(*at);
            let is_before = |at: &u32| step(at).is_some_and(|step| step.clocks.end <= id.clock);
            let step = steps.get(steps.partition_point(is_before)).and_then(step)?;
            let ClockRange { start, end, .. } = step.clocks;
            let (is_deleted, has_values) = (step.kind == Kind::Deleted, step.kind == Kind::Values);
            let run = Run { start, end, spot: step.spot, is_deleted, has_values };
            (start <= id.clock).then_some(run)
        })
    }
}

fn broken(what: &'static str) -> Rejection {
    Rejection::Malformed(Malformed { what, at: 0 })
}

fn loops() -> Rejection {
    broken("structs that wait for each other")
}
