//! Windows that score every token of a text exactly once, except the first.

use crate::error::{Error, Result};
use crate::sampler::{TokenSource, check_length, check_positive};

/// One window. A model reads `tokens` without the last one and is scored on `tokens[first_scored..]`, which its outputs
/// from position `first_scored - 1` on predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalWindow {
    /// Index of the first token in the text.
    pub start: usize,
    /// Between 2 and `context + 1` token ids.
    pub tokens: Vec<u32>,
    /// Position in `tokens` of the first scored one, at least 1.
    pub first_scored: usize,
}

/// Iterates over the windows of a text, in order.
///
/// ```
/// use tokenformer_data::EvalWindows;
///
/// let text = vec![10, 11, 12, 13, 14];
/// let windows: Vec<_> = EvalWindows::sliding(text, 3, 1)?.collect::<Result<_, _>>()?;
/// assert_eq!(windows[0].tokens, [10, 11, 12, 13]);
/// assert_eq!(windows[0].first_scored, 1);
/// assert_eq!(windows[1].tokens, [11, 12, 13, 14]);
/// assert_eq!(windows[1].first_scored, 3);
/// # Ok::<(), tokenformer_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EvalWindows<S> {
    source: S,
    len: usize,
    context: usize,
    stride: usize,
    keeps_context: bool,
    /// Tokens scored so far, plus the first one, which is never scored.
    done: usize,
}

impl<S: TokenSource> EvalWindows<S> {
    /// Adjacent windows of `context` targets each; the last one may be shorter. This is the cheapest way, but tokens
    /// early in a window are predicted from little context.
    ///
    /// # Errors
    /// A context of 0, or fewer than 2 tokens.
    pub fn chunked(source: S, context: usize) -> Result<Self> {
        Self::new(source, context, context, false)
    }

    /// Windows at a distance of `stride`. Each window after the first one scores its last `stride` tokens, so that
    /// every scored token is predicted from at least `context - stride + 1` tokens.
    ///
    /// # Errors
    /// A context of 0, a stride outside `1..=context`, or fewer than 2 tokens.
    pub fn sliding(source: S, context: usize, stride: usize) -> Result<Self> {
        Self::new(source, context, stride, true)
    }

    fn new(source: S, context: usize, stride: usize, keeps_context: bool) -> Result<Self> {
        check_positive("--context", context)?;
        if !(1..=context).contains(&stride) {
            return Err(Error::Option {
                option: "--stride",
                expected: "1 up to the context",
                got: stride.to_string(),
            });
        }
        let len = source.token_count();
        check_length(len, 1)?;
        Ok(Self {
            source,
            len,
            context,
            stride,
            keeps_context,
            done: 1,
        })
    }

    /// Number of tokens scored over all windows: all but the first.
    pub fn scored_tokens(&self) -> usize {
        self.len - 1
    }
}

impl<S: TokenSource> Iterator for EvalWindows<S> {
    type Item = Result<EvalWindow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done >= self.len {
            return None;
        }
        let step = if self.done == 1 {
            self.context
        } else {
            self.stride
        };
        let end = self.done.saturating_add(step).min(self.len);
        let start = if self.keeps_context {
            end.saturating_sub(self.context.saturating_add(1))
        } else {
            self.done - 1
        };
        let mut tokens = vec![0; end - start];
        let window = self
            .source
            .read_tokens(start, &mut tokens)
            .map(|()| EvalWindow {
                start,
                tokens,
                first_scored: self.done - start,
            });
        self.done = end;
        Some(window)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len.saturating_sub(self.done);
        let windows = match self.done {
            1 => 1 + left.saturating_sub(self.context).div_ceil(self.stride),
            _ => left.div_ceil(self.stride),
        };
        (windows, Some(windows))
    }
}

impl<S: TokenSource> ExactSizeIterator for EvalWindows<S> {}
