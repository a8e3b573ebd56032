//! Requests of tokens, and the trait that scores them.

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Tokens of which the last few are scored, given those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Neighbours of one group are choices of one question and likely begin with the same tokens.
    pub group: usize,
    /// Context and continuation, `scored + 1` or more; all but the last are fed to the model.
    pub tokens: Vec<u32>,
    /// Tokens of the continuation, at least one.
    pub scored: usize,
    /// Whether [`Scored::greedy`] is wanted, which costs a little.
    pub greedy: bool,
    /// Whether tokens were left out at the beginning, because the model has fewer positions.
    pub truncated: bool,
    /// Characters of the text that the tokens do not represent.
    pub lost: u64,
}

impl Request {
    /// What is fed to the model.
    pub fn inputs(&self) -> &[u32] {
        self.tokens.split_last().map_or(&[], |(_, inputs)| inputs)
    }

    /// What is scored.
    pub fn targets(&self) -> &[u32] {
        let from = self.tokens.len().saturating_sub(self.scored);
        self.tokens.get(from..).unwrap_or_default()
    }

    /// The position of the inputs that predicts the first target.
    pub fn first_scored(&self) -> usize {
        self.inputs().len().saturating_sub(self.scored)
    }
}

/// The scores of a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// `Σ ln p` of the scored tokens, over the whole vocabulary.
    pub loglik: f64,
    /// Whether each scored token is the likeliest one (of equals, the first); if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<bool>,
}

/// The interface of a language model for evaluation.
pub trait Scorer {
    /// Positions that it can attend to.
    fn context(&self) -> usize;

    /// Processes that share the work of a call, which are given correspondingly more at once.
    fn ranks(&self) -> usize {
        1
    }

    /// Scores `requests`, each with at most [`Scorer::context`] inputs; answers in their order.
    ///
    /// # Errors
    /// If a token is unknown or the model fails.
    fn score(&mut self, requests: &[Request]) -> Result<Vec<Scored>>;
}
