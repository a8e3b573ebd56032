//! `plan growth` on runs that the test makes.

mod common;

use common::{Lab, fail, succeed};
use std::fs;

/// A run with a growth, at a flat rate with a decay at its end.
fn grown_run(lab: &Lab) -> String {
    let recipe = lab.recipe(
        "grown.toml",
        "[[grow]]\nat_step = 15\nqkv = \"+8\"\nproj = \"+8\"\nffn = \"+8\"\n",
    );
    let sets = [
        "schedule.shape=\"wsd\"",
        "schedule.warmup_steps=2",
        "eval.every=3",
    ];
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeed(lab.train(&recipe, "grown", &more));
    recipe
}

#[test]
fn a_plan_says_what_it_knows_and_writes_a_recipe() {
    let lab = Lab::new();
    let recipe = grown_run(&lab);
    let args = [
        "plan", "growth", "grown", "--config", &recipe, "--flops", "1e10",
    ];
    let explained =
        succeed(lab.command(&[&args[..], &["--explain", "--out", "planned.toml"]].concat()));
    for part in ["alpha", "scratch x1", "a growth pays", "next: "] {
        assert!(explained.out.contains(part), "{part} in\n{}", explained.out);
    }
    // A few dozen updates of one model are no reason to grow.
    assert!(
        explained.out.contains("Train from scratch"),
        "{}",
        explained.out
    );
    let planned = fs::read_to_string(lab.path("planned.toml")).unwrap();
    assert!(planned.contains("shape = \"wsd\""), "{planned}");
    succeed(lab.command(&["config", "show", "--config", "planned.toml"]));
    let exists = [&args[..], &["--out", "planned.toml"]].concat();
    fail(
        lab.command(&exists),
        2,
        &["--out", "planned.toml", "--force"],
    );

    let json = succeed(lab.command(&[&args[..], &["--json"]].concat()));
    let advice: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(advice["grow"], false);
    let flops = advice["scratch"]["schedule"]["legs"][0][0]["effective"]
        .as_f64()
        .unwrap()
        * advice["scratch"]["schedule"]["legs"][0][1]
            .as_f64()
            .unwrap()
        * 6.0;
    assert!((flops / 1e10 - 1.0).abs() < 1e-6, "{flops}");
    // The same evidence gives the same answer.
    let again = succeed(lab.command(&[&args[..], &["--json"]].concat()));
    assert_eq!(json.out, again.out);
}

#[test]
fn sites_are_planned_by_gradients_and_the_growth_is_a_recipe() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=20"]));
    let plan = |more: &[&str]| {
        let args = [&["plan", "sites", "run", "--threads", "1"], more].concat();
        lab.command(&args)
    };
    let json = succeed(plan(&["--factor", "3", "--json"]));
    let sites: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let sites = sites.as_array().unwrap();
    // Two blocks of five sites.
    assert_eq!(sites.len(), 10);
    let sum = |key: &str| -> f64 { sites.iter().map(|site| site[key].as_f64().unwrap()).sum() };
    assert!((sum("gain") / 10.0 - 1.0).abs() < 1e-9);
    assert!(
        (sum("planned") / sum("even") - 1.0).abs() < 0.3,
        "{}",
        json.out
    );
    let gains: Vec<f64> = sites
        .iter()
        .map(|site| site["gain"].as_f64().unwrap())
        .collect();
    let range = gains
        .iter()
        .fold([f64::INFINITY, 0.0], |[low, high], &gain| {
            [gain.min(low), gain.max(high)]
        });
    assert!(range[0] > 0.0 && range[1] > 1.2 * range[0], "{gains:?}");
    // The same batches give the same answer.
    assert_eq!(json.out, succeed(plan(&["--factor", "3", "--json"])).out);

    // What is printed is a growth with which the run goes on.
    let told = succeed(plan(&["--factor", "3"])).out;
    // All sites have whole units.
    assert!(told.contains("even growth: 3.000 times"), "{told}");
    let growth = told.find("[[grow]]").expect("a growth");
    let grown = lab.recipe("grown.toml", &told[growth..]);
    succeed(lab.train(&grown, "run", &[]));
    let records = fs::read_to_string(lab.path("run/metrics.jsonl")).unwrap();
    assert!(records.contains("\"max_logit_diff\":0.0"), "{records}");

    // A model that grew under joint norms keeps them, and its new keys are what begins at zero.
    let add = "[[grow]]\nat_step = 10\nmethod = \"zero-key\"\nffn = \"+16\"\n";
    let joint = lab.recipe("joint.toml", add);
    let steps = ["--set", "train.steps=20"];
    succeed(lab.train(&joint, "joint", &steps));
    let args = ["plan", "sites", "joint", "--factor", "3"];
    let told = succeed(lab.command(&args)).out;
    let more = &told[told.find("[[grow]]").expect("a growth")..];
    assert!(more.contains("method = \"zero-key\""), "{told}");
    let again = lab.recipe("again.toml", &format!("{add}{more}"));
    succeed(lab.train(&again, "joint", &[]));
    let records = fs::read_to_string(lab.path("joint/metrics.jsonl")).unwrap();
    assert_eq!(records.matches("\"max_logit_diff\":0.0").count(), 2);

    fail(plan(&["--factor", "1"]), 2, &["--factor"]);
    fail(plan(&["--factor", "1e9"]), 2, &["--factor", "at most 1000"]);
    let plain = lab.plain_recipe("plain.toml", "");
    succeed(lab.train(&plain, "plain", &["--set", "train.steps=2"]));
    let args = ["plan", "sites", "plain", "--factor", "2"];
    fail(lab.command(&args), 2, &["no parameter tokens", "ffn"]);
}

