//! What a report says of parameter tokens, on a model in which the answer is known: its pictures are red, green or blue,
//! and one of its tokens fires for red alone.

use std::sync::Arc;
use tokenformer_core::config::{
    HeadKind, ImageInput, Init, Input, ModelSpec, NormSpan, Pool, Positions, SegmentConfig, Slots,
};
use tokenformer_core::path::{ParamRole, Place};
use tokenformer_core::{Device, Model, ModelConfig, SiteKind, init};
use tokenformer_cpu::Cpu;
use tokenformer_train::insight::TokenUse;

const SIDE: usize = 4;
const WIDTH: usize = 16;
const CLASSES: usize = 3;
/// The last feed-forward network: two segments, the second of a growth.
const TOKENS: [usize; 2] = [20, 12];
/// The token that fires for red.
const PLANTED: usize = 23;
/// A token with no value.
const SILENT: usize = 5;

fn device() -> Arc<dyn Device> {
    Cpu::new(Some(1))
}

fn config() -> ModelConfig {
    let mut config = ModelSpec {
        input: Input::Image(ImageInput {
            height: SIDE,
            width: SIDE,
            channels: 3,
            patch: [2, 2],
            pool: Pool::Mean,
        }),
        vocab: CLASSES,
        width: WIDTH,
        layers: 2,
        heads: 2,
        slots: Slots {
            qkv: 4,
            proj: 4,
            ffn: TOKENS[0],
        },
        norm: NormSpan::Joint,
        causal: false,
        positions: Positions::None,
        head: HeadKind::Untied,
        init: Init::FanIn,
        ..ModelSpec::default()
    }
    .build()
    .unwrap();
    let site = config.blocks[1].site_mut(SiteKind::Ffn).unwrap();
    let first = site.segments[0].clone();
    site.segments.push(SegmentConfig {
        id: 1,
        tokens: TOKENS[1],
        stage: 1,
        ..first
    });
    site.tau = 32f64.sqrt();
    config
}

/// Hidden channel `c` is the colour `c`, and no branch but the last adds anything: the last feed-forward network reads
/// the colour, normalised. Unless `new_tokens_add`, the values of the second segment are zero, as right after a growth.
fn model(device: &Arc<dyn Device>, new_tokens_add: bool) -> Model {
    let config = config();
    Model::build(device, &config, &mut |path, shape| {
        let len = shape.iter().product();
        let mut numbers = init::normal(3, &path.to_string(), len, 0.3);
        match (path.place, path.role) {
            (Place::Image("patches"), ParamRole::Weight) => {
                // [D, channels · 4]: the mean of the channel's pixels.
                for (at, number) in numbers.iter_mut().enumerate() {
                    let (row, column) = (at / shape[1], at % shape[1]);
                    *number = if row == column / 4 { 0.25 } else { 0.0 };
                }
            }
            (Place::Image("patches"), ParamRole::Bias) => numbers.fill(0.0),
            (Place::Segment { block, kind, id }, role) => {
                let is_last = (block, kind) == (1, SiteKind::Ffn);
                let planted = PLANTED - TOKENS[0];
                match role {
                    ParamRole::Values if !is_last => numbers.fill(0.0),
                    ParamRole::Values if id == 0 => {
                        numbers[SILENT * WIDTH..(SILENT + 1) * WIDTH].fill(0.0);
                    }
                    ParamRole::Values if !new_tokens_add => numbers.fill(0.0),
                    ParamRole::Keys if is_last && id == 1 => {
                        let key = &mut numbers[planted * WIDTH..(planted + 1) * WIDTH];
                        key.fill(0.0);
                        key[..3].copy_from_slice(&[10.0, -10.0, -10.0]);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(numbers)
    })
    .unwrap()
}

/// Pictures `[B, 3, 4, 4]` of one colour each, of varying strength.
fn pixels(labels: &[u32]) -> Vec<f32> {
    let mut pixels = Vec::new();
    for (i, &label) in labels.iter().enumerate() {
        for channel in 0..3 {
            let value = if channel == label {
                1.0 + i as f32
            } else {
                0.0
            };
            pixels.extend([value; SIDE * SIDE]);
        }
    }
    pixels
}

#[test]
fn a_token_that_fires_for_one_class_only_is_found_in_the_first_place() {
    let model = model(&device(), true);
    let labels = [2, 0, 1, 1, 0, 2, 0];
    let mut used = TokenUse::new(&model, CLASSES).unwrap();
    // In two passes of different sizes.
    for part in [&labels[..4], &labels[4..]] {
        let seen = model.seen(&pixels(part), part.len(), false).unwrap();
        used.add(&seen, part);
    }
    let red = used.selective(0, 5);
    assert_eq!(red.len(), 5);
    assert_eq!((red[0].token, red[0].stage), (PLANTED, 1));
    // It fires for no other of three classes.
    assert!((red[0].selectivity - 3.0).abs() < 1e-3, "{:?}", red[0]);
    assert!(red[1].selectivity < 2.9, "{:?}", red[1]);
    for other in [1, 2] {
        let found = used.selective(other, TOKENS[0] + TOKENS[1]);
        let planted = found.iter().find(|found| found.token == PLANTED);
        assert!(planted.is_none_or(|found| found.selectivity < 1e-3));
    }
    // The pictures that fire it most are the red ones.
    let mut strongest = used.strongest(PLANTED, 3);
    strongest.sort_unstable();
    assert_eq!(strongest, [1, 4, 6]);
}

#[test]
fn tokens_without_a_value_are_dead_and_energies_are_those_of_the_stages() {
    let device = device();
    let grown = model(&device, false);
    let model = model(&device, true);
    let labels = [0, 1, 2];
    let seen = model.seen(&pixels(&labels), labels.len(), false).unwrap();
    let mut used = TokenUse::new(&model, CLASSES).unwrap();
    used.add(&seen, &labels);
    let last = used.sites().last().unwrap();
    assert_eq!((last.block, last.kind), (1, SiteKind::Ffn));
    assert_eq!(last.tokens_by_stage(), TOKENS);
    assert!(last.dead()[SILENT] && !last.dead()[PLANTED]);
    assert!(
        used.selective(0, 32)
            .iter()
            .all(|found| found.token != SILENT)
    );
    let shares = last.energy_shares();
    assert_eq!(shares.len(), 2);
    assert!((shares[0] + shares[1] - 1.0).abs() < 1e-12);
    assert!(shares.iter().all(|share| *share > 0.01), "{shares:?}");
    let mut newborn = TokenUse::new(&grown, CLASSES).unwrap();
    newborn.add(
        &grown.seen(&pixels(&labels), labels.len(), false).unwrap(),
        &labels,
    );
    assert_eq!(newborn.sites().last().unwrap().energy_shares(), [1.0, 0.0]);
    let before = used.sites()[3].energy_shares();
    assert_eq!(before, [0.0], "a site whose values are zero adds nothing");
}

#[test]
fn a_pass_that_watches_gives_the_logits_of_one_that_does_not() {
    let model = model(&device(), true);
    let labels = [0, 1, 2, 1];
    let shown = pixels(&labels);
    let seen = model.seen(&shown, labels.len(), true).unwrap();
    assert_eq!(seen.logits, model.classify(&shown, labels.len()).unwrap());
    // Pictures of one colour have nothing to look at more than at the rest.
    assert_eq!(seen.rollout.len(), labels.len() * 4);
    assert!(seen.rollout.iter().all(|share| (share - 0.25).abs() < 1e-5));
}
