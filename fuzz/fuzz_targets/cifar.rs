//! Runs [`tokenformer_fuzz::targets::cifar`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::cifar::run(input));
