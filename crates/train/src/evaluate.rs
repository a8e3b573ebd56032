//! Held-out loss.

use crate::error::{Error, Result};
use crate::ranks::any;
use crate::scored::{ScoredBytes, bits_per_byte};
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::device::{Collective, Single};
use tokenformer_core::{Graph, Model};
use tokenformer_data::{EvalWindow, EvalWindows, TokenFile, TokenSource};

/// How a text is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Windows of the context's length, side by side: the paper's protocol.
    Chunked,
    /// Windows that advance by a stride, scored on their new tokens.
    Sliding {
        /// Tokens by which a window advances.
        stride: usize,
    },
}

/// Share of the pictures whose class a model finds, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// As the class of the highest logit.
    pub top1: f64,
    /// Sharding those of the five highest.
    pub top5: f64,
}

/// Loss over a number of tokens, or pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss in nats per token, or picture; not finite if the model has diverged.
    pub loss: f64,
    /// What pictures have in place of a perplexity.
    pub accuracy: Option<Accuracy>,
    /// Tokens, or pictures, scored.
    pub tokens: u64,
    /// Bytes of text of the scored tokens; `None` if they are not known.
    pub bytes: Option<f64>,
    /// Bits of the scored tokens over their bytes; `None` if there are none, or they are not known.
    pub bits_per_byte: Option<f64>,
}

impl Evaluation {
    /// `e^loss`, of text.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Settings of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvalOptions {
    /// How the text is cut.
    pub protocol: Protocol,
    /// Length of the context, at most that of the model.
    pub context: usize,
    /// Windows per forward pass.
    pub batch: usize,
    /// Tokens to score, from the start; 0 for all.
    pub max_tokens: usize,
}

/// Returns an error if the held-out text of the dataset `dir` has too few tokens for a loss.
pub(crate) fn ensure_held_out(dir: &str, tokens: usize) -> Result<()> {
    if tokens >= 2 {
        return Ok(());
    }
    Err(Error::Recipe {
        place: format!("data.dir {dir}"),
        problem: "the held-out text is too short for a loss".into(),
        expected: "at least 2 tokens: one to read, and one to predict".into(),
        got: tokens.to_string(),
        help: "make the dataset again with `data prepare` and more text, or a larger --valid share"
            .into(),
    })
}

/// A text to be scored.
#[derive(Clone, Copy, Debug)]
pub struct HeldOut<'a, S: ?Sized = TokenFile> {
    /// The tokens.
    pub text: &'a S,
    /// The bytes that they represent.
    pub bytes: &'a ScoredBytes,
}

impl<S: TokenSource + ?Sized> HeldOut<'_, S> {
    /// Scores the text with `model`. `progress` is called with the number of tokens scored so far; `stop` is checked
    /// before each pass over [`EvalOptions::batch`] windows, and ends the evaluation without a result.
    ///
    /// # Errors
    /// If the model sees what it should predict, the text cannot be read, or the device fails.
    pub fn evaluate(
        &self,
        model: &Model,
        options: EvalOptions,
        stop: &AtomicBool,
        progress: impl FnMut(u64),
    ) -> Result<Option<Evaluation>> {
        self.evaluate_on_ranks(model, options, stop, progress, &Single)
    }

    /// As [`HeldOut::evaluate`], on all ranks at once: each passes its share of the windows, and all of them get the result,
    /// with the bits that one process gets.
    ///
    /// # Errors
    /// If the model sees what it should predict, the text cannot be read, or the device or a connection fails.
    pub fn evaluate_on_ranks(
        &self,
        model: &Model,
        options: EvalOptions,
        stop: &AtomicBool,
        mut progress: impl FnMut(u64),
        collective: &dyn Collective,
    ) -> Result<Option<Evaluation>> {
        model.ensure_causal()?;
        let context = options.context;
        let windows = match options.protocol {
            Protocol::Chunked => EvalWindows::chunked(self.text, context)?,
            Protocol::Sliding { stride } => EvalWindows::sliding(self.text, context, stride)?,
        };
        let mut sums = Sums::new(self.bytes, options.max_tokens);
        let mut group: Vec<EvalWindow> = Vec::new();
        // A group for each rank; with one rank they are scored one by one.
        let mut round: Vec<Vec<EvalWindow>> = Vec::new();
        for window in windows {
            let window = window?;
            // Windows of one length share a forward pass.
            let differs = (group.first()).is_some_and(|g| g.tokens.len() != window.tokens.len());
            if group.len() == options.batch || differs {
                round.push(std::mem::take(&mut group));
            }
            if round.len() == collective.world() {
                if any(collective, stop.load(Ordering::Relaxed))? {
                    return Ok(None);
                }
                sums.score_round(model, &mut round, collective)?;
                progress(sums.tokens);
                if sums.left() == 0 {
                    break;
                }
            }
            group.push(window);
        }
        if sums.left() > 0 {
            if any(collective, stop.load(Ordering::Relaxed))? {
                return Ok(None);
            }
            round.push(group);
            sums.score_round(model, &mut round, collective)?;
        }
        progress(sums.tokens);
        Ok(Some(sums.evaluation()))
    }
}

