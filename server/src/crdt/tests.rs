//! The wall in front of yrs as a whole: what it keeps out, by the rule that is broken, and that it lets
//! in whatever editors write.
//!
//! What is kept out is built here from its parts, and never handed to yrs.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use yrs::{
    Any, Array as _, Doc, GetString as _, Map as _, MapPrelim, ReadTxn as _, StateVector,
    Text as _, Transact as _, Update, XmlElementPrelim, XmlFragment as _, XmlTextPrelim,
    updates::{decoder::Decode as _, encoder::Encode as _},
};

use super::{
    Author, Batch, Document, Excess, Incomplete, Logged, Quotas, Rejection, TYPE_DEPTH_MAX, Terms,
    faithful_checkpoint, validate,
};
use crate::ids::Principal;

const ANYBODY: Terms<'static> =
    Terms { author: Author::NOBODY, only_root: None, quotas: &Quotas::NONE, is_difference: false };

/// Builds Yjs v1 updates struct by struct.
#[derive(Clone, Default)]
struct Parts {
    sections: Vec<(u64, u32, Vec<Vec<u8>>)>,
    deletions: Vec<(u64, Vec<(u32, u32)>)>,
}

/// Content of one clock: the value `null`.
const NULL: &[u8] = &[1, 126];

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn id(out: &mut Vec<u8>, (client, clock): (u64, u32)) {
    number(out, client);
    number(out, clock.into());
}

/// An item with this content in the root `name`.
fn in_root(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 1];
    number(&mut out, name.len() as u64);
    out.extend(name.as_bytes());
    out.extend(content);
    out
}

/// An item with this content in the shared type of this name.
fn within(kind: u8, parent: (u64, u32), content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    id(&mut out, parent);
    out.extend(content);
    out
}

/// An item with this content beside others.
fn beside(
    kind: u8,
    left: Option<(u64, u32)>,
    right: Option<(u64, u32)>,
    content: &[u8],
) -> Vec<u8> {
    let flags = if left.is_some() { 0x80 } else { 0 } | if right.is_some() { 0x40 } else { 0 };
    let mut out = vec![kind | flags];
    left.into_iter().chain(right).for_each(|reference| id(&mut out, reference));
    out.extend(content);
    out
}

impl Parts {
    fn client(mut self, client: u64, clock: u32, structs: Vec<Vec<u8>>) -> Self {
        self.sections.push((client, clock, structs));
        self
    }

    fn delete(mut self, client: u64, ranges: &[(u32, u32)]) -> Self {
        self.deletions.push((client, ranges.to_vec()));
        self
    }

    fn build(&self) -> Bytes {
        let mut out = Vec::new();
        number(&mut out, self.sections.len() as u64);
        for (client, clock, structs) in &self.sections {
            number(&mut out, structs.len() as u64);
            id(&mut out, (*client, *clock));
            out.extend(structs.concat());
        }
        number(&mut out, self.deletions.len() as u64);
        for (client, ranges) in &self.deletions {
            number(&mut out, *client);
            number(&mut out, ranges.len() as u64);
            ranges.iter().for_each(|range| id(&mut out, (range.0.into(), range.1)));
        }
        out.into()
    }
}

/// What the wall says of an update, and the document with it if it says yes.
fn offer_as(document: &mut Document, update: &Bytes, terms: Terms<'_>) -> Result<bool, Rejection> {
    let scan = validate::update(update)?;
    let mut batch = Batch::default();
    let taken = document.check(&mut batch, update, &scan, terms).unwrap()?;
    document.apply(&mut batch).expect("what the wall lets in does not make yrs fault");
    Ok(taken)
}

fn offer(document: &mut Document, parts: &Parts) -> Result<bool, Rejection> {
    offer_as(document, &parts.build(), ANYBODY)
}

fn refused(document: &mut Document, parts: &Parts) -> &'static str {
    let before = document.state().unwrap();
    let said = match offer(document, parts) {
        Err(Rejection::Malformed(malformed)) => malformed.what,
        other => panic!("{other:?}"),
    };
    assert_eq!(document.state().unwrap(), before, "the document is as it was");
    said
}

