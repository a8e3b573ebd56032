//! Runs [`tokenformer_fuzz::targets::class_map`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::class_map::run(input));
