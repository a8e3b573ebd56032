//! The first stages of a grown model, computed by themselves.

mod common;

use common::{bits, cpu, fresh, gpt, spec, tokens};
use std::collections::HashMap;
use std::sync::Arc;
use tokenformer_core::config::{LayerConfig, MlpPart, ModelSpec, NormSpan, SegmentConfig, Theta};
use tokenformer_core::generate::Session;
use tokenformer_core::growth::{Amount, Birth, Growth, Method, NewBlocks, Probe, grow};
use tokenformer_core::{Device, Graph, Model, ModelConfig, SiteKind, WeightFormat};

/// A model whose sites hold tokens of three stages, with random numbers in all of them.
fn grown(norm: NormSpan) -> ModelConfig {
    let theta = Theta::GeluL2Norm;
    let spec = ModelSpec {
        theta,
        norm,
        ..spec()
    };
    let mut config = spec.build().unwrap();
    for block in &mut config.blocks {
        for kind in SiteKind::ALL {
            let site = block.site_mut(kind).unwrap();
            site.segments
                .extend([(1, 5), (2, 7)].map(|(stage, tokens)| SegmentConfig {
                    id: stage,
                    tokens,
                    tau: 2.0,
                    stage,
                    born_step: 10,
                }));
        }
    }
    config
}

fn last_logits(model: &Model, text: &[u32], newest: Option<u32>) -> Vec<u32> {
    let mut session = Session::new(model, text.len()).unwrap().until_stage(newest);
    session.feed(&text[..3]).unwrap();
    session.feed(&text[3..]).unwrap();
    bits(session.logits())
}

/// Compares every stage of `config` with a model that never had more.
fn check(device: &Arc<dyn Device>, config: &ModelConfig) {
    let arrays: HashMap<String, Vec<f32>> = {
        let model = Model::fresh(device, config, 3).unwrap();
        let read = |p: &tokenformer_core::param::Param| {
            let mut host = vec![0.0; p.len()];
            device.read(p.value(), &mut host).unwrap();
            (p.name().to_string(), host)
        };
        model.each_param().map(read).collect()
    };
    let text = tokens(4, 9, config.vocab);
    for format in [None, Some(WeightFormat::F32), Some(WeightFormat::Int8)] {
        let build = |config: &ModelConfig| {
            let mut weights = |path: &tokenformer_core::path::ParamPath, _: &[usize]| {
                Ok(arrays[&path.to_string()].clone())
            };
            match format {
                None => Model::build(device, config, &mut weights).unwrap(),
                Some(format) => {
                    Model::build_for_inference(device, config, format, &mut weights).unwrap()
                }
            }
        };
        let whole = build(config);
        for newest in config.stages() {
            let small = build(&config.until_stage(newest).unwrap());
            assert_eq!(
                last_logits(&whole, &text, Some(newest)),
                last_logits(&small, &text, None),
                "stage {newest}"
            );
            let used = |model: &Model, newest| {
                let mut g = Graph::inference(device).until_stage(newest);
                model.hidden(&mut g, &text, 1, None).unwrap();
                g.flops()
            };
            assert_eq!(
                used(&whole, Some(newest)),
                used(&small, None),
                "stage {newest}"
            );
        }
    }
}

#[test]
fn a_stage_computes_what_a_model_without_the_later_ones_does() {
    let config = grown(NormSpan::Segment);
    assert_eq!(config.stages(), [0, 1, 2]);
    check(&cpu(), &config);
    let mut plain = gpt().build().unwrap();
    for block in &mut plain.blocks {
        if let LayerConfig::Mlp { parts, .. } = block.layer_mut(SiteKind::Ffn) {
            *parts = vec![MlpPart {
                id: 1,
                hidden: 6,
                stage: 1,
                born_step: 10,
            }];
        }
    }
    assert_eq!(plain.stages(), [0, 1]);
    check(&cpu(), &plain);
}

