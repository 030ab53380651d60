//! What a document says, to be compared.

use std::fmt::Write as _;

use yrs::{
    Any, Doc, ReadTxn as _, Text as _, Transact as _,
    types::{ToJson as _, text::YChange},
};

/// Everything that a reader can see of the roots `text` (with formats), `map` and `array`, in one
/// form: equal contents are equal texts.
#[must_use]
pub fn content(doc: &Doc) -> String {
    let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
    let array = doc.get_or_insert_array("array");
    let txn = doc.transact();
    let mut content = String::new();
    for part in text.diff(&txn, YChange::identity) {
        write!(content, "{}", part.insert).expect("a string takes everything");
        if let Some(attributes) = part.attributes {
            let sorted: std::collections::BTreeMap<_, _> = attributes.iter().collect();
            write!(content, "{sorted:?}").expect("a string takes everything");
        }
    }
    content.push_str("\nmap ");
    sorted(&map.to_json(&txn), &mut content);
    content.push_str("\narray ");
    sorted(&array.to_json(&txn), &mut content);
    content
}

/// A value as JSON with its keys in order.
fn sorted(value: &Any, out: &mut String) {
    match value {
        Any::Map(map) => {
            let sorted_keys: std::collections::BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (key, value) in sorted_keys {
                write!(out, "{key:?}:").expect("a string takes everything");
                sorted(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Any::Array(items) => {
            out.push('[');
            for item in items.iter() {
                sorted(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Any::Null
        | Any::Undefined
        | Any::Bool(_)
        | Any::Number(_)
        | Any::String(_)
        | Any::Buffer(_) => value.to_json(out),
    }
}

/// Fails unless all copies, each with the name of its owner, say the same, know the same, and wait
/// for nothing.
pub fn assert_converged<'a>(copies: impl IntoIterator<Item = (&'a str, &'a Doc)>) {
    let mut first: Option<(&str, String, yrs::StateVector)> = None;
    for (name, doc) in copies {
        let says = content(doc);
        let txn = doc.transact();
        assert!(!txn.has_missing_updates(), "the copy of {name} waits for updates");
        let knows = txn.state_vector();
        drop(txn);
        match &first {
            None => first = Some((name, says, knows)),
            Some((other, said, knew)) => {
                assert_eq!(&says, said, "the copies of {name} and {other} say different things");
                assert_eq!(&knows, knew, "the copies of {name} and {other} know different things");
            }
        }
    }
}
