//! Awareness: what is let in is JSON in UTF-8 that anybody can read.
#![no_main]

use cowrite_fuzz::in_time;
use cowrite_server::crdt::validate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    in_time(|| {
        if validate::awareness_state(input).is_ok() {
            std::str::from_utf8(input).expect("it is UTF-8");
        }
    });
});
