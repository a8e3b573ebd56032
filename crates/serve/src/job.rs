//! A text to continue, and the events that report its progress.

use tokenformer_core::generate::Sampling;
use tokenformer_train::End;
use tokio::sync::mpsc::UnboundedSender;

/// A text to continue.
#[derive(Debug)]
pub struct Job {
    /// Number of the model.
    pub model: usize,
    /// The newest stage whose parameter tokens take part; `None` for all.
    pub newest_stage: Option<u32>,
    /// At least one token, at most as many as the model's context.
    pub prompt: Vec<u32>,
    /// New tokens, at most.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Numbers added to the logits of some tokens.
    pub bias: Vec<(u32, f32)>,
    /// Texts that end it.
    pub stops: Vec<String>,
    /// How many of the likeliest tokens are reported for each chosen one; `None` for no probabilities at all.
    pub alternatives: Option<usize>,
    /// Whether the probabilities of the prompt's tokens are reported too.
    pub scores_prompt: bool,
    /// Number of the text within its request.
    pub index: usize,
    /// Takes the events. They are at most as many as the context has tokens, so a reader who is slow costs no more
    /// memory than that. Once its receiver is gone the text is dropped.
    pub events: UnboundedSender<(usize, Event)>,
}

/// The probability of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: u32,
    /// `ln p` over the whole vocabulary, before temperature and bias; `None` for the first token of a prompt.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place, with their `ln p`.
    pub top: Vec<(u32, f32)>,
}

/// What is reported of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The tokens of the prompt with their probabilities.
    Prompt(Vec<TokenLogprobs>),
    /// A new token, the end of the document included.
    Token {
        /// The token.
        token: u32,
        /// The text that is certain now.
        text: String,
        /// Its probability, if asked for.
        token_logprob: Option<TokenLogprobs>,
    },
    /// The end, with the text that was still held back.
    End(End, String),
    /// It waited too long for its turn.
    Busy,
    /// The model failed.
    Failed(String),
}