/// Client 1 has put a value into the root "r", and shared types into the roots "a" and "b".
fn furnished() -> Document {
    let mut document = Document::new();
    let structs = vec![in_root(8, "r", NULL), in_root(7, "a", &[0]), in_root(7, "b", &[0])];
    offer(&mut document, &Parts::default().client(1, 0, structs)).unwrap();
    document
}

// The findings E1 to E9 about stock yrs, each by the rule that it breaks.

#[test]
fn e1_text_is_utf8_wherever_it_stands() {
    // A lead byte of UTF-8 at the end of a text that is longer than what yrs keeps inline.
    let text = [&[24][..], &[b'x'; 23], &[0xf0]].concat();
    let name = [&[4, 1, 1, 0xf0][..], &[1, b'x']].concat();
    let value = in_root(8, "r", &[&[1, 119][..], &text].concat());
    for item in [in_root(4, "r", &text), name, value, in_root(6, "r", &text)] {
        let update = Parts::default().client(1, 0, vec![item]).build();
        let refused = validate::update(&update).unwrap_err();
        assert_eq!(refused.what, "text that is not UTF-8");
    }
}

#[test]
fn e2_values_nest_64_deep_at_most() {
    let nested = |levels: usize| {
        let value = [[117, 1].repeat(levels), vec![126]].concat();
        Parts::default().client(1, 0, vec![in_root(8, "r", &[&[1], &value[..]].concat())])
    };
    assert!(offer(&mut Document::new(), &nested(63)).unwrap());
    for levels in [64, 8000] {
        assert_eq!(refused(&mut Document::new(), &nested(levels)), "values nested too deep");
    }
}

#[test]
fn e2b_shared_types_nest_256_deep_at_most_also_in_small_steps() {
    let mut document = Document::new();
    let level = |depth: u32, clock: u32| match depth {
        0 => in_root(7, "r", &[0]),
        _ => within(7, (1, clock - 1), &[0]),
    };
    let levels = u32::from(TYPE_DEPTH_MAX);
    let all = |levels: u32| (0..levels).map(|depth| level(depth, depth)).collect::<Vec<_>>();
    let at_once = Parts::default().client(1, 0, all(levels + 1));
    assert_eq!(refused(&mut document, &at_once), "shared types nested too deep");
    assert!(offer(&mut document, &Parts::default().client(1, 0, all(levels))).unwrap());
    let deeper = Parts::default().client(1, levels, vec![level(1, levels)]);
    assert_eq!(refused(&mut document, &deeper), "shared types nested too deep");
    // Beside the deepest is as deep.
    let neighbour = beside(7, Some((1, levels - 1)), None, &[0]);
    offer(&mut document, &Parts::default().client(1, levels, vec![neighbour])).unwrap();
    let below = Parts::default().client(1, levels + 1, vec![within(7, (1, levels), &[0])]);
    assert_eq!(refused(&mut document, &below), "shared types nested too deep");
    // The outermost is deleted with all that is in it.
    offer(&mut document, &Parts::default().delete(1, &[(0, 1)])).unwrap();
}

#[test]
fn e3_every_client_of_an_update_has_a_struct() {
    let empty = (0..40_000).fold(Parts::default(), |parts, client| parts.client(client, 0, vec![]));
    assert_eq!(refused(&mut Document::new(), &empty), "a client without structs");
    let one = Parts::default().client(1, 0, vec![]);
    assert_eq!(refused(&mut Document::new(), &one), "a client without structs");
}

#[test]
fn e4_updates_of_version_2_are_no_updates_of_version_1() {
    let doc = Doc::with_client_id(1);
    doc.get_or_insert_text("t").insert(&mut doc.transact_mut(), 0, "hello");
    let update = doc.transact().encode_diff_v2(&StateVector::default());
    assert!(validate::update(&update).is_err());
    // The shape of a run-length bomb: a few bytes that say "very many".
    let bomb = [0, 0, 5, 0x81, 0xff, 0xff, 0xff, 0x17, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0];
    assert!(validate::update(&bomb).is_err());
}

#[test]
fn e5_a_state_vector_has_as_many_entries_as_it_says() {
    for length in [&[0xff, 0xff, 0xff, 0x7f][..], &[0x80, 0x80, 4, 1, 1]] {
        assert_eq!(validate::state_vector(length).unwrap_err().what, "more clients than bytes");
        assert!(Document::new().diff(length).unwrap().is_err());
    }
}

