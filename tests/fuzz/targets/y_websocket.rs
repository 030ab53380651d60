//! What comes through the door `y_websocket`, up to the frames that a session gets of it.
#![no_main]

use bytes::Bytes;
use cowrite_fuzz::in_time;
use cowrite_server::transport::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    in_time(|| fuzzing::y_websocket(message));
});
