//! Runs [`tokenformer_fuzz::targets::report`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::report::run(input));
