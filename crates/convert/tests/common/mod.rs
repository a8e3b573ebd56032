//! Shared by the tests: checkpoints made of the committed weights, and common operations on them.

#![allow(dead_code, reason = "each test program uses a part of this module")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenformer_convert::{ConvertOptions, Converted, Error, ExportOptions, Result, WeightType};
use tokenformer_core::{Device, Model};
use tokenformer_cpu::Cpu;
use tokenformer_formats::{Dtype, TensorSpec, write_torch};
use tokenformer_store::{SafetensorsFile, TensorSource, write_safetensors};
use tokenformer_train::files;

/// The configuration of the committed model.
pub const CONFIG: &str = r#"{
  "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
  "qkv_slot_num": 40, "proj_slot_num": 24, "ffn_slot_num": 136,
  "seq_length": 48, "max_position_embeddings": 48, "pos_emb": "rotary", "rotary_pct": 0.25,
  "norm": "layernorm_nonparam", "final_norm": "layernorm",
  "attention_config": [[["tokenformer"], 2]], "norm_activation_type": "l2_norm_gelu",
}"#;

/// A tokenizer of three letters.
pub const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": ["a b"]}}"#;

pub fn device() -> Arc<dyn Device> {
    Cpu::new(Some(1))
}

/// A file of the committed model.
pub fn lm0(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/lm0")
        .join(name)
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Tensors by their published names.
pub type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn read(path: &Path) -> Named {
    let file = SafetensorsFile::open(path).unwrap();
    let tensor = |name: &str| {
        (
            file.shape(name).unwrap().to_vec(),
            file.read_f32(name).unwrap(),
        )
    };
    file.names()
        .map(|name| (name.to_string(), tensor(name)))
        .collect()
}

pub fn weights() -> Named {
    read(&lm0("model.safetensors"))
}

pub fn save(tensors: &Named, path: &Path) {
    let sources = tensors
        .iter()
        .map(|(name, (shape, numbers))| TensorSource::f32(name.clone(), shape, numbers));
    write_safetensors(path, &BTreeMap::new(), sources).unwrap();
}

pub fn save_torch(tensors: &Named, dtype: Dtype, path: &Path) {
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, (shape, _))| TensorSpec {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
        })
        .collect();
    let numbers: Vec<&Vec<f32>> = tensors.values().map(|(_, numbers)| numbers).collect();
    write_torch::<tokenformer_formats::Error>(path, &specs, |index, sink| {
        sink.write(numbers[index])
    })
    .unwrap();
}

/// A folder for one test, with the committed model's configuration in it.
pub struct Lab(tempfile::TempDir);

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab(tempfile::tempdir().unwrap());
        std::fs::write(lab.path("lm0.yml"), CONFIG).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Converts with the committed model's configuration.
    pub fn convert(&self, from: &Path, to: &str) -> Result<Converted> {
        self.convert_with(from, &[self.path("lm0.yml")], to)
    }

    pub fn convert_with(&self, from: &Path, configs: &[PathBuf], to: &str) -> Result<Converted> {
        let options = ConvertOptions {
            from: from.into(),
            configs: configs.to_vec(),
            tokenizer: None,
            to: self.path(to),
        };
        tokenformer_convert::convert(&options, &device(), &mut |_, _| {})
    }

    /// The committed model, converted.
    pub fn model(&self) -> PathBuf {
        self.convert(&lm0("model.safetensors"), "lm0").unwrap();
        self.path("lm0")
    }

    pub fn export(
        &self,
        model: &Path,
        to: &str,
        weights: WeightType,
    ) -> Result<tokenformer_convert::Exported> {
        self.export_sharded(model, to, weights, u64::MAX)
    }

    pub fn export_sharded(
        &self,
        model: &Path,
        to: &str,
        weights: WeightType,
        shard_bytes: u64,
    ) -> Result<tokenformer_convert::Exported> {
        let options = ExportOptions {
            model: model.into(),
            to: self.path(to),
            weights,
            shard_bytes,
        };
        tokenformer_convert::export(&options, &device(), &mut |_, _| {})
    }
}

pub fn load(dir: &Path) -> Model {
    tokenformer_store::verify(dir).unwrap();
    files::load_model(dir, &device()).unwrap()
}

/// The weights file of a model directory.
pub fn stored(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join(files::WEIGHTS)).unwrap()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, d| if d <= most { most } else { d })
}

/// Largest difference of the model's logits from those of the golden file `expected`.
pub fn logits_difference(model: &Model, expected: &Path) -> f32 {
    let expected = SafetensorsFile::open(expected).unwrap();
    let &[batch, with_target] = expected.shape("tokens").unwrap() else {
        panic!("tokens are [B, T+1]");
    };
    let tokens: Vec<u32> = expected
        .read_u32("tokens")
        .unwrap()
        .chunks(with_target)
        .flat_map(|row| row[..with_target - 1].to_vec())
        .collect();
    let logits = model.infer(&tokens, batch).unwrap();
    largest_difference(&logits, &expected.read_f32("logits").unwrap())
}

/// The message of a failure, which has to say what helps.
pub fn message<T>(result: Result<T, Error>) -> String {
    let message = result.err().expect("a refusal").to_string();
    assert!(message.contains("help: "), "{message}");
    message
}
