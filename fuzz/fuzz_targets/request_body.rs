//! Runs [`tokenformer_fuzz::targets::request_body`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::request_body::run(input));
