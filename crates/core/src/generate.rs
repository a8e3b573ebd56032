//! Text generation: decoding with a cache, and choosing the next token.

use crate::cache::Cache;
use crate::error::{Result, config_error};
use crate::graph::Graph;
use crate::init;
use crate::model::Model;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

pub use crate::model::each::Feed;
pub use crate::stop::StopFilter;

/// How the next token is chosen. The steps apply in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides positive logits and multiplies negative ones of tokens that occurred before; 1 is off.
    pub repetition_penalty: f32,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens; 0 is off.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability; 1 is off.
    pub top_p: f32,
    /// Drops tokens less likely than this share of the likeliest; 0 is off.
    pub min_p: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            temperature: 0.8,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for the first setting out of range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                "repetition_penalty",
                self.repetition_penalty,
                (0.01..=100.0).contains(&self.repetition_penalty),
                "from 0.01 to 100",
            ),
            (
                "temperature",
                self.temperature,
                self.temperature >= 0.0,
                "0 or more",
            ),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "above 0, at most 1",
            ),
            (
                "min_p",
                self.min_p,
                (0.0..1.0).contains(&self.min_p),
                "from 0 to below 1",
            ),
        ];
        for (name, got, fine, expected) in checks {
            if !fine || !got.is_finite() {
                return Err(config_error(
                    name,
                    expected,
                    got,
                    "see `tokenformer generate --help`",
                ));
            }
        }
        Ok(())
    }
}

/// Number of tokens that are put in order without looking for a smaller part first.
const ORDERED: usize = 64;

/// Chooses tokens from logits.
#[derive(Debug)]
pub struct Sampler {
    settings: Sampling,
    rng: ChaCha8Rng,
    bias: Vec<(u32, f32)>,
    candidates: Vec<(f32, u32)>,
    around: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// As [`Sampling::validate`].
    pub fn new(settings: Sampling) -> Result<Self> {
        settings.validate()?;
        let rng = init::stream(settings.seed, "sampling");
        Ok(Self {
            settings,
            rng,
            bias: Vec::new(),
            candidates: Vec::new(),
            around: Vec::new(),
        })
    }

    /// The same, with a number added to the logits of some tokens before everything else.
    pub fn with_bias(self, bias: Vec<(u32, f32)>) -> Self {
        Self { bias, ..self }
    }

