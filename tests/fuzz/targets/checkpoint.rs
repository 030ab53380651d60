//! Checkpoints: of every document that hostile updates can make there is one, and the document that
//! comes back has the same owners and the same content. Bytes of a checkpoint that were changed are
//! found by the checksums of the log; here only what is in front of the bytes for yrs is read.
#![no_main]

use cowrite_fuzz::{document, in_time, parts};
use cowrite_server::crdt::{Document, faithful_checkpoint, is_same};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    in_time(|| {
        let document = document(parts(input));
        let parts = document.checkpoint_parts().expect("yrs encodes it");
        let checkpoint = faithful_checkpoint(&parts).expect("yrs bears it");
        let checkpoint = checkpoint.expect("it reproduces the document");
        let again = Document::load(Some(&checkpoint), []).expect("it can be loaded");
        let state = again.state().expect("yrs encodes it");
        assert!(is_same(&state, parts.state()).expect("both are loaded"));
        let parts = again.checkpoint_parts().expect("yrs encodes it");
        let second = faithful_checkpoint(&parts).expect("yrs bears it").expect("it is faithful");
        let third = Document::load(Some(&second), []).expect("it can be loaded");
        assert_eq!(third.state_vector(), again.state_vector());
        // In front of an empty yrs update.
        let head = [&[1][..], input, &[0; 13]].concat();
        cowrite_server::crdt::read_owners(&head);
    });
});
