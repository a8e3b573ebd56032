//! Published folders: a configuration, the index of several files, the header of the weights.

use std::sync::{Arc, OnceLock};

use tokenformer_convert::{ConvertOptions, convert};
use tokenformer_core::Device;
use tokenformer_cpu::Cpu;

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

fn device() -> &'static Arc<dyn Device> {
    static DEVICE: OnceLock<Arc<dyn Device>> = OnceLock::new();
    DEVICE.get_or_init(|| Cpu::new(Some(1)))
}

/// The input's three parts are `config.json` with the published keys, the index if there is one, and the header of the
/// weights. They never make a whole model, so that each input ends early.
pub fn run(input: &[u8]) {
    let folder = files::prepared("foreign", |path| {
        std::fs::create_dir_all(path).expect("a folder");
    });
    let [config, index, header] = files::parts(input);
    let index_path = folder.join("model.safetensors.index.json");
    std::fs::write(folder.join("config.json"), config).expect("a file");
    let weights = forge::safetensors(header, &[0; 4]);
    std::fs::write(folder.join("model.safetensors"), weights).expect("a file");
    if index.is_empty() {
        let _ = std::fs::remove_file(&index_path);
    } else {
        std::fs::write(&index_path, index).expect("a file");
    }
    let options = ConvertOptions {
        from: folder,
        configs: Vec::new(),
        tokenizer: None,
        to: files::folder().join("converted"),
    };
    // A configuration of the most blocks that there can be has 160 thousand names to compare.
    bounded(input, 128 * MIB, || {
        match convert(&options, device(), &mut |_, _| {}) {
            Ok(_) => panic!("four bytes are no model"),
            Err(error) => {
                let _ = error.to_string();
            }
        }
    });
}
