//! Which sites gain most from new parameter tokens: a probe by gradients alone.
//!
//! Every site gets new tokens that keep the function: random keys and values of zero, or, in a model that has grown under joint
//! norms, keys of zero and random values. The gradient of what is zero says how much a first update lowers the loss: AdamW's
//! first step moves every number by the learning rate against the sign of its gradient, so that the loss falls by the rate
//! times the sum of the absolute gradients. The same idea chooses neurons in GradMax (Evci et al. 2022). It is a guess from one
//! update: a site keeps a part of its even share whatever it says.

use serde::Serialize;
use std::sync::Arc;
use tokenformer_core::config::{NormSpan, SiteConfig, SiteKind};
use tokenformer_core::device::Device;
use tokenformer_core::growth::{Amount, Birth, Growth, Method};
use tokenformer_core::model::site_name;
use tokenformer_core::path::{ParamRole, Place};
use tokenformer_core::{Gradients, Graph, Model};
use tokenformer_train::task::Task;
use tokenformer_train::{Error, Result};

/// Numbers of new tokens are multiples of this one.
pub const UNIT: usize = 16;
/// Share of its even growth that a site gets at least.
const LEAST: f64 = 0.2;

/// A site and the tokens planned for it.
#[derive(Clone, Debug, Serialize)]
pub struct SitePlan {
    /// Its name in recipes, `blocks.0.ffn`.
    pub site: String,
    /// Tokens before.
    pub tokens: usize,
    /// Fall of the loss by a first update of the new tokens, over the operations that they cost; 1 is the mean of all sites.
    pub gain: f64,
    /// New tokens of a growth that multiplies every site by the same factor.
    pub even: usize,
    /// New tokens in proportion to the gain.
    pub planned: usize,
}

/// What a probe reads.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Number of the first window.
    pub first_window: u64,
    /// Micro-batches.
    pub batches: u64,
}

/// The way to grow `model` that keeps its function: a site of several segments keeps the norm that it has.
pub fn exact_method(model: &Model) -> Method {
    let config = model.config();
    let blocks = config.blocks.iter();
    let mut sites = blocks.flat_map(|block| SiteKind::ALL.map(|kind| block.site(kind)));
    let is_joint = |site: &SiteConfig| site.norm == NormSpan::Joint && site.segments.len() > 1;
    match sites.any(|site| site.is_some_and(is_joint)) {
        true => Method::ZeroKey,
        false => Method::Segment,
    }
}

/// Plans a growth of all Pattention sites of `model` by `factor`, by the gradients of some micro-batches of `task`.
///
/// # Errors
/// If the model has no such sites, or the device or the data fail.
pub fn plan_sites(
    mut model: Model,
    task: &mut dyn Task,
    reading: Reading,
    factor: f64,
    birth: Birth,
) -> Result<Vec<SitePlan>> {
    let sites = sites_of(&model);
    if sites.is_empty() {
        return Err(Error::Recipe {
            place: "the model".into(),
            problem: "has no parameter tokens".into(),
            expected: "a TokenFormer".into(),
            got: "a plain Transformer".into(),
            help: "grow its MLPs with method = \"ffn\"".into(),
        });
    }
    let even: Vec<usize> = (sites.iter())
        .map(|(_, _, tokens)| units(*tokens as f64 * (factor - 1.0)))
        .collect();
    let amounts = sites.iter().zip(&even);
    let method = exact_method(&model);
    let zeros = match method {
        Method::ZeroKey => ParamRole::Keys,
        _ => ParamRole::Values,
    };
    let growth = Growth {
        method: Some(method),
        sites: (amounts.map(|((b, kind, _), &new)| (site_name(*b, *kind), Amount::Add(new))))
            .collect(),
        // Only the new arrays need gradients.
        freeze_old: true,
        ..Growth::default()
    };
    task.grow(&mut model, &growth, birth)?;
    let sums = sums(&model, zeros, task, reading)?;
    // A token costs the same operations in every site, since all of them map the width to the width. New values (or keys) learn at
    // the rate of the site's first tokens over the new ones (`docs/growth.md`).
    let gains: Vec<f64> = (sites.iter().zip(&even))
        .map(|(&(b, kind, tokens), &new)| {
            let sum = sums[b * SiteKind::ALL.len() + kind as usize];
            let new = new as f64;
            sum * (tokens as f64 / new) / new
        })
        .collect();
    let mean = gains.iter().sum::<f64>() / gains.len() as f64;
    let planned = allocate(&even, &gains);
    let all = (sites.iter().zip(gains)).zip(even.iter().zip(planned));
    Ok(all
        .map(|((&(b, kind, tokens), gain), (&even, planned))| SitePlan {
            site: site_name(b, kind),
            tokens,
            gain: if mean > 0.0 { gain / mean } else { 1.0 },
            even,
            planned,
        })
        .collect())
}

