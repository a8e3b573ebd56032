//! What an image model did with pictures: which parameter tokens it used, and where it looked.

use super::Model;
use crate::config::{Pool, SiteKind};
use crate::error::Result;
use crate::graph::Graph;
use crate::input_layer::InputLayer;
use crate::site::Site;

/// What a pass over pictures showed.
#[derive(Clone, Debug)]
pub struct ImageTrace {
    /// Logits `[B, classes]`.
    pub logits: Vec<f32>,
    /// The sites in the order of blocks; a plain Transformer has none.
    pub sites: Vec<SiteTrace>,
    /// How much of the answer comes from each patch, `[B, P]`, adding up to 1 for a picture; empty if it was not asked for.
    pub rollout: Vec<f32>,
}

/// What a site did with the pictures.
#[derive(Clone, Debug)]
pub struct SiteTrace {
    /// The block of the site.
    pub block: usize,
    /// Its place in the block.
    pub kind: SiteKind,
    /// Growth stage of birth of each parameter token.
    pub stages: Vec<u32>,
    /// The mean of `|Θ(x·Kᵀ)|` over the positions of a picture, `[B, N]`.
    pub firing: Vec<f32>,
    /// Stage of birth of each segment, and the sum over all positions of the squared norm of what it adds to the output.
    pub energies: Vec<(u32, f64)>,
}

impl Model {
    /// Classifies `pixels` `[B, C, H, W]`, and shows what the parameter tokens did; with `rollout`, also where attention
    /// looked (attention rollout of Abnar and Zuidema, 2020: the mean over heads, half of it replaced by the identity for
    /// the residual stream, multiplied through the blocks).
    ///
    /// # Errors
    /// As [`Model::pooled`].
    ///
    /// # Panics
    /// As [`Model::pooled`].
    pub fn seen(&self, pixels: &[f32], batch: usize, rollout: bool) -> Result<ImageTrace> {
        let mut g = Graph::inference(&self.device).watching(true, rollout);
        let pooled = self.pooled(&mut g, pixels, batch)?;
        let logits = self.logits(&mut g, &pooled)?.to_host(&*self.device)?;
        let Some(watched) = g.into_watched() else {
            unreachable!("the graph watches");
        };
        let mut sites = Vec::new();
        for (block, layers) in self.blocks.iter().enumerate() {
            for (kind, layer) in layers.layers() {
                let Some(site) = layer.site() else { continue };
                let seen = watched.sites.iter().find(|(s, _)| std::ptr::eq(*s, site));
                let Some((_, seen)) = seen else { continue };
                let stages = site.segments().iter().map(|s| s.config().stage);
                sites.push(SiteTrace {
                    block,
                    kind,
                    stages: stage_of_tokens(site),
                    firing: seen.weights.clone(),
                    energies: stages.zip(seen.energies.iter().copied()).collect(),
                });
            }
        }
        let rollout = (watched.attention).map_or(Vec::new(), |met| self.rollout(&met, batch));
        Ok(ImageTrace {
            logits,
            sites,
            rollout,
        })
    }

    /// Norms of the values of a site's parameter tokens, `[N]`; nothing if the layer is not a site.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If there is no such block, or the weights are packed for inference.
    pub fn value_norms(&self, block: usize, kind: SiteKind) -> Result<Vec<f32>> {
        let mut norms = Vec::new();
        let segments = self.blocks[block]
            .site(kind)
            .map_or(&[][..], Site::segments);
        for segment in segments {
            let mut values = vec![0.0; segment.values.len()];
            self.device.read(segment.values.value(), &mut values)?;
            let width = segment.values.shape()[1];
            let norm = |row: &[f32]| {
                row.iter()
                    .map(|&v| f64::from(v).powi(2))
                    .sum::<f64>()
                    .sqrt()
            };
            norms.extend(values.chunks_exact(width).map(|row| norm(row) as f32));
        }
        Ok(norms)
    }

    /// The rollout `[B, P]` of queries and keys of every block.
    fn rollout(&self, attention: &[[Vec<f32>; 2]], batch: usize) -> Vec<f32> {
        let InputLayer::Image(input_layer) = &self.input_layer else {
            return Vec::new();
        };
        let (length, patches) = (self.spec.context, input_layer.input.patches());
        let mut found = Vec::with_capacity(batch * patches);
        for picture in 0..batch {
            // Row vectors pass the product of the blocks' matrices from the last to the first.
            let mut flow = vec![0.0; length];
            let read = match input_layer.input.pool {
                Pool::Class => 0..1,
                Pool::Mean => 0..length,
                Pool::MeanBesideClass => 1..length,
            };
            let share = 1.0 / read.len() as f32;
            flow[read].fill(share);
            let part = picture * length * self.spec.width..(picture + 1) * length * self.spec.width;
            for [q, k] in attention.iter().rev() {
                let matrix = mean_attention(
                    &q[part.clone()],
                    &k[part.clone()],
                    length,
                    self.attend.heads,
                    self.attend.causal,
                );
                let mut next: Vec<f32> = flow.iter().map(|share| 0.5 * share).collect();
                for (share, row) in flow.iter().zip(matrix.chunks_exact(length)) {
                    for (next, a) in next.iter_mut().zip(row) {
                        *next += 0.5 * share * a;
                    }
                }
                flow = next;
            }
            // A class token, if there is one, stands before the patches.
            let of_patches = &flow[length - patches..];
            let total: f32 = of_patches.iter().sum();
            found.extend(of_patches.iter().map(|share| share / total));
        }
        found
    }
}

/// Stage of birth of each parameter token.
fn stage_of_tokens(site: &Site) -> Vec<u32> {
    let segments = site.segments().iter().map(|segment| segment.config());
    segments
        .flat_map(|s| std::iter::repeat_n(s.stage, s.tokens))
        .collect()
}

/// `softmax(Q·Kᵀ/√C)` `[T, T]` of one sequence, as the mean over its heads.
fn mean_attention(q: &[f32], k: &[f32], length: usize, heads: usize, causal: bool) -> Vec<f32> {
    let width = q.len() / length;
    let channels = width / heads;
    let scale = 1.0 / (channels as f32).sqrt();
    let mut mean = vec![0.0; length * length];
    let mut row = vec![0.0; length];
    for (head, t) in (0..heads).flat_map(|h| (0..length).map(move |t| (h, t))) {
        let at = |t: usize| t * width + head * channels..t * width + (head + 1) * channels;
        let keys = if causal { t + 1 } else { length };
        let query = &q[at(t)];
        for (s, score) in row[..keys].iter_mut().enumerate() {
            let key = &k[at(s)];
            *score = scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>();
        }
        let most = row[..keys]
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        row[..keys]
            .iter_mut()
            .for_each(|score| *score = (*score - most).exp());
        let total = row[..keys].iter().sum::<f32>() * heads as f32;
        let means = &mut mean[t * length..t * length + keys];
        for (mean, weight) in means.iter_mut().zip(&row) {
            *mean += weight / total;
        }
    }
    mean
}
