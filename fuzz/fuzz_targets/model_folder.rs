//! Runs [`tokenformer_fuzz::targets::model_folder`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::model_folder::run(input));
