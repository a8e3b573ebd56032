//! The report of results that are made up, so that every number is known.

mod made_up;

use made_up::result;
use std::path::Path;
use std::sync::Arc;
use tokenformer_core::Device;
use tokenformer_cpu::Cpu;
use tokenformer_study::analysis::{Analysis, GROWN, STAY};
use tokenformer_study::context_cost::context_costs;
use tokenformer_study::shapes::Shapes;
use tokenformer_study::verdicts::{Finding, verdicts};
use tokenformer_study::{Plan, Profile, Results, Settings, arms, report};

fn settings(seeds: u64) -> Settings {
    let names = [
        "base",
        "t-seg",
        "g-ffn",
        "g-scr-1",
        "g-scr-2",
        "g-scr-4",
        "t-stay",
        "t-zero",
        "t-near",
        "t-rel",
        "t-map",
        "n-t-stay",
        "n-t-seg",
        "n-t-frozen",
        "n-g-stay",
        "n-g-ffn",
        "n-g-frozen",
    ];
    Settings {
        profile: Profile::named("smoke").unwrap(),
        corpus: "made up".into(),
        second: Some("made up, too".into()),
        vocab: 256,
        seeds,
        arms: arms::named(&names.map(String::from)).unwrap(),
    }
}

/// Results of all runs, where the runs whose names contain `part` are better than the others by `better` nats.
fn study(out: &Path, part: &str, better: f64) -> (Settings, Plan, Results) {
    study_of(settings(3), out, part, better)
}

fn study_of(settings: Settings, out: &Path, part: &str, better: f64) -> (Settings, Plan, Results) {
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let mut shapes = Shapes::new(&device);
    let mut results = Results::open(&out.join("results"), None).unwrap();
    loop {
        let plan = Plan::new(&settings, &results, &mut shapes).unwrap();
        // What has no result, whether or not a child needs it. A plan takes long, so all of them get theirs at once.
        let nodes = plan.graph.nodes().iter();
        let missing: Vec<_> = nodes
            .filter(|node| results.of(node).is_none())
            .filter(|node| plan.tuned || node.label.starts_with("tune/"))
            .map(|node| {
                let is_better = node.label.contains(part);
                result(node, if is_better { better } else { 0.0 })
            })
            .collect();
        if missing.is_empty() {
            return (settings, plan, results);
        }
        for found in missing {
            results.add(found).unwrap();
        }
    }
}

fn finding(analysis: &Analysis, claim: &str) -> (Finding, String) {
    let found = verdicts(analysis)
        .into_iter()
        .find(|v| v.claim == claim)
        .unwrap();
    (found.finding, found.numbers)
}

