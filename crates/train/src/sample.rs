//! Continues a text.

use crate::continuation::{Continuation, encode_prompt};
use crate::error::{Error, Result};
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
    let (tokens, _) = encode_prompt(tokenizer, prompt)?;
    let sampler = Sampler::new(sampling)?;
    let mut session = Session::new(model, model.context())?;
    session.feed(&tokens)?;
    let mut continuation = Continuation::new(tokenizer, &tokens, sampler, max_tokens, &[]);
    let mut text = String::new();
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let piece = match continuation.next(session.logits(), session.tokens(), session.room()) {
            Ok(piece) => piece,
            // The training loop reports a divergence; here it only matters that no random text is produced.
            Err(Error::NotFinite { .. }) => {
                return Ok(Some(
                    text + &continuation.finish() + "[a logit is not finite]",
                ));
            }
            Err(error) => return Err(error),
        };
        text += &piece.text;
        match (piece.token, piece.end) {
            (Some(token), None) => session.feed(&[token])?,
            _ => return Ok(Some(text)),
        }
    }
}
