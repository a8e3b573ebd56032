//! Every way to grow keeps its guarantee, trains all new arrays, and can be resumed from a checkpoint.

mod common;

use common::{
    bits, cpu, fresh, gpt, gpt2, gradients, host, pair, reference, spec, tokens, train_step,
    weights,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokenformer_core::config::{
    BaseSizes, HeadKind, LogitScale, ModelConfig, NormKind, NormSpan, SiteKind, Theta,
};
use tokenformer_core::growth::{
    Amount, At, Birth, Fill, Growth, GrowthReport, Method, Moments, NewBlocks, Probe, Rate,
    TauRule, grow, params_after,
};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::path::ParamPath;
use tokenformer_core::{Device, Error, Gradients, Model, ModelSpec};

/// What a way to grow promises.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keeps {
    Bits,
    Rounding,
    /// The logits move, by a share of their size between these.
    Moves(f64, f64),
}

/// Every method, on the family that it is for.
fn all_ways() -> Vec<(ModelSpec, Growth, Keeps)> {
    let joint = spec();
    let segment = ModelSpec {
        norm: NormSpan::Segment,
        ..spec()
    };
    let tokens = |method| Growth {
        qkv: Amount::Add(9),
        proj: Amount::Add(7),
        ffn: Amount::Add(20),
        ..way(method)
    };
    let blocks = |method| Growth {
        layers: 2,
        ..way(method)
    };
    let wide = |method| Growth {
        width: Amount::To(32),
        ..way(method)
    };
    let tracked = Growth {
        tau: TauRule::Tracked,
        ..tokens(Method::ZeroKey)
    };
    let annealed = Growth {
        tau: TauRule::Anneal(10),
        ..tokens(Method::ZeroKey)
    };
    let hidden = Growth {
        ffn: Amount::Add(24),
        ..way(Method::Ffn)
    };
    let both = Growth {
        layers: 1,
        blocks: NewBlocks::Copy,
        ..tokens(Method::Segment)
    };
    let moves = |least, most| Keeps::Moves(least, most);
    let mut ways = vec![
        (segment.clone(), tokens(Method::Segment), Keeps::Bits),
        (joint.clone(), tokens(Method::Segment), Keeps::Bits),
        (joint.clone(), tokens(Method::ZeroKey), Keeps::Bits),
        (joint.clone(), annealed, Keeps::Bits),
        (joint.clone(), tracked, Keeps::Bits),
        (
            joint.clone(),
            tokens(Method::RandomKeyZeroValue),
            moves(1e-4, 0.2),
        ),
        (joint.clone(), tokens(Method::Random), moves(0.05, 3.0)),
        (segment.clone(), both, moves(0.01, 3.0)),
        (gpt(), hidden.clone(), Keeps::Bits),
        (gpt2(), hidden, Keeps::Bits),
        (gpt(), wide(Method::Clone), Keeps::Rounding),
        (gpt2(), wide(Method::Clone), Keeps::Rounding),
        (gpt(), wide(Method::Lemon), Keeps::Rounding),
        (gpt2(), wide(Method::Lemon), Keeps::Rounding),
        (gpt(), wide(Method::ShrinkPad), moves(0.1, 5.0)),
        (gpt(), wide(Method::Corner), moves(0.1, 5.0)),
    ];
    for family in [segment, joint, gpt(), gpt2()] {
        ways.push((family.clone(), blocks(Method::IdentityBlocks), Keeps::Bits));
        for method in [
            Method::Stack,
            Method::Interpose,
            Method::RepeatLast,
            Method::FreshBlocks,
        ] {
            ways.push((family.clone(), blocks(method), moves(0.01, 5.0)));
        }
    }
    ways
}

fn way(method: Method) -> Growth {
    Growth {
        method: Some(method),
        ..Growth::default()
    }
}

const BIRTH: Birth = Birth {
    stage: 1,
    step: 6,
    seed: 7,
};

/// A model that has learnt a little, so that no array is as it was drawn.
fn trained(device: &Arc<dyn Device>, spec: &ModelSpec) -> (Model, AdamW) {
    let mut model = fresh(device, spec, 3);
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    train(&mut model, &mut optimizer, 6);
    (model, optimizer)
}

fn train(model: &mut Model, optimizer: &mut AdamW, steps: u64) -> Vec<f64> {
    let v = model.vocab();
    (0..steps)
        .map(|step| {
            let (inputs, targets) = (tokens(50 + step, 40, v), tokens(90 + step, 40, v));
            train_step(model, optimizer, [&inputs, &targets], 2, 1e-2).0
        })
        .collect()
}

fn must_grow(model: &mut Model, optimizer: &mut AdamW, growth: &Growth) -> GrowthReport {
    let probe = tokens(1, 2 * 12, model.vocab());
    let report = grow(model, growth, BIRTH, pair(&probe)).unwrap();
    optimizer.extend(model).unwrap();
    if growth.resets_moments() {
        optimizer.reset(model).unwrap();
    }
    report
}

fn relative(before: &[f32], after: &[f32]) -> f64 {
    common::l2_error(after, before)
}

