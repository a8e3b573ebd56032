//! Which runs the study makes, in which order, as results come in.

mod made_up;

use made_up::result;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokenformer_core::Device;
use tokenformer_cpu::Cpu;
use tokenformer_study::shapes::Shapes;
use tokenformer_study::{Plan, Profile, Results, Settings, arms};

/// Makes up results in the order of the plan, better with the factor `best` of the learning rate; returns the labels.
fn order(arm: &str, seeds: u64, best: &str) -> Vec<String> {
    order_with(arm, seeds, best, "none")
}

/// The same, where the run `diverges` does.
fn order_with(arm: &str, seeds: u64, best: &str, diverges: &str) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let mut shapes = Shapes::new(&device);
    let settings = Settings {
        profile: Profile::named("laptop").unwrap(),
        corpus: "made up".into(),
        second: None,
        vocab: 1024,
        seeds,
        arms: arms::named(&[arm.to_string()]).unwrap(),
    };
    let mut results = Results::open(&scratch.path().join("results"), None).unwrap();
    let mut at = BTreeSet::new();
    let mut labels = Vec::new();
    loop {
        let plan = Plan::new(&settings, &results, &mut shapes).unwrap();
        // Every checkpoint stays.
        let done = results.len();
        let ready = plan.ready(&results, &mut |node| at.contains(&node.key));
        let Some(&next) = ready.first() else {
            assert!(plan.endpoints.iter().all(|end| end.settled));
            return labels;
        };
        let node = plan.graph.node(next);
        let parent = node.parent.map(|parent| plan.graph.node(parent));
        assert!(parent.is_none_or(|parent| at.contains(&parent.key)));
        let is_best = match best {
            "" => !node.label.contains('@'),
            best => node.label.contains(best),
        };
        let mut found = result(node, if is_best { 0.1 } else { 0.0 });
        if node.label == diverges {
            (found.diverged, found.held_out) = (Some("the loss is not finite".into()), None);
        }
        results.add(found).unwrap();
        assert_eq!(results.len(), done + 1);
        at.insert(node.key.clone());
        if !node.label.starts_with("tune/") {
            labels.push(node.label.clone());
        }
    }
}

/// The runs of a trunk of width 256 that lead to the end which is compared with the ladder, with one factor.
fn checked(seed: u64, factor: &str) -> Vec<String> {
    ["400", "800", "1000-decayed"]
        .map(|end| format!("s{seed}/g-scr-4{factor}/{end}"))
        .into()
}

#[test]
fn other_ends_from_scratch_wait_for_the_best_factor() {
    for best in ["", "@0.71"] {
        let labels = order("g-scr-4", 2, best);
        let other = |seed: u64| {
            ["500-decayed", "1600", "2000-decayed"]
                .map(|end| format!("s{seed}/g-scr-4{best}/{end}"))
        };
        let mut expected: BTreeSet<String> = ["", "@0.71", "@1.41"]
            .into_iter()
            .flat_map(|factor| checked(1, factor))
            .collect();
        let first = expected.len();
        let checks: BTreeSet<String> = labels[..first].iter().cloned().collect();
        assert_eq!(checks, expected);
        expected.extend(other(1).into_iter().chain(checked(2, best)).chain(other(2)));
        assert_eq!(labels.len(), expected.len(), "{labels:?}");
        assert_eq!(labels.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn a_factor_whose_trunk_diverges_has_ended_and_is_not_the_best() {
    let labels = order_with("g-scr-4", 2, "@1.41", "s1/g-scr-4@1.41/400");
    let of_factor: Vec<&String> = (labels.iter())
        .filter(|label| label.contains("@1.41"))
        .collect();
    assert_eq!(of_factor, ["s1/g-scr-4@1.41/400"]);
    // All others are run, with one of the factors that are left.
    for end in ["s1/g-scr-4/2000-decayed", "s2/g-scr-4/1000-decayed"] {
        let of_end = |label: &&String| label.replace("@0.71", "") == end;
        assert!(labels.iter().any(|label| of_end(&label)), "{labels:?}");
    }
}

#[test]
fn the_end_that_is_compared_is_the_one_of_nearest_cost() {
    // Of width 128, 5,000 updates cost 1.14e14 operations and 2,500 half of that; the ladder's are 9.8e13.
    let labels = order("g-scr-2", 1, "");
    assert!(
        labels.contains(&"s1/g-scr-2@1.41/5000-decayed".to_string()),
        "{labels:?}"
    );
}

#[test]
fn every_stage_tries_the_factors_and_the_next_one_continues_at_the_rate_of_the_base() {
    let labels = order("t-seg", 2, "@0.71");
    let grown: BTreeSet<&str> = (labels.iter().map(String::as_str))
        .filter(|label| label.contains("t-seg"))
        .collect();
    let mut expected = BTreeSet::new();
    for factor in ["", "@0.71", "@1.41"] {
        for end in [
            "x4FACTOR/4400",
            "x4FACTOR/4800-decayed",
            "x16FACTOR/5300",
            "x16FACTOR/5600-decayed",
        ] {
            expected.insert(format!("s1/t-seg-{}", end.replace("FACTOR", factor)));
        }
    }
    expected.insert("s1/t-seg-x4/4800".into());
    // The second seed decays with the best factor alone.
    for end in [
        "x4/4400",
        "x4/4800",
        "x4@0.71/4400",
        "x4@0.71/4800-decayed",
        "x16@0.71/5300",
        "x16@0.71/5600-decayed",
    ] {
        expected.insert(format!("s2/t-seg-{end}"));
    }
    assert_eq!(grown, expected.iter().map(String::as_str).collect());
}

#[test]
fn rivals_end_after_the_first_growth() {
    for arm in ["t-zero", "t-rel", "g-stack"] {
        let labels = order(arm, 1, "");
        let ends = |size: &str| {
            labels
                .iter()
                .filter(|l| l.contains(&format!("{arm}-{size}")))
                .count()
        };
        assert!(ends("x4") > 2 && ends("x16") == 0, "{labels:?}");
    }
}