#[test]
fn e6_nothing_waits_in_a_document_for_what_is_not_there() {
    let mut document = furnished();
    let lacks = |missing: (u64, u32)| {
        Err(Rejection::Incomplete(Incomplete { client: missing.0, clock: missing.1 }))
    };
    for (item, missing) in [
        (beside(8, Some((9, 5)), None, NULL), (9, 5)),
        (beside(8, None, Some((1, 3)), NULL), (1, 3)),
        (within(8, (9, 0), NULL), (9, 0)),
    ] {
        let parts = Parts::default().client(2, 0, vec![item]);
        assert_eq!(offer(&mut document, &parts), lacks(missing));
    }
    let later = Parts::default().client(1, 4, vec![in_root(8, "r", NULL)]);
    assert_eq!(offer(&mut document, &later), lacks((1, 3)));
    let deletion = Parts::default().delete(1, &[(2, 2)]);
    assert_eq!(offer(&mut document, &deletion), lacks((1, 3)));
    // Each in the update itself, but none before the others.
    let item = |left| beside(8, Some(left), None, NULL);
    let circle = Parts::default().client(3, 0, vec![item((2, 0))]).client(2, 0, vec![item((3, 0))]);
    let itself = Parts::default().client(2, 0, vec![item((2, 0))]);
    let ahead = Parts::default().client(2, 0, vec![item((2, 1)), item((1, 0))]);
    let crossed = Parts::default().client(3, 0, vec![item((2, 1)), item((1, 0))]).client(
        2,
        0,
        vec![item((3, 1)), item((1, 0))],
    );
    for parts in [circle, itself, ahead, crossed] {
        assert_eq!(refused(&mut document, &parts), "structs that wait for each other");
    }
    // Any order that has an order is taken.
    let chain = Parts::default()
        .client(4, 0, vec![item((1, 0)), item((3, 1))])
        .client(3, 0, vec![item((2, 0)), item((4, 0))])
        .client(2, 0, vec![item((1, 0)), item((4, 1))]);
    assert!(offer(&mut document, &chain).unwrap());
    document.state().unwrap();
}

#[test]
fn e7_what_an_editor_would_read_in_another_type_is_stored_unread() {
    let mut document = Document::new();
    let emoji = [&[4][..], "🙂".as_bytes()].concat();
    let parts = Parts::default().client(1, 0, vec![in_root(4, "array", &emoji)]);
    assert!(offer(&mut document, &parts).unwrap());
    let checkpoint = faithful_checkpoint(&document.checkpoint_parts().unwrap()).unwrap().unwrap();
    let again = Document::load(Some(&checkpoint), []).unwrap();
    assert_eq!(again.state().unwrap(), parts.build());
}

#[test]
fn e8_nobody_takes_clocks_away_from_others() {
    let mut document = Document::new();
    let [alice, mallory] = authors(&mut document, ["alice", "mallory"]);
    let typed =
        |clock| Parts::default().client(7, clock, vec![in_root(4, "t", &[1, b'a'])]).build();
    offer_as(&mut document, &typed(0), by(alice)).unwrap();
    // Collected structs, so that a million clocks take a few bytes.
    let mut gone = vec![0];
    number(&mut gone, 1_000_000);
    let hijack = Parts::default().client(7, 1, vec![gone.clone()]).build();
    assert_eq!(offer_as(&mut document, &hijack, by(mallory)), Err(Rejection::Taken(7)));
    assert!(offer_as(&mut document, &typed(1), by(alice)).unwrap(), "her next edit counts");
    // The owner is known when the document comes back: from a checkpoint, and from the log.
    let parts = document.checkpoint_parts().unwrap();
    let checkpoint = faithful_checkpoint(&parts).unwrap().unwrap();
    let mallory_too = Parts::default().client(8, 0, vec![in_root(4, "t", &[1, b'm'])]).build();
    let name = Principal::new("mallory").unwrap();
    let tail = [Logged { author: &name, update: &mallory_too }];
    let mut again = Document::load(Some(&checkpoint), tail).unwrap();
    let [alice, mallory] = authors(&mut again, ["alice", "mallory"]);
    let hijack = |client, clock| Parts::default().client(client, clock, vec![gone.clone()]).build();
    assert_eq!(offer_as(&mut again, &hijack(7, 2), by(mallory)), Err(Rejection::Taken(7)));
    assert_eq!(offer_as(&mut again, &hijack(8, 1), by(alice)), Err(Rejection::Taken(8)));
    assert!(offer_as(&mut again, &typed(2), by(alice)).unwrap());
}

