//! Runs [`tokenformer_fuzz::targets::image`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::image::run(input));
