//! Runs [`tokenformer_fuzz::targets::megatron`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokenformer_fuzz::targets::megatron::run(input));
