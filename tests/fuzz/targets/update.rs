//! Updates of several people: whatever the wall lets in, yrs bears, and it comes back from what was
//! stored.
#![no_main]

use cowrite_fuzz::{document, in_time, parts};
use cowrite_server::crdt::{Document, is_same};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    in_time(|| {
        let document = document(parts(input));
        let state = document.state().expect("yrs encodes it");
        let again = Document::of(&state).expect("it can be loaded again");
        assert_eq!(again.state_vector(), document.state_vector());
        assert!(is_same(&again.state().expect("yrs encodes it"), &state).expect("both are loaded"));
        let empty = document.diff(&document.state_vector()).expect("yrs encodes it");
        empty.expect("our own state vector is one");
    });
});