#[test]
fn every_method_keeps_its_promise_on_the_reference_device() {
    let mut seen = Vec::new();
    for (spec, growth, keeps) in all_ways() {
        let (mut model, mut optimizer) = trained(&reference(), &spec);
        let text = tokens(5, 20, 29);
        let before = model.infer(&text, 1).unwrap();
        let (old, promised) = (model.param_count(), params_after(&model, &growth).unwrap());
        let report = must_grow(&mut model, &mut optimizer, &growth);
        let after = model.infer(&text, 1).unwrap();
        let moved = relative(&before, &after);
        println!("{:?} {:<24} {moved:.2e}", spec.family, growth.summary());
        match keeps {
            Keeps::Bits => {
                assert!(bits(&before) == bits(&after), "{growth:?}");
                assert!(report.preserving && report.tolerance == 0.0);
                assert_eq!(report.max_logit_diff, 0.0);
            }
            Keeps::Rounding => {
                assert!(
                    moved <= 1e-5 && report.relative_logit_diff <= 1e-5,
                    "{growth:?}: {moved}"
                );
                assert!(report.preserving && report.tolerance == 1e-5);
            }
            Keeps::Moves(least, most) => {
                assert!(!report.preserving);
                assert!((least..most).contains(&moved), "{growth:?}: {moved}");
                assert!(
                    (least..most).contains(&report.relative_logit_diff),
                    "{report:?}"
                );
            }
        }
        assert_eq!((report.params_before, report.params_after), (old, promised));
        assert_eq!(
            (model.param_count(), model.config().params()),
            (promised, promised)
        );
        assert!(promised > old && report.probe_flops > 0);
        let by_kind = |of: fn(&tokenformer_core::growth::SiteGrowth) -> u64| {
            report.sites.iter().map(of).sum::<u64>()
        };
        assert_eq!(by_kind(|s| s.params_after), model.config().body_params());
        seen.extend(growth.method);
    }
    assert!(Method::ALL.iter().all(|method| seen.contains(method)));
}

/// The same promises in single precision, in one pass and decoded token by token.
#[test]
fn every_method_keeps_its_promise_on_the_processor() {
    for (spec, growth, keeps) in all_ways() {
        let (mut model, mut optimizer) = trained(&cpu(), &spec);
        let text = tokens(5, 20, 29);
        let outputs = |model: &Model| {
            let mut session = tokenformer_core::generate::Session::new(model, 24).unwrap();
            session.feed(&text[..19]).unwrap();
            session.feed(&text[19..]).unwrap();
            let mut all = model.infer(&text, 1).unwrap();
            all.extend(session.logits());
            all
        };
        let before = outputs(&model);
        must_grow(&mut model, &mut optimizer, &growth);
        let after = outputs(&model);
        match keeps {
            Keeps::Bits => assert!(bits(&before) == bits(&after), "{growth:?}"),
            Keeps::Rounding => assert!(relative(&before, &after) <= 1e-5, "{growth:?}"),
            Keeps::Moves(..) => {}
        }
    }
}

/// Parameters that the optimizer has not updated yet.
fn new_names(model: &Model, optimizer: &AdamW) -> Vec<String> {
    let is_new = |p: &&tokenformer_core::param::Param| optimizer.moments(p).unwrap().step == 0;
    let new = model.each_param().filter(is_new);
    new.map(|p| p.name().to_string()).collect()
}

#[test]
fn everything_new_learns_within_two_updates() {
    for (spec, growth, _) in all_ways() {
        let (mut model, mut optimizer) = trained(&cpu(), &spec);
        let growth = Growth {
            moments: Moments::Kept,
            ..growth
        };
        let probe = tokens(1, 24, 29);
        grow(&mut model, &growth, BIRTH, pair(&probe)).unwrap();
        optimizer.extend(&model).unwrap();
        let mut dead: Vec<String> = new_names(&model, &optimizer);
        assert!(!dead.is_empty());
        for step in 0..2 {
            let (inputs, targets) = (tokens(60 + step, 40, 29), tokens(70 + step, 40, 29));
            let (_, found) = gradients(&model, &inputs, &targets, 2);
            dead.retain(|name| {
                let param = model.each_param().find(|p| p.name() == name).unwrap();
                let gradient = host(model.device(), found.get(param).unwrap());
                gradient.iter().all(|g| *g == 0.0)
            });
            optimizer.step(&mut model, &found, 1e-2).unwrap();
        }
        // Softmax ignores a number added to all scores of a row.
        dead.retain(|name| !name.ends_with("key.bias"));
        assert_eq!(dead, Vec::<String>::new(), "{growth:?}");
    }
}

/// The same run from what a checkpoint holds: configuration, weights, moments, settings.
fn reloaded(model: &Model, optimizer: &AdamW) -> (Model, AdamW) {
    let device = model.device();
    let (config, _) = ModelConfig::from_json(&model.config().to_json(), "here").unwrap();
    let settings = serde_json::to_string(&model.training_settings()).unwrap();
    let arrays: BTreeMap<String, Vec<f32>> = (model.each_param())
        .map(|p| (p.name().to_string(), host(device, p.value())))
        .collect();
    let mut weights = |path: &ParamPath, _: &[usize]| Ok(arrays[&path.to_string()].clone());
    let mut copy = Model::build(device, &config, &mut weights).unwrap();
    copy.set_training(&serde_json::from_str(&settings).unwrap());
    let mut moments = AdamW::new(AdamWConfig::default(), &copy).unwrap();
    for (from, to) in model.each_param().zip(copy.each_param()) {
        assert_eq!(from.name(), to.name());
        let Some(from) = optimizer.moments(from) else {
            continue;
        };
        let to = moments.moments_mut(to).unwrap();
        device.write(&host(device, &from.m), &mut to.m).unwrap();
        device.write(&host(device, &from.v), &mut to.v).unwrap();
        to.step = from.step;
    }
    (copy, moments)
}

