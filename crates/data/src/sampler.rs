//! Shuffled training windows as a pure function of (seed, tokens, position).
//!
//! An epoch cuts the tokens into windows of `context + 1` tokens at a distance of `context`, so that each token except
//! the first of a window is a target once. Every epoch starts cutting at another offset and visits the windows in
//! another order. Window `i` of the whole run is window `i mod W` in the order of epoch `i / W`. A batch holds the
//! windows from a position on and may cross the end of an epoch. No state is carried from one batch to the next:
//! resuming needs only the number of windows drawn so far, the batch size may change during a run, and parallel workers
//! can each take the windows of their own rank.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::permutation::{Permutation, ROUNDS};
use crate::tokens::TokenFile;

/// A sequence of token ids that windows are read from.
pub trait TokenSource {
    /// Number of tokens.
    fn token_count(&self) -> usize;

    /// Fills `tokens` with the ids starting at `start`.
    ///
    /// # Errors
    /// The range is not inside the sequence.
    fn read_tokens(&self, start: usize, tokens: &mut [u32]) -> Result<()>;
}

impl TokenSource for TokenFile {
    fn token_count(&self) -> usize {
        self.len()
    }

    fn read_tokens(&self, start: usize, tokens: &mut [u32]) -> Result<()> {
        self.read(start, tokens)
    }
}

impl TokenSource for [u32] {
    fn token_count(&self) -> usize {
        self.len()
    }

    fn read_tokens(&self, start: usize, tokens: &mut [u32]) -> Result<()> {
        let range = start
            .checked_add(tokens.len())
            .and_then(|end| self.get(start..end));
        let range = range.ok_or(Error::OutOfRange {
            start,
            len: tokens.len(),
            available: self.len(),
        })?;
        tokens.copy_from_slice(range);
        Ok(())
    }
}

impl TokenSource for Vec<u32> {
    fn token_count(&self) -> usize {
        self.as_slice().token_count()
    }

    fn read_tokens(&self, start: usize, tokens: &mut [u32]) -> Result<()> {
        self.as_slice().read_tokens(start, tokens)
    }
}

impl<S: TokenSource + ?Sized> TokenSource for &S {
    fn token_count(&self) -> usize {
        (**self).token_count()
    }

    fn read_tokens(&self, start: usize, tokens: &mut [u32]) -> Result<()> {
        (**self).read_tokens(start, tokens)
    }
}

impl<S: TokenSource + ?Sized> TokenSource for Arc<S> {
    fn token_count(&self) -> usize {
        (**self).token_count()
    }

    fn read_tokens(&self, start: usize, tokens: &mut [u32]) -> Result<()> {
        (**self).read_tokens(start, tokens)
    }
}

/// Inputs and targets of one step, both row-major `[batch, context]`. The target at a position is the token after the
/// input at that position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids that the model reads.
    pub inputs: Vec<u32>,
    /// Token ids that it predicts.
    pub targets: Vec<u32>,
    /// Number of windows.
    pub batch: usize,
    /// Tokens per window.
    pub context: usize,
}

impl Batch {
    /// A batch of zeros to fill.
    pub fn new(batch: usize, context: usize) -> Self {
        Self {
            inputs: vec![0; batch * context],
            targets: vec![0; batch * context],
            batch,
            context,
        }
    }
}

/// Draws batches of windows from a sequence of tokens.
///
/// ```
/// use tokenformer_data::WindowSampler;
///
/// let tokens: Vec<u32> = (0..100).collect();
/// let sampler = WindowSampler::new(tokens, 8, 42)?;
/// let four = sampler.batch_at(6, 4)?;
/// assert_eq!((four.inputs.len(), four.targets.len()), (32, 32));
/// assert_eq!(four.targets[0], four.inputs[0] + 1);
/// // The same windows, two at a time.
/// let (first, second) = (sampler.batch_at(6, 2)?, sampler.batch_at(8, 2)?);
/// assert_eq!(four.inputs, [first.inputs, second.inputs].concat());
/// # Ok::<(), tokenformer_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct WindowSampler<S> {
    source: S,
    context: usize,
    seed: u64,
    /// Windows in every epoch.
    windows: u64,
    /// Number of offsets that an epoch may start at, from 0.
    offsets: u64,
}