#[test]
fn a_better_grown_model_is_found_to_be_better() {
    let scratch = tempfile::tempdir().unwrap();
    let (settings, plan, results) = study(scratch.path(), GROWN, 0.25);
    let analysis = Analysis::new(&plan, &results);
    for claim in ["C0", "C1", "C2", "C3", "C4", "C6", "C7"] {
        let (found, numbers) = finding(&analysis, claim);
        assert_eq!(found, Finding::Supported, "{claim}: {numbers}");
    }
    // All arms have the same curve but for 0.25 nats: the difference at equal cost is that, up to the interpolation.
    let c4 = analysis
        .contrasts
        .values()
        .find(|c| c.name.starts_with("C4"))
        .unwrap();
    assert!((c4.difference + 0.25).abs() < 0.02, "{c4:?}");
    assert!(c4.p_corrected >= c4.p && c4.p_corrected < 1e-3, "{c4:?}");
    // Differences within 0.5 % are none, so no plain Transformer is better.
    assert_eq!(finding(&analysis, "C9").0, Finding::Supported);

    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let costs = context_costs(&plan, &device).unwrap();
    let page = report::write(
        scratch.path(),
        &settings,
        &plan,
        &results,
        &costs,
        &["a <note>".into()],
    )
    .unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("a &lt;note&gt;") && html.contains("supported"));
    let addresses = html.matches("http").count();
    assert_eq!(
        addresses,
        html.matches("http://www.w3.org/2000/svg").count() + html.matches("http-equiv").count()
    );
    assert!(!html.contains("<script"));
    let missing = [" NaN", ">NaN", " inf", ">inf", "-inf"]
        .into_iter()
        .find(|text| html.contains(text));
    assert_eq!(missing, None);
    let json = std::fs::read(scratch.path().join("study.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["verdicts"].as_array().unwrap().len(), 10);
    assert_eq!(json["version"], 1);
    // Every schedule of a TokenFormer was predicted from the others.
    let planned = json["planned"]["predictions"].as_array().unwrap();
    assert!(planned.len() > 20, "{}", planned.len());
    // What the second text left of the first is no evidence for a law of one text.
    let of_second = |end: &serde_json::Value| end["arm"].as_str().unwrap().starts_with("n-");
    assert!(!json["ends"].as_array().unwrap().iter().any(of_second));
    for figure in ["The cost of context", "Planned and measured", "not charged"] {
        assert!(html.contains(figure), "{figure}");
    }
}

#[test]
fn sizes_from_scratch_that_are_left_out_support_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = settings(3);
    settings
        .arms
        .retain(|arm| !["g-scr-1", "g-scr-4"].contains(&arm.name));
    let (_, plan, results) = study_of(
        settings.clone(),
        &scratch.path().join("better"),
        GROWN,
        0.25,
    );
    let analysis = Analysis::new(&plan, &results);
    // What is left has other sizes than the grown model.
    for claim in ["C2", "C3"] {
        let (found, numbers) = finding(&analysis, claim);
        assert_eq!(found, Finding::Open, "{claim}: {numbers}");
        assert!(numbers.contains("not enough results"), "{claim}: {numbers}");
    }
    // One of them may be better than the grown model, too.
    let (c4, numbers) = finding(&analysis, "C4");
    assert_eq!(c4, Finding::Open, "{numbers}");
    assert!(numbers.ends_with("; without g-scr-1, g-scr-4"), "{numbers}");
    // No left-out size can make the best from scratch worse.
    let (_, plan, results) = study_of(settings, &scratch.path().join("worse"), GROWN, -0.25);
    let analysis = Analysis::new(&plan, &results);
    let (c4, numbers) = finding(&analysis, "C4");
    assert_eq!(c4, Finding::Refuted, "{numbers}");
}

#[test]
fn a_grown_model_keeps_the_cost_of_attention_between_tokens() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, _) = study(scratch.path(), GROWN, 0.0);
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let costs = context_costs(&plan, &device).unwrap();
    let [grown, plain] = costs.as_slice() else {
        panic!("{costs:?}")
    };
    assert!(grown.grown && grown.model == "t-seg x16", "{grown:?}");
    assert!(!plain.grown && plain.model == "g-scr-4", "{plain:?}");
    assert!((grown.params as f64 / plain.params as f64 - 1.0).abs() < 0.2);
    for (grown, plain) in grown.points.iter().zip(&plain.points) {
        // It is four times as wide.
        assert_eq!(plain.token_token, 4.0 * grown.token_token);
        for point in [grown, plain] {
            let formula = point.token_token + point.token_parameter;
            assert!((point.counted / formula - 1.0).abs() < 0.01, "{point:?}");
        }
    }
    assert_eq!(grown.points.len(), 6);
}

#[test]
fn recipes_that_end_early_are_compared_where_they_end() {
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = settings(3);
    settings.profile.rival_stages = 1;
    let (_, plan, results) = study_of(settings, scratch.path(), "t-seg-x4", 0.25);
    let analysis = Analysis::new(&plan, &results);
    assert!(analysis.row("t-zero", "x4").is_some() && analysis.row("t-zero", "x16").is_none());
    let (c7, numbers) = finding(&analysis, "C7");
    assert_eq!(c7, Finding::Supported, "{numbers}");
    assert!(numbers.contains("t-zero, x4"), "{numbers}");
    // So are the best grown models of both families, with all rivals.
    let (c6, numbers) = finding(&analysis, "C6");
    assert_eq!(c6, Finding::Supported, "{numbers}");
    assert!(numbers.contains("t-seg against g-ffn, x4"), "{numbers}");
    // The last size is not better, and the other claims are about that.
    assert_ne!(finding(&analysis, "C4").0, Finding::Supported);
}

/// The results of a study without those of the runs whose names `leave_out` picks.
fn without(
    plan: &Plan,
    results: &Results,
    out: &Path,
    leave_out: impl Fn(&str) -> bool,
) -> Results {
    let mut partial = Results::open(&out.join("partial"), None).unwrap();
    for node in plan.graph.nodes() {
        if let Some(result) = results.of(node).filter(|_| !leave_out(&node.label)) {
            partial.add(result.clone()).unwrap();
        }
    }
    partial
}

