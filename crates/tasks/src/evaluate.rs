//! Runs an evaluation from task files to results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use tokenformer_data::Tokenizer;

use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::labels;
use crate::metrics::{argmax, mean, mean_stderr, perplexity, perplexity_stderr};
use crate::partial::{Partial, key};
use crate::plan::shared;
use crate::results::{Metric, Results, Sample, TaskResult, average};
use crate::rows;
use crate::score::{Request, Scored, Scorer};
use crate::task::{Kind, Question, Task};

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tasks and their files; see [`crate::locate`].
    pub tasks: Vec<(Task, PathBuf)>,
    /// Uses only the first questions of each task.
    pub limit: Option<usize>,
    /// Hash of the model's weights and configuration: finished questions belong to it.
    pub model_hash: String,
    /// Precision of the weights, on which scores depend.
    pub precision: String,
    /// The kind of device that computes, such as `cpu`: another one sums in another order.
    pub device: String,
    /// The program that computes, in its version: another one can give other scores.
    pub program: String,
}

/// The progress of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Questions finished, including those of an earlier call.
    pub done: usize,
    /// Total number of questions.
    pub total: usize,
}

/// How an evaluation ended.
#[derive(Debug)]
pub enum Outcome {
    /// All questions are scored.
    Finished {
        /// The metrics.
        results: Results,
        /// Each question, in the order of tasks and rows.
        samples: Vec<Sample>,
    },
    /// The flag was set before the end.
    Stopped(Progress),
}

/// A question and its scores so far.
struct Item {
    task: Task,
    row: usize,
    location: String,
    question: Question,
    requests: Vec<Request>,
    key: String,
    scores: Option<Vec<Scored>>,
}

/// Input tokens that are scored between two checks of the stop flag.
const CHUNK_TOKENS: usize = 2048;

/// Evaluates a model on tasks. `progress` is called at the start and after each part; when `stop` is set
/// the evaluation ends after the part that runs. With `partial` a later call continues where this one stopped;
/// after the last, the caller ends that by [`Partial::finish`].
///
/// # Errors
/// If a task file is missing or malformed, a question does not fit the model, or the model fails.
pub fn evaluate(
    options: &Options,
    tokenizer: &Tokenizer,
    scorer: &mut dyn Scorer,
    mut partial: Option<&mut Partial>,
    progress: &mut dyn FnMut(Progress),
    stop: &AtomicBool,
) -> Result<Outcome> {
    let context = scorer.context();
    let encoder = Encoder { tokenizer, context };
    let mut items = Vec::new();
    for (task, path) in &options.tasks {
        let mut rows = rows::read(path, options.limit)?;
        let is_whole = options.limit.is_none_or(|limit| rows.len() < limit);
        labels::add(*task, path, &mut rows, is_whole)?;
        let made: Vec<Result<Item>> = (rows.par_iter())
            .map(|row| item(options, &encoder, *task, row))
            .collect();
        // In the order of rows, so that it is always the first wrong one that is named.
        items.extend(made.into_iter().collect::<Result<Vec<_>>>()?);
    }
    if let Some(partial) = &mut partial {
        for item in &mut items {
            item.scores = partial.take(&item.key, &item.requests);
        }
    }
    let taken_over = items.iter().filter(|item| item.scores.is_some()).count();

    let mut state = Progress {
        done: taken_over,
        total: items.len(),
    };
    progress(state);
    let mut waiting: Vec<&mut Item> = items.iter_mut().filter(|i| i.scores.is_none()).collect();
    // Neighbours in this order share a batch. The longest come first, so that a lack of memory is noticed early.
    waiting.sort_by_key(|item| {
        let longest = item.requests.iter().map(|r| r.tokens.len()).max();
        std::cmp::Reverse((shared(&item.requests), longest))
    });
    let mut rest = waiting.as_mut_slice();
    while !rest.is_empty() {
        if stop.load(Ordering::Relaxed) {
            return Ok(Outcome::Stopped(state));
        }
        let count = chunk_len(rest, CHUNK_TOKENS * scorer.ranks());
        let (chunk, others) = rest.split_at_mut(count);
        score(chunk, scorer)?;
        if let Some(partial) = &mut partial {
            let done = chunk
                .iter()
                .filter_map(|i| Some((&*i.key, i.scores.as_deref()?)));
            partial.add(done);
        }
        state.done += count;
        progress(state);
        rest = others;
    }

    let samples: Vec<Sample> = items.iter().filter_map(sample).collect();
    let tasks = (options.tasks.iter())
        .map(|(task, path)| task_result(*task, path, &samples))
        .collect::<Vec<_>>();
    let results = Results {
        model: options.model_hash.clone(),
        precision: options.precision.clone(),
        taken_over,
        tokenizer: tokenizer.fingerprint(),
        context,
        limit: options.limit,
        average: average(&tasks),
        tasks,
    };
    Ok(Outcome::Finished { results, samples })
}

