//! The operations that a training step does, counted one by one as they are done, are those of the closed formula.

mod common;

use common::{cpu, encoder, fresh, gpt, gpt2, reference, spec, tokens};
use tokenformer_core::config::{NormSpan, Slots};
use tokenformer_core::growth::{Amount, Birth, Growth, Method, Probe, TauRule, grow};
use tokenformer_core::path::{ParamRole, Place};
use tokenformer_core::{Gradients, Graph, Model, ModelSpec, Recompute};

const T: usize = 20;
const BATCH: usize = 2;

/// Operations per token of a training step, as they were counted.
fn counted(model: &Model, recompute: Recompute) -> f64 {
    let device = model.device();
    let v = model.vocab();
    let (inputs, targets) = (tokens(1, BATCH * T, v), tokens(2, BATCH * T, v));
    let mut gradients = Gradients::zeros(device, model.params()).unwrap();
    let mut passes = Vec::new();
    // The count restarts with each step, and adds up micro-batches.
    for micro_batches in [1, 2] {
        gradients.reset();
        for _ in 0..micro_batches {
            let mut g = Graph::training(device, &mut gradients).recomputing(recompute);
            model.loss(&mut g, &inputs, &targets, BATCH, 1.0).unwrap();
            g.backward().unwrap();
        }
        passes.push(gradients.flops() / micro_batches);
    }
    assert_eq!(passes[0], passes[1]);
    passes[0] as f64 / (BATCH * T) as f64
}

/// The products of a training step, added up over the matrices themselves: each is multiplied with forward, for the
/// gradient of its input, and, unless it is frozen, for its own.
fn by_matrix(model: &Model) -> f64 {
    let config = model.config();
    let mut flops = 0.0;
    let mut units = 0;
    for param in model.each_param() {
        let is_head = match config.head {
            tokenformer_core::config::HeadKind::Tied => param.path().role == ParamRole::Embedding,
            tokenformer_core::config::HeadKind::Untied => param.path().role == ParamRole::Head,
        };
        let of_layer = matches!(
            param.path().role,
            ParamRole::Keys | ParamRole::Values | ParamRole::Weight
        );
        if is_head || of_layer {
            let products = if param.trainable() { 3 } else { 2 };
            flops += (products * 2 * param.len()) as f64;
        }
        units += match (param.path().role, param.path().place) {
            (ParamRole::Keys, _)
            | (
                ParamRole::Weight,
                Place::Linear { name: "up", .. } | Place::Part { name: "up", .. },
            ) => param.shape()[0],
            _ => 0,
        };
    }
    // Two products of each head with every position, forward, and twice as many back.
    let attention = 3 * 2 * 2 * config.layers() * config.width * T;
    flops + attention as f64 + (30 * units) as f64
}

#[track_caller]
fn agrees(model: &Model, what: &str) {
    let (found, formula) = (
        counted(model, Recompute::None),
        model.train_flops_per_token(T),
    );
    println!("{what}: {found} counted, {formula} by the formula");
    assert!(
        (found / formula - 1.0).abs() < 0.01,
        "{what}: {found}, {formula}"
    );
    assert_eq!(found, by_matrix(model), "{what}");
    for recompute in [Recompute::Scores, Recompute::Blocks] {
        // What is done twice to save memory is not counted twice.
        assert_eq!(counted(model, recompute), found, "{what}");
    }
}

fn grown(spec: &ModelSpec, growth: &Growth) -> Model {
    let mut model = fresh(&cpu(), spec, 1);
    let birth = Birth {
        stage: 1,
        step: 0,
        seed: 1,
    };
    let report = grow(&mut model, growth, birth, Probe::text(&tokens(3, T, 29))).unwrap();
    assert!(report.probe_flops > 0);
    model
}

#[test]
fn the_count_is_the_formula_for_every_family() {
    for (name, spec) in [
        ("joint", spec()),
        ("gpt", gpt()),
        ("gpt2", gpt2()),
        ("encoder", encoder()),
        (
            "segment",
            ModelSpec {
                norm: NormSpan::Segment,
                ..spec()
            },
        ),
    ] {
        let model = fresh(&cpu(), &spec, 1);
        agrees(&model, name);
        let slow = fresh(&reference(), &spec, 1);
        assert_eq!(
            counted(&slow, Recompute::None),
            counted(&model, Recompute::None)
        );
        let formula = model.config().train_flops_per_token(T);
        assert_eq!(formula, model.train_flops_per_token(T), "nothing is frozen");
    }
}

/// By hand: one block of width 16 with 5 tokens per site, vocabulary 29, context 20.
#[test]
fn the_formula_by_hand() {
    let one = ModelSpec {
        layers: 1,
        slots: Slots {
            qkv: 5,
            proj: 5,
            ffn: 5,
        },
        ..spec()
    };
    let model = fresh(&cpu(), &one, 1);
    let body = 5 * 5 * 2 * 16;
    let want = 3 * (2 * body + 4 * 16 * 20 + 2 * 29 * 16 + 10 * 25);
    assert_eq!(model.train_flops_per_token(20), f64::from(want));
    assert_eq!(counted(&model, Recompute::None), f64::from(want));
}

#[test]
fn frozen_parts_cost_two_products_of_three() {
    let tokens = Growth {
        qkv: Amount::Add(9),
        proj: Amount::Add(7),
        ffn: Amount::Add(30),
        layers: 1,
        freeze_old: true,
        ..Growth::default()
    };
    let model = grown(&spec(), &tokens);
    agrees(&model, "tokens, the old ones frozen");
    assert!(model.train_flops_per_token(T) < model.config().train_flops_per_token(T));
    let hidden = Growth {
        ffn: Amount::Add(30),
        layers: 1,
        freeze_old: true,
        ..Growth::default()
    };
    for spec in [gpt(), gpt2(), encoder()] {
        let model = grown(&spec, &hidden);
        agrees(&model, "hidden units, the old ones frozen");
        assert!(model.train_flops_per_token(T) < model.config().train_flops_per_token(T));
    }
}

#[test]
fn the_count_follows_growths() {
    let tokens = |method| Growth {
        method: Some(method),
        qkv: Amount::Add(9),
        ffn: Amount::Add(30),
        layers: 1,
        ..Growth::default()
    };
    for method in [Method::Segment, Method::ZeroKey, Method::Random] {
        let (before, after) = (fresh(&cpu(), &spec(), 1), grown(&spec(), &tokens(method)));
        agrees(&after, method.name());
        assert!(counted(&after, Recompute::None) > counted(&before, Recompute::None));
    }
    for method in [Method::Clone, Method::Corner] {
        let growth = Growth {
            method: Some(method),
            width: Amount::To(32),
            ..Growth::default()
        };
        agrees(&grown(&gpt(), &growth), method.name());
    }
}

/// A τ that follows the scores measures them on a part of the rows, which counts.
#[test]
fn measuring_scores_costs_little_and_counts() {
    let growth = Growth {
        tau: TauRule::Tracked,
        method: Some(Method::ZeroKey),
        ffn: Amount::Add(30),
        ..Growth::default()
    };
    let model = grown(&spec(), &growth);
    let formula = model.train_flops_per_token(T);
    let [found, others @ ..] = Recompute::ALL.map(|recompute| counted(&model, recompute));
    assert_eq!(others, [found; 2], "what is computed again is not counted");
    assert!(
        found > formula && found < 1.02 * formula,
        "{found}, {formula}"
    );
}