#[test]
fn a_model_that_grows_late_is_compared_at_the_cost_of_the_whole_ladder() {
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = settings(3);
    settings.profile.rival_stages = 1;
    (settings.arms).extend(arms::named(&["g-one-copy".to_string()]).unwrap());
    let (_, plan, results) = study_of(settings, scratch.path(), "g-one-copy", 0.25);
    let analysis = Analysis::new(&plan, &results);
    // At the first size it costs far more than the models of that size.
    let (_, numbers) = finding(&analysis, "C6");
    assert!(numbers.contains("against g-ffn, x4"), "{numbers}");
    let is_late = |(_, contrast): &&(String, _)| {
        let contrast: &tokenformer_study::stats::Contrast = contrast;
        contrast.name == "g-one-copy"
    };
    let compared = analysis.forest.iter().filter(is_late);
    let sizes: Vec<&String> = compared.map(|(size, _)| size).collect();
    assert_eq!(sizes, ["x16"]);
}

#[test]
fn what_costs_more_than_the_grown_model_is_said_to() {
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = settings(3);
    settings
        .arms
        .extend(arms::named(&["g-stack".to_string()]).unwrap());
    let (settings, plan, results) = study_of(settings, scratch.path(), "g-stack", 0.25);
    let analysis = Analysis::new(&plan, &results);
    let [grown, stack] = [GROWN, "g-stack"].map(|arm| analysis.row(arm, "x16").unwrap().flops);
    let more = 100.0 * (stack / grown - 1.0);
    assert!(more > 5.0, "{more}");
    let (_, numbers) = finding(&analysis, "C6");
    let said = format!("against g-stack, which costs {more:.0} % more");
    assert!(numbers.contains(&said), "{numbers}");
    let page = report::write(scratch.path(), &settings, &plan, &results, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(
        html.contains(&format!("g-stack x16 (+{more:.0} %)")),
        "{more}"
    );
}

#[test]
fn a_seed_that_has_only_begun_takes_no_comparison_away() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), GROWN, 0.25);
    let partial = without(&plan, &results, scratch.path(), |label| {
        let has_begun = label.starts_with("s3/") && !label.starts_with("s3/t-base");
        has_begun || label.starts_with("s2/t-near")
    });
    let analysis = Analysis::new(&plan, &partial);
    for claim in ["C2", "C3", "C4", "C6"] {
        let (found, numbers) = finding(&analysis, claim);
        assert_eq!(found, Finding::Supported, "{claim}: {numbers}");
        assert!(numbers.contains("2 seeds"), "{claim}: {numbers}");
    }
    // One recipe has a single seed, the others two.
    let (_, numbers) = finding(&analysis, "C7");
    for (recipe, is_there) in [("t-zero", true), ("t-rel", true), ("t-near,", false)] {
        let said = format!("against {recipe}");
        assert_eq!(numbers.contains(&said), is_there, "{numbers}");
    }
    // Its row is no part of the error of the others: two seeds of t-seg, t-zero, t-rel and t-stay.
    let of = |claim: &str| &analysis.contrasts[claim];
    let c7 = of("C7: t-seg against t-zero, x16");
    assert_eq!(c7.freedom, 3.0, "{c7:?}");
    assert!(analysis.pooled.is_some());
}

#[test]
fn an_arm_of_which_a_seed_diverged_is_not_judged_by_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), GROWN, 0.25);
    let mut partial = without(&plan, &results, scratch.path(), |label| {
        label.starts_with("s1/t-zero-x16")
    });
    let end = |node: &&tokenformer_study::graph::Node| node.label == "s1/t-zero-x16/485";
    let node = plan.graph.nodes().iter().find(end).unwrap();
    let mut diverged = result(node, 0.0);
    (diverged.diverged, diverged.held_out) = (Some("the loss is not finite".into()), None);
    partial.add(diverged).unwrap();
    let analysis = Analysis::new(&plan, &partial);
    let row = analysis.row("t-zero", "x16").unwrap();
    assert_eq!((&row.seeds[..], &row.diverged[..]), (&[2, 3][..], &[1][..]));
    assert_eq!(row.tokens, 500 * 256);
    let (_, numbers) = finding(&analysis, "C7");
    assert!(!numbers.contains("against t-zero"), "{numbers}");
}

