//! Runs [`tokenformer_fuzz::targets::idx`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::idx::run(input));
