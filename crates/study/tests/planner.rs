//! The planner against laws that are known, because the observations are made from them.

use tokenformer_core::config::BaseSizes;
use tokenformer_core::init::normal;
use tokenformer_report::Record;
use tokenformer_study::planner::{
    Budget, Evidence, Law, Observation, Online, Schedule, Size, Sizes, Stage, coverage, plan,
};
use tokenformer_train::recipe::Recipe;
use tokenformer_train::{GrowthPlanner, Moment};

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

/// Operations per second, divided by 6, of the made-up runs.
const SPEED: f64 = 1e9;

/// Records of a run of one size after the other, with losses of a law at a constant rate.
fn records_of(law: &Law, sizes: &[(f64, f64)]) -> Vec<Record> {
    let (mut records, mut flops, mut seen) = (Vec::new(), 0.0, 0.0);
    let mut stages: Vec<Stage> = Vec::new();
    for (number, &(size, tokens)) in sizes.iter().enumerate() {
        stages.push(Stage { size, tokens: 0.0 });
        for step in 1..=20_u64 {
            let more = tokens / 20.0;
            flops += 6.0 * size * more;
            seen += more;
            stages.last_mut().unwrap().tokens += more;
            let step = 20 * number as u64 + step;
            let loss = law.loss_after(&stages).unwrap() * (1.0 + law.undecayed);
            let (tokens, stage) = (seen as u64, number);
            let train = serde_json::json!({
                "kind": "train", "step": step, "stage": stage, "tokens": tokens, "flops": flops, "lr": 1e-3, "loss": loss,
                "grad_norm": 1.0, "params": 1, "step_ms": 1.0, "skipped": false, "tokens_per_s": SPEED / size,
            });
            let eval = serde_json::json!({
                "kind": "eval", "step": step, "stage": stage, "tokens": tokens, "loss": loss, "params": 1, "eval_tokens": 1,
            });
            for record in [train, eval] {
                records.push(serde_json::from_value(record).unwrap());
            }
        }
    }
    records
}

#[test]
fn a_growth_on_the_way_comes_at_the_moment_of_the_law() {
    let scratch = tempfile::tempdir().unwrap();
    let law = truth(1.3);
    let ends: Vec<serde_json::Value> = (grid(&law).observations.iter())
        .filter(|o| o.decayed)
        .map(|o| {
            let stages: Vec<[f64; 2]> = o.stages.iter().map(|s| [s.size, s.tokens]).collect();
            serde_json::json!({
                "arm": o.name, "size": "", "seed": 1, "tokenformer": true, "stages": stages, "loss": o.loss,
            })
        })
        .collect();
    let study = serde_json::json!({ "ends": ends }).to_string();
    std::fs::write(scratch.path().join("study.json"), study).unwrap();
    let mut recipe = Recipe::default();
    recipe.planner.evidence = vec![scratch.path().display().to_string()];
    let mut planner = Online::of(&recipe, scratch.path(), "").unwrap();

    let (size, larger) = (2e5, 8e5);
    let moment = law
        .tokens_before_growth(size, larger, larger / size)
        .unwrap();
    let share = |sizes: &[(f64, f64)], [now, after]: [f64; 2], planner: &mut Online| {
        let records = records_of(&law, sizes);
        let tokens: f64 = sizes.iter().map(|(_, tokens)| tokens).sum();
        let moment = Moment {
            records: &records,
            tokens: tokens as u64,
            flops_per_token: [6.0 * now, 6.0 * after],
        };
        planner.pays(&moment).unwrap().unwrap()
    };
    let first =
        |tokens: f64, planner: &mut Online| share(&[(size, tokens)], [size, larger], planner);
    let [early, late] = [0.4, 2.5].map(|part| first(part * moment, &mut planner));
    assert!(early < 0.2 && late > 0.8, "{early} {late}");

    // A model that has grown pays for its growth with every token, so the next one comes as if growth wasted nothing.
    let largest = 4.0 * larger;
    let wastes_nothing = Law { k: 1.0, ..law };
    let moment = wastes_nothing
        .tokens_before_growth(larger, largest, 4.0)
        .unwrap();
    let before = 1.5 * law.tokens_before_growth(size, larger, 4.0).unwrap();
    let begins = law.tokens_for(larger, law.loss(size, before)).unwrap();
    let second = |part: f64, planner: &mut Online| {
        let sizes = [(size, before), (larger, law.k * (part * moment - begins))];
        share(&sizes, [larger, largest], planner)
    };
    let [early, late] = [0.55, 1.8].map(|part| second(part, &mut planner));
    assert!(early < 0.2 && late > 0.8, "{early} {late}");
}

