//! Runs [`tokenformer_fuzz::targets::run_resolve`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::run_resolve::run(input));
