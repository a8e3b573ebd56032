//! `state.json`: everything of a run's state that is neither weights nor moments.

use super::{STATE, read_text};
use crate::error::{Error, Result};
use crate::recipe::{GrowEvent, ModelTable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::growth::GrowthReport;

const STATE_VERSION: u32 = 1;
/// More than any run counts, and far from where counting on would overflow.
const MAX_COUNTER: u64 = 1 << 60;

/// The best held-out loss so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Step of its checkpoint.
    pub step: u64,
    /// Loss in nats per token.
    pub loss: f64,
}

/// Training data of the steps before the run went on with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierData {
    /// Last step with these data.
    pub until_step: u64,
    /// Windows of them that were seen.
    pub windows: u64,
    /// Hash of the training tokens.
    pub data_hash: String,
}

/// A growth that has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastGrowth {
    /// The event of the recipe that asked for it; `None` for the `grow` command.
    pub event: Option<GrowEvent>,
    /// What it did.
    pub report: GrowthReport,
}

/// Everything of a run's state that is neither weights nor moments. No clock or host is in it, so that equal
/// runs write equal bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of this format.
    pub version: u32,
    /// Updates done.
    pub step: u64,
    /// Stage: growths so far.
    pub stage: u32,
    /// Tokens seen.
    pub tokens: u64,
    /// Windows (samples) drawn so far: the position in the data, which does not depend on the batch size.
    #[serde(default)]
    pub windows: u64,
    /// What version 0.1.0 counted instead of windows; [`read_state`] takes it away.
    #[serde(default, skip_serializing, rename = "batches")]
    old_batches: Option<u64>,
    /// Floating-point operations of training so far, two per multiply-add, those on the probe tokens of growths
    /// included (`docs/growth.md`). Runs of version 0.1.0 began to count when they went on.
    #[serde(default)]
    pub flops: f64,
    /// Updates skipped because of a loss or gradient that was not finite.
    pub skipped: u64,
    /// Updates skipped since the last one that was not.
    #[serde(default)]
    pub skipped_in_row: u64,
    /// Whether the evaluation that is due after `step` was interrupted, and must be repeated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unevaluated: bool,
    /// Sum of the losses since the last record, and their number.
    pub pending_loss: (f64, u64),
    /// Sum of the same losses over all predictions, in nats, and the bytes of what was predicted.
    #[serde(default)]
    pub pending_text: (f64, f64),
    /// What held-out losses are measured on ([`crate::task::Task::measured_on`]); states of older versions do not say it, or not how
    /// pictures are shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub measured_on: String,
    /// Best held-out loss so far.
    pub best: Option<Best>,
    /// Best held-out loss so far of the average of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_ema: Option<Best>,
    /// Seed of the run.
    pub seed: u64,
    /// The recipe's model, before any growth.
    pub model: ModelTable,
    /// Hash of the training tokens.
    pub data_hash: String,
    /// What the run was trained on before, first to last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_data: Vec<EarlierData>,
    /// Growths so far.
    pub growths: Vec<PastGrowth>,
    /// Updates of each parameter.
    pub updates: BTreeMap<String, u64>,
    /// Settings of the model that only training needs.
    #[serde(default, skip_serializing_if = "TrainingSettings::is_default")]
    pub training: TrainingSettings,
}

impl TrainState {
    /// The state before the first step.
    pub fn new(seed: u64, model: ModelTable, data_hash: String) -> Self {
        Self {
            version: STATE_VERSION,
            step: 0,
            stage: 0,
            tokens: 0,
            windows: 0,
            old_batches: None,
            flops: 0.0,
            skipped: 0,
            skipped_in_row: 0,
            unevaluated: false,
            pending_loss: (0.0, 0),
            pending_text: (0.0, 0.0),
            measured_on: String::new(),
            best: None,
            best_ema: None,
            seed,
            model,
            data_hash,
            earlier_data: Vec::new(),
            growths: Vec::new(),
            updates: BTreeMap::new(),
            training: TrainingSettings::default(),
        }
    }

    /// Goes on with other data from their beginning. Losses on the old held-out text say nothing about the new one.
    pub fn change_data(&mut self, data_hash: String) {
        self.earlier_data.push(EarlierData {
            until_step: self.step,
            windows: self.windows,
            data_hash: std::mem::replace(&mut self.data_hash, data_hash),
        });
        self.windows = 0;
        self.forget_best();
        self.unevaluated = false;
        self.pending_loss = (0.0, 0);
        self.pending_text = (0.0, 0.0);
    }

    /// Measures on `what` from now on: the best of other measurements is forgotten. Older versions wrote a prefix of `what`, or nothing.
    pub fn measure_on(&mut self, what: String) {
        if !what.starts_with(&self.measured_on) {
            self.forget_best();
        }
        self.measured_on = what;
    }

    /// Forgets the best losses so far, because they are of something else than what comes: the next that is measured is the best.
    pub fn forget_best(&mut self) {
        (self.best, self.best_ema) = (None, None);
    }

    /// Forgets best checkpoints other than this one, because the directory of the resumed run does not contain them.
    pub fn leave_others_behind(&mut self) {
        let step = self.step;
        for best in [&mut self.best, &mut self.best_ema] {
            *best = best.filter(|best| best.step == step);
        }
    }

    /// The newest step after which a loss is known to have been finite: the weights are the same since then.
    pub fn sound_step(&self) -> u64 {
        let is_measured = |best: Option<Best>| best.is_some_and(|best| best.step == self.step);
        match is_measured(self.best) || is_measured(self.best_ema) {
            true => self.step,
            false => self.step.saturating_sub(1 + self.skipped_in_row),
        }
    }
}

/// Reads `state.json` of a checkpoint.
///
/// # Errors
/// If it is missing, malformed or of another version.
pub fn read_state(dir: &Path) -> Result<TrainState> {
    let path = dir.join(STATE);
    let damaged = |problem: String| {
        Error::Damaged {
        path: path.clone(),
        problem,
        help: "only checkpoints of training runs can be trained on; `grow` and `eval` take this model as it is".into(),
    }
    };
    if !path.exists() {
        return Err(damaged("there is no training state here".into()));
    }
    let mut state: TrainState =
        serde_json::from_str(&read_text(&path)?).map_err(|e| damaged(e.to_string()))?;
    if state.version != STATE_VERSION {
        let problem = format!(
            "format version {}, this program knows {STATE_VERSION}",
            state.version
        );
        return Err(damaged(problem));
    }
    let counters = [
        state.step,
        state.tokens,
        state.windows,
        state.skipped,
        state.skipped_in_row,
    ];
    if let Some(counter) = counters.into_iter().find(|&n| n > MAX_COUNTER) {
        return Err(damaged(format!("a counter of {counter}")));
    }
    if !(state.flops.is_finite() && state.flops >= 0.0) {
        return Err(damaged(format!(
            "{} floating-point operations",
            state.flops
        )));
    }
    if state.old_batches.take().is_some() {
        // Every window was as long as the context, so the tokens determine the number of windows for any batch size.
        state.windows = state.tokens / state.model.context.max(1) as u64;
    }
    Ok(state)
}
