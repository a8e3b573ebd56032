//! The tables of a recipe and their defaults, except `[model]`, which is in `model.rs`.

use super::model::{ModelTable, yes};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};
use tokenformer_core::config::BaseSizes;
use tokenformer_core::growth::Growth;
use tokenformer_core::optim::AdamWConfig;
use tokenformer_core::{Precision, Recompute};
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
    /// How several processes train together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ranks: RanksTable,
    /// A moving average of the weights.
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
    /// Growths whose moments are found along the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub planner: PlannerTable,
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
            ranks: RanksTable::default(),
            ema: EmaTable::default(),
            schedule: Schedule::default(),
            lr_base: BaseSizes::default(),
            eval: EvalTable::default(),
            sample: SampleTable::default(),
            checkpoint: CheckpointTable::default(),
            log: LogTable::default(),
            grow: Vec::new(),
            planner: PlannerTable::default(),
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
    /// Threads that prepare pictures in parallel with the training; 0 prepares them when they are needed. Results do not depend
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
    /// Micro-batches per update, of all ranks together.
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

/// `[ranks]`: how several processes train together. These keys do not change what one process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RanksTable {
    /// How gradients are added up.
    pub reduce: Reduce,
    /// Where the moments of the optimizer are.
    pub moments: MomentsOn,
    /// What is divided between the ranks: micro-batches, or the parameter tokens of every site.
    pub tokens: TokensOn,
}

/// Where the parameter tokens of sites are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokensOn {
    /// All on every rank; the ranks divide the micro-batches of an update.
    #[default]
    Every,
    /// Every rank has a part of each site's tokens, with their gradients and moments, and all ranks do every micro-batch
    /// together ([`tokenformer_core::device::Divided`]).
    Divided,
}

/// How the gradients of ranks are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// In the order of micro-batches: the same bytes for any number of ranks.
    #[default]
    Ordered,
    /// As the library does it fastest: the last bits depend on the number of ranks.
    Fast,
}

impl Reduce {
    /// Whether bits may depend on the number of ranks.
    pub fn is_fast(self) -> bool {
        self == Self::Fast
    }
}

/// Where the moments of the optimizer are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentsOn {
    /// All on every rank.
    #[default]
    Every,
    /// Each on one rank (ZeRO, stage 1): the same bytes, less memory.
    Owner,
}

/// `[ema]`: an exponential moving average of the weights, which is evaluated and saved with them.
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
    /// Held-out pictures per evaluation, at equal distances in the split; 0 for all.
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

/// `[checkpoint]`: which checkpoints a run keeps.
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
    /// Whether every step from 100 before to 200 after a growth is recorded, for the report's zoom; of a growth of `[planner]`,
    /// whose step is not known before, those after it.
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

/// `[[grow]]`: a growth after a number of steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrowEvent {
    /// Updates done before it.
    pub at_step: u64,
    /// What grows: the keys of [`Growth`] are in the same table.
    #[serde(flatten)]
    pub growth: Growth,
    /// A learning-rate schedule of the stage's own, over its steps; without one the previous schedule continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Updates that are first made without the growth, for comparison, and taken back; 0 for none. They end before the
    /// next growth.
    #[serde(skip_serializing_if = "is_default")]
    pub control: u64,
    /// Whether it is the next growth of `[planner]`, which came at this step. No key of a recipe.
    #[serde(skip_serializing_if = "is_default")]
    pub planned: bool,
}

/// A schedule, and the updates that it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Course<'r> {
    /// The schedule of the recipe, or of the last earlier growth that sets one.
    pub schedule: &'r Schedule,
    /// Updates before it.
    pub start: u64,
    /// Its last update.
    pub end: u64,
}

impl Course<'_> {
    /// Whether the learning rate after update `step`, one of its own, would stay the highest if nothing decayed.
    pub fn is_flat_after(&self, step: u64) -> bool {
        self.schedule
            .is_flat(step - self.start, self.end - self.start)
    }
}

/// `[planner]`: growths that happen once they pay, by a law that is fitted to the losses of the run so far. Stages then begin after
/// an evaluation, without more samples, or records before the growth, than elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlannerTable {
    /// Folders of runs and of growth studies, whose losses the law is also fitted to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Probability of paying from which on a growth happens.
    pub confidence: f64,
    /// The growths, one after the other.
    pub grow: Vec<Growth>,
}

impl Default for PlannerTable {
    fn default() -> Self {
        Self {
            evidence: Vec::new(),
            confidence: 0.8,
            grow: Vec::new(),
        }
    }
}

impl GrowEvent {
    /// The event without its options other than the growth, which changes nothing of the run.
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

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Recipe {
    /// Learning rate of update `step` (1 is the first): that of its stage's own schedule.
    pub fn lr_at(&self, step: u64) -> f64 {
        let Course {
            schedule,
            start,
            end,
        } = self.course_of(step);
        schedule.at(step - start, end - start)
    }

    /// Highest learning rate of the schedule that decides update `step`; `None` while that warms up.
    pub fn peak_lr_at(&self, step: u64) -> Option<f64> {
        let Course {
            schedule, start, ..
        } = self.course_of(step);
        (step - start >= schedule.warmup_steps).then_some(schedule.lr)
    }

    /// What decides the learning rate of update `step`.
    pub(crate) fn course_of(&self, step: u64) -> Course<'_> {
        let mut course = Course {
            schedule: &self.schedule,
            start: 0,
            end: self.train.steps,
        };
        for event in &self.grow {
            let Some(own) = &event.schedule else {
                continue;
            };
            if step > event.at_step {
                (course.schedule, course.start) = (own, event.at_step);
            } else {
                course.end = course.end.min(event.at_step);
            }
        }
        course
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