#[test]
fn a_growth_is_judged_by_its_rise_over_that_of_the_control() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), GROWN, 0.0);
    let (found, numbers) = finding(&Analysis::new(&plan, &results), "C1");
    assert_eq!(found, Finding::Supported, "{numbers}");
    for part in ["+0.40 %", "+0.30 %", "6 of 6 growths"] {
        assert!(numbers.contains(part), "{part}: {numbers}");
    }
    // The rule needs the control: without one nothing is subtracted, and nothing is decided.
    let partial = without(&plan, &results, &scratch.path().join("none"), |label| {
        label.contains("/t-stay/")
    });
    let (found, numbers) = finding(&Analysis::new(&plan, &partial), "C1");
    assert_eq!(found, Finding::Open, "{numbers}");
    assert!(
        numbers.contains("+0.40 %") && numbers.contains("0 of 6 growths"),
        "{numbers}"
    );
    // A control that falls does not hide that the loss rose: 1.5 % over the mean before, and 2.5 % over the control.
    let mut falls = without(&plan, &results, &scratch.path().join("falls"), |label| {
        label.starts_with("s2/t-stay/") || label.starts_with("s2/t-seg")
    });
    for node in plan.graph.nodes() {
        if let Some(found) = results.of(node).filter(|_| falls.of(node).is_none()) {
            let mut found = found.clone();
            found.spike = Some(if node.grows { 0.015 } else { -0.01 });
            falls.add(found).unwrap();
        }
    }
    let (found, numbers) = finding(&Analysis::new(&plan, &falls), "C1");
    assert_eq!(found, Finding::Refuted, "{numbers}");
    assert!(numbers.contains("+2.50 %"), "{numbers}");
}

#[test]
fn losses_around_a_growth_are_those_of_the_factor_that_counts() {
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = settings(1);
    settings.profile.checks = vec![1.0, std::f64::consts::FRAC_1_SQRT_2];
    let (settings, plan, results) = study_of(settings, scratch.path(), "t-seg-x16@0.71", 0.25);
    let page = report::write(scratch.path(), &settings, &plan, &results, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains(">t-seg-x16@0.71<") && !html.contains(">t-seg-x16<"));
}

#[test]
fn a_second_text_is_judged_by_the_seeds_that_all_have() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), "n-g-ffn", 0.25);
    let left_out = |names: &'static [&'static str]| {
        move |label: &str| names.iter().any(|name| label.starts_with(name))
    };
    // Two seeds of each, and one that all have.
    let out = scratch.path().join("one");
    let partial = without(&plan, &results, &out, left_out(&["s1/n-t-", "s3/n-g-"]));
    let (found, numbers) = finding(&Analysis::new(&plan, &partial), "C9");
    assert_eq!(found, Finding::Open, "{numbers}");
    assert!(numbers.contains("not enough results"), "{numbers}");
    // A stay is no rival.
    let out = scratch.path().join("two");
    let partial = without(&plan, &results, &out, left_out(&["s1/n-t-", "s2/n-t-stay"]));
    let (found, numbers) = finding(&Analysis::new(&plan, &partial), "C9");
    assert_eq!(found, Finding::Refuted, "{numbers}");
    assert!(numbers.contains("2 seeds"), "{numbers}");
}

#[test]
fn an_equal_grown_model_is_not_found_to_be_better() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), GROWN, 0.0);
    let analysis = Analysis::new(&plan, &results);
    let (c6, numbers) = finding(&analysis, "C6");
    assert_eq!(c6, Finding::Refuted, "{numbers}");
    for claim in ["C5", "C7", "C8"] {
        let (found, numbers) = finding(&analysis, claim);
        assert_ne!(found, Finding::Supported, "{claim}: {numbers}");
    }
    // The same loss for the same cost.
    let same = &analysis.speed_ups["t-seg x16, same loss"];
    assert!((same.factor - 1.0).abs() < 0.1 || same.is_bound, "{same:?}");
    // Whoever has the base pays the rest alone, whether the model grows or goes on.
    let flops = |arm: &str, size: &str| analysis.row(arm, size).unwrap().flops;
    for arm in [GROWN, STAY] {
        let name = format!("{arm} x16, same loss, base not charged");
        let rest = &analysis.speed_ups[&name];
        let ratio = flops(arm, "x16") / (flops(arm, "x16") - flops("base", "x1"));
        let found = rest.factor / same.factor;
        assert!((found / ratio - 1.0).abs() < 0.02, "{found} {ratio}");
    }
}

