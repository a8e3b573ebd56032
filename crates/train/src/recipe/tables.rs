//! The tables of a recipe and their defaults.
//!
//! The file is long because all tables of a recipe stand in it, one after the other, as the reference of what a recipe
//! may say.

use crate::error::{Error, Result};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};
use tokenformer_core::config::{
    BaseSizes, Family, HeadKind, Init, Input, LogitScale, NormKind, NormSpan, Positions, Residual,
    Slots, Theta,
};
use tokenformer_core::growth::Growth;
use tokenformer_core::optim::{AdamWConfig, MomentFormat};
use tokenformer_core::presets::Preset;
use tokenformer_core::{ModelConfig, ModelSpec, Precision, Recompute};
use tokenformer_images::{Augment, Filter};

/// Most blocks that one growth may append.
pub const MAX_NEW_LAYERS: usize = 1 << 14;

/// A whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of weights, data order and samples.
    pub seed: u64,
    /// What to train on.
    pub data: DataTable,
    /// What to train.
    pub model: ModelTable,
    /// What happens to pictures before the model sees them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub images: ImagesTable,
    /// How long, in which portions.
    pub train: TrainTable,
    /// AdamW.
    pub optimizer: AdamWConfig,
    /// An average of the weights beside them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ema: EmaTable,
    /// Learning rate.
    pub schedule: Schedule,
    /// Sizes of the model at which that learning rate was found; a matrix with another fan-in learns at a rate that is
    /// as much smaller. Without sizes all arrays learn at the same rate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lr_base: BaseSizes,
    /// Held-out loss along the way.
    pub eval: EvalTable,
    /// Samples along the way.
    pub sample: SampleTable,
    /// Checkpoints.
    pub checkpoint: CheckpointTable,
    /// Records.
    pub log: LogTable,
    /// Growth along the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grow: Vec<GrowEvent>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 1234,
            data: DataTable::default(),
            // A constant that `recipe_hostile.rs` resolves.
            model: ModelTable::from_preset("tiny").expect("a preset of the library"),
            images: ImagesTable::default(),
            train: TrainTable::default(),
            optimizer: AdamWConfig::default(),
            ema: EmaTable::default(),
            schedule: Schedule::default(),
            lr_base: BaseSizes::default(),
            eval: EvalTable::default(),
            sample: SampleTable::default(),
            checkpoint: CheckpointTable::default(),
            log: LogTable::default(),
            grow: Vec::new(),
        }
    }
}

/// `[data]`: what to train on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    /// A dataset folder made by `data prepare`.
    pub dir: String,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionKind {
    /// Rotary embedding.
    Rotary,
    /// A learned vector per position.
    Learned,
    /// Sines and cosines of an image's columns and rows.
    #[serde(rename = "sincos2d")]
    SinCos2d,
    /// None.
    None,
}

/// `[model]`: a preset, and what differs from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ModelTable {
    /// The preset that gave the values that the recipe does not set.
    pub preset: String,
    /// `tokenformer`, or `gpt` for a plain Transformer.
    #[serde(default)]
    pub family: Family,
    /// What the model reads; tokens by default.
    #[serde(default, skip_serializing_if = "Input::is_tokens")]
    pub input: Input,
    /// Tokens of the vocabulary; 0 takes the tokenizer's. Classes of an image model.
    pub vocab: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    /// Positions; 0 takes those of an image's patches.
    pub context: usize,
    pub slots: Slots,
    pub theta: Theta,
    pub norm: NormSpan,
    /// Hidden width of the MLPs of a plain Transformer; 0 for four times the width.
    #[serde(default)]
    pub mlp_hidden: usize,
    /// Whether the linear layers of a plain Transformer have biases.
    #[serde(default)]
    pub bias: bool,
    /// Whether a position sees only itself and those before it.
    #[serde(default = "yes")]
    pub causal: bool,
    #[serde(default)]
    pub residual: Residual,
    pub positions: PositionKind,
    pub rotary_fraction: f64,
    pub rotary_base: f64,
    #[serde(default = "plain")]
    pub block_norm: NormKind,
    pub final_norm: NormKind,
    #[serde(default)]
    pub head: HeadKind,
    /// Whether an untied head has a bias.
    #[serde(default, skip_serializing_if = "is_default")]
    pub head_bias: bool,
    pub logit_scale: LogitScale,
    pub init: Init,
}

