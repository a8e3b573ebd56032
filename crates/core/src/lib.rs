//! TokenFormer: a Transformer whose projections are attention to learnable parameter tokens; and the plain Transformer
//! that it is compared with, on the same operations.
//!
//! ```
//! use std::sync::Arc;
//! use tokenformer_core::{Device, Gradients, Graph, Model, ModelSpec, config::Slots, optim::{AdamW, AdamWConfig}};
//!
//! // Any device serves; this one is slow and exact.
//! let device: Arc<dyn Device> = tokenformer_device::reference::Reference::new();
//! let spec = ModelSpec {
//!     vocab: 16,
//!     width: 16,
//!     layers: 1,
//!     heads: 2,
//!     context: 8,
//!     slots: Slots { qkv: 16, proj: 16, ffn: 32 },
//!     ..ModelSpec::default()
//! };
//! let mut model = Model::fresh(&device, &spec.build()?, 1)?;
//! let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
//! let mut losses = Vec::new();
//! for _ in 0..5 {
//!     let mut gradients = Gradients::zeros(&device, model.params())?;
//!     let mut g = Graph::training(&device, &mut gradients);
//!     // One sequence of four tokens, each with the token that follows it; the mean of four losses.
//!     let nll = model.loss(&mut g, &[1, 2, 3, 4], &[2, 3, 4, 5], 1, 0.25)?;
//!     g.backward()?;
//!     optimizer.step(&mut model, &gradients, 1e-2)?;
//!     losses.push(nll.iter().sum::<f32>());
//! }
//! assert!(losses[4] < losses[0]);
//! # Ok::<(), tokenformer_core::Error>(())
//! ```
//!
//! Read [`model`] first: it is the network, forward only, of [`block`]s of [`layers`]. [`site`] holds the parameter
//! tokens, [`growth`] appends to them, [`graph`] replays operations backward; `tokenformer-device` is the interface
//! through which they are computed.

pub mod block;
pub mod build;
pub mod cache;
pub mod config;
mod drop_path;
mod error;
mod exchange;
pub mod generate;
pub mod gradients;
pub mod graph;
pub mod growth;
pub mod init;
mod input_layer;
pub mod layers;
pub mod model;
mod ops;
pub mod optim;
mod owners;
pub mod param;
pub mod path;
pub mod presets;
pub mod published;
pub mod recompute;
mod recorder;
pub mod resample;
mod scores;
pub mod site;
mod stop;
pub mod tensor;
mod version;

pub use cache::Cache;
pub use config::{ModelConfig, ModelSpec, SiteKind};
pub use drop_path::DropPath;
pub use error::{Error, Result};
pub use exchange::share_arrays;
pub use gradients::{Finished, Gradients};
pub use graph::{Graph, LossTargets, OutputHead};
pub use model::{ImageTrace, Model, SiteTrace};
pub use owners::{MESSAGE, Message, Owners, Part};
pub use recompute::Recompute;
pub use tensor::Tensor;
pub use tokenformer_device as device;
pub use tokenformer_device::{Device, DeviceError, Precision, WeightFormat};