/// Block, kind and tokens of every Pattention site.
fn sites_of(model: &Model) -> Vec<(usize, SiteKind, usize)> {
    let config = model.config();
    let blocks = config.blocks.iter().enumerate();
    blocks
        .flat_map(|(b, block)| {
            let site = move |kind| Some((b, kind, block.site(kind)?.tokens()));
            SiteKind::ALL.into_iter().filter_map(site)
        })
        .collect()
}

/// Sums of the absolute gradients of the arrays of `role` that can be trained, by block and kind.
fn sums(model: &Model, role: ParamRole, task: &mut dyn Task, reading: Reading) -> Result<Vec<f64>> {
    let device: &Arc<dyn Device> = model.device();
    let mut gradients = Gradients::zeros(device, model.params())?;
    let predictions = reading.batches * task.batch() * task.targets_per_window();
    for number in 0..reading.batches {
        task.fill(reading.first_window + number * task.batch())?;
        let mut g = Graph::training(device, &mut gradients);
        task.loss(model, &mut g, 1.0 / predictions as f32)?;
        g.backward()?;
    }
    let mut sums = vec![0.0; model.blocks().len() * SiteKind::ALL.len()];
    for param in model.each_param() {
        let path = param.path();
        let Place::Segment { block, kind, .. } = path.place else {
            continue;
        };
        if path.role != role {
            continue;
        }
        let Some(gradient) = gradients.get(param) else {
            continue;
        };
        let mut host = vec![0.0; gradient.len()];
        device.read(gradient, &mut host)?;
        sums[block * SiteKind::ALL.len() + kind as usize] +=
            host.iter().map(|x| f64::from(x.abs())).sum::<f64>();
    }
    Ok(sums)
}

/// A number of tokens as a multiple of the unit, at least one.
fn units(tokens: f64) -> usize {
    ((tokens / UNIT as f64).round() as usize).max(1) * UNIT
}

/// As many tokens as `even` has in all, in proportion to `even` and `gains`, with a least share for every site.
fn allocate(even: &[usize], gains: &[f64]) -> Vec<usize> {
    let least: Vec<f64> = even.iter().map(|&even| LEAST * even as f64).collect();
    let total: f64 = even.iter().map(|&even| even as f64).sum();
    let weights: Vec<f64> = (even.iter().zip(gains))
        .map(|(&even, gain)| even as f64 * gain)
        .collect();
    let mut at_least = vec![false; even.len()];
    loop {
        let held: f64 = (least.iter().zip(&at_least))
            .filter(|(_, held)| **held)
            .map(|(least, _)| least)
            .sum();
        let weight: f64 = (weights.iter().zip(&at_least))
            .filter(|(_, held)| !**held)
            .map(|(weight, _)| weight)
            .sum();
        if weight <= 0.0 {
            return even.to_vec();
        }
        let share = |at: usize| weights[at] / weight * (total - held);
        let below = (0..even.len()).find(|&at| !at_least[at] && share(at) < least[at]);
        match below {
            Some(at) => at_least[at] = true,
            None => {
                let tokens = |at: usize| match at_least[at] {
                    true => least[at],
                    false => share(at),
                };
                return (0..even.len()).map(|at| units(tokens(at))).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::allocate;

    #[test]
    fn equal_gains_keep_the_even_growth_and_none_is_left_out() {
        let even = [64, 64, 256];
        assert_eq!(allocate(&even, &[2.0, 2.0, 2.0]), even);
        assert_eq!(allocate(&even, &[0.0, 0.0, 0.0]), even);
        // The first gets a fifth of its even growth, and the rest is divided in proportion.
        assert_eq!(allocate(&even, &[0.0, 1.0, 1.0]), [16, 80, 304]);
        let planned = allocate(
            &[160; 10],
            &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 11.0],
        );
        assert_eq!(planned[9], 880);
        assert_eq!(planned.iter().sum::<usize>(), 9 * 80 + 880);
    }
}
