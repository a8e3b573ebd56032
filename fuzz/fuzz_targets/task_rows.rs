//! Runs [`tokenformer_fuzz::targets::task_rows`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::task_rows::run(input));
