//! Runs [`tokenformer_fuzz::targets::token_file`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::token_file::run(input));
