//! A model is loaded without a second copy of its weights. Alone in its program: the peak that the system counts is
//! that of the whole process.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::Arc;

use tokenformer_core::device::WeightFormat;
use tokenformer_core::{Device, Model, presets};
use tokenformer_cpu::Cpu;
use tokenformer_store::DirWriter;
use tokenformer_train::files::{KIND_MODEL, Weights, load_for_inference, load_model, write_model};

/// A line of /proc/self/status in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let number: String = line.chars().filter(char::is_ascii_digit).collect();
    number.parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_holds_the_weights_once() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let mut config = presets::Preset::named("150m")
        .unwrap()
        .spec()
        .build()
        .unwrap();
    // The widest arrays stay; two blocks of twelve are enough to tell one copy from two.
    config.blocks.truncate(2);
    config.vocab = 8192;
    let model = Model::fresh(&device, &config, 1).unwrap();
    let mut writer = DirWriter::begin(&dir, KIND_MODEL).unwrap();
    write_model(&mut writer, &model, None).unwrap();
    writer.commit().unwrap();
    drop(model);

    for is_inference in [false, true] {
        // Resets the peak.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS:");
        let model = match is_inference {
            false => load_model(&dir, &device).unwrap(),
            true => load_for_inference(&dir, &device, Weights::Trained, WeightFormat::F32).unwrap(),
        };
        let weights = 4 * model.param_count();
        let taken = status("VmHWM:") - before;
        assert!(weights > 90 << 20, "{weights} bytes are too few to measure");
        assert!(
            taken < weights + weights / 3,
            "for inference: {is_inference}; loading {weights} bytes of weights took {taken} at the peak"
        );
    }
}
