//! The planner against laws that are known, because the observations are made from them.

use tokenformer_core::init::normal;
use tokenformer_study::planner::{Budget, Evidence, Law, Observation, Size, Stage, coverage, plan};

/// Relative error of a made-up loss.
const ERROR: f64 = 0.003;

fn truth(k: f64) -> Law {
    Law {
        e: 1.7,
        a: 0.8,
        b: 0.9,
        alpha: 0.4,
        beta: 0.3,
        undecayed: 0.03,
        k,
        n0: 3e5,
        d0: 5e6,
    }
}

fn observe(law: &Law, evidence: &mut Evidence, name: &str, stages: Vec<Stage>, decayed: bool) {
    let seed = evidence.observations.len() as u64;
    let noise = f64::from(normal(seed, "made up", 1, ERROR)[0]);
    let above = if decayed { 1.0 } else { 1.0 + law.undecayed };
    let loss = law.loss_after(&stages).expect("stages rise") * above * noise.exp();
    evidence.observations.push(Observation {
        name: name.into(),
        stages,
        loss,
        decayed,
    });
}

/// Trainings from scratch of three sizes, and growths of the smallest by two factors at three moments.
fn grid(law: &Law) -> Evidence {
    let mut evidence = Evidence::default();
    for size in [2e5, 6e5, 2e6] {
        for tokens in [2e6, 4e6, 8e6, 16e6] {
            let name = format!("scratch {size} {tokens}");
            let stage = Stage { size, tokens };
            observe(law, &mut evidence, &name, vec![stage], true);
            observe(law, &mut evidence, &name, vec![stage], false);
        }
    }
    for factor in [2.0, 4.0] {
        for before in [4e6, 8e6, 16e6] {
            for after in [1.6e6, 6.4e6] {
                let name = format!("grown {factor} {before} {after}");
                let stages = vec![
                    Stage {
                        size: 2e5,
                        tokens: before,
                    },
                    Stage {
                        size: 2e5 * factor,
                        tokens: after,
                    },
                ];
                observe(law, &mut evidence, &name, stages, true);
            }
        }
    }
    evidence
}

/// Sizes of which a base parameter costs as much as a grown one.
fn size(factor: f64) -> Option<Size> {
    let effective = 2e5 * factor;
    (factor <= 16.0).then_some(Size {
        factor,
        params: effective as u64,
        effective,
    })
}

#[test]
fn a_growth_continues_where_the_larger_model_has_the_same_loss() {
    let law = truth(1.0);
    let stage = |size, tokens| Stage { size, tokens };
    let base = law.loss(2e5, 8e6);
    let grown = law.loss_after(&[stage(2e5, 8e6), stage(8e5, 1.0)]).unwrap();
    assert!((grown - base).abs() < 1e-6, "{base} {grown}");
    let equal = law.tokens_for(8e5, base).unwrap();
    assert!((law.loss(8e5, equal) - base).abs() < 1e-12);
    assert!(
        equal < 8e6,
        "a larger model needs less text for the same loss"
    );
    // The slopes per operation are equal at the moment of growth.
    let moment = law.tokens_before_growth(2e5, 8e5, 4.0).unwrap();
    let larger = law.tokens_for(8e5, law.loss(2e5, moment)).unwrap();
    let slope = |size: f64, tokens: f64| {
        (law.loss(size, tokens * 1.0001) - law.loss(size, tokens)) / (tokens * 1e-4 * size)
    };
    let ratio = slope(8e5, larger) / slope(2e5, moment);
    assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
}

#[test]
fn intervals_hold_what_was_left_out() {
    let evidence = grid(&truth(1.3));
    let found = coverage(&evidence.observations);
    // Each training from scratch counts with its decayed loss alone.
    assert_eq!(found.predictions.len(), 24);
    assert!(found.share() >= 0.75, "{:?}", found.predictions);
    for (name, loss, interval) in &found.predictions {
        let width = (interval.high - interval.low) / loss;
        assert!(width < 0.08, "{name}: an interval of {width} tells nothing");
    }
}

#[test]
fn growth_is_recommended_where_it_pays_and_only_there() {
    let budget = Budget::Flops(6.0 * 2e6 * 1.6e7);
    // Growth that wastes nothing is another training of a compute-optimal sequence of sizes.
    let pays = plan(&grid(&truth(1.0)), budget, &size).unwrap();
    // Growth that wastes two thirds of its tokens never pays.
    let wastes = plan(&grid(&truth(3.0)), budget, &size).unwrap();
    assert!(!wastes.grow, "{:?}", wastes.grown.first());
    let [good, bad] = [&pays, &wastes].map(|advice| advice.grown[0].beats_scratch);
    assert!(good > bad + 0.2, "{good} {bad}");
    let expected = truth(1.0)
        .loss_after(&pays.scratch.schedule.stages())
        .unwrap();
    let got = pays.scratch.loss;
    assert!(
        (got.middle / expected - 1.0).abs() < 0.01,
        "{got:?} {expected}"
    );
    assert!((pays.scratch.schedule.flops() / (6.0 * 2e6 * 1.6e7) - 1.0).abs() < 1e-9);
    for candidate in &pays.grown {
        let cost = candidate.schedule.flops() / (6.0 * 2e6 * 1.6e7);
        assert!((cost - 1.0).abs() < 1e-9, "a schedule of {cost} budgets");
    }
}

#[test]
fn one_short_run_is_no_reason_to_grow() {
    let (law, mut evidence) = (truth(1.0), Evidence::default());
    for tokens in [1e6, 2e6, 4e6] {
        let stages = vec![Stage { size: 2e5, tokens }];
        observe(&law, &mut evidence, "run", stages, false);
    }
    let advice = plan(&evidence, Budget::Flops(6.0 * 2e5 * 4e7), &size).unwrap();
    assert!(!advice.grow);
    assert!(advice.grown[0].extrapolated.contains(&"growth"));
    let wide = advice.scratch.loss;
    assert!(wide.high / wide.low > 1.03, "{wide:?}");
    assert!(plan(&Evidence::default(), Budget::Tokens(1e6), &size).is_none());
}