#[test]
fn e9_of_two_contents_for_one_clock_the_first_stays_for_everybody() {
    let mut document = Document::new();
    let [alice, mallory] = authors(&mut document, ["alice", "mallory"]);
    let typed = |text: u8| Parts::default().client(7, 0, vec![in_root(4, "t", &[1, text])]).build();
    assert!(offer_as(&mut document, &typed(b'A'), by(alice)).unwrap());
    assert!(!offer_as(&mut document, &typed(b'B'), by(mallory)).unwrap(), "it brings nothing");
    let longer = Parts::default().client(7, 0, vec![in_root(4, "t", &[2, b'B', b'B'])]).build();
    assert_eq!(offer_as(&mut document, &longer, by(mallory)), Err(Rejection::Taken(7)));
    assert_eq!(document.state().unwrap(), typed(b'A'));
}

// The other rules of the wall.

fn authors<const N: usize>(document: &mut Document, names: [&str; N]) -> [Author; N] {
    names.map(|name| document.author(&Principal::new(name).unwrap()))
}

fn by(author: Author) -> Terms<'static> {
    Terms { author, ..ANYBODY }
}

#[test]
fn an_item_is_in_one_shared_type_that_is_one() {
    let mut document = furnished();
    let one = |item| Parts::default().client(2, 0, vec![item]);
    let in_value = one(within(8, (1, 0), NULL));
    assert_eq!(refused(&mut document, &in_value), "an item in something that is no shared type");
    let between = one(beside(8, Some((1, 0)), Some((1, 1)), NULL));
    assert_eq!(refused(&mut document, &between), "an item between two shared types");
    for parent in [1, 2] {
        let clock = parent - 1;
        let item = Parts::default().client(2, clock, vec![within(8, (1, parent), NULL)]);
        assert!(offer(&mut document, &item).unwrap());
    }
    // In what is gone, everything goes nowhere, and nothing faults.
    offer(&mut document, &Parts::default().delete(1, &[(1, 1)])).unwrap();
    let late = Parts::default().client(
        3,
        0,
        vec![within(7, (1, 1), &[0]), within(7, (3, 0), &[0]), beside(8, Some((2, 0)), None, NULL)],
    );
    assert!(offer(&mut document, &late).unwrap());
    let mut again = Document::of(&document.state().unwrap()).unwrap();
    let later = Parts::default().client(
        3,
        3,
        vec![within(7, (1, 1), &[0]), beside(8, Some((2, 0)), Some((2, 1)), NULL)],
    );
    assert!(offer(&mut again, &later).unwrap());
}

#[test]
fn what_undo_in_yjs_makes_is_taken_also_with_its_neighbours_reversed() {
    let text = |letter: u8| [1, letter];
    let base = Parts::default()
        .client(3, 0, vec![beside(4, Some((1, 0)), Some((2, 0)), &text(b'r'))])
        .client(2, 0, vec![beside(4, Some((1, 0)), None, &text(b'c'))])
        .client(1, 0, vec![in_root(4, "t", &[3, b'a', b'b', b'd'])]);
    let between = |left, right| {
        Parts::default().client(9, 0, vec![beside(4, Some(left), Some(right), &text(b'x'))])
    };
    // Its neighbours are one and the same, or the wrong way round, as those of its author or of others.
    for (left, right) in [((1, 1), (1, 1)), ((1, 2), (1, 0)), ((2, 0), (1, 0)), ((2, 0), (3, 0))] {
        let mut document = Document::new();
        offer(&mut document, &base).unwrap();
        assert!(offer(&mut document, &between(left, right)).unwrap());
        let parts = document.checkpoint_parts().unwrap();
        assert!(faithful_checkpoint(&parts).unwrap().is_some(), "{left:?} {right:?}");
    }
}