#[test]
fn wrong_evidence_and_budgets_are_errors() {
    let lab = Lab::new();
    let recipe = grown_run(&lab);
    let plan = |more: &[&str]| lab.command(&[&["plan", "growth"], more].concat());
    fail(
        plan(&["nowhere", "--config", &recipe, "--flops", "1e9"]),
        1,
        &["nowhere", "metrics.jsonl"],
    );
    fail(plan(&["grown", "--config", &recipe]), 2, &["--flops"]);
    // One training is not predicted from others.
    fail(plan(&["grown", "--check"]), 2, &["two trainings"]);
    fail(
        plan(&["grown", "--config", &recipe, "--flops", "-1"]),
        2,
        &["above 0"],
    );
    fail(
        plan(&[
            "grown", "--config", &recipe, "--flops", "1e9", "--hours", "1",
        ]),
        2,
        &["--hours"],
    );
    let small = [
        "grown",
        "--config",
        &recipe,
        "--flops",
        "1e9",
        "--max-params",
        "10",
    ];
    fail(plan(&small), 2, &["--max-params", "at least"]);
    let plain = lab.plain_recipe("plain.toml", "");
    fail(
        plan(&["grown", "--config", &plain, "--flops", "1e9"]),
        2,
        &["plain Transformer"],
    );

    fs::create_dir(lab.path("study")).unwrap();
    for (text, part) in [
        ("{", "study.json"),
        ("{}", "no held-out loss"),
        (
            r#"{"ends":[{"arm":"a","size":"x4","seed":1,"tokenformer":true,"stages":[[1e5,-1.0]],"loss":3.0}]}"#,
            "not above 0",
        ),
        (
            r#"{"ends":[{"arm":"a","size":"x4","seed":1,"tokenformer":true,"stages":[],"loss":3.0}]}"#,
            "not above 0",
        ),
    ] {
        lab.file("study/study.json", text);
        fail(plan(&["study", "--check"]), 1, &["study.json", part]);
    }
}

#[test]
fn a_check_predicts_each_training_from_the_others() {
    let lab = Lab::empty();
    fs::create_dir(lab.path("study")).unwrap();
    // The losses of 2 + (N/1e5)^-0.5 + (D/1e6)^-0.5.
    let mut ends = Vec::new();
    for size in [1e5f64, 4e5, 16e5] {
        for tokens in [1e6f64, 4e6, 16e6] {
            let loss = 2.0 + (size / 1e5).powf(-0.5) + (tokens / 1e6).powf(-0.5);
            ends.push(format!(
                r#"{{"arm":"{size}","size":"{tokens}","seed":1,"tokenformer":true,"stages":[[{size},{tokens}]],"loss":{loss}}}"#
            ));
        }
    }
    let text = format!("{{\"ends\":[{}]}}", ends.join(","));
    lab.file("study/study.json", text);
    let found = succeed(lab.command(&["plan", "growth", "study", "--check", "--json"]));
    let found: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    let predictions = found["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 9);
    for prediction in predictions {
        let (loss, middle) = (&prediction[1], &prediction[2]["middle"]);
        let ratio = middle.as_f64().unwrap() / loss.as_f64().unwrap();
        assert!((ratio - 1.0).abs() < 0.05, "{prediction}");
    }
    let table = succeed(lab.command(&["plan", "growth", "study", "--check"]));
    assert!(table.out.contains("of 9 intervals"), "{}", table.out);
}

#[test]
fn evidence_is_of_one_text_and_counts_once() {
    let lab = Lab::new();
    lab.prepare("other", 2);
    let recipe = grown_run(&lab);
    let other = ["--set", "data.dir=other"];
    succeed(lab.train(&recipe, "elsewhere", &other));
    let onwards = ["--resume", "grown", "--new-data", "--set", "train.steps=40"];
    succeed(lab.train(&recipe, "both", &[&onwards[..], &other].concat()));

    let plan = |runs: &[&str], more: &[&str]| {
        let budget = ["--config", &recipe, "--flops", "1e10"];
        lab.command(&[&["plan", "growth"], runs, &budget, more].concat())
    };
    succeed(plan(&["grown"], &[]));
    fail(
        plan(&["grown", "./grown"], &[]),
        2,
        &["./grown", "named twice"],
    );
    let mixed = ["elsewhere", "another text", "the training tokens of grown"];
    fail(plan(&["grown", "elsewhere"], &[]), 2, &mixed);
    fail(plan(&["both"], &[]), 2, &["both", "two texts"]);
    fail(
        plan(&["grown"], &other),
        2,
        &["data.dir of the recipe", "another text"],
    );

    // A run that plans its growths by itself knows its own text.
    let planner = "[planner]\nevidence = [\"elsewhere\"]\n[[planner.grow]]\nffn = \"+8\"\n";
    let planned = lab.recipe("planner.toml", planner);
    fail(
        lab.train(&planned, "planned", &["--set", "schedule.shape=constant"]),
        2,
        &["elsewhere", "another text", "this run"],
    );
}
