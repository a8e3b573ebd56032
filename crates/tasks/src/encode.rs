//! Encodes texts as tokens and decides which of them are scored.
//!
//! 1. White space at the end of the context moves to the front of the continuation.
//! 2. Context + continuation are encoded as one text, and the context alone; the tokens beyond the
//!    context's count are those of the continuation. An empty context is the end-of-document token.
//! 3. The last `context + 1` tokens are kept: the final one is only a target.

use tokenformer_data::Tokenizer;

use crate::error::{Error, Result};
use crate::python::rstrip;
use crate::score::Request;
use crate::task::{Pair, Question};

/// A tokenizer and the positions of a model.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// Encodes the texts.
    pub tokenizer: &'a Tokenizer,
    /// Positions that the model can attend to.
    pub context: usize,
}

/// A context as tokens, reused if the next pair has the same context.
type Known<'a> = Option<(&'a str, Vec<u32>)>;

impl Encoder<'_> {
    /// The requests of a question, one per pair, all of the group `group`.
    ///
    /// # Errors
    /// As [`Encoder::pair`].
    pub fn question(
        &self,
        question: &Question,
        greedy: bool,
        group: usize,
        location: &str,
    ) -> Result<Vec<Request>> {
        let mut known = None;
        (question.pairs.iter())
            .map(|pair| {
                let mut request = self.encode(pair, location, &mut known)?;
                (request.greedy, request.group) = (greedy, group);
                Ok(request)
            })
            .collect()
    }

    /// The request of a pair, in group 0 and without the greedy flag; `location` is for messages.
    ///
    /// # Errors
    /// If the continuation has no tokens, or more than the model has positions, or the
    /// context is empty and the tokenizer has no end-of-document token.
    pub fn pair(&self, pair: &Pair, location: &str) -> Result<Request> {
        self.encode(pair, location, &mut None)
    }

    fn encode<'p>(&self, pair: &'p Pair, location: &str, known: &mut Known<'p>) -> Result<Request> {
        let context = rstrip(&pair.context);
        let text = format!("{}{}", pair.context, pair.continuation);
        let (whole, losses) = self.tokenizer.encode_counted(&text)?;
        let mut tokens = match known.take() {
            Some((text, tokens)) if text == context => tokens,
            _ if context.is_empty() => vec![self.end_of_document(location)?],
            _ => self.tokenizer.encode(context)?,
        };
        *known = Some((context, tokens.clone()));

        let context_tokens = if context.is_empty() { 0 } else { tokens.len() };
        let continuation = whole.get(context_tokens..).unwrap_or_default();
        let scored = continuation.len();
        if scored == 0 || scored > self.context {
            return Err(Error::Malformed {
                location: location.into(),
                problem: "a continuation cannot be scored".into(),
                expected: format!("1 to {} tokens, the model's context", self.context).into(),
                got: format!("{scored} tokens").into(),
                help: "evaluate a model with a longer context, or leave the row out".into(),
            });
        }
        tokens.extend(continuation);
        let dropped = tokens.len().saturating_sub(self.context.saturating_add(1));
        tokens.drain(..dropped);
        Ok(Request {
            group: 0,
            tokens,
            scored,
            greedy: false,
            truncated: dropped > 0,
            lost: losses.characters(),
        })
    }

    fn end_of_document(&self, location: &str) -> Result<u32> {
        self.tokenizer.eod().ok_or_else(|| Error::Malformed {
            location: location.into(),
            problem: "an empty context".into(),
            expected: "a context, or a tokenizer with an end-of-document token".into(),
            got: self.tokenizer.describe().into(),
            help: "leave the row out, or add <|endoftext|> to the tokenizer".into(),
        })
    }
}
