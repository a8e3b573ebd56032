//! The results of an evaluation, for people and programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokenformer_report::table::Table;

use crate::error::Result;
use crate::task::Task;

/// A number and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The number: a share for accuracies.
    pub value: f64,
    /// Its standard error; none for a single question.
    pub stderr: Option<f64>,
}

/// The metrics of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task.
    pub task: Task,
    /// The file that its questions are from.
    pub file: String,
    /// Questions scored.
    pub questions: usize,
    /// Whether these are all questions of the reported split.
    pub is_whole_split: bool,
    /// Questions whose beginning was cut off, because the model has fewer positions.
    pub truncated: usize,
    /// Questions with characters that the tokenizer has no tokens for.
    pub lost: usize,
    /// `acc`, `acc_norm`, `perplexity`: those that the task has.
    pub metrics: BTreeMap<String, Metric>,
    /// The accuracy that published tables show.
    pub headline: String,
}

/// The outcome of an evaluation: what `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Hash of the model.
    pub model: String,
    /// Precision of the weights.
    pub precision: String,
    /// Questions whose scores are from an earlier call that was stopped.
    pub taken_over: usize,
    /// Fingerprint of the tokenizer.
    pub tokenizer: String,
    /// Positions of the model.
    pub context: usize,
    /// Questions taken from the beginning of each task, if not all.
    pub limit: Option<usize>,
    /// The tasks in the requested order.
    pub tasks: Vec<TaskResult>,
    /// Mean of the headline accuracies, if all six tasks were run.
    pub average: Option<f64>,
}

/// The mean of the headline accuracies, if all six tasks were run.
pub(crate) fn average(tasks: &[TaskResult]) -> Option<f64> {
    let found = Task::ALL.map(|task| {
        let result = tasks.iter().find(|result| result.task == task)?;
        Some(result.metrics.get(&result.headline)?.value)
    });
    let sum: f64 = found.iter().copied().sum::<Option<f64>>()?;
    Some(sum / found.len() as f64)
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["task", "questions", "metric", "value", "stderr"]);
        for result in &self.tasks {
            for (i, (name, metric)) in result.metrics.iter().enumerate() {
                let questions = match result.is_whole_split {
                    true => result.questions.to_string(),
                    false => format!("{} of {}", result.questions, result.task.rows()),
                };
                let stderr = metric.stderr.map(|s| format!("± {s:.4}"));
                table.row([
                    if i == 0 {
                        result.task.to_string()
                    } else {
                        String::new()
                    },
                    if i == 0 { questions } else { String::new() },
                    match *name == result.headline {
                        true => format!("* {name}"),
                        false => name.clone(),
                    },
                    format!("{:.4}", metric.value),
                    stderr.unwrap_or_default(),
                ]);
            }
        }
        if let Some(average) = self.average {
            let empty = String::new;
            let value = format!("{average:.4}");
            table.row(["average".into(), empty(), "*".into(), value, empty()]);
        }
        write!(f, "{table}")?;
        for result in &self.tasks {
            writeln!(f, "{}: {}", result.task, result.file)?;
        }
        if self.taken_over > 0 {
            writeln!(
                f,
                "The scores of {} questions are from an earlier call that was stopped.",
                self.taken_over
            )?;
        }
        let truncated: usize = self.tasks.iter().map(|task| task.truncated).sum();
        if truncated > 0 {
            let context = self.context;
            writeln!(
                f,
                "{truncated} questions are longer than the model's {context} tokens and lost their beginning."
            )?;
        }
        let lost: usize = self.tasks.iter().map(|task| task.lost).sum();
        if lost > 0 {
            writeln!(
                f,
                "{lost} questions have characters that the tokenizer drops or does not know."
            )?;
        }
        Ok(())
    }
}

/// One question's outcome: a line of `--samples`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The task.
    pub task: Task,
    /// Number of the row in its file, from 0.
    pub row: usize,
    /// The right choice.
    pub gold: usize,
    /// Log-likelihood of each choice.
    pub logliks: Vec<f64>,
    /// Tokens scored of each choice.
    pub tokens: Vec<usize>,
    /// Whether a beginning was cut off.
    pub truncated: bool,
    /// Characters, of all choices together, that the tokens do not represent.
    pub lost: u64,
    /// Whether it counts for `acc`.
    pub acc: bool,
    /// Whether it counts for `acc_norm`, if the task has that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<bool>,
}

/// Writes one JSON object per line, atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn write_samples(path: &Path, samples: &[Sample]) -> Result<()> {
    let mut text = String::new();
    for sample in samples {
        // Structs of strings and numbers: writing them to memory cannot fail.
        text += &serde_json::to_string(sample).expect("plain data with string keys serialises");
        text.push('\n');
    }
    Ok(tokenformer_store::write_atomic(path, text.as_bytes())?)
}