impl<S: TokenSource> WindowSampler<S> {
    /// A sampler of windows of `context` inputs each.
    ///
    /// # Errors
    /// A context of 0, or fewer than `context + 1` tokens.
    pub fn new(source: S, context: usize, seed: u64) -> Result<Self> {
        check_positive("--context", context)?;
        let tokens = source.token_count();
        check_length(tokens, context)?;
        // Number of windows that fit at the largest offset, `context - 1`, so that all epochs are equally long.
        let windows = (tokens - context) / context;
        let (windows, offsets) = match windows {
            0 => (1, tokens - context),
            _ => (windows, context),
        };
        Ok(Self {
            source,
            context,
            seed,
            windows: windows as u64,
            offsets: offsets as u64,
        })
    }

    /// `batch` windows of the run, starting at number `first`, in new buffers.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn batch_at(&self, first: u64, batch: usize) -> Result<Batch> {
        let mut filled = Batch::new(batch, self.context);
        self.fill(first, &mut filled)?;
        Ok(filled)
    }

    /// Fills `batch` with windows of the run, starting at number `first`; allocates only if the context differs.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn fill(&self, first: u64, batch: &mut Batch) -> Result<()> {
        let len = batch.batch * self.context;
        if batch.context != self.context || [batch.inputs.len(), batch.targets.len()] != [len; 2] {
            *batch = Batch::new(batch.batch, self.context);
        }
        let mut epoch = self.epoch(self.epoch_at(first));
        let first = u128::from(first);
        let inputs = batch.inputs.chunks_exact_mut(self.context);
        let targets = batch.targets.chunks_exact_mut(self.context);
        for (sample, (inputs, targets)) in (first..).zip(inputs.zip(targets)) {
            let number = (sample / u128::from(self.windows)) as u64;
            if number != epoch.number {
                epoch = self.epoch(number);
            }
            let window = epoch.order.at((sample % u128::from(self.windows)) as u64);
            let start = (epoch.offset + window * self.context as u64) as usize;
            self.source.read_tokens(start, inputs)?;
            self.source.read_tokens(start + 1, targets)?;
        }
        Ok(())
    }

    /// The epoch of window `window` of the run, from 0.
    pub fn epoch_at(&self, window: u64) -> u64 {
        window / self.windows
    }

    /// Windows per epoch, the same in every epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        self.windows
    }

    /// The source of the tokens.
    pub fn source(&self) -> &S {
        &self.source
    }

    fn epoch(&self, number: u64) -> Epoch {
        let mut hasher = blake3::Hasher::new_derive_key("tokenformer-data v1 window order");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        let mut bytes = [0; 8 * (ROUNDS + 1)];
        hasher.finalize_xof().fill(&mut bytes);
        let (numbers, _) = bytes.as_chunks();
        let keys = std::array::from_fn(|round| u64::from_le_bytes(numbers[round]));
        Epoch {
            number,
            offset: u64::from_le_bytes(numbers[ROUNDS]) % self.offsets,
            order: Permutation::new(self.windows, keys),
        }
    }
}

struct Epoch {
    number: u64,
    offset: u64,
    order: Permutation,
}

pub(crate) fn check_positive(option: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::Option {
            option,
            expected: "1 or more",
            got: "0".into(),
        });
    }
    Ok(())
}

pub(crate) fn check_length(tokens: usize, context: usize) -> Result<()> {
    if tokens <= context {
        return Err(Error::TooShort {
            expected_tokens: context.saturating_add(1),
            got_tokens: tokens,
            context_tokens: context,
        });
    }
    Ok(())
}
