//! Model directories: a configuration and weights that may not fit together.

use std::sync::{Arc, OnceLock};

use tokenformer_core::Device;
use tokenformer_core::device::{Buffer, Role};
use tokenformer_cpu::Cpu;
use tokenformer_train::files::load_model;

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

/// The processor, with the address space for its temporaries taken: gigabytes that nothing is written to.
fn cpu() -> &'static Arc<Cpu> {
    static CPU: OnceLock<Arc<Cpu>> = OnceLock::new();
    CPU.get_or_init(|| {
        let cpu = Cpu::new(Some(1));
        let mut buffer = Buffer::empty();
        let taken = cpu.temporary(1, Role::Activation, &mut buffer);
        taken.expect("address space");
        cpu
    })
}

/// The table of rotary angles is the largest thing that no weight vouches for.
const FIXED: usize = 80 * MIB;

/// The input's three parts are the configuration, the header of the weights, and the data. A model that loads computes
/// one position.
pub fn run(input: &[u8]) {
    let [config, header, data] = files::parts(input);
    files::write("config.json", config);
    files::write("model.safetensors", &forge::safetensors(header, data));
    let device: Arc<dyn Device> = cpu().clone();
    let before = device.usage().temporary_reserved;
    bounded(input, FIXED, || {
        match load_model(files::folder(), &device) {
            Ok(model) => {
                if let Ok(logits) = model.infer(&[0], 1) {
                    assert_eq!(logits.len(), model.vocab());
                    let most = before.max(2 * input.len() + FIXED);
                    assert!(device.usage().temporary_reserved <= most);
                }
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    });
}
