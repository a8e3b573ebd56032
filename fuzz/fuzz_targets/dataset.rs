//! Runs [`tokenformer_fuzz::targets::dataset`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(init: tokenformer_fuzz::quiet_panics(), |input: &[u8]| tokenformer_fuzz::targets::dataset::run(input));
