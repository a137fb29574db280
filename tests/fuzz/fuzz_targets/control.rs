#![no_main]
//! One fuzz target; what it does is in `bodies.rs`.

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "each target uses one body")]
mod bodies;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| bodies::control(octets));