#[test]
fn what_yrs_joins_is_bounded_in_an_update_and_in_a_batch() {
    let value = |before: Option<u32>| match before {
        None => in_root(8, "r", NULL),
        Some(before) => beside(8, Some((1, before)), None, NULL),
    };
    let pieces = |range: std::ops::Range<u32>| {
        let start = range.start;
        let structs = range.map(|i| value(i.checked_sub(1))).collect();
        Parts::default().client(1, start, structs).build()
    };
    let check = |document: &mut Document, batch: &mut Batch, update: &Bytes| {
        let scan = validate::update(update).unwrap();
        document.check(batch, update, &scan, ANYBODY).unwrap()
    };
    let mut document = Document::new();
    let all = check(&mut document, &mut Batch::default(), &pieces(0..10_000));
    assert_eq!(all, Err(Rejection::Excess(Excess::Pieces)));
    // A tenth of it each time is taken, but not all in one batch.
    let (mut batch, mut batches) = (Batch::default(), 1);
    for start in (0..10_000).step_by(1000) {
        let update = pieces(start..start + 1000);
        match check(&mut document, &mut batch, &update) {
            Ok(true) => {}
            Err(Rejection::Full) => {
                assert!(batch.transient_bytes() > 1 << 20);
                document.apply(&mut std::mem::take(&mut batch)).unwrap();
                batches += 1;
                assert_eq!(check(&mut document, &mut batch, &update), Ok(true));
            }
            other => panic!("{other:?}"),
        }
    }
    document.apply(&mut batch).unwrap();
    assert!((3..=5).contains(&batches), "{batches}");
    // As many that are not one.
    let front = |i: u32| match i.checked_sub(1) {
        None => in_root(8, "other", NULL),
        Some(before) => beside(8, None, Some((2, before)), NULL),
    };
    let list = (0..10_000).map(front).collect();
    assert!(offer(&mut document, &Parts::default().client(2, 0, list)).unwrap());
}

#[test]
fn an_update_splits_values_in_so_many_places_and_not_in_more() {
    let mut document = Document::new();
    let mut content = vec![0xc0, 0x84, 0x3d];
    content.resize(content.len() + 1_000_000, 126);
    let values = Parts::default().client(1, 0, vec![in_root(8, "r", &content)]);
    offer(&mut document, &values).unwrap();
    let splits = |count: u32| {
        let split = |i| beside(8, Some((1, 2 * i)), Some((1, 2 * i + 1)), NULL);
        Parts::default().client(2, 0, (0..count).map(split).collect())
    };
    assert_eq!(offer(&mut document, &splits(5000)), Err(Rejection::Excess(Excess::Steps)));
    assert!(offer(&mut document, &splits(10)).unwrap());
}

#[test]
fn items_by_the_thousand_that_claim_one_place_are_refused_and_lists_are_not() {
    let count = 10_000;
    let front = |client: u64| {
        move |i: u32| match i.checked_sub(1) {
            None => in_root(8, "r", NULL),
            Some(before) => beside(8, None, Some((client, before)), NULL),
        }
    };
    let list = Parts::default().client(1, 0, (0..count).map(front(1)).collect());
    let mut document = Document::new();
    assert!(offer(&mut document, &list).unwrap(), "each in front of the one before");
    // Each at the front of what its author did not know, in several disguises.
    let claims: [Box<dyn Fn(u32) -> Vec<u8>>; 3] = [
        Box::new(|_| in_root(8, "r", NULL)),
        Box::new(|i| beside(8, None, Some((1, i)), NULL)),
        Box::new(|i| beside(8, Some((1, count - 1)), Some((1, i)), NULL)),
    ];
    for claim in claims {
        let claims = Parts::default().client(2, 0, (0..count).map(claim).collect());
        assert_eq!(offer(&mut document, &claims), Err(Rejection::Excess(Excess::Steps)));
    }
    let few = Parts::default().client(2, 0, (0..10).map(|_| in_root(8, "r", NULL)).collect());
    assert!(offer(&mut document, &few).unwrap(), "those who come back do that");
    // The other half in the same update.
    let both = Parts::default()
        .client(2, 0, (0..count).map(|_| in_root(8, "r", NULL)).collect())
        .client(1, 0, (0..count).map(front(1)).collect());
    assert_eq!(offer(&mut Document::new(), &both), Err(Rejection::Excess(Excess::Steps)));
    // A map with as many keys.
    let entry = |i: u32| {
        let key = i.to_string();
        let mut entry = in_root(0x28, "m", &[u8::try_from(key.len()).unwrap()]);
        entry.extend(key.as_bytes());
        entry.extend(NULL);
        entry
    };
    let map = Parts::default().client(3, 0, (0..3 * count).map(entry).collect());
    assert!(offer(&mut document, &map).unwrap());
}