    /// Chooses a token from `logits` `[V]`; `seen` are the tokens so far. Ties go to the lower number.
    pub fn choose(&mut self, logits: &[f32], seen: &[u32]) -> u32 {
        let s = &self.settings;
        let found = &mut self.candidates;
        found.clear();
        found.extend(logits.iter().zip(0..).map(|(&l, i)| (l, i)));
        for &(token, bias) in &self.bias {
            if let Some((logit, _)) = found.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if s.repetition_penalty != 1.0 {
            let mut seen: Vec<u32> = seen.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for &token in &seen {
                if let Some((logit, _)) = found.get_mut(token as usize) {
                    *logit = if *logit > 0.0 {
                        *logit / s.repetition_penalty
                    } else {
                        *logit * s.repetition_penalty
                    };
                }
            }
        }
        if s.temperature == 0.0 {
            let first = found.iter().copied().min_by(order);
            return first.map_or(0, |(_, token)| token);
        }
        if s.top_k > 0 && s.top_k < found.len() {
            found.select_nth_unstable_by(s.top_k - 1, order);
            found.truncate(s.top_k);
        }
        let max = found.iter().map(|f| f.0).max_by(f32::total_cmp);
        let mut total = 0.0f64;
        for (logit, _) in found.iter_mut() {
            *logit = ((*logit - max.unwrap_or(0.0)) / s.temperature).exp();
            total += f64::from(*logit);
        }
        if s.min_p > 0.0 {
            found.retain(|&(weight, _)| weight >= s.min_p);
        }
        if s.min_p > 0.0 || s.top_p < 1.0 {
            let least = f64::from(s.top_p) * total;
            if let Some((last, mass)) = likeliest(found, &mut self.around, |mass| mass >= least) {
                found.retain(|f| order(f, &last).is_le());
                total = mass;
            }
        }
        let at = self.rng.next_u64() as f64 / (u64::MAX as f64 + 1.0) * total;
        likeliest(found, &mut self.around, |mass| mass > at).map_or(0, |((_, token), _)| token)
    }
}

/// The likelier is first; ties go to the lower number.
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Low bits of a weight that its bucket ignores: a bucket holds the weights of one exponent and three leading bits of the
/// mantissa.
const BUCKET_BITS: u32 = 20;

/// Bucket of a weight; likelier tokens are in higher ones.
fn bucket(weight: f32) -> usize {
    (weight.to_bits() >> BUCKET_BITS) as usize
}

/// Finds the smallest set of most likely tokens whose weights have a sum that is enough, and returns its last token and its
/// sum. If no sum is enough, the set has all tokens; without tokens it is `None`. The time is linear in the number of tokens:
/// only the bucket in which the set ends is sorted, in `around`.
fn likeliest(
    found: &[(f32, u32)],
    around: &mut Vec<(f32, u32)>,
    is_enough: impl Fn(f64) -> bool,
) -> Option<((f32, u32), f64)> {
    let mut sums = vec![0.0f64; 1 << (u32::BITS - BUCKET_BITS)];
    for &(weight, _) in found {
        sums[bucket(weight)] += f64::from(weight);
    }
    let last = found.iter().map(|f| bucket(f.0)).min()?;
    let (mut place, mut mass) = (sums.len() - 1, 0.0f64);
    while place > last && !is_enough(mass + sums[place]) {
        mass += sums[place];
        place -= 1;
    }
    around.clear();
    around.extend(found.iter().filter(|f| bucket(f.0) == place));
    let mut rest = &mut around[..];
    while rest.len() > ORDERED {
        let half = rest.len() / 2;
        rest.select_nth_unstable_by(half, order);
        let (likelier, others) = std::mem::take(&mut rest).split_at_mut(half);
        let more = mass + likelier.iter().map(|f| f64::from(f.0)).sum::<f64>();
        rest = if is_enough(more) {
            likelier
        } else {
            mass = more;
            others
        };
    }
    rest.sort_unstable_by(order);
    let mut least_likely = None;
    for &token in rest.iter() {
        mass += f64::from(token.0);
        least_likely = Some((token, mass));
        if is_enough(mass) {
            break;
        }
    }
    least_likely
}

/// A sequence being continued.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Model,
    cache: Cache,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    newest_stage: Option<u32>,
}

impl<'m> Session<'m> {
    /// A session that can hold `capacity` tokens, at most the model's context.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(model: &'m Model, capacity: usize) -> Result<Self> {
        let cache = model.cache(1, capacity.min(model.context()))?;
        Ok(Self {
            model,
            cache,
            tokens: Vec::new(),
            logits: Vec::new(),
            newest_stage: None,
        })
    }

    /// The same session, computed with the parameter tokens of stages up to `newest_stage` alone
    /// ([`crate::ModelConfig::until_stage`]).
    pub fn until_stage(self, newest_stage: Option<u32>) -> Self {
        Self {
            newest_stage,
            ..self
        }
    }

    /// Processes `tokens` in one pass; [`Session::logits`] are then those of the last.
    ///
    /// # Errors
    /// If the context is full, a token is unknown, or the device fails.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let feed = Feed {
            cache: &mut self.cache,
            tokens,
        };
        let last = tokens.len() as u32 - 1;
        let mut g = Graph::inference(self.model.device()).until_stage(self.newest_stage);
        (self.model).logits_each(&mut g, &mut [feed], &[last], &mut self.logits)?;
        self.tokens.extend(tokens);
        Ok(())
    }

    /// Logits `[V]` for the token that comes next; empty before the first [`Session::feed`].
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that still fit.
    pub fn room(&self) -> usize {
        self.cache.capacity() - self.cache.len()
    }
}
