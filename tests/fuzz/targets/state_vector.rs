//! State vectors: read without trusting what they say of themselves, and answered.
#![no_main]

use std::sync::LazyLock;

use cowrite_fuzz::in_time;
use cowrite_server::crdt::{Document, validate};
use libfuzzer_sys::fuzz_target;

/// Two clients have typed in it.
static STATE: &[u8] =
    &[2, 1, 9, 0, 4, 1, 1, b'r', 3, b'a', b'b', b'c', 1, 1, 0, 0x84, 9, 1, 2, b'x', b'y', 0];

fuzz_target!(|input: &[u8]| {
    static SIZE: LazyLock<usize> = LazyLock::new(|| {
        let whole = Document::of(STATE).and_then(|document| document.state());
        whole.expect("yrs encodes it").len()
    });
    in_time(|| {
        let document = Document::of(STATE).expect("it is one");
        let diff = document.diff(input).expect("yrs encodes it");
        assert_eq!(diff.is_ok(), validate::state_vector(input).is_ok());
        if let Ok(diff) = diff {
            assert!(diff.len() <= *SIZE);
        }
    });
});
