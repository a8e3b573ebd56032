//! A text being continued, token by token: what `generate`, the samples of runs and the server share.

use crate::error::Result;
use crate::finite::ensure_finite;
use tokenformer_core::generate::{Sampler, StopFilter};
use tokenformer_data::{DecodeStream, Losses, Tokenizer};

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended the document.
    Document,
    /// A stop text appeared; it is not part of the text.
    Stop,
    /// There are as many new tokens as were asked for.
    Length,
    /// No further token fits.
    Context,
}

/// What came of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token that was chosen, also if it is the end of the document; `None` if the text ended without one.
    pub token: Option<u32>,
    /// The text that is certain now: characters whose last byte has come, and that no stop text may begin with.
    pub text: String,
    /// Why the text ends here, if it does. If it does not, the caller feeds the token to the model.
    pub end: Option<End>,
}

/// The tokens of a prompt, and what they leave out of it. An empty prompt starts a document.
///
/// # Errors
/// If the prompt cannot be encoded.
pub fn encode_prompt(tokenizer: &Tokenizer, prompt: &str) -> Result<(Vec<u32>, Losses)> {
    let (mut tokens, losses) = tokenizer.encode_counted(prompt)?;
    if tokens.is_empty() {
        tokens.push(tokenizer.eod().unwrap_or(0));
    }
    Ok((tokens, losses))
}

/// A text being continued: which token comes next, what text that makes, and whether it ends there.
pub struct Continuation<'t> {
    sampler: Sampler,
    /// `None` once the text has ended.
    decoder: Option<DecodeStream<'t>>,
    filter: StopFilter,
    end_of_document: Option<u32>,
    /// Tokens of the tokenizer.
    vocab: usize,
    left: usize,
}

impl<'t> Continuation<'t> {
    /// Up to `max_tokens` new tokens after the tokens `prompt`, up to the first of the texts `stops`.
    pub fn new(
        tokenizer: &'t Tokenizer,
        prompt: &[u32],
        sampler: Sampler,
        max_tokens: usize,
        stops: &[String],
    ) -> Self {
        Self {
            sampler,
            decoder: Some(tokenizer.decode_stream_after(prompt)),
            filter: StopFilter::new(stops),
            end_of_document: tokenizer.eod(),
            vocab: tokenizer.vocab_size(),
            left: max_tokens,
        }
    }

    /// Chooses the token that follows `tokens` by their `logits` `[V]`; `room` more tokens can be fed to the model.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] if a logit is not finite.
    pub fn next(&mut self, logits: &[f32], tokens: &[u32], room: usize) -> Result<Piece> {
        if self.left == 0 {
            return Ok(self.ended(None, String::new(), End::Length));
        }
        ensure_finite(logits, |token| {
            format!("the logit of token {token} after {} tokens", tokens.len())
        })?;
        // Rows of the head beyond the tokenizer's tokens, such as padding to a round number, have no text.
        let with_text = &logits[..logits.len().min(self.vocab)];
        let token = self.sampler.choose(with_text, tokens);
        if Some(token) == self.end_of_document {
            return Ok(self.ended(Some(token), String::new(), End::Document));
        }
        self.left -= 1;
        let decoded = self.decoder.as_mut().map(|decoder| decoder.push(token));
        let (text, is_stopped) = self.filter.push(&decoded.unwrap_or_default());
        let end = match () {
            () if is_stopped => End::Stop,
            () if self.left == 0 => End::Length,
            () if room == 0 => End::Context,
            () => {
                return Ok(Piece {
                    token: Some(token),
                    text,
                    end: None,
                });
            }
        };
        Ok(self.ended(Some(token), text, end))
    }

    fn ended(&mut self, token: Option<u32>, text: String, end: End) -> Piece {
        let text = text + &self.finish();
        Piece {
            token,
            text,
            end: Some(end),
        }
    }

    /// What is still held back, for a text that is broken off.
    pub fn finish(&mut self) -> String {
        let rest = self.decoder.take().map(DecodeStream::finish);
        let (text, _) = self.filter.push(&rest.unwrap_or_default());
        text + &self.filter.finish()
    }
}
