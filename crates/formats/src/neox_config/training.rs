//! How a model was trained, for information only.

use super::ConfigValue;
use super::keys::Keys;
use crate::Result;

/// The training settings of a configuration; `None` for keys that are absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// Optimizer steps.
    pub train_iters: Option<usize>,
    /// Steps over which the learning rate decays.
    pub lr_decay_iters: Option<usize>,
    /// Shape of the decay, such as `cosine`.
    pub lr_decay_style: Option<String>,
    /// Share of the steps for warm-up.
    pub warmup: Option<f64>,
    /// The optimizer's name.
    pub optimizer: Option<String>,
    /// Peak learning rate.
    pub lr: Option<f64>,
    /// Final learning rate.
    pub min_lr: Option<f64>,
    /// Decay rates of Adam's two moments.
    pub betas: Option<[f64; 2]>,
    /// Adam's epsilon.
    pub eps: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// Largest norm of the whole gradient.
    pub gradient_clipping: Option<f64>,
    /// Sequences of one process and micro-batch.
    pub train_micro_batch_size_per_gpu: Option<usize>,
    /// Micro-batches of one step.
    pub gradient_accumulation_steps: Option<usize>,
    /// Seed of weights and data order; GPT-NeoX's default is 1234.
    pub seed: Option<u64>,
    /// Shares of training, validation and test documents; GPT-NeoX's default is `969, 30, 1`.
    pub split: Option<String>,
    /// Prefix of the token data.
    pub data_path: Option<String>,
    /// The tokenizer's kind.
    pub tokenizer_type: Option<String>,
    /// The tokenizer's file.
    pub vocab_file: Option<String>,
}

impl Training {
    pub(super) fn take(keys: &mut Keys) -> Result<Training> {
        let optimizer =
            keys.optional(
                "optimizer",
                "a mapping with type and params",
                |value| match value {
                    ConfigValue::Map(_) => Some(value.clone()),
                    _ => None,
                },
            )?;
        let params = optimizer
            .as_ref()
            .and_then(|optimizer| optimizer.get("params"));
        let param = |key: &str| params.and_then(|params| params.get(key));
        let betas = param("betas")
            .and_then(ConfigValue::as_list)
            .and_then(|betas| match betas {
                [first, second] => Some([first.as_f64()?, second.as_f64()?]),
                _ => None,
            });
        Ok(Training {
            train_iters: keys.optional_count("train_iters")?,
            lr_decay_iters: keys.optional_count("lr_decay_iters")?,
            lr_decay_style: keys.text("lr_decay_style")?,
            warmup: keys.number("warmup")?,
            optimizer: optimizer
                .as_ref()
                .and_then(|optimizer| optimizer.get("type")?.as_str())
                .map(str::to_owned),
            lr: param("lr").and_then(ConfigValue::as_f64),
            min_lr: keys.number("min_lr")?,
            betas,
            eps: param("eps").and_then(ConfigValue::as_f64),
            weight_decay: keys.number("weight_decay")?,
            gradient_clipping: keys.number("gradient_clipping")?,
            train_micro_batch_size_per_gpu: keys
                .optional_count("train_micro_batch_size_per_gpu")?,
            gradient_accumulation_steps: keys.optional_count("gradient_accumulation_steps")?,
            seed: keys.optional("seed", "an integer from 0", |value| {
                value.as_usize().map(|seed| seed as u64)
            })?,
            split: keys.text("split")?,
            data_path: keys.text("data_path")?,
            tokenizer_type: keys.text("tokenizer_type")?,
            vocab_file: keys.text("vocab_file")?,
        })
    }
}