/// The sums so far.
struct Sums<'a> {
    scored_bytes: &'a ScoredBytes,
    /// Tokens to score, at most.
    limit: u64,
    nats: f64,
    tokens: u64,
    bytes: Option<f64>,
}

impl<'a> Sums<'a> {
    fn new(scored_bytes: &'a ScoredBytes, max_tokens: usize) -> Self {
        Self {
            scored_bytes,
            limit: match max_tokens {
                0 => u64::MAX,
                most => most as u64,
            },
            nats: 0.0,
            tokens: 0,
            bytes: Some(0.0),
        }
    }

    /// Tokens that may still be scored.
    fn left(&self) -> u64 {
        self.limit - self.tokens
    }

    /// Adds groups of windows, of which each rank passes one, in their order.
    fn score_round(
        &mut self,
        model: &Model,
        round: &mut Vec<Vec<EvalWindow>>,
        collective: &dyn Collective,
    ) -> Result<()> {
        let mut coming = Vec::new();
        for (rank, group) in round.iter().enumerate() {
            let losses = match rank == collective.rank() {
                true => losses(model, group)?,
                false => vec![0.0; rows(group)],
            };
            coming.push(collective.begin_broadcast(rank, losses)?);
        }
        for (group, coming) in round.drain(..).zip(coming) {
            self.score(&group, &coming.wait()?);
        }
        Ok(())
    }

    /// Adds windows of one length with the losses of their rows, stopping at the limit.
    fn score(&mut self, group: &[EvalWindow], nll: &[f32]) {
        let Some(t) = length(group) else {
            return;
        };
        let (inputs, targets) = inputs_and_targets(group, t);
        for (i, window) in group.iter().enumerate() {
            let start = i * t + window.first_scored - 1;
            let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
            let scored = start..((i + 1) * t).min(start.saturating_add(left));
            for &nll in &nll[scored.clone()] {
                self.nats += f64::from(nll);
            }
            self.tokens += scored.len() as u64;
            let bytes = self
                .scored_bytes
                .of(&inputs[scored.clone()], &targets[scored]);
            self.bytes = self.bytes.zip(bytes).map(|(sum, more)| sum + more);
        }
    }

    fn evaluation(&self) -> Evaluation {
        Evaluation {
            loss: self.nats / self.tokens as f64,
            accuracy: None,
            tokens: self.tokens,
            bytes: self.bytes,
            bits_per_byte: bits_per_byte(self.nats, self.bytes),
        }
    }
}

/// Rows of each window of a group; `None` if there are no windows.
fn length(group: &[EvalWindow]) -> Option<usize> {
    Some(group.first()?.tokens.len() - 1)
}

/// Rows of all windows of a group.
fn rows(group: &[EvalWindow]) -> usize {
    length(group).unwrap_or_default() * group.len()
}

fn inputs_and_targets(group: &[EvalWindow], t: usize) -> (Vec<u32>, Vec<u32>) {
    let inputs = group.iter().flat_map(|w| &w.tokens[..t]).copied();
    let targets = group.iter().flat_map(|w| &w.tokens[1..]).copied();
    (inputs.collect(), targets.collect())
}

/// The losses of the rows of a group.
fn losses(model: &Model, group: &[EvalWindow]) -> Result<Vec<f32>> {
    let Some(t) = length(group) else {
        return Ok(Vec::new());
    };
    let (inputs, targets) = inputs_and_targets(group, t);
    let mut g = Graph::inference(model.device());
    Ok(model.loss(&mut g, &inputs, &targets, group.len(), 0.0)?)
}
