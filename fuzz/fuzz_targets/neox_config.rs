//! Runs [`tokenformer_fuzz::targets::neox_config`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::neox_config::run(input));
