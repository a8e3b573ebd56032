//! Held-out loss.

use crate::error::Result;
use tokenformer_core::{Graph, Model};
use tokenformer_data::{EvalWindow, EvalWindows, TokenFile};

/// How a text is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Windows of the context's length, side by side: the paper's protocol.
    Chunked,
    /// Windows that advance by a stride, scored on what is new in them.
    Sliding {
        /// Tokens by which a window advances.
        stride: usize,
    },
}

/// Loss over a number of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss in nats per token.
    pub loss: f64,
    /// Tokens scored.
    pub tokens: u64,
    /// Bits per byte of the text; `None` if the bytes are not known.
    pub bits_per_byte: Option<f64>,
}

impl Evaluation {
    /// `e^loss`.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Settings of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvalOptions {
    /// How the text is cut.
    pub protocol: Protocol,
    /// Tokens that the model may look back, at most its own context.
    pub context: usize,
    /// Windows per forward pass.
    pub batch: usize,
    /// Tokens to score, from the start; 0 for all.
    pub max_tokens: usize,
}

/// Scores `text` with `model`. `progress` is told the number of tokens scored so far.
///
/// # Errors
/// If the text cannot be read, or the device fails.
pub fn evaluate(
    model: &Model,
    text: &TokenFile,
    options: EvalOptions,
    mut progress: impl FnMut(u64),
) -> Result<Evaluation> {
    let windows = match options.protocol {
        Protocol::Chunked => EvalWindows::chunked(text, options.context)?,
        Protocol::Sliding { stride } => EvalWindows::sliding(text, options.context, stride)?,
    };
    let limit = if options.max_tokens == 0 {
        u64::MAX
    } else {
        options.max_tokens as u64
    };
    let (mut sum, mut tokens) = (0.0f64, 0u64);
    let mut group: Vec<EvalWindow> = Vec::new();
    for window in windows {
        let window = window?;
        // Windows of one length share a forward pass.
        let differs = group
            .first()
            .is_some_and(|g| g.tokens.len() != window.tokens.len());
        if group.len() == options.batch || differs {
            score(model, &group, limit, &mut sum, &mut tokens)?;
            group.clear();
            progress(tokens);
            if tokens >= limit {
                break;
            }
        }
        group.push(window);
    }
    if tokens < limit {
        score(model, &group, limit, &mut sum, &mut tokens)?;
    }
    progress(tokens);
    let loss = sum / tokens as f64;
    let bytes_per_token = text.text_bytes() as f64 / text.len() as f64;
    let bits_per_byte =
        (text.text_bytes() > 0).then(|| loss / std::f64::consts::LN_2 / bytes_per_token);
    Ok(Evaluation {
        loss,
        tokens,
        bits_per_byte,
    })
}

/// Adds the losses of windows of one length, stopping at `limit` tokens.
fn score(
    model: &Model,
    group: &[EvalWindow],
    limit: u64,
    sum: &mut f64,
    tokens: &mut u64,
) -> Result<()> {
    let Some(first) = group.first() else {
        return Ok(());
    };
    let t = first.tokens.len() - 1;
    let inputs: Vec<u32> = group.iter().flat_map(|w| &w.tokens[..t]).copied().collect();
    let targets: Vec<u32> = group.iter().flat_map(|w| &w.tokens[1..]).copied().collect();
    let mut g = Graph::inference(model.device());
    let nll = model.loss(&mut g, &inputs, &targets, group.len(), 0.0)?;
    for (window, nll) in group.iter().zip(nll.chunks_exact(t)) {
        for nll in &nll[window.first_scored - 1..] {
            if *tokens == limit {
                return Ok(());
            }
            *sum += f64::from(*nll);
            *tokens += 1;
        }
    }
    Ok(())
}