#[test]
fn a_second_text_is_no_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let end = |arm: &str, loss: f64| {
        serde_json::json!({
            "arm": arm, "size": "x4", "seed": 1, "tokenformer": true,
            "stages": [[1e6, 1e7], [2e6, 1e7]], "loss": loss,
        })
    };
    let study = serde_json::json!({ "ends": [end("t-seg", 3.0), end("n-t-seg", 5.0)] });
    std::fs::write(folder.path().join("study.json"), study.to_string()).unwrap();
    let mut evidence = Evidence::default();
    evidence.add(folder.path()).unwrap();
    let losses: Vec<f64> = evidence.observations.iter().map(|o| o.loss).collect();
    assert_eq!(losses, [3.0]);
}

/// The folder of a run with these records, and a recipe if that is not empty.
fn folder_of(records: &[Record], recipe: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines = records
        .iter()
        .map(|record| serde_json::to_string(record).unwrap() + "\n");
    std::fs::write(
        folder.path().join("metrics.jsonl"),
        lines.collect::<String>(),
    )
    .unwrap();
    if !recipe.is_empty() {
        std::fs::write(folder.path().join("config.toml"), recipe).unwrap();
    }
    folder
}

#[test]
fn the_speed_of_a_grown_run_is_that_of_its_stages() {
    let mut evidence = Evidence::default();
    // Most of the records are the base's, at which a token costs a tenth.
    let mut records = records_of(&truth(1.2), &[(2e5, 4e6), (2e6, 4e6)]);
    records.truncate(2 * 30);
    evidence.add(folder_of(&records, "").path()).unwrap();
    let rate = evidence.flop_rate.unwrap();
    assert!((rate / (6.0 * SPEED) - 1.0).abs() < 1e-3, "{rate}");
}

#[test]
fn a_run_that_begins_with_a_grown_model_is_evidence() {
    let all = records_of(&truth(1.2), &[(2e5, 4e6), (8e5, 4e6)]);
    let Record::Train(last) = &all[2 * 20 - 2] else {
        panic!("a record of training")
    };
    let start = |stage: usize| -> Record {
        serde_json::from_value(serde_json::json!({
            "kind": "start", "step": last.step, "tokens": last.tokens, "stage": stage, "params": 1, "flops": last.flops,
        }))
        .unwrap()
    };
    // It grew when it began, or just before.
    for stage in [0, 1] {
        let records = [&[start(stage)], &all[2 * 20..]].concat();
        let mut evidence = Evidence::default();
        evidence.add(folder_of(&records, "").path()).unwrap();
        for observation in &evidence.observations {
            let [base, grown] = observation.stages.as_slice() else {
                panic!("{observation:?}")
            };
            for (got, expected) in [(base.size, 2e5), (base.tokens, 4e6), (grown.size, 8e5)] {
                assert!((got / expected - 1.0).abs() < 1e-6, "{observation:?}");
            }
        }
        assert!(evidence.observations.len() > 3);
    }
}