#[test]
fn a_document_has_no_more_of_anything_than_its_quotas() {
    let quotas = Quotas { clients_max: 2, roots_max: 3, subdocuments_max: 1 };
    let terms = Terms { quotas: &quotas, ..ANYBODY };
    let mut document = furnished();
    let offer = |document: &mut Document, parts: Parts| offer_as(document, &parts.build(), terms);
    let one = |client, clock, item| Parts::default().client(client, clock, vec![item]);
    assert!(offer(&mut document, one(2, 0, in_root(8, "r", NULL))).unwrap());
    let excess = |excess| Err(Rejection::Excess(excess));
    let third = one(3, 0, in_root(8, "r", NULL));
    assert_eq!(offer(&mut document, third), excess(Excess::Clients(2)));
    assert_eq!(offer(&mut document, one(1, 3, in_root(8, "c", NULL))), excess(Excess::Roots(3)));
    let subdocument = |name: u8| in_root(9, "r", &[1, name, 118, 0]);
    assert!(offer(&mut document, one(1, 3, subdocument(b'x'))).unwrap());
    let second = one(1, 4, subdocument(b'y'));
    assert_eq!(offer(&mut document, second), excess(Excess::Subdocuments(1)));
    // What was full stays full, and what is there goes on.
    let mut again = Document::of(&document.state().unwrap()).unwrap();
    assert_eq!(offer(&mut again, one(1, 4, in_root(8, "c", NULL))), excess(Excess::Roots(3)));
    assert!(offer(&mut again, one(1, 4, in_root(8, "r", NULL))).unwrap());
}

#[test]
fn who_may_comment_changes_comments_and_nothing_else() {
    let mut document = Document::new();
    let base = vec![
        in_root(4, "text", &[2, b'h', b'i']),
        in_root(7, "comments", &[0]),
        within(8, (1, 2), NULL),
    ];
    offer(&mut document, &Parts::default().client(1, 0, base)).unwrap();
    offer(&mut document, &Parts::default().delete(1, &[(0, 1)])).unwrap();
    let terms = Terms { only_root: Some("comments"), ..ANYBODY };
    let try_it = |document: &mut Document, parts: &Parts| offer_as(document, &parts.build(), terms);
    let one = |clock, item| Parts::default().client(2, clock, vec![item]);
    // By where it says it is, beside what, and in what.
    for (clock, item) in [
        (0, in_root(8, "comments", NULL)),
        (1, beside(8, Some((1, 2)), None, NULL)),
        (2, within(7, (1, 2), &[0])),
        (3, within(8, (2, 2), NULL)),
    ] {
        assert!(try_it(&mut document, &one(clock, item)).unwrap(), "{clock}");
    }
    for item in [
        in_root(8, "text", NULL),
        in_root(8, "comment", NULL),
        beside(4, Some((1, 1)), None, &[1, b'x']),
        beside(4, None, Some((1, 0)), &[1, b'x']),
    ] {
        assert_eq!(try_it(&mut document, &one(4, item)), Err(Rejection::NoComment));
    }
    // One comment does not carry anything else in with it.
    let mixed =
        Parts::default().client(2, 4, vec![in_root(8, "comments", NULL), in_root(8, "text", NULL)]);
    assert_eq!(try_it(&mut document, &mixed), Err(Rejection::NoComment));
    let smuggled = one(4, in_root(8, "comments", NULL)).delete(1, &[(1, 1)]);
    assert_eq!(try_it(&mut document, &smuggled), Err(Rejection::NoComment));
    assert_eq!(
        try_it(&mut document, &Parts::default().delete(1, &[(0, 4)])),
        Err(Rejection::NoComment)
    );
    assert!(try_it(&mut document, &Parts::default().delete(1, &[(3, 1)])).unwrap());
    // A difference has in it what was deleted by others before.
    let answer = Terms { is_difference: true, ..terms };
    let known = Parts::default().delete(1, &[(0, 1), (2, 1)]).build();
    assert!(offer_as(&mut document, &known, answer).unwrap());
    let more = Parts::default().delete(1, &[(0, 2)]).build();
    assert_eq!(offer_as(&mut document, &more, answer), Err(Rejection::NoComment));
}