#[test]
fn a_run_goes_on_from_right_after_a_growth_with_the_same_bits() {
    for (spec, growth, _) in all_ways() {
        let (mut model, mut optimizer) = trained(&cpu(), &spec);
        must_grow(&mut model, &mut optimizer, &growth);
        let go_on = |model: &mut Model, optimizer: &mut AdamW| {
            for step in 6..10 {
                model.set_step(step);
                train(model, optimizer, 1);
            }
            (weights(model), model.config(), model.training_settings())
        };
        let (mut copy, mut moments) = reloaded(&model, &optimizer);
        let whole = go_on(&mut model, &mut optimizer);
        assert!(
            go_on(&mut copy, &mut moments) == whole,
            "right after {growth:?}"
        );
        // And from the middle of what follows.
        let (mut copy, mut moments) = reloaded(&model, &optimizer);
        assert!(
            go_on(&mut copy, &mut moments) == go_on(&mut model, &mut optimizer),
            "{growth:?}"
        );
    }
}

#[test]
fn moments_start_as_documented() {
    for (spec, growth, _) in all_ways() {
        let (mut model, mut optimizer) = trained(&cpu(), &spec);
        let old: BTreeMap<String, usize> = (model.each_param())
            .map(|p| (p.name().to_string(), p.id()))
            .collect();
        must_grow(&mut model, &mut optimizer, &growth);
        let is_old = |id: &usize| old.values().any(|old| old == id);
        for param in model.each_param() {
            let moments = optimizer.moments(param).unwrap();
            let sum: f32 = host(model.device(), &moments.v).iter().sum();
            let goes_on = is_old(&param.id()) && growth.method != Some(Method::Random);
            assert_eq!(
                moments.step,
                if goes_on { 6 } else { 0 },
                "{}: {growth:?}",
                param.name()
            );
            assert_eq!(sum > 0.0, goes_on, "{}: {growth:?}", param.name());
        }
        // Widening replaces every array; all other ways keep all of them.
        let kept = model.each_param().filter(|p| is_old(&p.id())).count();
        let widens = growth.width != Amount::default();
        assert_eq!(kept, if widens { 0 } else { old.len() }, "{growth:?}");
    }
    // Asked for, everything starts over with any method.
    let growth = Growth {
        ffn: Amount::Add(4),
        moments: Moments::Reset,
        ..way(Method::Segment)
    };
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    must_grow(&mut model, &mut optimizer, &growth);
    let steps = model
        .each_param()
        .map(|p| optimizer.moments(p).unwrap().step);
    assert_eq!(steps.sum::<u64>(), 0);
}

fn array(model: &Model, name: &str) -> Vec<f32> {
    let param = model.each_param().find(|p| p.name() == name);
    let param = param.unwrap_or_else(|| panic!("no {name}"));
    host(model.device(), param.value())
}