#[test]
fn runs_on_pictures_and_of_plain_transformers_are_no_evidence() {
    let records = records_of(&truth(1.2), &[(2e5, 4e6)]);
    let mut pictures = records.clone();
    for record in &mut pictures {
        if let Record::Eval(eval) = record {
            eval.top1 = Some(0.5);
        }
    }
    let plain = "[model]\npreset = \"gpt-tiny\"\n";
    for (records, recipe, got) in [
        (&pictures, "", "on pictures"),
        (&records, plain, "of a plain Transformer"),
    ] {
        let folder = folder_of(records, recipe);
        let error = Evidence::default()
            .add(folder.path())
            .unwrap_err()
            .to_string();
        for part in ["a run of a TokenFormer on text", got, "help"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
    let folder = folder_of(
        &records,
        "[model]\npreset = \"nano\"\n[schedule]\nshape = \"constant\"\nlr = 1e-3\nwarmup_steps = 0\n",
    );
    Evidence::default().add(folder.path()).unwrap();
}

#[test]
fn the_second_growth_of_a_schedule_comes_as_if_growth_wasted_nothing() {
    let mut evidence = grid(&truth(1.3));
    // Without an error the fit is the law.
    for observation in &mut evidence.observations {
        let above = if observation.decayed { 0.0 } else { 0.03 };
        observation.loss = truth(1.3).loss_after(&observation.stages).unwrap() * (1.0 + above);
    }
    let advice = plan(&evidence, Budget::Flops(6.0 * 2e6 * 1.6e7), &size).unwrap();
    let law = advice.law;
    assert!(law.k > 1.1, "{law:?}");
    let wastes_nothing = Law { k: 1.0, ..law };
    let mut seen = 0;
    for candidate in &advice.grown {
        let stages = candidate.schedule.stages();
        let [base, second, third, ..] = stages.as_slice() else {
            continue;
        };
        let moment = |law: &Law, tokens: f64, from: &Stage, to: &Stage| {
            tokens
                / law
                    .tokens_before_growth(from.size, to.size, to.size / from.size)
                    .unwrap()
        };
        let first = moment(&law, base.tokens, base, second);
        let at = law
            .tokens_for(second.size, law.loss(base.size, base.tokens))
            .unwrap();
        let then = moment(&wastes_nothing, at + second.tokens / law.k, second, third);
        // A stage that would be too short is longer.
        let least = 0.0301 * candidate.schedule.flops();
        if [base, second]
            .iter()
            .all(|stage| 6.0 * stage.size * stage.tokens > least)
        {
            assert!((then / first - 1.0).abs() < 1e-6, "{first} {then}");
            seen += 1;
        }
    }
    assert!(seen > 0, "{:?}", advice.grown);
}

#[test]
fn a_larger_model_from_scratch_learns_at_the_rates_of_the_recipes_size() {
    let recipe = Recipe::default();
    let slots = recipe.model.slots;
    let sizes = Sizes::new(&recipe.model, 512, None).unwrap();
    let planned = |recipe: &Recipe, factors: &[f64]| {
        let legs = factors
            .iter()
            .map(|&factor| (sizes.of(factor).unwrap(), 1e6));
        let legs = legs.collect();
        sizes.recipe(recipe, &Schedule { legs })
    };
    let larger = planned(&recipe, &[4.0]);
    assert_eq!(larger.model.slots.ffn, 4 * slots.ffn);
    let base = BaseSizes {
        qkv: slots.qkv,
        proj: slots.proj,
        ffn: slots.ffn,
        ..BaseSizes::default()
    };
    assert_eq!(larger.lr_base, base);
    // A growth takes its rates from the first stage by itself, and a size that the user names stays.
    assert_eq!(planned(&recipe, &[1.0, 4.0]).lr_base, BaseSizes::default());
    let mut own = recipe;
    own.lr_base = BaseSizes { ffn: 7, ..base };
    assert_eq!(planned(&own, &[4.0]).lr_base, own.lr_base);
}

/// The records of a decay branch may all have small rates, and a growth may go on at a smaller one that does not decay.
#[test]
fn a_rate_has_decayed_if_it_is_below_that_of_its_schedule() {
    let records = records_of(&truth(1.2), &[(2e5, 4e6), (8e5, 4e6)]);
    let recipe = "[train]\nsteps = 40\n[schedule]\nshape = \"wsd\"\nlr = 1e-2\nwarmup_steps = 2\n\
                  [[grow]]\nat_step = 20\nffn = \"+8\"\nschedule = { shape = \"constant\", lr = 1e-3, warmup_steps = 0 }\n";
    let mut evidence = Evidence::default();
    evidence.add(folder_of(&records, recipe).path()).unwrap();
    let decayed = |stages: usize| -> Vec<bool> {
        let of_stage = evidence
            .observations
            .iter()
            .filter(|o| o.stages.len() == stages);
        of_stage.map(|o| o.decayed).collect()
    };
    let (first, second) = (decayed(1), decayed(2));
    assert!(
        !first.is_empty() && first.iter().all(|&decayed| decayed),
        "{first:?}"
    );
    assert!(
        !second.is_empty() && !second.iter().any(|&decayed| decayed),
        "{second:?}"
    );
}
