//! Continues a text.

use crate::error::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::Model;
use tokenformer_core::generate::{Sampler, Sampling, Session};
use tokenformer_data::Tokenizer;

/// Text of up to `max_tokens` new tokens after `prompt`; ends earlier at the end of a document or when the
/// context is full, or where a logit is not finite, which the text then says. An empty prompt starts a document.
/// `stop` is checked before each token; `None` if it was set.
///
/// # Errors
/// If the prompt cannot be encoded or is longer than the context, or the device fails.
pub fn continue_text(
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &str,
    max_tokens: usize,
    sampling: Sampling,
    stop: &AtomicBool,
) -> Result<Option<String>> {
    let eod = tokenizer.eod();
    let mut tokens = tokenizer.encode(prompt)?;
    if tokens.is_empty() {
        tokens.push(eod.unwrap_or(0));
    }
    let mut sampler = Sampler::new(sampling)?;
    let mut session = Session::new(model, model.context())?;
    session.feed(&tokens)?;
    let mut decoder = tokenizer.decode_stream_after(&tokens);
    let mut text = String::new();
    for _ in 0..max_tokens {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // The training loop reports a divergence; here it only matters that no random text is produced.
        if !session.logits().iter().all(|logit| logit.is_finite()) {
            text += "[a logit is not finite]";
            break;
        }
        let token = sampler.choose(session.logits(), session.tokens());
        if Some(token) == eod {
            break;
        }
        text += &decoder.push(token);
        if session.room() == 0 {
            break;
        }
        session.feed(&[token])?;
    }
    text += &decoder.finish();
    Ok(Some(text))
}
