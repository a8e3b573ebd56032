//! Model directories: a configuration and weights that may not fit together.

use std::sync::{Arc, OnceLock};

use tokenformer_core::{Cpu, Device};
use tokenformer_train::files::load_model;

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

fn device() -> &'static Arc<dyn Device> {
    static DEVICE: OnceLock<Arc<dyn Device>> = OnceLock::new();
    DEVICE.get_or_init(|| Cpu::new(Some(1)))
}

/// The input's three parts are the configuration, the header of the weights, and the data. A model that loads computes
/// one position.
pub fn run(input: &[u8]) {
    let [config, header, data] = files::parts(input);
    files::write("config.json", config);
    files::write("model.safetensors", &forge::safetensors(header, data));
    let device = device();
    // The table of rotary angles is the largest thing that no weight vouches for.
    bounded(input, 80 * MIB, || {
        match load_model(files::folder(), device) {
            Ok(model) => {
                if let Ok(logits) = model.infer(&[0], 1) {
                    assert_eq!(logits.len(), model.vocab());
                }
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    });
}