fn yes() -> bool {
    true
}

fn plain() -> NormKind {
    NormKind::Plain
}

impl ModelTable {
    /// The values of a preset; its vocabulary is left to the tokenizer.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn from_preset(name: &str) -> Result<Self> {
        let spec = Preset::named(name)?.spec();
        let (positions, rotary_fraction, rotary_base) = match spec.positions {
            Positions::Rotary { fraction, base } => (PositionKind::Rotary, fraction, base),
            Positions::Learned => (PositionKind::Learned, 0.25, 10_000.0),
            Positions::SinCos2d => (PositionKind::SinCos2d, 0.25, 10_000.0),
            Positions::None => (PositionKind::None, 0.25, 10_000.0),
        };
        Ok(Self {
            preset: name.into(),
            family: spec.family,
            input: spec.input,
            vocab: 0,
            width: spec.width,
            layers: spec.layers,
            heads: spec.heads,
            context: spec.context,
            slots: spec.slots,
            theta: spec.theta,
            norm: spec.norm,
            mlp_hidden: spec.mlp_hidden,
            bias: spec.bias,
            causal: spec.causal,
            residual: spec.residual,
            positions,
            rotary_fraction,
            rotary_base,
            block_norm: spec.block_norm,
            final_norm: spec.final_norm,
            head: spec.head,
            head_bias: spec.head_bias,
            logit_scale: spec.logit_scale,
            init: spec.init,
        })
    }

    /// The fresh model for a tokenizer of `tokenizer_vocab` tokens.
    ///
    /// # Errors
    /// If the sizes are impossible or the vocabulary is smaller than the tokenizer's.
    pub fn build(&self, tokenizer_vocab: usize) -> Result<ModelConfig> {
        let vocab = if self.vocab == 0 {
            tokenizer_vocab
        } else {
            self.vocab
        };
        if vocab < tokenizer_vocab {
            return Err(Error::Recipe {
                place: "model.vocab".into(),
                problem: "the dataset's tokenizer has more tokens than the model".into(),
                expected: format!("at least {tokenizer_vocab}, or 0 to take the tokenizer's"),
                got: vocab.to_string(),
                help: "set model.vocab = 0, or prepare the data with another tokenizer".into(),
            });
        }
        let Slots { qkv, proj, ffn } = self.slots;
        for (key, tokens) in [("qkv", qkv), ("proj", proj), ("ffn", ffn)] {
            if tokens > 0 && self.family == Family::Gpt {
                return Err(Error::Recipe {
                    place: format!("model.slots.{key}"),
                    problem: "a plain Transformer has no parameter tokens".into(),
                    expected: "0, with model.family = \"gpt\"".into(),
                    got: tokens.to_string(),
                    help: "model.mlp_hidden sets the width of its MLPs".into(),
                });
            }
            if tokens == 0 && self.family == Family::Tokenformer {
                return Err(Error::Recipe {
                    place: format!("model.slots.{key}"),
                    problem: "a site without tokens computes nothing".into(),
                    expected: "at least 1".into(),
                    got: "0".into(),
                    help: "`config presets` lists sizes that work".into(),
                });
            }
        }
        let positions = match self.positions {
            PositionKind::Rotary => Positions::Rotary {
                fraction: self.rotary_fraction,
                base: self.rotary_base,
            },
            PositionKind::Learned => Positions::Learned,
            PositionKind::SinCos2d => Positions::SinCos2d,
            PositionKind::None => Positions::None,
        };
        let spec = ModelSpec {
            family: self.family,
            input: self.input,
            vocab,
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            context: self.context,
            slots: self.slots,
            theta: self.theta,
            norm: self.norm,
            mlp_hidden: self.mlp_hidden,
            bias: self.bias,
            causal: self.causal,
            residual: self.residual,
            positions,
            block_norm: self.block_norm,
            final_norm: self.final_norm,
            head: self.head,
            head_bias: self.head_bias,
            logit_scale: self.logit_scale,
            init: self.init,
        };
        Ok(spec.build()?)
    }
}

