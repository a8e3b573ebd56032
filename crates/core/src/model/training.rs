//! The state of a model that only training needs: settings of parameters, a `τ` that changes, the cost of a step.

use super::{Model, site_name};
use crate::block::Block;
use crate::config::{BaseSizes, Input, ParamTraining, SiteKind, TrainingSettings};
use crate::error::Result;
use crate::gradients::Gradients;
use crate::param::Param;
use crate::path::ParamRole;
use std::sync::Arc;

impl Model {
    /// The current settings of training that are not in the configuration.
    pub fn training_settings(&self) -> TrainingSettings {
        let differs = |p: &&Param| p.training != ParamTraining::default();
        let params = self.each_param().filter(differs);
        let params = params.map(|p| (p.name().to_string(), p.training)).collect();
        let mut settings = TrainingSettings {
            params,
            base: self.base,
            ..TrainingSettings::default()
        };
        for (b, block) in self.blocks.iter().enumerate() {
            for (kind, layer) in block.layers() {
                let Some(site) = layer.site() else { continue };
                let name = site_name(b, kind);
                let anneal = site.anneal.clone().map(|anneal| (name.clone(), anneal));
                settings.anneals.extend(anneal);
                let tracked = site.tracked().cloned().map(|tracked| (name, tracked));
                settings.tracked.extend(tracked);
            }
        }
        settings
    }

    /// Replaces the training settings of the model.
    pub fn set_training(&mut self, settings: &TrainingSettings) {
        self.base = settings.base;
        for param in self.each_param_mut() {
            param.training = settings
                .params
                .get(param.name())
                .copied()
                .unwrap_or_default();
        }
        for (b, block) in self.blocks.iter_mut().enumerate() {
            for kind in SiteKind::ALL {
                if let Some(site) = block.site_mut(kind) {
                    let name = site_name(b, kind);
                    site.anneal = settings.anneals.get(&name).cloned();
                    site.set_tracked(settings.tracked.get(&name).cloned());
                }
            }
        }
    }

    /// Sets the learning rates of matrices for a rate that was found at other sizes.
    pub fn scale_rates(&mut self, base: &BaseSizes) {
        self.base = *base;
        for param in self.each_param_mut() {
            let fan_in = match param.path().role {
                ParamRole::Values => param.shape()[0],
                _ => param.shape().last().copied().unwrap_or(1),
            };
            param.training.lr_scale *= base.factor(&param.path(), fan_in);
        }
    }

    /// Updates each `τ` that tracks scores, from the passes since the last reset of `gradients`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn follow_scores(&mut self, gradients: &Gradients) -> Result<()> {
        let device = Arc::clone(&self.device);
        for layer in self.blocks.iter_mut().flat_map(Block::layers_mut) {
            if let Some(site) = layer.site_mut().filter(|site| site.tracked().is_some())
                && let Some(sums) = gradients.scores.of(site, &*device)?
            {
                site.observe(&sums.segments);
            }
        }
        Ok(())
    }

    /// Takes each joint `τ` from `other`, a model of the same shapes: an average of weights has no scores to follow.
    ///
    /// # Panics
    /// If `other` has other sites.
    pub fn follow_taus(&mut self, other: &Model) {
        for (block, other) in self.blocks.iter_mut().zip(&other.blocks) {
            for kind in SiteKind::ALL {
                if let Some(site) = block.site_mut(kind) {
                    let other = other.site(kind).expect("a site in both models");
                    site.set_tau(other.tau());
                }
            }
        }
    }

    /// Floating-point operations of training on one token at context length `t`: as
    /// [`crate::ModelConfig::train_flops_per_token`], less the gradients of frozen arrays, which cost 2 products of 3.
    pub fn train_flops_per_token(&self, t: usize) -> f64 {
        let frozen_layers =
            (self.blocks.iter())
                .flat_map(|block| block.layers())
                .map(|(_, layer)| {
                    match layer.site() {
                        // Keys and values have their gradients together.
                        Some(site) => (site.segments().iter())
                            .filter(|s| !s.keys.trainable() && !s.values.trainable())
                            .map(|s| s.keys.len() + s.values.len())
                            .sum::<usize>(),
                        None => (layer.params())
                            .filter(|p| p.path().role == ParamRole::Weight && !p.trainable())
                            .map(Param::len)
                            .sum(),
                    }
                });
        let table = self.output_head().table;
        let frozen_table = if table.trainable() { 0 } else { table.len() };
        let (layers, table) = (frozen_layers.sum::<usize>() as f64, frozen_table as f64);
        let config = self.config();
        let rows = match config.input {
            Input::Tokens => layers + table,
            Input::Image(image) => {
                let patches = self.input_layer.params().next().filter(|p| !p.trainable());
                let patches = patches.map_or(0.0, |p| (image.patches() * p.len()) as f64);
                layers + (patches + table) / config.context as f64
            }
        };
        config.train_flops_per_token(t) - 2.0 * rows
    }

    /// Floating-point operations of training on one image, or on a whole context of a language model.
    pub fn train_flops(&self) -> f64 {
        let context = self.context();
        self.train_flops_per_token(context) * context as f64
    }

    /// Passes the next training step to the sites, for a `τ` that anneals.
    pub fn set_step(&mut self, step: u64) {
        for layer in self.blocks.iter_mut().flat_map(Block::layers_mut) {
            if let Some(site) = layer.site_mut() {
                site.set_step(step);
            }
        }
    }
}
