//! The result of a run: a small file of numbers, named by the run's key.

use crate::graph::Node;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenformer_report::Record;
use tokenformer_train::{Error, Result};

/// Version of the format, which is part of every key: results of another version are not used.
pub const FORMAT: u32 = 1;

/// Number of updates before a growth with which its spike is compared.
pub const SPIKE_BEFORE: usize = 100;
/// Number of updates after a growth in which its spike is searched.
pub const SPIKE_AFTER: usize = 200;
/// Updates over which the losses of a spike are averaged.
pub const SPIKE_MEAN: usize = 20;

/// Losses per number of [`NodeResult::losses`].
const LOSSES_PER_MEAN: usize = 10;
const MAX_BYTES: u64 = 16 << 20;

/// The numbers of a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeResult {
    /// [`FORMAT`].
    pub format: u32,
    /// Hash of everything that decides the run.
    pub key: String,
    /// A description of the run.
    pub label: String,
    /// Seed.
    pub seed: u64,
    /// Learnable numbers.
    pub params: u64,
    /// Updates done when it began.
    pub from_step: u64,
    /// Updates done at its end.
    pub to_step: u64,
    /// Tokens seen since the first update of its first ancestor.
    pub tokens: u64,
    /// The same as a share of the training text.
    pub epochs: f64,
    /// Floating-point operations since the first update of its first ancestor, by formula.
    pub flops: f64,
    /// The operations as counted, including probes of growths.
    pub counted_flops: f64,
    /// Highest learning rate.
    pub lr: f64,
    /// Seconds spent in this run's updates.
    pub seconds: f64,
    /// The machine and the number of threads.
    pub machine: String,
    /// The reason why it ended early, if it diverged.
    pub diverged: Option<String>,
    /// The effect of its growth, if it begins with one.
    pub growth: Option<GrowthFacts>,
    /// Worst mean of 20 losses in its first 200 updates divided by the mean of the 100 before, minus 1.
    pub spike: Option<f64>,
    /// Held-out loss during the run, on a part of the held-out text.
    pub evals: Vec<EvalPoint>,
    /// Held-out loss at the end on the whole text, if the learning rate has decayed.
    pub held_out: Option<HeldOut>,
    /// The same of the second text, if the run was trained on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_held_out: Option<HeldOut>,
    /// Training losses of its first updates.
    pub first_losses: Vec<f32>,
    /// Training losses of its last updates.
    pub last_losses: Vec<f32>,
    /// Means of ten training losses each.
    pub losses: Vec<f32>,
}

/// The effect of a growth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthFacts {
    /// What was added.
    pub summary: String,
    /// Learnable numbers before.
    pub params_before: u64,
    /// Largest absolute difference of a logit.
    pub max_logit_diff: f64,
    /// Root mean square of the logits' differences over that of the logits.
    pub relative_logit_diff: f64,
}

/// Held-out loss along the way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalPoint {
    /// Updates done.
    pub step: u64,
    /// In nats per token.
    pub loss: f64,
    /// In bits per byte.
    pub bits_per_byte: Option<f64>,
}

/// Held-out loss of all documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// In nats per token.
    pub loss: f64,
    /// In bits per byte.
    pub bits_per_byte: f64,
    /// Document by document: nats, tokens, bytes.
    pub documents: Vec<(f64, u64, f64)>,
}

impl HeldOut {
    /// Adds up documents of nats, tokens and bytes.
    pub fn of(documents: Vec<(f64, u64, f64)>) -> Self {
        let nats: f64 = documents.iter().map(|d| d.0).sum();
        let tokens: u64 = documents.iter().map(|d| d.1).sum();
        let bytes: f64 = documents.iter().map(|d| d.2).sum();
        Self {
            loss: nats / tokens as f64,
            bits_per_byte: nats / std::f64::consts::LN_2 / bytes,
            documents,
        }
    }
}

/// The training losses among a run's records, each of one update.
pub(crate) fn losses(records: &[Record]) -> Vec<f32> {
    let losses = records.iter().filter_map(|record| match record {
        Record::Train(train) if train.loss.is_finite() => Some(rounded(train.loss)),
        _ => None,
    });
    losses.collect()
}

/// Rounds to four decimals, more than any plot or measure here needs.
fn rounded(loss: f64) -> f32 {
    ((loss * 1e4).round() / 1e4) as f32
}

/// The first, the last and the averaged losses that a result stores.
pub(crate) fn kept(losses: &[f32]) -> [Vec<f32>; 3] {
    let first = &losses[..losses.len().min(SPIKE_AFTER)];
    let last = &losses[losses.len().saturating_sub(SPIKE_BEFORE)..];
    let means = losses.chunks(LOSSES_PER_MEAN);
    [
        first.into(),
        last.into(),
        means.map(|chunk| rounded(mean(chunk))).collect(),
    ]
}

fn mean(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len().max(1) as f64
}

/// Worst mean of [`SPIKE_MEAN`] losses after, divided by the mean of those before, minus 1; `None` if there are too
/// few.
pub fn spike(before: &[f32], after: &[f32]) -> Option<f64> {
    let after = &after[..after.len().min(SPIKE_AFTER)];
    if before.len() < SPIKE_MEAN {
        return None;
    }
    let worst = after.windows(SPIKE_MEAN).map(mean).reduce(f64::max)?;
    Some(worst / mean(before) - 1.0)
}