/// An editor as there are many: it edits, and hears of others now and then.
struct Editor {
    doc: Doc,
    sent: StateVector,
}

impl Editor {
    fn edit(&self, rng: &mut StdRng) {
        let text = self.doc.get_or_insert_text("text");
        let map = self.doc.get_or_insert_map("map");
        let array = self.doc.get_or_insert_array("array");
        let xml = self.doc.get_or_insert_xml_fragment("xml");
        let mut txn = self.doc.transact_mut();
        let length = text.get_string(&txn).encode_utf16().count() as u32;
        match rng.random_range(0..10) {
            0..4 => text.insert(&mut txn, rng.random_range(0..=length), "word"),
            4 if length > 2 => {
                let at = rng.random_range(0..length - 1);
                text.remove_range(&mut txn, at, rng.random_range(1..=(length - at).min(5)));
            }
            5 => {
                let key = rng.random_range(0..3).to_string();
                map.insert(&mut txn, key, MapPrelim::from([("inner", Any::from(1))]));
            }
            6 => {
                let at = rng.random_range(0..=array.len(&txn));
                array.insert(&mut txn, at, Any::from(true));
            }
            7 if array.len(&txn) > 0 => {
                let at = rng.random_range(0..array.len(&txn));
                array.remove(&mut txn, at);
            }
            8 if xml.len(&txn) > 2 => {
                let at = rng.random_range(0..xml.len(&txn));
                xml.remove_range(&mut txn, at, 1);
            }
            _ => {
                let at = rng.random_range(0..=xml.len(&txn));
                let element = xml.insert(&mut txn, at, XmlElementPrelim::empty("p"));
                let inside = element.insert(&mut txn, 0, XmlTextPrelim::new("in"));
                inside.insert(&mut txn, 1, "side");
            }
        }
    }

    /// What it has done since it was asked last.
    fn news(&mut self) -> Bytes {
        let txn = self.doc.transact();
        let news = txn.encode_diff_v1(&self.sent);
        self.sent = txn.state_vector();
        news.into()
    }

    fn hear(&mut self, document: &mut Document) {
        let vector = self.doc.transact().state_vector().encode_v1();
        let missing = document.diff(&vector).unwrap().unwrap();
        let mut txn = self.doc.transact_mut();
        txn.apply_update(Update::decode_v1(&missing).unwrap()).unwrap();
    }
}

#[test]
fn whatever_editors_do_together_is_let_in_and_found_where_it_is() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut document = Document::new();
        let mut editors: Vec<_> = (1..=4)
            .map(|client| Editor { doc: Doc::with_client_id(client), sent: StateVector::default() })
            .collect();
        for _ in 0..200 {
            let editor = &mut editors[rng.random_range(0..4)];
            editor.edit(&mut rng);
            if rng.random_bool(0.3) {
                let taken = offer_as(&mut document, &editor.news(), ANYBODY);
                assert!(taken.is_ok(), "seed {seed}: {taken:?}");
                editor.hear(&mut document);
            }
        }
        for editor in &mut editors {
            offer_as(&mut document, &editor.news(), ANYBODY).unwrap();
        }
        let again = Document::of(&document.state().unwrap()).unwrap();
        assert_eq!(again.state_vector(), document.state_vector());
        let (live, loaded) = (document.outline(), again.outline());
        let mut found = 0;
        for (client, clock) in loaded.clocks() {
            for clock in 0..clock {
                // What was collected is nowhere when it is loaded again.
                let Some(place) = loaded.whereabouts(client, clock) else { continue };
                assert_eq!(live.whereabouts(client, clock), Some(place), "seed {seed}");
                found += 1;
            }
        }
        assert!(found > 100, "seed {seed}: {found}");
    }
}