#[test]
fn a_second_text_that_plain_transformers_learn_and_keep_the_first_better_refutes_the_claim() {
    let scratch = tempfile::tempdir().unwrap();
    let (settings, plan, results) = study(scratch.path(), "n-g-ffn", 0.25);
    let analysis = Analysis::new(&plan, &results);
    assert_eq!(analysis.shift.len(), 6);
    let (found, numbers) = finding(&analysis, "C9");
    assert_eq!(found, Finding::Refuted, "{numbers}");
    // The spike of a growth and the rivals on the first text are other arms' matter.
    let names: Vec<&String> = analysis.forest.iter().map(|(_, c)| &c.name).collect();
    assert!(
        names.iter().all(|name| !name.starts_with("n-")),
        "{names:?}"
    );
    let page = report::write(scratch.path(), &settings, &plan, &results, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("A second text") && html.contains("new text: grown TokenFormer"));
}

#[test]
fn the_map_shows_where_growth_pays() {
    let scratch = tempfile::tempdir().unwrap();
    let (settings, plan, results) = study(scratch.path(), "t-map-400-x4", 0.25);
    let analysis = Analysis::new(&plan, &results);
    // Two moments, two factors, two lengths.
    assert_eq!(analysis.map.len(), 8);
    let base = analysis.row("base", "x1").unwrap();
    for cell in &analysis.map {
        let pays = (cell.base_tokens, cell.factor) == (400 * 256, 4);
        let expected = if pays { -0.25 } else { 0.0 };
        let differences = [cell.against_base, cell.against_scratch];
        // Beyond the base's longest run there is nothing to compare with.
        assert!(cell.against_base.is_some() || cell.base_tokens == 400 * 256);
        for difference in differences.into_iter().flatten() {
            assert!((difference - expected).abs() < 0.03, "{cell:?}");
        }
        let saving = cell.speed_up.unwrap();
        let stage = cell.flops - cell.base_tokens as f64 * base.flops / base.tokens as f64;
        let found = cell.speed_up_of_stage.unwrap() * stage / cell.flops;
        assert!((found / saving - 1.0).abs() < 1e-9, "{cell:?}");
        match pays {
            true => assert!(saving > 1.1, "{cell:?}"),
            false => assert!((saving - 1.0).abs() < 0.15 && cell.bound == "=", "{cell:?}"),
        }
    }
    let page = report::write(scratch.path(), &settings, &plan, &results, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("Where growth pays") && html.contains("Single growths, one seed"));
}

/// A base by chance worse than another is no difference of growths, and its growths tell nothing of the scatter of bases.
#[test]
fn arms_of_one_base_share_an_error_and_others_do_not() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), "s1/g-", -0.03);
    let analysis = Analysis::new(&plan, &results);
    let of = |claim: &str| {
        let mut found = analysis.contrasts.values();
        found
            .find(|contrast| contrast.name.starts_with(claim))
            .unwrap()
    };
    // Differences of 0.03, 0 and 0 between families: a mean of 0.01 with the error of three numbers.
    let c6 = of("C6");
    assert_eq!(c6.freedom, 2.0, "{c6:?}");
    assert!((c6.error - 0.01).abs() < 1e-3, "{c6:?}");
    assert!(c6.interval[0] < -0.03 && c6.interval[1] > 0.0, "{c6:?}");
    assert_eq!(of("C4").freedom, 2.0);
    let c7 = of("C7: t-seg against t-zero");
    assert!(c7.freedom > 2.0 && c7.error < 1e-3, "{c7:?}");
}

#[test]
fn one_seed_decides_no_saving_and_one_recipe_no_comparison_of_recipes() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, plan, results) = study(scratch.path(), GROWN, 0.25);
    let mut partial = Results::open(&scratch.path().join("partial"), None).unwrap();
    let is_left_out = |label: &str| {
        ["s2/g-scr-4", "s3/g-scr-4", "t-near", "t-rel"]
            .iter()
            .any(|part| label.contains(part))
    };
    for node in plan.graph.nodes() {
        if !is_left_out(&node.label) {
            partial.add(results.of(node).unwrap().clone()).unwrap();
        }
    }
    let analysis = Analysis::new(&plan, &partial);
    let saving = &analysis.speed_ups["series"];
    assert_eq!(saving.by_seed.len(), 1);
    for claim in ["C5", "C7", "C8"] {
        let (found, numbers) = finding(&analysis, claim);
        assert_eq!(found, Finding::Open, "{claim}: {numbers}");
    }
    assert!(finding(&analysis, "C7").1.contains("against t-zero"));
}

