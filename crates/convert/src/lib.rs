//! Conversion of models and token data from and to the formats of the published TokenFormer and of Hugging Face.
//!
//! * [`convert()`]: published checkpoints, Hugging Face folders and DeepSpeed training folders become model directories;
//!   plain Transformers in the GPT-NeoX and GPT-2 layouts of Hugging Face and vision Transformers of timm too;
//! * [`export()`]: a model directory becomes safetensors or a PyTorch state dict with the published names, or with those
//!   of Hugging Face for a plain Transformer;
//! * [`verify()`]: a model directory against its manifest and its fingerprint;
//! * [`corpus`]: datasets from and to the token data of Megatron-LM and GPT-NeoX.
//!
//! Weights are streamed: memory stays near the size of the largest tensor, for files of any size. Beside the weights
//! lies a [`Fingerprint`](fingerprint::Fingerprint), the logits after a few tokens, which shows whether the model still
//! computes the same.
//!
//! ```
//! use std::sync::Arc;
//! use tokenformer_convert::{ConvertOptions, ExportOptions, WeightType, convert, export, verify};
//! use tokenformer_core::{Device, Model, ModelSpec, config::Slots};
//! use tokenformer_store::DirWriter;
//! use tokenformer_train::files::{KIND_MODEL, write_model};
//!
//! let device: Arc<dyn Device> = tokenformer_cpu::Cpu::new(Some(1));
//! let slots = Slots { qkv: 8, proj: 8, ffn: 16 };
//! let spec = ModelSpec { vocab: 64, width: 16, layers: 1, heads: 2, context: 16, slots, ..ModelSpec::default() };
//! let folder = tempfile::tempdir()?;
//! let [model, published, back] = ["model", "published", "back"].map(|name| folder.path().join(name));
//! let mut writer = DirWriter::begin(&model, KIND_MODEL)?;
//! write_model(&mut writer, &Model::fresh(&device, &spec.build()?, 1)?, None)?;
//! writer.commit()?;
//!
//! // To the names and files of the published models, and back.
//! let options = ExportOptions { model, to: published.clone(), weights: WeightType::F32, shard_bytes: 1 << 30 };
//! export(&options, &device, &mut |_, _| ())?;
//! let options = ConvertOptions { from: published, configs: vec![], tokenizer: None, to: back.clone() };
//! convert(&options, &device, &mut |_, _| ())?;
//! assert!(verify(&back, &device)?.iter().all(|check| check.passed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod checkpoint;
mod compare;
mod config;
mod convert;
pub mod corpus;
mod error;
mod export;
mod find;
pub mod fingerprint;
mod forward;
#[cfg(feature = "hub")]
mod hub;
mod layout;
mod names;
mod pipe;
mod plain;
mod source;
mod verify;
mod weight_type;
mod weights;

pub use convert::{ConvertOptions, Converted, convert, expect_timm};
pub use error::{Error, TensorMismatch};
pub use export::{ExportOptions, Exported, KIND_EXPORT, WeightType, export};
pub use find::has_usual_weights;
pub use tokenformer_formats::deepspeed::is_training_folder;
pub use verify::{Check, verify};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
