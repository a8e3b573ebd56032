//! Runs [`tokenformer_fuzz::targets::train_state`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::train_state::run(input));
