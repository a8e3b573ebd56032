//! Growing keeps the function bit for bit where it promises to, and the grown model learns.

mod common;

use common::{
    ROTARY, bits, cases, cpu, encoder, fresh, gpt, gpt2, gradients, host, max_abs_difference, pair,
    spec, tokens, train_step, weights,
};
use proptest::prelude::*;
use tokenformer_core::config::{
    Init, LogitScale, ModelSpec, NormKind, NormSpan, Positions, SiteKind, Slots, Theta,
};
use tokenformer_core::generate::Session;
use tokenformer_core::growth::{
    Amount, Birth, Fill, Growth, GrowthReport, NewBlocks, Probe, TauRule, grow, params_after,
};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Error, Model};

fn birth(stage: u32) -> Birth {
    Birth {
        stage,
        step: 100 * u64::from(stage),
        seed: 7,
    }
}

/// Logits of a text in one pass, and those of its last token decoded alone: both ways to compute them.
fn outputs(model: &Model, text: &[u32]) -> Vec<u32> {
    let mut session = Session::new(model, text.len()).unwrap();
    session.feed(&text[..text.len() - 1]).unwrap();
    session.feed(&text[text.len() - 1..]).unwrap();
    let mut all = bits(&model.infer(text, 1).unwrap());
    all.extend(bits(session.logits()));
    all
}

fn all_sites(n: usize) -> Growth {
    Growth {
        qkv: Amount::Add(n),
        proj: Amount::Add(n),
        ffn: Amount::Add(2 * n),
        ..Growth::default()
    }
}

fn must_grow(model: &mut Model, growth: &Growth, stage: u32) -> GrowthReport {
    let probe = tokens(u64::from(stage), 2 * 10, model.vocab());
    grow(model, growth, birth(stage), pair(&probe)).unwrap()
}

fn train(model: &mut Model, optimizer: &mut AdamW, steps: u64, lr: f64) -> Vec<f64> {
    optimizer.extend(model).unwrap();
    let v = model.vocab();
    let (inputs, targets) = (tokens(50, 40, v), tokens(51, 40, v));
    (0..steps)
        .map(|_| train_step(model, optimizer, [&inputs, &targets], 2, lr).0)
        .collect()
}