/// `[images]`: what happens to pictures before the model sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesTable {
    /// Share of a side that the centre crop keeps in evaluation: 0.875 resizes the short side to 256 for an input of 224.
    pub crop_share: f64,
    /// How pictures are resized.
    pub filter: Filter,
    /// Whether small pictures that are all of one size may be resized to another that the model reads.
    pub resize: bool,
    /// Threads that prepare pictures beside the training; 0 prepares them when they are needed. Results do not depend
    /// on it.
    pub workers: usize,
    /// Random changes, mixtures, smoothing of labels.
    pub augment: Augment,
}

impl Default for ImagesTable {
    fn default() -> Self {
        Self {
            crop_share: 1.0,
            filter: Filter::default(),
            resize: false,
            workers: 1,
            augment: Augment::default(),
        }
    }
}

/// `[train]`: how long, in which portions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTable {
    /// Updates in all, over all stages.
    pub steps: u64,
    /// Sequences per micro-batch.
    pub batch: usize,
    /// Micro-batches per update.
    pub accumulate: u64,
    /// Precision of products: `f32`, or the faster `bf16` where the processor multiplies bfloat16.
    pub precision: Precision,
    /// What the backward pass recomputes instead of keeping: `none`, the `scores` of sites, or whole `blocks`. The
    /// numbers are the same.
    #[serde(default)]
    pub recompute: Recompute,
    /// Updates that may be skipped in a row, because loss or gradient is not finite, before the run counts as
    /// diverged and stops.
    #[serde(default = "default_max_skipped")]
    pub max_skipped: u64,
    /// Share of samples that skip a branch of the last block in training; it falls to 0 at the first block.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drop_path: f64,
}

fn default_max_skipped() -> u64 {
    20
}

impl Default for TrainTable {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch: 8,
            accumulate: 1,
            precision: Precision::F32,
            recompute: Recompute::None,
            max_skipped: default_max_skipped(),
            drop_path: 0.0,
        }
    }
}

/// `[ema]`: an exponential moving average of the weights, which is evaluated and saved beside them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaTable {
    /// Share of the average that an update keeps; 0 for no average.
    pub decay: f64,
    /// Slows the decay of the first updates: update `t` keeps at most `(1 + t)/(warmup + t)`.
    pub warmup: u64,
}

impl Default for EmaTable {
    fn default() -> Self {
        Self {
            decay: 0.0,
            warmup: 10,
        }
    }
}

impl EmaTable {
    /// Share of the average that update `t` (1 is the first) keeps.
    pub fn decay_at(&self, t: u64) -> f64 {
        let early = (1.0 + t as f64) / (self.warmup as f64 + t as f64);
        self.decay.min(early)
    }
}

/// `[eval]`: held-out loss along the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalTable {
    /// Steps between two evaluations; 0 for one at the end of each stage only.
    pub every: u64,
    /// Held-out tokens per evaluation, from the start of the split; 0 for all.
    pub tokens: usize,
    /// The same in pictures.
    #[serde(default, skip_serializing_if = "is_default")]
    pub images: usize,
}

impl Default for EvalTable {
    fn default() -> Self {
        Self {
            every: 100,
            tokens: 65_536,
            images: 0,
        }
    }
}

/// `[sample]`: text that the model writes along the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleTable {
    /// Steps between two samples; 0 for one at the end of each stage only.
    pub every: u64,
    /// What the model continues.
    pub prompt: String,
    /// Tokens to write; 0 for no samples.
    pub tokens: usize,
    /// Temperature.
    pub temperature: f64,
    /// Share of the probability that is kept.
    pub top_p: f64,
}

impl Default for SampleTable {
    fn default() -> Self {
        Self {
            every: 0,
            prompt: String::new(),
            tokens: 120,
            temperature: 0.7,
            top_p: 0.95,
        }
    }
}