fn item(options: &Options, encoder: &Encoder<'_>, task: Task, row: &rows::Row) -> Result<Item> {
    let question = task.question(row)?;
    let requests = encoder.question(&question, task.kind() == Kind::Word, 0, &row.location)?;
    let settings = [
        &*options.model_hash,
        &*options.precision,
        &*options.device,
        &*options.program,
        &*encoder.context.to_string(),
    ];
    Ok(Item {
        task,
        row: row.index,
        location: row.location.clone(),
        key: key(&settings, task, row.index, &requests),
        question,
        requests,
        scores: None,
    })
}

/// Questions of the next part, at least one.
fn chunk_len(items: &[&mut Item], most: usize) -> usize {
    let mut tokens = 0usize;
    let fit = items.iter().take_while(|item| {
        tokens += item.requests.iter().map(|r| r.tokens.len()).sum::<usize>();
        tokens <= most
    });
    fit.count().max(1)
}

/// Scores questions in one call of the scorer.
fn score(items: &mut [&mut Item], scorer: &mut dyn Scorer) -> Result<()> {
    let numbered = items.iter().enumerate().flat_map(|(group, item)| {
        let requests = item.requests.iter().cloned();
        requests.map(move |request| Request { group, ..request })
    });
    let requests: Vec<Request> = numbered.collect();
    let scores = scorer.score(&requests)?;
    if scores.len() != requests.len() {
        return Err(Error::Scorer {
            expected: requests.len(),
            got: scores.len(),
        });
    }
    let mut scores = scores.into_iter();
    for item in items {
        let own: Vec<Scored> = scores.by_ref().take(item.requests.len()).collect();
        if let Some(bad) = own.iter().find(|scored| !scored.loglik.is_finite()) {
            return Err(Error::NotFinite {
                location: item.location.clone(),
                got: bad.loglik,
            });
        }
        item.scores = Some(own);
    }
    Ok(())
}

/// The result of a question.
fn sample(item: &Item) -> Option<Sample> {
    let scores = item.scores.as_deref()?;
    let Question { gold, lengths, .. } = &item.question;
    let best = argmax(scores.iter().map(|s| s.loglik));
    let per_character = scores.iter().zip(lengths);
    let best_norm = argmax(per_character.map(|(s, &length)| s.loglik / length as f64));
    let (acc, acc_norm) = match item.task.kind() {
        Kind::Word => (scores.first()?.greedy == Some(true), None),
        Kind::Choice { has_norm } => (best == *gold, has_norm.then_some(best_norm == *gold)),
    };
    Some(Sample {
        task: item.task,
        row: item.row,
        gold: *gold,
        logliks: scores.iter().map(|s| s.loglik).collect(),
        tokens: item.requests.iter().map(|r| r.scored).collect(),
        truncated: item.requests.iter().any(|r| r.truncated),
        lost: item.requests.iter().map(|r| r.lost).sum(),
        acc,
        acc_norm,
    })
}

/// The metrics of the samples of a task.
fn task_result(task: Task, path: &Path, samples: &[Sample]) -> TaskResult {
    let samples: Vec<&Sample> = samples.iter().filter(|s| s.task == task).collect();
    let share = |is_right: &dyn Fn(&Sample) -> bool| {
        let hits: Vec<f64> = samples
            .iter()
            .map(|s| f64::from(u8::from(is_right(s))))
            .collect();
        Metric {
            value: mean(&hits),
            stderr: mean_stderr(&hits),
        }
    };
    let mut metrics = BTreeMap::from([("acc".to_owned(), share(&|s| s.acc))]);
    match task.kind() {
        Kind::Choice { has_norm: true } => {
            metrics.insert("acc_norm".into(), share(&|s| s.acc_norm == Some(true)));
        }
        Kind::Choice { has_norm: false } => {}
        Kind::Word => {
            let logliks: Vec<f64> = samples
                .iter()
                .flat_map(|s| s.logliks.first())
                .copied()
                .collect();
            let metric = Metric {
                value: perplexity(&logliks),
                stderr: perplexity_stderr(&logliks),
            };
            metrics.insert("perplexity".into(), metric);
        }
    }
    TaskResult {
        task,
        file: path.display().to_string(),
        questions: samples.len(),
        is_whole_split: samples.len() == task.rows(),
        truncated: samples.iter().filter(|s| s.truncated).count(),
        lost: samples.iter().filter(|s| s.lost > 0).count(),
        metrics,
        headline: task.headline().into(),
    }
}
