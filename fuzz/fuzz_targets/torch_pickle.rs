//! Runs [`tokenformer_fuzz::targets::torch_pickle`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::torch_pickle::run(input));