fn rms(x: &[f32]) -> f64 {
    (x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
}

#[test]
fn copies_share_the_old_weights_and_differ() {
    for (method, copies) in [(Method::Clone, 2), (Method::Clone, 3), (Method::Lemon, 2)] {
        let (mut model, mut optimizer) = trained(&reference(), &gpt());
        let (embedding, query) = (
            array(&model, "embedding"),
            array(&model, "blocks.0.query.weight"),
        );
        let gain = array(&model, "final_norm.gain");
        let growth = Growth {
            width: Amount::To(16 * copies),
            ..way(method)
        };
        must_grow(&mut model, &mut optimizer, &growth);
        let config = model.config();
        assert_eq!((config.heads, config.channels()), (2 * copies, 8));
        assert_eq!(config.blocks[0].ffn.hidden(), 40 * copies);
        let wide = 16 * copies;
        for (row, old) in array(&model, "embedding")
            .chunks(wide)
            .zip(embedding.chunks(16))
        {
            assert!(row.chunks(16).all(|copy| copy == old));
        }
        for (x, old) in array(&model, "final_norm.gain")
            .chunks(16)
            .flatten()
            .zip(gain.iter().cycle())
        {
            assert!((x * copies as f32 / old - 1.0).abs() < 1e-6);
        }
        let new = array(&model, "blocks.0.query.weight");
        let (mut noise, mut shares) = (Vec::new(), Vec::new());
        for (i, row) in new.chunks(wide).enumerate() {
            for j in 0..16 {
                let old = query[i % 16 * 16 + j];
                let parts: Vec<f32> = row.chunks(16).map(|copy| copy[j]).collect();
                assert!((parts.iter().sum::<f32>() - old).abs() < 1e-6);
                noise.extend(parts.iter().map(|part| part * copies as f32 - old));
                shares.push(parts[0] / old);
            }
        }
        match method {
            // 10 dB below the weights.
            Method::Clone => {
                let ratio = rms(&noise) / rms(&query);
                assert!((ratio / 0.316 - 1.0).abs() < 0.1, "{ratio}");
            }
            _ => assert!(shares.iter().all(|a| (0.2499..0.7501).contains(a))),
        }
        // No copy of a row is another's.
        assert!(new[..16 * wide] != new[16 * wide..2 * 16 * wide]);
        train(&mut model, &mut optimizer, 3);
        let table = array(&model, "embedding");
        assert!(
            table.chunks(wide).any(|row| row[..16] != row[16..32]),
            "copies move apart"
        );
    }
}

/// Other heads and norms that copies must keep the logits of.
#[test]
fn copies_keep_the_logits_of_other_networks() {
    for spec in [
        common::encoder(),
        ModelSpec {
            logit_scale: LogitScale::InverseSqrtWidth,
            ..gpt()
        },
        ModelSpec {
            head: HeadKind::Untied,
            ..gpt2()
        },
    ] {
        for method in [Method::Clone, Method::Lemon] {
            let (mut model, mut optimizer) = trained(&cpu(), &spec);
            let growth = Growth {
                width: Amount::Add(16),
                ..way(method)
            };
            let report = must_grow(&mut model, &mut optimizer, &growth);
            assert!(report.preserving && report.relative_logit_diff <= 1e-5);
        }
    }
    let plain = ModelSpec {
        final_norm: NormKind::Plain,
        ..gpt()
    };
    let growth = Growth {
        width: Amount::To(32),
        ..way(Method::Clone)
    };
    refused(&plain, &growth, &["final_norm", "affine"]);
}

#[test]
fn the_old_weights_lie_in_the_corner() {
    for (method, noise, shrink) in [
        (Method::Corner, None, 1.0),
        (Method::ShrinkPad, Some(0.0), 0.4),
    ] {
        let (mut model, mut optimizer) = trained(&reference(), &gpt());
        let old = array(&model, "blocks.1.ffn.down.weight");
        let gain = array(&model, "final_norm.gain");
        let growth = Growth {
            width: Amount::Add(8),
            noise,
            ..way(method)
        };
        must_grow(&mut model, &mut optimizer, &growth);
        let new = array(&model, "blocks.1.ffn.down.weight");
        // [16, 40] in [24, 60].
        for (r, row) in new.chunks(60).enumerate() {
            for (c, x) in row.iter().enumerate() {
                match (r < 16 && c < 40, method) {
                    (true, _) => assert!((x - shrink * old[r * 40 + c]).abs() < 1e-7),
                    (false, Method::Corner) => assert!(*x != 0.0),
                    (false, _) => assert_eq!(*x, 0.0),
                }
            }
        }
        let now = array(&model, "final_norm.gain");
        assert!(now[..16] == gain && now[16..] == [1.0; 8]);
    }
    // The noise is that of a fresh matrix of the new fan-in.
    let (mut model, mut optimizer) = trained(&reference(), &gpt());
    let growth = Growth {
        width: Amount::To(64),
        shrink: Some(0.0),
        ..way(Method::ShrinkPad)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let size = rms(&array(&model, "blocks.0.query.weight"));
    assert!((size * 8.0 - 1.0).abs() < 0.05, "{size}");
}

#[test]
fn hidden_units_are_a_part_of_their_own() {
    let (mut model, mut optimizer) = trained(&cpu(), &gpt2());
    let size = rms(&array(&model, "blocks.1.ffn.up.weight"));
    let growth = Growth {
        ffn: Amount::To(240),
        ..way(Method::Ffn)
    };
    let report = must_grow(&mut model, &mut optimizer, &growth);
    let ffn = report
        .sites
        .iter()
        .find(|s| s.site == SiteKind::Ffn)
        .unwrap();
    assert_eq!((ffn.tokens_before, ffn.tokens_after), (40, 240));
    let up = array(&model, "blocks.1.ffn.parts.1.up.weight");
    assert!((rms(&up) / size - 1.0).abs() < 0.05);
    assert!(
        array(&model, "blocks.1.ffn.parts.1.down.weight")
            .iter()
            .all(|x| *x == 0.0)
    );
    // New tokens have a warm-up, a rate that does not grow with their number, and separate clipping.
    let params = model.training_settings().params;
    let down = params["blocks.1.ffn.parts.1.down.weight"];
    assert_eq!((down.lr_scale, down.warmup, down.generation), (0.2, 100, 1));
    assert_eq!(params["blocks.1.ffn.parts.1.up.weight"].lr_scale, 1.0);
    assert!(!params.contains_key("blocks.1.ffn.down.weight"));
    // Without a method the result is the same, also a second time.
    let again = Growth {
        ffn: Amount::Add(10),
        rate: Rate::Full,
        ..Growth::default()
    };
    let report = must_grow(&mut model, &mut optimizer, &again);
    assert!(report.preserving && report.max_logit_diff == 0.0);
    let text = model.config().to_json();
    assert!(ModelConfig::from_json(&text, "here").unwrap().0 == model.config());
    let losses = train(&mut model, &mut optimizer, 30);
    assert!(losses[29] < losses[0]);
}

#[test]
fn a_tracked_tau_keeps_the_weights_of_old_tokens() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let growth = Growth {
        ffn: Amount::Add(60),
        tau: TauRule::Tracked,
        warmup: Some(0),
        ..way(Method::ZeroKey)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let tau = |model: &Model| model.config().blocks[1].site(SiteKind::Ffn).unwrap().tau;
    let (first, most) = (20f64.sqrt(), 80f64.sqrt());
    assert_eq!(tau(&model), first);
    train(&mut model, &mut optimizer, 1);
    // The keys were zero in the pass that was measured.
    assert_eq!(tau(&model), first);
    let mut last = first;
    for _ in 0..5 {
        train(&mut model, &mut optimizer, 3);
        let settings = model.training_settings();
        let tracked = &settings.tracked["blocks.1.ffn"];
        assert_eq!((tracked.from, tracked.old_segments), (first, 1));
        let want = first * (1.0 + tracked.new / tracked.old).min(4.0).sqrt();
        assert!((tau(&model) - want).abs() < 1e-12);
        assert!(
            tau(&model) > last && tau(&model) <= most,
            "{} after {last}",
            tau(&model)
        );
        last = tau(&model);
    }
    // A site that has not grown has no running scores.
    assert!(
        !model
            .training_settings()
            .tracked
            .contains_key("blocks.1.proj")
    );
    // A later growth begins where it stands.
    let again = Growth {
        ffn: Amount::Add(20),
        ..growth
    };
    must_grow(&mut model, &mut optimizer, &again);
    let tracked = &model.training_settings().tracked["blocks.1.ffn"];
    assert_eq!(
        (tracked.from, tracked.old_segments, tracked.old),
        (last, 2, 0.0)
    );
}

#[test]
fn new_keys_have_scores_of_the_old_size() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let growth = Growth {
        qkv: Amount::Add(600),
        ..way(Method::RandomKeyZeroValue)
    };
    let report = must_grow(&mut model, &mut optimizer, &growth);
    assert!(report.relative_logit_diff < 0.1, "{report:?}");
    let site = model.blocks()[0].site(SiteKind::Query).unwrap();
    assert_eq!(site.config().tau, 612f64.sqrt());
    // The first layer's inputs are the normalised rows of the embedding.
    let table = array(&model, "embedding");
    let probe = tokens(1, 24, 29);
    let size = |part: usize| {
        let keys = host(model.device(), site.segments()[part].keys.value());
        let mut scores = Vec::new();
        for token in &probe {
            let x = &table[*token as usize * 16..][..16];
            let mean = x.iter().sum::<f32>() / 16.0;
            let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 16.0;
            let row: Vec<f32> = x.iter().map(|x| (x - mean) / (var + 1e-5).sqrt()).collect();
            let dots = keys
                .chunks(16)
                .map(|k| k.iter().zip(&row).map(|(k, x)| k * x).sum::<f32>());
            scores.extend(dots);
        }
        rms(&scores)
    };
    let ratio = size(1) / size(0);
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
}

#[test]
fn new_blocks_stand_where_they_are_asked_to() {
    let three = |family: ModelSpec| ModelSpec {
        layers: 3,
        ..family
    };
    let cases = [
        // The numbers that the old blocks have then.
        (Method::IdentityBlocks, 3, None, [0, 2, 4]),
        (Method::IdentityBlocks, 1, None, [0, 1, 3]),
        (Method::IdentityBlocks, 2, Some(At::End), [0, 1, 2]),
        (Method::IdentityBlocks, 2, Some(At::Start), [2, 3, 4]),
        (Method::IdentityBlocks, 2, Some(At::Middle), [0, 1, 4]),
        (Method::IdentityBlocks, 2, Some(At::After(1)), [0, 3, 4]),
        (Method::FreshBlocks, 1, Some(At::After(0)), [1, 2, 3]),
        (Method::Stack, 6, None, [0, 1, 2]),
        (Method::RepeatLast, 2, None, [0, 1, 2]),
        (Method::Interpose, 3, None, [0, 2, 4]),
    ];
    for family in [three(spec()), three(gpt2())] {
        for (method, layers, at, numbers) in cases {
            let (mut model, mut optimizer) = trained(&cpu(), &family);
            let old: BTreeMap<_, _> = weights(&model).into_iter().collect();
            let ids: BTreeMap<_, _> = model
                .each_param()
                .map(|p| (p.name().to_string(), p.id()))
                .collect();
            let growth = Growth {
                layers,
                at,
                ..way(method)
            };
            must_grow(&mut model, &mut optimizer, &growth);
            let now: BTreeMap<_, _> = weights(&model).into_iter().collect();
            let source = |b: usize| match method {
                Method::Stack => Some(b % 3),
                Method::RepeatLast => Some(2),
                Method::Interpose => Some(b / 2),
                _ => None,
            };
            for param in model.each_param() {
                let Some(b) = param.path().block() else {
                    continue;
                };
                let name = param.name();
                let as_block = |b: usize| param.path().in_block(b).to_string();
                match numbers.iter().position(|number| *number == b) {
                    Some(old_b) => {
                        assert!(now[name] == old[&as_block(old_b)], "{name}: {growth:?}");
                        assert_eq!(
                            param.id(),
                            ids[&as_block(old_b)],
                            "its moments stay: {name}"
                        );
                    }
                    None => {
                        if let Some(of) = source(b) {
                            assert!(now[name] == old[&as_block(of)], "{name}: {growth:?}");
                        } else if name.ends_with("query.weight")
                            || name.ends_with("query.segments.0.keys")
                        {
                            let is_copy = old.values().any(|numbers| *numbers == now[name]);
                            assert!(!is_copy, "{name} has numbers of its own");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn settings_follow_the_blocks_that_move() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let growth = Growth {
        sites: [("blocks.1.ffn".to_string(), Amount::Add(5))].into(),
        tau: TauRule::Anneal(50),
        freeze_old: true,
        ..way(Method::ZeroKey)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let growth = Growth {
        layers: 1,
        at: Some(At::Start),
        ..way(Method::IdentityBlocks)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let settings = model.training_settings();
    assert_eq!(
        settings.anneals.keys().collect::<Vec<_>>(),
        ["blocks.2.ffn"]
    );
    assert!(settings.params["blocks.2.ffn.segments.1.keys"].trainable);
    assert!(!settings.params["blocks.1.query.segments.0.keys"].trainable);
    assert!(settings.params["blocks.0.query.segments.0.keys"].trainable);
}

/// The `τ`s of the feed-forward layers.
fn ffn_taus(model: &Model) -> Vec<f64> {
    let blocks = model.config().blocks;
    (blocks.iter())
        .map(|block| block.site(SiteKind::Ffn).unwrap().tau)
        .collect()
}

/// A copy of a block is trained as the block is: a `τ` that moves does so in both.
#[test]
fn copied_blocks_have_the_rules_of_tau_too() {
    let tokens = |tau| Growth {
        ffn: Amount::Add(60),
        tau,
        warmup: Some(0),
        ..way(Method::ZeroKey)
    };
    let copies = Growth {
        layers: 2,
        ..way(Method::Interpose)
    };
    for tau in [TauRule::Anneal(10), TauRule::Tracked] {
        let both = Growth {
            layers: 2,
            blocks: NewBlocks::Interpose,
            method: None,
            ..tokens(tau)
        };
        for growths in [vec![both], vec![tokens(tau), copies.clone()]] {
            let (mut model, mut optimizer) = trained(&cpu(), &spec());
            for growth in &growths {
                must_grow(&mut model, &mut optimizer, growth);
                train(&mut model, &mut optimizer, 3);
                model.set_step(BIRTH.step + 3);
            }
            let settings = model.training_settings();
            let rules = [settings.anneals.len(), settings.tracked.len()];
            assert_eq!(rules.iter().sum::<usize>(), 4, "{tau}: {settings:?}");
            let before = ffn_taus(&model);
            train(&mut model, &mut optimizer, 3);
            model.set_step(BIRTH.step + 8);
            let after = ffn_taus(&model);
            for (before, after) in before.iter().zip(&after) {
                assert!(after > before, "{tau}: {before} -> {after}");
            }
            if tau != TauRule::Tracked {
                assert!(after.iter().all(|tau| *tau == after[0]), "{after:?}");
            }
        }
    }
}

/// A growth of tokens and of blocks: the copies have what the same growth adds.
#[test]
fn copied_blocks_have_the_new_tokens_too() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let growth = Growth {
        ffn: Amount::Add(6),
        layers: 2,
        blocks: NewBlocks::Copy,
        ..way(Method::Segment)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let values = array(&model, "blocks.3.ffn.segments.1.values");
    assert!(values.len() == 6 * 16 && values.iter().all(|x| *x == 0.0));
    assert!(rms(&array(&model, "blocks.3.ffn.segments.1.keys")) > 0.0);
    assert!(
        array(&model, "blocks.3.ffn.segments.0.keys")
            == array(&model, "blocks.1.ffn.segments.0.keys")
    );
}

#[test]
fn layers_grow_by_amounts_of_their_own() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let growth = Growth {
        qkv: Amount::Add(4),
        key: Some(Amount::Add(8)),
        value: Some(Amount::Add(0)),
        sites: [
            ("blocks.0.query".to_string(), Amount::To(30)),
            ("blocks.1.ffn".to_string(), Amount::Add(3)),
        ]
        .into(),
        ..way(Method::Segment)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let tokens = |b: usize| SiteKind::ALL.map(|kind| model.config().blocks[b].layer(kind).hidden());
    assert_eq!(
        (tokens(0), tokens(1)),
        ([30, 20, 12, 10, 20], [16, 20, 12, 10, 23])
    );
    assert_eq!(
        growth.summary(),
        "+4 query, +8 key, =30 blocks.0.query, +3 blocks.1.ffn (segment)"
    );
    // What is named grows, and what does not grow where others do is named as well.
    let growth = Growth {
        value: None,
        key: None,
        ffn: Amount::Add(5),
        sites: [
            ("blocks.0.ffn".to_string(), Amount::Add(0)),
            ("blocks.1.ffn".to_string(), Amount::Add(5)),
            ("blocks.1.proj".to_string(), Amount::Add(0)),
        ]
        .into(),
        ..growth
    };
    assert_eq!(
        growth.summary(),
        "+4 qkv, +5 ffn, +0 blocks.0.ffn (segment)"
    );
}

#[test]
fn new_numbers_have_the_size_of_the_old_ones() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let sizes = |model: &Model, segment: u32| {
        let of = |part| {
            rms(&array(
                model,
                &format!("blocks.0.ffn.segments.{segment}.{part}"),
            ))
        };
        (of("keys"), of("values"))
    };
    let old = sizes(&model, 0);
    let grown = |method| Growth {
        ffn: Amount::Add(400),
        ..way(method)
    };
    must_grow(&mut model, &mut optimizer, &grown(Method::ZeroKey));
    let (keys, values) = sizes(&model, 1);
    assert_eq!(keys, 0.0);
    assert!((values / old.1 - 1.0).abs() < 0.05);
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    must_grow(&mut model, &mut optimizer, &grown(Method::Segment));
    let (keys, values) = sizes(&model, 1);
    assert_eq!(values, 0.0);
    assert!((keys / old.0 - 1.0).abs() < 0.05);
}

#[test]
fn old_arrays_learn_at_a_rate_of_their_own() {
    let (mut model, mut optimizer) = trained(&cpu(), &spec());
    let growth = Growth {
        ffn: Amount::Add(40),
        old_lr: 0.3,
        ..way(Method::Segment)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    for param in model.each_param() {
        let want = match (
            param.name().contains("segments.1"),
            param.name().ends_with("values"),
        ) {
            (true, true) => (0.5, 1.0),
            (true, false) => (1.0, 1.0),
            (false, _) => (1.0, 0.3),
        };
        let how = param.training;
        assert_eq!((how.lr_scale, how.old_lr), want, "{}", param.name());
    }
}

/// No array of a wider network is an old one, so no earlier growth keeps it frozen or slow.
#[test]
fn a_wider_network_learns_as_a_whole() {
    let settings = |first: Growth, method| {
        let (mut model, mut optimizer) = trained(&cpu(), &gpt());
        must_grow(&mut model, &mut optimizer, &first);
        let wide = Growth {
            width: Amount::To(32),
            ..way(method)
        };
        must_grow(&mut model, &mut optimizer, &wide);
        assert!(model.each_param().all(|p| p.trainable()), "{method}");
        let before = weights(&model);
        train(&mut model, &mut optimizer, 2);
        for ((name, before), (_, after)) in before.iter().zip(weights(&model)) {
            assert!(*before != after, "{method}: {name}");
        }
        model.training_settings()
    };
    let hidden = || Growth {
        ffn: Amount::Add(24),
        ..way(Method::Ffn)
    };
    for method in [Method::Corner, Method::Clone] {
        let usual = settings(hidden(), method);
        let frozen = Growth {
            freeze_old: true,
            ..hidden()
        };
        let slow = Growth {
            old_lr: 0.25,
            ..hidden()
        };
        for first in [frozen, slow] {
            assert_eq!(settings(first, method), usual, "{method}");
        }
    }
}

#[test]
fn rates_follow_the_fan_in() {
    let base = BaseSizes {
        width: 8,
        mlp_hidden: 20,
        qkv: 6,
        proj: 0,
        ffn: 10,
    };
    let scale = |model: &Model, name: &str| {
        let param = model.each_param().find(|p| p.name() == name);
        param
            .unwrap_or_else(|| panic!("no {name}"))
            .training
            .lr_scale
    };
    let mut model = fresh(&cpu(), &spec(), 1);
    model.scale_rates(&base);
    for (name, want) in [
        ("embedding", 1.0),
        ("blocks.0.query.segments.0.keys", 1.0),
        ("blocks.0.query.segments.0.values", 0.5),
        ("blocks.0.proj.segments.0.values", 1.0),
        ("blocks.1.ffn.segments.0.values", 0.5),
        ("final_norm.gain", 1.0),
    ] {
        assert_eq!(scale(&model, name), want, "{name}");
    }
    // 40 new values for a base of 10: a quarter, independent of the first segment.
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    train(&mut model, &mut optimizer, 2);
    let growth = Growth {
        ffn: Amount::Add(40),
        layers: 1,
        ..way(Method::Segment)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    assert_eq!(scale(&model, "blocks.0.ffn.segments.1.values"), 0.25);
    // The new block has all 60 tokens in one segment.
    assert!((scale(&model, "blocks.2.ffn.segments.0.values") - 1.0 / 6.0).abs() < 1e-7);

    let mut model = fresh(&cpu(), &gpt(), 1);
    model.scale_rates(&base);
    assert_eq!(scale(&model, "blocks.0.ffn.up.weight"), 0.5);
    assert_eq!(scale(&model, "blocks.0.ffn.down.weight"), 0.5);
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    let growth = Growth {
        width: Amount::To(32),
        ..way(Method::Clone)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    for name in [
        "blocks.0.ffn.up.weight",
        "blocks.0.ffn.down.weight",
        "blocks.1.proj.weight",
    ] {
        assert_eq!(scale(&model, name), 0.25, "{name}");
    }
    assert_eq!(scale(&model, "embedding"), 1.0);
    assert_eq!(model.training_settings().base, base);
    let full = Growth {
        width: Amount::To(64),
        rate: Rate::Full,
        ..way(Method::Lemon)
    };
    must_grow(&mut model, &mut optimizer, &full);
    assert_eq!(scale(&model, "blocks.1.proj.weight"), 0.25);
}

#[track_caller]
fn refused(spec: &ModelSpec, growth: &Growth, words: &[&str]) {
    let mut model = fresh(&cpu(), spec, 1);
    let before = (weights(&model), model.config());
    let error = grow(&mut model, growth, BIRTH, Probe::text(&[1, 2, 3])).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(text.contains("help:"), "{text}");
    assert!(before == (weights(&model), model.config()));
}

/// A setting without effect is a mistake of its user.
#[test]
fn settings_without_effect_are_refused() {
    let more = Growth {
        ffn: Amount::Add(8),
        ..Growth::default()
    };
    let segments = ModelSpec {
        norm: NormSpan::Segment,
        ..spec()
    };
    let anneal = Growth {
        tau: TauRule::Anneal(100),
        ..more.clone()
    };
    refused(&segments, &anneal, &["growth: tau", "joint norm"]);
    let at = Growth {
        at: Some(At::Start),
        ..more.clone()
    };
    refused(&spec(), &at, &["growth: at", "no block is added"]);
    let copies = Growth {
        blocks: NewBlocks::Copy,
        ..more.clone()
    };
    refused(&spec(), &copies, &["growth: blocks", "no block is added"]);
    for (field, growth) in [
        (
            "keys",
            Growth {
                keys: Some(Fill::Random),
                ..more.clone()
            },
        ),
        (
            "values",
            Growth {
                values: Some(Fill::Zero),
                ..more.clone()
            },
        ),
        (
            "norm",
            Growth {
                norm: Some(NormSpan::Joint),
                ..more.clone()
            },
        ),
        (
            "tau",
            Growth {
                tau: TauRule::SqrtN,
                ..more.clone()
            },
        ),
    ] {
        refused(&gpt(), &growth, &[field, "parameter tokens"]);
        let of_blocks = Growth {
            ffn: Amount::default(),
            layers: 1,
            ..growth
        };
        refused(&spec(), &of_blocks, &[field, "parameter tokens"]);
    }
}

#[test]
fn what_a_method_cannot_do_is_refused() {
    let ffn = |method| Growth {
        ffn: Amount::Add(8),
        ..way(method)
    };
    let wide = |method, width| Growth {
        width: Amount::To(width),
        ..way(method)
    };
    let blocks = |method| Growth {
        layers: 1,
        ..way(method)
    };
    let (tokenformer, plain) = (spec(), gpt());
    let silent = Growth {
        noise: Some(0.0),
        ..wide(Method::Clone, 32)
    };
    refused(&plain, &silent, &["noise", "equal for ever"]);
    refused(
        &plain,
        &wide(Method::Clone, 40),
        &["multiple of the width 16"],
    );
    refused(&plain, &wide(Method::Lemon, 48), &["twice the width, 32"]);
    refused(&plain, &wide(Method::Corner, 20), &["8 channels"]);
    refused(&plain, &wide(Method::Corner, 8), &["16"]);
    refused(&plain, &wide(Method::Corner, usize::MAX), &["width"]);
    let odd = ModelSpec {
        mlp_hidden: 41,
        ..gpt()
    };
    refused(
        &odd,
        &wide(Method::Corner, 24),
        &["whole number of hidden units"],
    );
    refused(
        &tokenformer,
        &wide(Method::Clone, 32),
        &["a plain Transformer"],
    );
    refused(
        &tokenformer,
        &ffn(Method::Ffn),
        &["blocks.0.ffn", "Pattention"],
    );
    refused(&plain, &ffn(Method::Segment), &["the layer is an MLP"]);
    for growth in [
        Growth {
            keys: Some(Fill::Zero),
            ..ffn(Method::Segment)
        },
        Growth {
            values: Some(Fill::Zero),
            ..ffn(Method::ZeroKey)
        },
        Growth {
            norm: Some(NormSpan::Joint),
            ..ffn(Method::Segment)
        },
        Growth {
            tau: TauRule::Tracked,
            ..ffn(Method::Segment)
        },
        Growth {
            blocks: NewBlocks::Copy,
            ..blocks(Method::IdentityBlocks)
        },
        Growth {
            at: Some(At::Start),
            ..blocks(Method::Stack)
        },
        Growth {
            ffn: Amount::Add(8),
            ..blocks(Method::Stack)
        },
        Growth {
            query: Some(Amount::Add(8)),
            ..blocks(Method::Stack)
        },
        Growth {
            width: Amount::Add(16),
            ..ffn(Method::Segment)
        },
        Growth {
            width: Amount::Add(16),
            ..Growth::default()
        },
        Growth {
            noise: Some(0.1),
            ..ffn(Method::Segment)
        },
        Growth {
            shrink: Some(0.1),
            ..wide(Method::Clone, 32)
        },
        Growth {
            layers: 1,
            ..wide(Method::Clone, 32)
        },
        Growth {
            freeze_old: true,
            ..wide(Method::Clone, 32)
        },
        Growth {
            old_lr: 0.3,
            ..wide(Method::Corner, 32)
        },
    ] {
        refused(&tokenformer, &growth, &["nothing, with", "leave it out"]);
    }
    for number in [-0.1, f32::NAN, f32::INFINITY] {
        let growth = Growth {
            old_lr: number,
            ..ffn(Method::Segment)
        };
        refused(&tokenformer, &growth, &["old_lr"]);
        let noise = Some(f64::from(number));
        refused(
            &plain,
            &Growth {
                noise,
                ..wide(Method::Clone, 32)
            },
            &["noise"],
        );
    }
    let far = Growth {
        at: Some(At::After(3)),
        ..blocks(Method::IdentityBlocks)
    };
    refused(&tokenformer, &far, &["at most the 2 blocks", "after:3"]);
    for name in ["blocks.2.ffn", "blocks.0.mlp", "ffn", "embedding"] {
        let growth = Growth {
            sites: [(name.to_string(), Amount::Add(1))].into(),
            ..way(Method::Segment)
        };
        refused(&tokenformer, &growth, &["sites", name]);
    }
    let softmax = ModelSpec {
        theta: Theta::Softmax,
        ..spec()
    };
    let growth = Growth {
        tau: TauRule::Tracked,
        ..ffn(Method::ZeroKey)
    };
    refused(&softmax, &growth, &["tracked", "softmax"]);
    let growth = Growth {
        values: Some(Fill::Scores),
        ffn: Amount::Add(2),
        ..Growth::default()
    };
    refused(&tokenformer, &growth, &["values have no scores"]);
}

/// A growth of an earlier version has none of the later keys, and means what it did.
#[test]
fn a_growth_is_read_as_it_was_written() {
    let old = r#"{"qkv":"+4","proj":"+0","ffn":"=40","layers":1,"blocks":"zero","norm":"segment","tau":"pinned",
        "rate":"slots","freeze_old":true}"#;
    let read: Growth = serde_json::from_str(old).unwrap();
    let want = Growth {
        qkv: Amount::Add(4),
        ffn: Amount::To(40),
        layers: 1,
        norm: Some(NormSpan::Segment),
        freeze_old: true,
        ..Growth::default()
    };
    assert_eq!(read, want);
    let text = serde_json::to_string(&want).unwrap();
    assert!(
        !text.contains("method") && !text.contains("width"),
        "{text}"
    );
    for (_, growth, _) in all_ways() {
        let text = serde_json::to_string(&growth).unwrap();
        assert_eq!(serde_json::from_str::<Growth>(&text).unwrap(), growth);
    }
    for method in Method::ALL {
        assert_eq!(method.name().parse(), Ok(method));
        assert_eq!(
            serde_json::to_string(&method).unwrap(),
            format!("\"{method}\"")
        );
    }
    assert!("net2net".parse::<Method>().unwrap_err().contains("corner"));
    for (text, at) in [
        ("start", At::Start),
        ("even", At::Even),
        ("after:12", At::After(12)),
    ] {
        assert_eq!((text.parse(), at.to_string()), (Ok(at), text.to_string()));
    }
    assert!("after:".parse::<At>().is_err() && "between".parse::<At>().is_err());
}

/// Gradients take memory only for existing arrays: those of replaced arrays are freed.
#[test]
fn the_optimizer_gives_up_what_was_replaced() {
    let device = cpu();
    let (mut model, mut optimizer) = trained(&device, &gpt());
    let growth = Growth {
        width: Amount::To(32),
        ..way(Method::Clone)
    };
    must_grow(&mut model, &mut optimizer, &growth);
    let bytes = 3 * 4 * model.param_count() as usize;
    let held = device.usage().persistent;
    // Weights and two moments; besides them tables of angles and the state of a step.
    assert!(held < bytes + bytes / 10 + 20_000, "{held} for {bytes}");
    let found = Gradients::zeros(&device, model.params()).unwrap();
    assert_eq!(found.held(), 0);
}
