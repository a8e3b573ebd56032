//! Reading `config.json` of version 1, which described models of Pattention sites only, with one nonlinearity for all,
//! and kept what only training needs together with the architecture.

use super::layer::{BlockConfig, LayerConfig, SegmentConfig, SiteConfig};
use super::training::{Anneal, ParamTraining, TrainingSettings};
use super::{
    FORMAT_VERSION, HeadKind, Init, Input, LogitScale, ModelConfig, NormKind, Positions, Residual,
};
use crate::path::SiteKind;
use serde::Deserialize;
use tokenformer_device::{NormSpan, Theta};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Version1 {
    format: String,
    #[serde(rename = "version")]
    _version: u32,
    vocab: usize,
    width: usize,
    heads: usize,
    context: usize,
    theta: Theta,
    theta_eps: f64,
    norm_eps: f64,
    positions: Positions,
    final_norm: NormKind,
    logit_scale: LogitScale,
    init: Init,
    trunk_trainable: bool,
    blocks: Vec<Block1>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block1 {
    query: Site1,
    key: Site1,
    value: Site1,
    proj: Site1,
    ffn: Site1,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Site1 {
    norm: NormSpan,
    tau: f64,
    #[serde(default)]
    anneal: Option<Anneal>,
    segments: Vec<Segment1>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment1 {
    tokens: usize,
    tau: f64,
    stage: u32,
    born_step: u64,
    trainable: bool,
    lr_scale: f32,
}

impl Version1 {
    /// The same model in the present version.
    pub(super) fn upgrade(self) -> (ModelConfig, TrainingSettings) {
        let mut training = TrainingSettings::default();
        if !self.trunk_trainable {
            for name in ["embedding", "final_norm.gain", "final_norm.bias"] {
                training.params.insert(name.into(), frozen());
            }
        }
        let (theta, eps) = (self.theta, self.theta_eps);
        let blocks = self.blocks.into_iter().enumerate().map(|(b, block)| {
            let mut layer = |kind: SiteKind, site: Site1| {
                let name = format!("blocks.{b}.{}", kind.name());
                LayerConfig::Pattention(upgrade_site(site, &name, theta, eps, &mut training))
            };
            BlockConfig {
                stage: 0,
                query: layer(SiteKind::Query, block.query),
                key: layer(SiteKind::Key, block.key),
                value: layer(SiteKind::Value, block.value),
                proj: layer(SiteKind::Proj, block.proj),
                ffn: layer(SiteKind::Ffn, block.ffn),
            }
        });
        let blocks = blocks.collect();
        let config = ModelConfig {
            format: self.format,
            version: FORMAT_VERSION,
            input: Input::Tokens,
            vocab: self.vocab,
            width: self.width,
            heads: self.heads,
            context: self.context,
            causal: true,
            residual: Residual::Sequential,
            positions: self.positions,
            norm_eps: self.norm_eps,
            block_norm: NormKind::Plain,
            final_norm: self.final_norm,
            head: HeadKind::Tied,
            head_bias: false,
            logit_scale: self.logit_scale,
            init: self.init,
            blocks,
        };
        (config, training)
    }
}

fn frozen() -> ParamTraining {
    ParamTraining {
        trainable: false,
        ..ParamTraining::default()
    }
}

/// Segments were named by their position, so that is their number.
fn upgrade_site(
    site: Site1,
    name: &str,
    theta: Theta,
    eps: f64,
    training: &mut TrainingSettings,
) -> SiteConfig {
    if let Some(anneal) = site.anneal {
        training.anneals.insert(name.into(), anneal);
    }
    let segments = site.segments.into_iter().zip(0..).map(|(segment, id)| {
        let how = ParamTraining {
            trainable: segment.trainable,
            lr_scale: segment.lr_scale,
            ..ParamTraining::default()
        };
        if how != ParamTraining::default() {
            for part in ["keys", "values"] {
                let array = format!("{name}.segments.{id}.{part}");
                training.params.insert(array, how);
            }
        }
        SegmentConfig {
            id,
            tokens: segment.tokens,
            tau: segment.tau,
            stage: segment.stage,
            born_step: segment.born_step,
        }
    });
    SiteConfig {
        theta,
        eps,
        norm: site.norm,
        tau: site.tau,
        segments: segments.collect(),
    }
}