/// Specs, and theta and norm that can keep the function.
fn any_spec() -> impl Strategy<Value = ModelSpec> {
    let kinds = prop::sample::select(vec![
        (Theta::L2NormGelu, NormSpan::Joint),
        (Theta::GeluL2Norm, NormSpan::Joint),
        (Theta::L2NormGelu, NormSpan::Segment),
        (Theta::L1NormGelu, NormSpan::Joint),
        (Theta::L1NormGelu, NormSpan::Segment),
        (Theta::GeluL2Norm, NormSpan::Segment),
        (Theta::Softmax, NormSpan::Segment),
    ]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let sizes = (
        1..3usize,
        1..3usize,
        1..4usize,
        1..15usize,
        1..15usize,
        1..70usize,
    );
    (kinds, flags, sizes).prop_map(
        |((theta, norm), (a, b, c, d), (layers, heads, quarter, qkv, proj, ffn))| ModelSpec {
            width: heads * quarter * 4,
            layers,
            heads,
            slots: Slots { qkv, proj, ffn },
            theta,
            norm,
            positions: if a { ROTARY } else { Positions::None },
            final_norm: if b { NormKind::Affine } else { NormKind::Plain },
            logit_scale: if c {
                LogitScale::One
            } else {
                LogitScale::InverseSqrtWidth
            },
            init: if d { Init::Released } else { Init::FanIn },
            ..spec()
        },
    )
}

fn any_growth() -> impl Strategy<Value = Growth> {
    let tau = prop_oneof![
        Just(TauRule::Pinned),
        (1..1000u64).prop_map(TauRule::Anneal)
    ];
    (
        0..70usize,
        0..20usize,
        0..70usize,
        0..3usize,
        tau,
        any::<bool>(),
    )
        .prop_map(|(qkv, proj, ffn, layers, tau, freeze_old)| Growth {
            qkv: Amount::Add(qkv),
            proj: Amount::Add(proj),
            ffn: Amount::Add(ffn),
            layers,
            tau,
            freeze_old,
            ..Growth::default()
        })
}

/// The same growth without its tokens.
fn only_blocks(growth: &Growth) -> Growth {
    Growth {
        qkv: Amount::Add(0),
        proj: Amount::Add(0),
        ffn: Amount::Add(0),
        ..growth.clone()
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn any_preserving_growth_twice(
        spec in any_spec(), first in any_growth(), second in any_growth(), steps in 0..4u64, seed in 0..1000u64,
    ) {
        let mut model = fresh(&cpu(), &spec, seed);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        let text = tokens(seed, 20, spec.vocab);
        for (stage, growth) in [(1, first), (2, second)] {
            // A rule of τ is for grown sites with a joint norm.
            let is_ruled = spec.norm == NormSpan::Joint && growth != only_blocks(&growth);
            let tau = if is_ruled { growth.tau } else { TauRule::Pinned };
            let growth = &Growth { tau, ..growth };
            train(&mut model, &mut optimizer, steps, 1e-2);
            // An older anneal may be over by now; the new one begins here.
            model.set_step(birth(stage).step);
            let before = (outputs(&model, &text), model.param_count());
            let promised = params_after(&model, growth).unwrap();
            let report = must_grow(&mut model, growth, stage);
            model.set_step(birth(stage).step);
            prop_assert!(before.0 == outputs(&model, &text), "stage {} of {:?}", stage, &model.config());
            prop_assert!(report.preserving);
            prop_assert_eq!((report.max_logit_diff, report.relative_logit_diff), (0.0, 0.0));
            prop_assert_eq!(promised, model.param_count());
            prop_assert_eq!((report.params_before, report.params_after), (before.1, promised));
            prop_assert_eq!(model.config().params(), promised);
            model.config().validate().unwrap();
        }
    }
}

#[test]
fn a_growth_after_a_change_of_norm() {
    for (from, to) in [
        (NormSpan::Joint, NormSpan::Segment),
        (NormSpan::Segment, NormSpan::Joint),
    ] {
        let mut model = fresh(
            &cpu(),
            &ModelSpec {
                norm: from,
                ..spec()
            },
            1,
        );
        let text = tokens(1, 20, 29);
        let before = outputs(&model, &text);
        let report = must_grow(
            &mut model,
            &Growth {
                norm: Some(to),
                ..all_sites(9)
            },
            1,
        );
        assert_eq!(before, outputs(&model, &text));
        assert!(report.preserving);
        let config = model.config();
        assert!(
            SiteKind::ALL
                .iter()
                .all(|k| config.blocks[0].site(*k).unwrap().norm == to)
        );
    }
}

/// For each new array of a grown site: its name and whether its gradient is not zero.
fn new_gradients(model: &Model, is_new: impl Fn(&str) -> bool) -> Vec<(String, bool)> {
    let (inputs, targets) = (tokens(1, 40, 29), tokens(2, 40, 29));
    let (_, found) = gradients(model, &inputs, &targets, 2);
    let new = model.params().into_iter().filter(|p| is_new(p.name()));
    new.map(|p| {
        let gradient = host(model.device(), found.get(p).unwrap());
        (p.name().to_string(), gradient.iter().any(|g| *g != 0.0))
    })
    .collect()
}

#[test]
fn new_tokens_learn_from_the_first_step() {
    for (theta, norm, moving) in [
        (Theta::L2NormGelu, NormSpan::Joint, "keys"),
        (Theta::GeluL2Norm, NormSpan::Joint, "keys"),
        (Theta::L1NormGelu, NormSpan::Joint, "keys"),
        (Theta::L2NormGelu, NormSpan::Segment, "values"),
        (Theta::GeluL2Norm, NormSpan::Segment, "values"),
        (Theta::Softmax, NormSpan::Segment, "values"),
    ] {
        let mut model = fresh(
            &cpu(),
            &ModelSpec {
                theta,
                norm,
                ..spec()
            },
            1,
        );
        must_grow(&mut model, &all_sites(9), 1);
        let found = new_gradients(&model, |name| name.contains("segments.1"));
        assert_eq!(found.len(), 2 * 5 * 2);
        for (name, moves) in found {
            assert_eq!(
                moves,
                name.ends_with(moving),
                "{name} ({theta:?}, {norm:?})"
            );
        }
        // After one update the other half moves too.
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        train(&mut model, &mut optimizer, 1, 1e-2);
        for (name, moves) in new_gradients(&model, |name| name.contains("segments.1")) {
            assert!(moves, "{name} after an update ({theta:?}, {norm:?})");
        }
    }
}

#[test]
fn new_blocks_learn_from_the_first_step() {
    for theta in Theta::ALL {
        let mut model = fresh(&cpu(), &ModelSpec { theta, ..spec() }, 1);
        must_grow(
            &mut model,
            &Growth {
                layers: 1,
                ..Growth::default()
            },
            1,
        );
        for (name, moves) in new_gradients(&model, |name| name.starts_with("blocks.2")) {
            let first = [
                "blocks.2.proj.segments.0.values",
                "blocks.2.ffn.segments.0.values",
            ];
            assert_eq!(moves, first.contains(&&*name), "{name} ({theta:?})");
        }
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        train(&mut model, &mut optimizer, 1, 1e-2);
        for (name, moves) in new_gradients(&model, |name| name.starts_with("blocks.2")) {
            assert!(moves, "{name} after an update ({theta:?})");
        }
    }
}

#[test]
fn training_goes_on_downwards() {
    for (norm, layers) in [(NormSpan::Joint, 0), (NormSpan::Segment, 1)] {
        let mut model = fresh(&cpu(), &ModelSpec { norm, ..spec() }, 1);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        let before = train(&mut model, &mut optimizer, 30, 3e-3);
        must_grow(
            &mut model,
            &Growth {
                layers,
                ..all_sites(12)
            },
            1,
        );
        let after = train(&mut model, &mut optimizer, 30, 3e-3);
        // The first loss after the growth is what the ungrown model would have had.
        assert!(after[0] < before[29], "{} then {}", before[29], after[0]);
        assert!(after[29] < 0.9 * after[0], "{} to {}", after[0], after[29]);
    }
}

#[test]
fn late_tokens_have_their_own_bias_correction() {
    let mut model = fresh(&cpu(), &spec(), 1);
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    train(&mut model, &mut optimizer, 5, 1e-3);
    must_grow(&mut model, &all_sites(4), 1);
    train(&mut model, &mut optimizer, 3, 1e-3);
    for param in model.params() {
        let steps = if param.name().contains("segments.1") {
            3
        } else {
            8
        };
        assert_eq!(
            optimizer.moments(param).unwrap().step,
            steps,
            "{}",
            param.name()
        );
    }
}

#[track_caller]
fn refused(model: &mut Model, growth: &Growth, words: &[&str]) {
    let (before, config) = (weights(model), model.config());
    assert!(params_after(model, growth).is_err());
    let error = grow(
        model,
        growth,
        birth(1),
        Probe::text(&tokens(1, 10, model.vocab())),
    )
    .unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
    let text = error.to_string();
    assert!(
        words.iter().all(|w| text.contains(w)) && text.contains("help:"),
        "{text}"
    );
    assert!(
        before == weights(model) && config == model.config(),
        "a refused growth changes nothing"
    );
}

#[test]
fn zero_keys_with_zero_values_are_refused() {
    let zero = Growth {
        keys: Some(Fill::Zero),
        values: Some(Fill::Zero),
        ..all_sites(3)
    };
    for norm in [NormSpan::Joint, NormSpan::Segment] {
        refused(
            &mut fresh(&cpu(), &ModelSpec { norm, ..spec() }, 1),
            &zero,
            &["both zero", "never learn"],
        );
    }
}

#[test]
fn zero_keys_under_a_norm_per_segment_are_refused() {
    let growth = Growth {
        keys: Some(Fill::Zero),
        values: Some(Fill::Random),
        ..all_sites(3)
    };
    refused(
        &mut fresh(
            &cpu(),
            &ModelSpec {
                norm: NormSpan::Segment,
                ..spec()
            },
            1,
        ),
        &growth,
        &["zero keys"],
    );
    let growth = Growth {
        norm: Some(NormSpan::Segment),
        ..growth
    };
    refused(&mut fresh(&cpu(), &spec(), 1), &growth, &["zero keys"]);
}

#[test]
fn changing_the_norm_of_several_segments_is_refused() {
    let mut model = fresh(&cpu(), &spec(), 1);
    must_grow(&mut model, &all_sites(3), 1);
    let growth = Growth {
        norm: Some(NormSpan::Segment),
        ..all_sites(3)
    };
    refused(&mut model, &growth, &["blocks.0.query", "several segments"]);
}

#[test]
fn a_total_below_the_present_one_is_refused() {
    let mut model = fresh(&cpu(), &spec(), 1);
    refused(
        &mut model,
        &Growth {
            ffn: Amount::To(19),
            ..Growth::default()
        },
        &["ffn", "at least the 20", "=19"],
    );
}

#[test]
fn absurd_amounts_are_refused() {
    let mut model = fresh(&cpu(), &spec(), 1);
    for n in [usize::MAX, 1 << 40, 1 << 25] {
        for amount in [Amount::Add(n), Amount::To(n)] {
            refused(
                &mut model,
                &Growth {
                    qkv: amount,
                    ..Growth::default()
                },
                &["query"],
            );
        }
        refused(
            &mut model,
            &Growth {
                layers: n,
                ..Growth::default()
            },
            &["layers"],
        );
    }
}

#[test]
fn totals_and_additions_agree() {
    let (mut a, mut b) = (fresh(&cpu(), &spec(), 1), fresh(&cpu(), &spec(), 1));
    must_grow(
        &mut a,
        &Growth {
            qkv: Amount::Add(8),
            ffn: Amount::Add(5),
            ..Growth::default()
        },
        1,
    );
    must_grow(
        &mut b,
        &Growth {
            qkv: Amount::To(20),
            ffn: Amount::To(25),
            ..Growth::default()
        },
        1,
    );
    assert!(weights(&a) == weights(&b) && a.config() == b.config());
}

#[test]
fn growing_by_nothing_changes_nothing() {
    for nothing in [
        Growth::default(),
        Growth {
            qkv: Amount::To(12),
            proj: Amount::Add(0),
            freeze_old: true,
            ..Growth::default()
        },
        Growth {
            norm: Some(NormSpan::Segment),
            tau: TauRule::SqrtN,
            ..Growth::default()
        },
    ] {
        let mut model = fresh(&cpu(), &spec(), 1);
        let (before, config) = (weights(&model), model.config());
        let report = must_grow(&mut model, &nothing, 1);
        assert_eq!(config, model.config());
        assert!(before == weights(&model));
        assert_eq!(
            (report.params_before, report.max_logit_diff),
            (report.params_after, 0.0)
        );
    }
    assert_eq!(Growth::default().summary(), "nothing");
}

#[test]
fn the_released_way_moves_the_function_and_says_how_far() {
    let mut model = fresh(&cpu(), &spec(), 1);
    let probe = tokens(3, 2 * 15, 29);
    let before = model.infer(&probe, 2).unwrap();
    let growth = Growth {
        keys: Some(Fill::Random),
        values: Some(Fill::Random),
        tau: TauRule::SqrtN,
        ..all_sites(10)
    };
    let report = grow(&mut model, &growth, birth(1), pair(&probe)).unwrap();
    let after = model.infer(&probe, 2).unwrap();
    assert!(!report.preserving);
    assert_eq!(report.max_logit_diff, max_abs_difference(&before, &after));
    assert!(report.max_logit_diff > 0.01);
    let square = |x: f64| x * x;
    let off: f64 = before
        .iter()
        .zip(&after)
        .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
        .sum();
    let all: f64 = before.iter().map(|a| square(f64::from(*a))).sum();
    assert!((report.relative_logit_diff / (off / all).sqrt() - 1.0).abs() < 1e-12);
    for kind in SiteKind::ALL {
        let config = model.config();
        let site = config.blocks[1].site(kind).unwrap();
        assert_eq!(site.tau, (site.tokens() as f64).sqrt());
    }
}

#[test]
fn softmax_under_a_joint_norm_makes_no_promise() {
    let mut model = fresh(
        &cpu(),
        &ModelSpec {
            theta: Theta::Softmax,
            ..spec()
        },
        1,
    );
    let report = must_grow(&mut model, &all_sites(10), 1);
    assert!(!report.preserving && report.max_logit_diff > 0.0);
}

#[test]
fn the_report_counts() {
    let mut model = fresh(&cpu(), &spec(), 1);
    let report = must_grow(
        &mut model,
        &Growth {
            layers: 1,
            ..all_sites(10)
        },
        3,
    );
    assert_eq!((report.stage, report.step), (3, 300));
    assert_eq!((report.layers_before, report.layers_after), (2, 3));
    let ffn = report
        .sites
        .iter()
        .find(|s| s.site == SiteKind::Ffn)
        .unwrap();
    assert_eq!((ffn.tokens_before, ffn.tokens_after), (20, 40));
    assert_eq!((ffn.most_before, ffn.most_after), (None, None));
    // 2 blocks of 20 tokens before, 3 of 40 after; a token is 2 rows of 16 numbers.
    assert_eq!(
        (ffn.params_before, ffn.params_after),
        (2 * 20 * 32, 3 * 40 * 32)
    );
    let added: u64 = report
        .sites
        .iter()
        .map(|s| s.params_after - s.params_before)
        .sum();
    assert_eq!(added, report.params_after - report.params_before);
    assert_eq!(
        report.growth.summary(),
        "+10 qkv, +10 proj, +20 ffn, +1 layers"
    );
    let config = model.config();
    let segment = &config.blocks[0].site(SiteKind::Ffn).unwrap().segments[1];
    assert_eq!(
        (
            segment.tokens,
            segment.stage,
            segment.born_step,
            segment.tau
        ),
        (20, 3, 300, 20f64.sqrt())
    );
    // Where blocks differ, the fewest and the most tokens of one.
    let single = Growth {
        sites: [("blocks.0.ffn".to_string(), Amount::Add(6))].into(),
        ..Growth::default()
    };
    let report = must_grow(&mut model, &single, 4);
    let ffn = report.sites.last().expect("the feed-forward layers");
    assert_eq!((ffn.tokens_before, ffn.most_before), (40, None));
    assert_eq!((ffn.tokens_after, ffn.most_after), (40, Some(46)));
}

#[test]
fn frozen_tokens_do_not_change_a_bit() {
    for norm in [NormSpan::Joint, NormSpan::Segment] {
        let mut model = fresh(&cpu(), &ModelSpec { norm, ..spec() }, 1);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        train(&mut model, &mut optimizer, 3, 1e-2);
        // Twice, with the same birth: what the first growth added is old for the second.
        for newest in ["segments.1", "segments.2"] {
            let growth = Growth {
                freeze_old: true,
                layers: 1,
                ..all_sites(6)
            };
            must_grow(&mut model, &growth, 1);
            let new_block = format!("blocks.{}", model.blocks().len() - 1);
            let before = weights(&model);
            let losses = train(&mut model, &mut optimizer, 5, 1e-2);
            assert!(losses[4] < losses[0]);
            for ((name, before), (_, after)) in before.into_iter().zip(weights(&model)) {
                let last = name.starts_with("blocks.2")
                    && newest == "segments.2"
                    && name.contains("segments.1");
                let is_new = last || name.contains(newest) || name.starts_with(&new_block);
                assert_eq!(before != after, is_new, "{name} ({norm:?})");
            }
            let training = model.training_settings().params;
            let is_trainable = |name: &str| training.get(name).is_none_or(|how| how.trainable);
            assert!(!is_trainable("embedding") && !is_trainable("final_norm.gain"));
            assert!(!is_trainable("blocks.0.query.segments.0.keys"));
            assert!(is_trainable(&format!("blocks.0.query.{newest}.keys")));
        }
    }
}

#[test]
fn an_annealed_tau_reaches_the_root_of_n() {
    let mut model = fresh(&cpu(), &spec(), 1);
    must_grow(
        &mut model,
        &Growth {
            tau: TauRule::Anneal(40),
            ..all_sites(8)
        },
        1,
    );
    let tau = |model: &Model| model.config().blocks[1].site(SiteKind::Ffn).unwrap().tau;
    let anneals = |model: &Model| {
        let anneals = model.training_settings().anneals;
        anneals.contains_key("blocks.1.ffn")
    };
    let (from, to) = (20f64.sqrt(), 36f64.sqrt());
    assert_eq!(tau(&model), from);
    let mut last = from;
    for step in 100..140 {
        model.set_step(step);
        let now = tau(&model);
        assert!(
            if step == 100 {
                now == from
            } else {
                now > last && now < to
            },
            "{now} at {step}"
        );
        last = now;
        assert!(anneals(&model));
    }
    model.set_step(120);
    assert!(
        (tau(&model) - (from * to).sqrt()).abs() < 1e-12,
        "half-way is the geometric mean"
    );
    model.set_step(140);
    assert_eq!((tau(&model), anneals(&model)), (to, false));
    model.set_step(10_000);
    assert_eq!(tau(&model), to);
}

/// A growth that pins `τ` keeps it where it is, also if an earlier growth was still moving it.
#[test]
fn a_pinned_tau_ends_an_anneal() {
    let mut model = fresh(&cpu(), &spec(), 1);
    let annealed = Growth {
        tau: TauRule::Anneal(40),
        ..all_sites(8)
    };
    must_grow(&mut model, &annealed, 1);
    model.set_step(120);
    let taus = |model: &Model| {
        let config = model.config();
        [SiteKind::Proj, SiteKind::Ffn].map(|kind| config.blocks[1].site(kind).unwrap().tau)
    };
    let [_, ffn] = taus(&model);
    let pinned = Growth {
        ffn: Amount::Add(8),
        ..Growth::default()
    };
    must_grow(&mut model, &pinned, 2);
    model.set_step(140);
    // Sites that do not grow go on as they were.
    assert_eq!(taus(&model), [18f64.sqrt(), ffn]);
}

#[test]
fn the_same_seed_grows_the_same_tokens() {
    let grown = |seed| {
        let mut model = fresh(&cpu(), &spec(), 1);
        let birth = Birth { seed, ..birth(1) };
        grow(
            &mut model,
            &Growth {
                layers: 1,
                ..all_sites(5)
            },
            birth,
            Probe::text(&[1, 2]),
        )
        .unwrap();
        weights(&model)
    };
    assert!(grown(1) == grown(1));
    assert!(grown(1) != grown(2));
}

/// Everything that can be computed with a model: an encoder has no cache.
fn logits(model: &Model, text: &[u32]) -> Vec<u32> {
    match model.config().causal {
        true => outputs(model, text),
        false => bits(&model.infer(text, 1).unwrap()),
    }
}

#[test]
fn new_blocks_of_a_plain_transformer_keep_every_bit_and_learn() {
    for spec in [gpt(), gpt2(), encoder()] {
        let mut model = fresh(&cpu(), &spec, 1);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        train(&mut model, &mut optimizer, 5, 1e-2);
        let text = tokens(3, 20, 29);
        let (before, old) = (logits(&model, &text), weights(&model));
        let growth = Growth {
            layers: 2,
            ..Growth::default()
        };
        let promised = params_after(&model, &growth).unwrap();
        let report = must_grow(&mut model, &growth, 1);
        assert!(before == logits(&model, &text), "{spec:?}");
        assert!(report.preserving && report.max_logit_diff == 0.0);
        assert_eq!((report.layers_before, report.layers_after), (2, 4));
        assert_eq!(
            (report.params_after, promised),
            (promised, model.param_count())
        );
        let now = weights(&model);
        assert!(
            old.iter().all(|array| now.contains(array)),
            "old arrays stay"
        );

        // The last projections move at once, all others after them.
        let is_new = |name: &str| name.starts_with("blocks.2.") || name.starts_with("blocks.3.");
        for (name, moves) in new_gradients(&model, is_new) {
            let last = [
                "proj.weight",
                "proj.bias",
                "ffn.down.weight",
                "ffn.down.bias",
            ];
            let first = last.iter().any(|end| name.ends_with(end));
            assert_eq!(moves, first, "{name}: {spec:?}");
        }
        let losses = train(&mut model, &mut optimizer, 5, 1e-2);
        assert!(losses[4] < losses[0], "{losses:?}");
        for (name, moves) in new_gradients(&model, is_new) {
            assert!(moves || name.ends_with("key.bias"), "{name}: {spec:?}");
        }
    }
}

#[test]
fn copied_blocks_say_how_far_they_move_the_function() {
    for spec in [spec(), gpt(), gpt2()] {
        let mut model = fresh(&cpu(), &spec, 1);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        train(&mut model, &mut optimizer, 5, 1e-2);
        let probe = tokens(3, 2 * 15, 29);
        let before = model.infer(&probe, 2).unwrap();
        let growth = Growth {
            layers: 3,
            blocks: NewBlocks::Copy,
            ..Growth::default()
        };
        let report = grow(&mut model, &growth, birth(1), pair(&probe)).unwrap();
        let after = model.infer(&probe, 2).unwrap();
        assert!(!report.preserving && report.max_logit_diff > 0.01);
        assert_eq!(report.max_logit_diff, max_abs_difference(&before, &after));
        assert_eq!((report.layers_before, report.layers_after), (2, 5));
        // Copies take the blocks in their order and start over after the last one.
        let arrays: std::collections::BTreeMap<_, _> = weights(&model).into_iter().collect();
        for (new, old) in [(2, 0), (3, 1), (4, 0)] {
            let (new, old) = (format!("blocks.{new}."), format!("blocks.{old}."));
            let of_new = arrays.iter().filter(|(name, _)| name.starts_with(&new));
            let mut count = 0;
            for (name, bits) in of_new {
                assert!(bits == &arrays[&name.replace(&new, &old)], "{name}");
                count += 1;
            }
            assert!(count >= 6, "{count} arrays in {new}");
        }
        // Copies begin with separate moments.
        optimizer.extend(&model).unwrap();
        for param in model.each_param() {
            let is_new = param.path().block().is_some_and(|b| b >= 2);
            let updates = optimizer.moments(param).unwrap().step;
            assert_eq!(updates, if is_new { 0 } else { 5 }, "{}", param.name());
        }
    }
}

#[test]
fn tokens_of_a_plain_transformer_are_refused() {
    let mut model = fresh(&cpu(), &gpt(), 1);
    for amount in [Amount::Add(8), Amount::To(64)] {
        let cases = [
            (
                "query",
                Growth {
                    qkv: amount,
                    ..Growth::default()
                },
            ),
            (
                "proj",
                Growth {
                    proj: amount,
                    ..Growth::default()
                },
            ),
        ];
        for (site, growth) in cases {
            let named = format!("growth of {site}: ");
            refused(
                &mut model,
                &growth,
                &[&named, "a Pattention site", "grows by ffn"],
            );
        }
    }
}

#[test]
fn amounts_and_rules_as_text() {
    for (text, amount) in [
        ("+512", Amount::Add(512)),
        ("=2048", Amount::To(2048)),
        ("+0", Amount::Add(0)),
    ] {
        assert_eq!(text.parse(), Ok(amount));
        assert_eq!(amount.to_string(), text);
    }
    for bad in [
        "",
        "512",
        "+",
        "=",
        "+-1",
        "+1.5",
        "x",
        "é1",
        "+99999999999999999999999",
    ] {
        assert!(bad.parse::<Amount>().is_err(), "{bad:?}");
    }
    for (text, rule) in [
        ("pinned", TauRule::Pinned),
        ("sqrt-n", TauRule::SqrtN),
        ("anneal:500", TauRule::Anneal(500)),
        ("tracked", TauRule::Tracked),
    ] {
        assert_eq!(text.parse(), Ok(rule));
        assert_eq!(rule.to_string(), text);
    }
    for bad in [
        "",
        "anneal",
        "anneal:",
        "anneal:0",
        "anneal:-3",
        "sqrt",
        "Pinned",
    ] {
        assert!(bad.parse::<TauRule>().is_err(), "{bad:?}");
    }
}
