//! Small image models that together reach every operation.

use super::tokens;
use std::sync::Arc;
use tokenformer_core::config::{
    Family, HeadKind, ImageInput, Init, Input, ModelSpec, NormKind, NormSpan, Pool, Positions,
    Residual, SegmentConfig, SiteKind, Slots, Theta,
};
use tokenformer_core::path::ParamRole;
use tokenformer_core::{Device, LossTargets, Model, ModelConfig, init};

/// A model, and what it is shown.
pub struct Case {
    pub name: String,
    pub config: ModelConfig,
    /// Of a TokenFormer.
    pub theta: Option<Theta>,
    pub norm: Option<NormSpan>,
    /// `[3, C, H, W]`.
    pub pixels: Vec<f32>,
    classes: Vec<u32>,
    /// Weights of classes, if targets are soft.
    soft: Option<Vec<f32>>,
}

impl Case {
    pub fn image(&self) -> ImageInput {
        *self.config.input.image().expect("an image model")
    }

    pub fn targets(&self) -> LossTargets<'_> {
        match &self.soft {
            Some(soft) => LossTargets::Soft(soft),
            None => LossTargets::Classes(&self.classes),
        }
    }

    /// The model with numbers of some size everywhere.
    pub fn model(&self, device: &Arc<dyn Device>) -> Model {
        let model = Model::build(device, &self.config, &mut |path, shape| {
            let (len, name) = (shape.iter().product(), path.to_string());
            let std = match path.role {
                ParamRole::Gain | ParamRole::Bias => 0.3,
                ParamRole::Head => 0.5,
                ParamRole::Positions | ParamRole::ClassToken => 0.5,
                _ => init::std(&self.config, path, shape),
            };
            let mean = if path.role == ParamRole::Gain {
                1.0
            } else {
                0.0
            };
            let noise = init::normal(11, &name, len, std);
            Ok(noise.into_iter().map(|x| mean + x).collect())
        });
        model.expect("memory")
    }
}

/// Normal numbers.
pub fn pixels(seed: u64, len: usize) -> Vec<f32> {
    init::normal(seed, "pixels", len, 1.0)
}

/// Random numbers below `classes`.
pub fn labels(seed: u64, len: usize, classes: usize) -> Vec<u32> {
    tokens(seed, len, classes)
}

fn image(
    height: usize,
    width: usize,
    channels: usize,
    patch: [usize; 2],
    pool: Pool,
) -> ImageInput {
    ImageInput {
        height,
        width,
        channels,
        patch,
        pool,
    }
}

fn case(name: String, spec: ModelSpec, segments: &[usize], soft: bool) -> Case {
    let mut config = spec.build().unwrap();
    for (kind, block) in SiteKind::ALL
        .into_iter()
        .flat_map(|kind| (0..spec.layers).map(move |b| (kind, b)))
    {
        let Some(site) = config.blocks[block].site_mut(kind) else {
            continue;
        };
        let first = site.segments[0].clone();
        site.segments = (segments.iter().zip(0..))
            .map(|(&n, id)| SegmentConfig {
                id,
                tokens: n + kind as usize % 2,
                tau: 0.9 * (n as f64).sqrt(),
                ..first.clone()
            })
            .collect();
        site.tau = 0.8 * (site.tokens() as f64).sqrt();
    }
    let (image, classes) = (*spec.input.image().unwrap(), spec.vocab);
    let soft = soft.then(|| {
        let numbers = init::normal(4, "soft targets", 3 * classes, 1.0);
        numbers.into_iter().map(|x| x.abs() / 4.0).collect()
    });
    let is_site = spec.family == Family::Tokenformer;
    Case {
        name,
        theta: is_site.then_some(spec.theta),
        norm: is_site.then_some(spec.norm),
        pixels: pixels(1, 3 * image.pixels()),
        classes: labels(2, 3, classes),
        soft,
        config,
    }
}

/// Every nonlinearity under both spans, class token and mean, learned, fixed and no positions, affine and plain norms, one
/// to three segments, grids that are not square, heads with and without a bias, classes and soft targets; and plain
/// models.
pub fn cases() -> Vec<Case> {
    let base = ModelSpec {
        input: Input::Image(image(6, 4, 2, [2, 2], Pool::Class)),
        vocab: 7,
        width: 8,
        layers: 3,
        heads: 2,
        slots: Slots {
            qkv: 1,
            proj: 1,
            ffn: 1,
        },
        causal: false,
        positions: Positions::Learned,
        head: HeadKind::Untied,
        head_bias: true,
        init: Init::FanIn,
        ..ModelSpec::default()
    };
    let mean = Input::Image(image(4, 9, 1, [2, 3], Pool::Mean));
    let grey = Input::Image(image(2, 8, 1, [1, 4], Pool::Class));
    let segments: [&[usize]; 3] = [&[5, 3], &[7], &[4, 2, 3]];
    let mut cases = Vec::new();
    for (t, theta) in Theta::ALL.into_iter().enumerate() {
        for (n, norm) in [NormSpan::Joint, NormSpan::Segment].into_iter().enumerate() {
            let i = 2 * t + n;
            let variant = match (i + t) % 3 {
                0 => base.clone(),
                1 => ModelSpec {
                    input: mean,
                    positions: Positions::SinCos2d,
                    block_norm: NormKind::Affine,
                    ..base.clone()
                },
                _ => ModelSpec {
                    input: grey,
                    positions: Positions::None,
                    final_norm: NormKind::Plain,
                    head_bias: false,
                    ..base.clone()
                },
            };
            let spec = ModelSpec {
                theta,
                norm,
                ..variant
            };
            let name = format!("{theta}, {norm:?}, case {i}");
            cases.push(case(name, spec, segments[i % 3], i % 2 == 1));
        }
    }
    let plain = ModelSpec {
        family: Family::Gpt,
        slots: Slots::default(),
        mlp_hidden: 10,
        bias: true,
        block_norm: NormKind::Affine,
        ..base
    };
    let fixed = ModelSpec {
        input: Input::Image(image(4, 9, 1, [2, 3], Pool::MeanBesideClass)),
        positions: Positions::SinCos2d,
        residual: Residual::Parallel,
        ..plain.clone()
    };
    cases.push(case("plain".into(), plain, &[], true));
    cases.push(case("plain, fixed positions".into(), fixed, &[], false));
    cases
}
