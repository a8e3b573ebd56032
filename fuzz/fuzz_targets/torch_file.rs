//! Runs [`tokenformer_fuzz::targets::torch_file`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::torch_file::run(input));