/// `[checkpoint]`: what is kept of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointTable {
    /// Steps between two checkpoints; 0 for one at the end of each stage only.
    pub every: u64,
    /// Checkpoints kept besides the best one.
    pub keep: usize,
}

impl Default for CheckpointTable {
    fn default() -> Self {
        Self {
            every: 200,
            keep: 2,
        }
    }
}

/// `[log]`: records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogTable {
    /// Steps between two records of the training loss.
    pub every: u64,
    /// Whether every step from 100 before to 200 after a planned growth is recorded, for the report's zoom.
    #[serde(default = "yes")]
    pub around_growth: bool,
}

impl Default for LogTable {
    fn default() -> Self {
        Self {
            every: 10,
            around_growth: true,
        }
    }
}

/// `[[grow]]`: a growth after so many steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrowEvent {
    /// Updates done before it.
    pub at_step: u64,
    /// What grows: the keys of [`Growth`] stand in the same table.
    #[serde(flatten)]
    pub growth: Growth,
    /// A learning-rate schedule of the stage's own, over its steps; without one the old goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Updates that are first made without the growth, for comparison, and taken back; 0 for none. They end before the
    /// next growth.
    #[serde(skip_serializing_if = "is_default")]
    pub control: u64,
}

impl GrowEvent {
    /// The event without what it asks for beside the growth, which changes nothing of the run.
    pub(crate) fn without_control(&self) -> Self {
        Self {
            control: 0,
            ..self.clone()
        }
    }

