//! The scorer of a TokenFormer model.
//!
//! Choices of one question begin with the same tokens: these run once, and their keys and values are copied for each
//! choice. The output head runs only where a token is scored. Padding goes to the right, where a causal
//! model cannot see it.

use tokenformer_core::{Cache, Graph, Model};

use crate::error::{Error, Result};
use crate::plan::{Batch, plan};
use crate::score::{Request, Scored, Scorer};

/// Most tokens of one pass.
const PASS_TOKENS: usize = 2048;
/// Smallest number of tokens of a pass when memory is short; smaller matrix products are slow.
const FEWEST_PASS_TOKENS: usize = 128;
/// Memory for the keys and values of a batch.
const CACHE_BYTES: usize = 256 << 20;
/// Logits on the host at a time.
const HOST_LOGITS: usize = 1 << 22;

/// Scores with a model on its device.
#[derive(Debug)]
pub struct ModelScorer<'m> {
    model: &'m Model,
}

impl<'m> ModelScorer<'m> {
    /// A scorer.
    pub fn new(model: &'m Model) -> Self {
        Self { model }
    }

    /// Tokens of a pass whose keys and values stay within [`CACHE_BYTES`]: beginnings of as many tokens, and for the
    /// choices at most twice as many.
    fn pass_tokens(&self) -> usize {
        let config = self.model.config();
        let position_bytes = 2 * config.layers() * config.width * size_of::<f32>();
        (CACHE_BYTES / (3 * position_bytes)).clamp(FEWEST_PASS_TOKENS, PASS_TOKENS)
    }

    /// Runs a batch, putting its scores into `scores`.
    fn run(
        &self,
        batch: &Batch,
        requests: &[Request],
        scores: &mut [Option<Scored>],
    ) -> Result<()> {
        let head = self.beginnings(batch, requests)?;
        for pass in &batch.passes {
            let members: Vec<(&Request, usize)> = (pass.iter())
                .filter_map(|&(m, head)| Some((requests.get(m)?, head)))
                .collect();
            let done = self.pass(batch.shared, head.as_ref(), &members)?;
            for (&(m, _), scored) in pass.iter().zip(done) {
                if let Some(slot) = scores.get_mut(m) {
                    *slot = Some(scored);
                }
            }
        }
        Ok(())
    }

    /// Keys and values of the shared beginnings.
    fn beginnings(&self, batch: &Batch, requests: &[Request]) -> Result<Option<Cache>> {
        if batch.shared == 0 {
            return Ok(None);
        }
        let tokens: Vec<u32> = (batch.heads.iter())
            .filter_map(|&m| requests.get(m)?.tokens.get(..batch.shared))
            .flatten()
            .copied()
            .collect();
        let mut cache = self.model.cache(batch.heads.len(), batch.shared)?;
        let mut g = Graph::inference(self.model.device());
        self.model
            .hidden(&mut g, &tokens, batch.heads.len(), Some(&mut cache))?;
        Ok(Some(cache))
    }

    /// Scores requests whose first `shared` tokens are in `head`.
    fn pass(
        &self,
        shared: usize,
        head: Option<&Cache>,
        members: &[(&Request, usize)],
    ) -> Result<Vec<Scored>> {
        let rest = |r: &Request| r.inputs().len() - shared;
        let width = members.iter().map(|(r, _)| rest(r)).max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(members.len() * width);
        let (mut rows, mut targets, mut greedy) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (request, _)) in members.iter().enumerate() {
            tokens.extend(request.inputs().iter().skip(shared));
            tokens.resize((i + 1) * width, 0);
            let first = i * width + request.first_scored() - shared;
            rows.extend((first..first + request.scored).map(|row| row as u32));
            targets.extend(request.targets());
            greedy.resize(targets.len(), request.greedy);
        }

        let model = self.model;
        let mut g = Graph::inference(model.device());
        let mut cache = match head {
            Some(head) => {
                let sequences: Vec<usize> = members.iter().map(|&(_, head)| head).collect();
                Some(head.fork(model.device(), &sequences, shared + width)?)
            }
            None => None,
        };
        let hidden = model.hidden(&mut g, &tokens, members.len(), cache.as_mut())?;
        let hidden_scored = g.select_rows(&hidden, &rows)?;
        let nll = model.cross_entropy(&mut g, &hidden_scored, &targets, 0.0)?;

        let wanted: Vec<usize> = (0..rows.len())
            .filter(|&i| greedy.get(i) == Some(&true))
            .collect();
        let mut is_likeliest = vec![false; rows.len()];
        for part in wanted.chunks((HOST_LOGITS / model.vocab()).max(1)) {
            let index: Vec<u32> = part.iter().map(|&i| i as u32).collect();
            let some = g.select_rows(&hidden_scored, &index)?;
            let logits = model.logits(&mut g, &some)?.to_host(&**model.device())?;
            for (&i, logits) in part.iter().zip(logits.chunks_exact(model.vocab())) {
                if let (Some(slot), Some(&target)) = (is_likeliest.get_mut(i), targets.get(i)) {
                    *slot = likeliest(logits) == target as usize;
                }
            }
        }

        let (mut nll, mut is_likeliest) = (nll.into_iter(), is_likeliest.into_iter());
        let scored = members.iter().map(|(request, _)| {
            let nll = nll.by_ref().take(request.scored).map(f64::from);
            let all = (is_likeliest.by_ref().take(request.scored)).fold(true, |all, one| all & one);
            Scored {
                loglik: -nll.sum::<f64>(),
                greedy: request.greedy.then_some(all),
            }
        });
        Ok(scored.collect())
    }
}

/// The index of the largest number, the first if several are equal.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (i, logit);
        }
    }
    best.0
}

impl Scorer for ModelScorer<'_> {
    fn context(&self) -> usize {
        self.model.context()
    }

    fn score(&mut self, requests: &[Request]) -> Result<Vec<Scored>> {
        self.model.ensure_causal()?;
        for request in requests {
            self.model.check_tokens(&request.tokens)?;
        }
        let mut scores = vec![None; requests.len()];
        for batch in plan(requests, self.pass_tokens()) {
            self.run(&batch, requests, &mut scores)?;
            // Every batch has its own shape: kept buffers of earlier ones would only use memory.
            self.model.device().trim();
        }
        let scores: Vec<Scored> = scores.into_iter().flatten().collect();
        if scores.len() != requests.len() {
            return Err(Error::Scorer {
                expected: requests.len(),
                got: scores.len(),
            });
        }
        Ok(scores)
    }
}