#[test]
fn tokens_with_a_joint_norm_are_not_computed_apart() {
    let config = grown(NormSpan::Joint);
    assert_eq!(config.until_stage(1), None);
    assert_eq!(config.until_stage(2).as_ref(), Some(&config));
    let mut config = grown(NormSpan::Segment);
    config.blocks[1]
        .site_mut(SiteKind::Ffn)
        .unwrap()
        .segments
        .remove(0);
    assert_eq!(config.until_stage(0), None, "a site that was born later");
}

/// A stage is never a network that holds something of a later one.
#[test]
fn what_a_growth_adds_belongs_to_its_stage() {
    let device = cpu();
    let segments = ModelSpec {
        norm: NormSpan::Segment,
        ..spec()
    };
    let blocks = [
        NewBlocks::Zero,
        NewBlocks::Fresh,
        NewBlocks::Copy,
        NewBlocks::Interpose,
        NewBlocks::Last,
    ];
    let by_blocks = |blocks| Growth {
        layers: 1,
        blocks,
        ..Growth::default()
    };
    let wider = Growth {
        method: Some(Method::Corner),
        width: Amount::To(32),
        ..Growth::default()
    };
    let more_hidden = Growth {
        ffn: Amount::Add(8),
        ..Growth::default()
    };
    let mut ways = vec![
        (gpt(), wider, false),
        (gpt(), more_hidden.clone(), true),
        (segments.clone(), more_hidden, true),
    ];
    for start in blocks {
        ways.push((gpt(), by_blocks(start), false));
        ways.push((segments.clone(), by_blocks(start), false));
    }
    for (spec, growth, is_contained) in ways {
        let mut model = fresh(&device, &spec, 3);
        let base = model.config();
        let birth = Birth {
            stage: 4,
            step: 9,
            seed: 7,
        };
        grow(&mut model, &growth, birth, Probe::text(&[1, 2, 3])).unwrap();
        let grown = model.config();
        // A wider network has no block that is as it was.
        let stages: &[u32] = if growth.method.is_some() {
            &[4]
        } else {
            &[0, 4]
        };
        assert_eq!(grown.stages(), stages, "{growth:?}");
        assert_eq!(
            grown.until_stage(0),
            is_contained.then_some(base),
            "{growth:?}"
        );
        assert_eq!(grown.until_stage(4).as_ref(), Some(&grown), "{growth:?}");
        let (read, _) = ModelConfig::from_json(&grown.to_json(), "config.json").unwrap();
        assert_eq!(read, grown);
    }
}

#[test]
fn the_weights_of_tokens_make_the_output_of_a_site() {
    let device = cpu();
    for format in [WeightFormat::F32, WeightFormat::Bf16] {
        let config = grown(NormSpan::Segment);
        let model = Model::fresh_for_inference(&device, &config, format, 3).unwrap();
        let text = tokens(4, 9, config.vocab);
        let fired = model.fired(&text, None).unwrap();
        assert_eq!(fired.len(), 2 * SiteKind::ALL.len());
        let first = &fired[0];
        assert_eq!((first.block, first.kind), (0, SiteKind::Query));
        let count = |stage| first.stages.iter().filter(|&&s| s == stage).count();
        assert_eq!([0, 1, 2].map(count), [12, 5, 7]);
        for site in &fired {
            assert_eq!(site.weights.len(), site.stages.len());
            assert!(site.weights.iter().all(|w| w.is_finite()));
            // gelu of the scores, divided by their norm over a segment: such rows have a norm of τ·√tokens.
            let old = site.stages.iter().filter(|&&s| s == 0).count();
            let norm: f32 = site.weights[..old]
                .iter()
                .map(|w| w * w)
                .sum::<f32>()
                .sqrt();
            let tau = config.blocks[site.block].site(site.kind).unwrap().segments[0].tau as f32;
            assert!((norm / tau - 1.0).abs() < 1e-3, "{norm} {tau}");
        }
        let small = model.fired(&text, Some(0)).unwrap();
        assert_eq!(
            small[0].weights,
            first.weights[..12],
            "the first site reads the same row"
        );
        assert!(model.fired(&[], None).is_err());
        assert!(model.fired(&vec![1; config.context + 1], None).is_err());
    }
    let plain = fresh(&device, &gpt(), 1);
    assert!(plain.fired(&[1, 2], None).unwrap().is_empty());
}