    /// Whether both grow a model in the same way at the same step. What they do after it may differ.
    pub(crate) fn grows_as(&self, other: &Self) -> bool {
        self.at_step == other.at_step && self.growth == other.growth
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Recipe {
    /// Checks what the tables' types do not.
    ///
    /// # Errors
    /// [`Error::Recipe`] for the first impossible value.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, expected: &str, got: String, help: &str| {
            Err(Error::Recipe {
                place: key.into(),
                problem: "not a possible value".into(),
                expected: expected.into(),
                got,
                help: help.into(),
            })
        };
        let t = &self.train;
        if t.steps == 0 || t.batch == 0 || t.accumulate == 0 {
            let got = format!(
                "steps {}, batch {}, accumulate {}",
                t.steps, t.batch, t.accumulate
            );
            return bad(
                "train",
                "steps, batch and accumulate of at least 1",
                got,
                "see `config show`",
            );
        }
        if t.steps > 1 << 40 || t.batch > 1 << 24 || t.accumulate > 1 << 24 {
            let got = format!(
                "steps {}, batch {}, accumulate {}",
                t.steps, t.batch, t.accumulate
            );
            return bad(
                "train",
                "sizes that a run can have",
                got,
                "is this what you meant?",
            );
        }
        if t.max_skipped == 0 {
            let help = "20 is the default; a large number lets a run go on for longer";
            return bad("train.max_skipped", "at least 1", "0".into(), help);
        }
        if self.log.every == 0 {
            return bad("log.every", "at least 1", "0".into(), "10 is the default");
        }
        if self.checkpoint.keep == 0 {
            return bad(
                "checkpoint.keep",
                "at least 1",
                "0".into(),
                "a run must be able to go on",
            );
        }
        let o = &self.optimizer;
        for (key, beta) in [("optimizer.beta1", o.beta1), ("optimizer.beta2", o.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return bad(
                    key,
                    "from 0 to below 1",
                    beta.to_string(),
                    "0.9 and 0.95 are usual",
                );
            }
        }
        for (key, value) in [
            ("optimizer.eps", o.eps),
            ("optimizer.weight_decay", o.weight_decay),
            ("optimizer.clip", o.clip),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return bad(
                    key,
                    "a number from 0 on",
                    value.to_string(),
                    "see `config show`",
                );
            }
        }
        let largest = MomentFormat::LARGEST_BETA2;
        if o.moments == MomentFormat::Bf16 && o.beta2 > largest {
            return bad(
                "optimizer.beta2",
                &format!("at most {largest} with moments = \"bf16\""),
                o.beta2.to_string(),
                "its changes would be rounded away: use a smaller one, or moments = \"f32\"",
            );
        }
        if !(0.0..1.0).contains(&t.drop_path) {
            return bad(
                "train.drop_path",
                "from 0 to below 1",
                t.drop_path.to_string(),
                "0.1 is usual for a large vision Transformer",
            );
        }
        const MAX_WORKERS: usize = 256;
        if self.images.workers > MAX_WORKERS {
            return bad(
                "images.workers",
                "from 0 to 256",
                self.images.workers.to_string(),
                "one or two keep a small model busy",
            );
        }
        if self.images != ImagesTable::default() {
            self.images.augment.check()?;
        }
        if !(o.layer_decay > 0.0 && o.layer_decay <= 1.0) {
            return bad(
                "optimizer.layer_decay",
                "above 0 and at most 1",
                o.layer_decay.to_string(),
                "0.65 is usual to fine-tune a vision Transformer; 1 is no decay",
            );
        }
        if !(0.0..1.0).contains(&self.ema.decay) {
            return bad(
                "ema.decay",
                "from 0, which is no average, to below 1",
                self.ema.decay.to_string(),
                "0.9998 is usual for long runs, 0.99 for short ones",
            );
        }
        let grown = self.grow.iter().filter_map(|g| g.schedule.as_ref());
        for schedule in std::iter::once(&self.schedule).chain(grown) {
            let fine = schedule.lr.is_finite()
                && schedule.lr > 0.0
                && (0.0..=1.0).contains(&schedule.min_ratio)
                && (0.0..=1.0).contains(&schedule.decay_share);
            if !fine {
                let expected = "lr above 0, min_ratio and decay_share between 0 and 1";
                return bad(
                    "schedule",
                    expected,
                    format!("{schedule:?}"),
                    "see `config show`",
                );
            }
        }
        for pair in self.grow.windows(2) {
            if pair[0].at_step >= pair[1].at_step {
                let got = format!("at_step {} then {}", pair[0].at_step, pair[1].at_step);
                return bad(
                    "grow.at_step",
                    "growing step numbers",
                    got,
                    "order the [[grow]] tables",
                );
            }
        }
        if let Some(event) = self
            .grow
            .iter()
            .find(|g| g.at_step == 0 || g.at_step >= t.steps)
        {
            let expected = format!("between 1 and train.steps - 1 = {}", t.steps - 1);
            let help = "grow before the last step, so that the new tokens learn";
            return bad("grow.at_step", &expected, event.at_step.to_string(), help);
        }
        if let Some(event) = self.grow.iter().find(|g| g.growth.layers > MAX_NEW_LAYERS) {
            let expected = format!("at most {MAX_NEW_LAYERS}");
            let help = "is this the number you meant?";
            return bad(
                "grow.layers",
                &expected,
                event.growth.layers.to_string(),
                help,
            );
        }
        let sampling = self.sampling();
        sampling.validate().map_err(Error::Core)
    }

    /// Learning rate of update `step` (1 is the first): that of its stage's own schedule.
    pub fn lr_at(&self, step: u64) -> f64 {
        let (start, end) = self.stage_of(step);
        let own = self
            .grow
            .iter()
            .rev()
            .find(|g| g.at_step < step && g.schedule.is_some());
        let schedule = own
            .and_then(|g| g.schedule.as_ref())
            .unwrap_or(&self.schedule);
        schedule.at(step - start, end - start)
    }

    /// The steps between which the schedule of update `step` runs: from after the first of them to the second.
    pub(crate) fn stage_of(&self, step: u64) -> (u64, u64) {
        let restarts = self
            .grow
            .iter()
            .filter(|g| g.schedule.is_some())
            .map(|g| g.at_step);
        let (mut start, mut end) = (0, self.train.steps);
        for at_step in restarts {
            if step > at_step {
                start = at_step;
            } else {
                end = end.min(at_step);
            }
        }
        (start, end)
    }

    /// Settings of the samples along the way.
    pub fn sampling(&self) -> tokenformer_core::generate::Sampling {
        tokenformer_core::generate::Sampling {
            temperature: self.sample.temperature as f32,
            top_p: self.sample.top_p as f32,
            seed: self.seed,
            ..Default::default()
        }
    }
}