#[test]
fn a_loss_that_a_cheaper_model_has_beaten_is_a_bound() {
    let scratch = tempfile::tempdir().unwrap();
    let (settings, plan, results) = study(scratch.path(), "t-map-200-x2", -0.6);
    let analysis = Analysis::new(&plan, &results);
    let cheapest = analysis
        .rows
        .iter()
        .filter(|row| row.arm.starts_with("g-scr"))
        .min_by(|a, b| a.flops.total_cmp(&b.flops))
        .unwrap();
    let worse: Vec<_> = (analysis.map.iter())
        .filter(|cell| (cell.base_tokens, cell.factor) == (200 * 256, 2))
        .collect();
    assert_eq!(worse.len(), 2);
    for cell in worse {
        assert!(cell.loss > cheapest.losses[0], "{cell:?}");
        assert_eq!(cell.bound, "<=", "{cell:?}");
        let found = cell.speed_up.unwrap() * cell.flops / cheapest.flops;
        assert!((found - 1.0).abs() < 1e-12, "{cell:?}");
    }
    let page = report::write(scratch.path(), &settings, &plan, &results, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("S &lt;= "), "bounds are named");
}

#[test]
fn nothing_at_hand_is_said_to_be_open() {
    let scratch = tempfile::tempdir().unwrap();
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let (settings, results) = (settings(2), Results::default());
    let plan = Plan::new(&settings, &results, &mut Shapes::new(&device)).unwrap();
    let analysis = Analysis::new(&plan, &results);
    assert!(
        verdicts(&analysis)
            .iter()
            .all(|v| v.finding == Finding::Open)
    );
    report::write(scratch.path(), &settings, &plan, &results, &[], &[]).unwrap();
}

#[test]
fn a_part_of_the_scratch_models_is_no_rival() {
    let scratch = tempfile::tempdir().unwrap();
    let (settings, plan, results) = study(scratch.path(), GROWN, 0.25);
    // Seed 1 has all ends but the last one of the widest model.
    let mut partial = Results::open(&scratch.path().join("partial"), None).unwrap();
    let left_out = plan
        .graph
        .nodes()
        .iter()
        .find(|node| node.label == "s1/g-scr-4/100-decayed")
        .unwrap();
    for node in plan
        .graph
        .nodes()
        .iter()
        .filter(|node| node.key != left_out.key)
    {
        partial.add(results.of(node).unwrap().clone()).unwrap();
    }
    let [whole, part] = [&results, &partial].map(|results| Analysis::new(&plan, results));
    let seeds = |analysis: &Analysis| analysis.speed_ups["t-seg x16, same loss"].by_seed.len();
    assert_eq!((seeds(&whole), seeds(&part)), (3, 2));
    assert!(part.map.iter().all(|cell| cell.against_scratch.is_none()));
    assert!(whole.map.iter().any(|cell| cell.against_scratch.is_some()));
    let page = report::write(scratch.path(), &settings, &plan, &partial, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("Ends from scratch without a result: 1."));
}

#[test]
fn ends_after_a_trunk_that_diverged_are_not_waited_for() {
    let scratch = tempfile::tempdir().unwrap();
    let (settings, plan, results) = study(scratch.path(), GROWN, 0.25);
    let mut partial = without(&plan, &results, scratch.path(), |label| {
        label.starts_with("s1/g-scr-4/")
    });
    let first = |node: &&tokenformer_study::graph::Node| node.label == "s1/g-scr-4/24";
    let node = plan.graph.nodes().iter().find(first).unwrap();
    let mut diverged = result(node, 0.0);
    diverged.diverged = Some("the loss is not finite".into());
    partial.add(diverged).unwrap();
    let analysis = Analysis::new(&plan, &partial);
    let same = &analysis.speed_ups["t-seg x16, same loss"];
    assert_eq!(same.by_seed.len(), 3);
    let page = report::write(scratch.path(), &settings, &plan, &partial, &[], &[]).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(!html.contains("Ends from scratch without a result"));
}
