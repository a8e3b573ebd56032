//! Writes the seeds of all targets and ends. It is linked like a target, so that one build makes both.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: tokenformer_fuzz::seeds::write_and_end(),
    |_input: &[u8]| {}
);