/// Results by key, from one or two folders.
#[derive(Debug, Default)]
pub struct Results {
    own: PathBuf,
    found: BTreeMap<String, NodeResult>,
}

impl Results {
    /// Reads the results in `own`, into which new ones are written, and in `more`.
    ///
    /// # Errors
    /// If a folder cannot be read, or a file in it is no result.
    pub fn open(own: &Path, more: Option<&Path>) -> Result<Self> {
        let mut results = Self {
            own: own.into(),
            found: BTreeMap::new(),
        };
        results.refresh()?;
        if let Some(more) = more {
            results.read(more)?;
        }
        Ok(results)
    }

    /// Reads what other processes have written into the own folder since.
    ///
    /// # Errors
    /// As [`Results::open`].
    pub fn refresh(&mut self) -> Result<()> {
        let own = self.own.clone();
        match own.exists() {
            true => self.read(&own),
            false => Ok(()),
        }
    }

    fn read(&mut self, folder: &Path) -> Result<()> {
        let is_known = |key: &str| self.found.contains_key(key);
        let new = read_results(folder, is_known, |result: &NodeResult| &result.key)?;
        let of_this_form = new.into_iter().filter(|result| result.format == FORMAT);
        let by_key = of_this_form.map(|result| (result.key.clone(), result));
        self.found.extend(by_key);
        Ok(())
    }

    /// The result of a run.
    pub fn of(&self, node: &Node) -> Option<&NodeResult> {
        self.found.get(&node.key)
    }

    /// Number of results.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Stores a result atomically. An existing one is kept.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, result: NodeResult) -> Result<()> {
        if self.found.contains_key(&result.key) {
            return Ok(());
        }
        write_result(&self.own, &result.key, &result)?;
        self.found.insert(result.key.clone(), result);
        Ok(())
    }
}

/// Reads the results `KEY.json` in a folder, but for those whose key is known.
///
/// # Errors
/// If the folder cannot be read, or a file in it is no result.
pub(crate) fn read_results<T: DeserializeOwned>(
    folder: &Path,
    is_known: impl Fn(&str) -> bool,
    key_of: impl Fn(&T) -> &str,
) -> Result<Vec<T>> {
    let io = |source| Error::Io {
        action: "read the results",
        path: folder.into(),
        source,
        help: "check the path and its permissions",
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        files.push(entry.map_err(io)?.path());
    }
    files.sort();
    let mut results = Vec::new();
    for path in files {
        let key = path.file_stem().unwrap_or_default().to_string_lossy();
        // A name with a dot in front is a file that is being written, or that a killed process was writing.
        let is_result = path.extension().is_some_and(|end| end == "json") && !key.starts_with('.');
        if !is_result || is_known(&key) {
            continue;
        }
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem: format!("not the result of a run: {problem}"),
            help: "remove the file, and the run is made again".into(),
        };
        let bytes = tokenformer_store::read_small(&path, MAX_BYTES)?;
        let result: T = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if key_of(&result) != key {
            return Err(damaged(format!("its key is {}", key_of(&result))));
        }
        results.push(result);
    }
    Ok(results)
}

/// Writes the result of a run as `KEY.json` into a folder, which is made if it is not there.
///
/// # Errors
/// If the file cannot be written, or a number is not finite.
pub(crate) fn write_result(folder: &Path, key: &str, result: &impl Serialize) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "make the folder of results",
        path: folder.to_owned(),
        source,
        help: "check the permissions, or choose another --out",
    })?;
    let mut text = serde_json::to_string(result).map_err(|e| Error::Damaged {
        path: folder.to_owned(),
        problem: format!("a result cannot be written: {e}"),
        help: "its run has diverged".into(),
    })?;
    text.push('\n');
    let path = folder.join(format!("{key}.json"));
    Ok(tokenformer_store::write_atomic(&path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_is_the_worst_mean_over_the_one_before() {
        let before = vec![2.0; 100];
        let mut after = vec![2.0; 200];
        assert_eq!(spike(&before, &after), Some(0.0));
        // Twenty losses of 3 in a row: half as much again.
        after[50..70].fill(3.0);
        assert_eq!(spike(&before, &after), Some(0.5));
        // Ten alone count half.
        after[60..70].fill(2.0);
        assert_eq!(spike(&before, &after), Some(0.25));
        // What comes later does not count.
        let mut late = vec![2.0; 300];
        late[200..].fill(9.0);
        assert_eq!(spike(&before, &late), Some(0.0));
        assert_eq!(spike(&before, &after[..19]), None);
    }

    #[test]
    fn kept_losses_are_the_ends_and_the_means() {
        let losses: Vec<f32> = (0..1005).map(|i| i as f32).collect();
        let [first, last, means] = kept(&losses);
        assert_eq!((first.len(), first[199]), (200, 199.0));
        assert_eq!((last.len(), last[0]), (100, 905.0));
        assert_eq!(means.len(), 101);
        assert_eq!((means[0], means[100]), (4.5, 1002.0));
    }

    #[test]
    fn held_out_losses_add_up_over_documents() {
        let ln2 = std::f64::consts::LN_2;
        let all = HeldOut::of(vec![(3.0 * ln2, 2, 4.0), (5.0 * ln2, 2, 12.0)]);
        assert_eq!(all.bits_per_byte, 0.5);
        assert_eq!(all.loss, 2.0 * ln2);
    }
}
