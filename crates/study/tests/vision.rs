//! The study on pictures: what its report says of runs that diverged, and that it tests on all pictures or on none.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokenformer_core::Device;
use tokenformer_cpu::Cpu;
use tokenformer_images::fractals::{self, FractalOptions};
use tokenformer_images::source::SourceOptions;
use tokenformer_images::{ImageSet, PrepareOptions, Source, Split, Storage, prepare};
use tokenformer_study::vision::{
    Measured, VisionProfile, VisionResult, VisionResults, VisionRun, VisionRunner, VisionWatcher,
    named,
};
use tokenformer_train::Progress;

/// The smoke profile, far smaller.
fn profile() -> VisionProfile {
    VisionProfile {
        layers: 1,
        width: 16,
        steps: 4,
        batch: 4,
        ..VisionProfile::named("smoke").unwrap()
    }
}

/// Fractals, packed, as the folder `data` in `dir`.
fn pictures(dir: &Path) -> PathBuf {
    let source = fractals::source(&FractalOptions {
        classes: 2,
        per_class: 20,
        test_per_class: 5,
        side: 16,
        seed: 7,
    });
    let mut options = PrepareOptions::new(dir.join("data"));
    options.valid_share = 0.3;
    prepare(&source.unwrap(), &options, &mut |_| {}).unwrap();
    options.out
}

/// The same pictures as files of the folder `tree`, and an index of them.
fn indexed(dir: &Path) -> PathBuf {
    let set = ImageSet::open(&pictures(dir)).unwrap();
    let tree = dir.join("tree");
    for split in Split::ALL {
        let pictures = set.split(split).unwrap();
        for index in 0..pictures.len() {
            let class = &set.summary().classes[pictures.label(index) as usize];
            let folder = tree.join(split.name()).join(class);
            fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("{index}.png"));
            fs::write(file, pictures.picture(index).unwrap().to_png()).unwrap();
        }
    }
    let source = Source::open(&tree, &SourceOptions::default()).unwrap();
    let mut options = PrepareOptions::new(dir.join("index"));
    options.storage = Some(Storage::Indexed);
    prepare(&source, &options, &mut |_| {}).unwrap();
    options.out
}

fn runner(arms: &[&str], seeds: u64, data: &Path, out: &Path) -> VisionRunner {
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let arms: Vec<String> = arms.iter().map(ToString::to_string).collect();
    let arms = named(&arms).unwrap();
    VisionRunner::new(profile(), arms, seeds, data, out, &device).unwrap()
}

/// The result of a run that ended with a test error in percent, or diverged early with only a few of its parameters.
fn result(run: &VisionRun, error: Option<f64>) -> VisionResult {
    let measured = |error: f64| Measured {
        loss: error / 50.0,
        top1: 1.0 - error / 100.0,
        top5: 1.0,
        pictures: 10,
    };
    let end = error.map(measured);
    VisionResult {
        format: 1,
        key: run.key.clone(),
        arm: run.arm.name.into(),
        rate: run.rate,
        seed: run.seed,
        params: if end.is_some() { 5000 } else { 1000 },
        steps: 4,
        flops: if end.is_some() { 4e9 } else { 1e9 },
        seconds: 1.0,
        machine: "made up".into(),
        diverged: end.is_none().then(|| "the loss is not <finite>".into()),
        held_out: end,
        test: end.map(|end| [end, end]),
        evals: match end {
            Some(_) => vec![[1e9, 1.0, 0.5], [4e9, 0.5, 0.75]],
            None => vec![[1e9, 9.0, 0.01]],
        },
        growth_logit_difference: None,
    }
}

const SEEDS: u64 = 3;

/// The numbers and the page of a study in which `exp-l1` diverged with the seeds `lost`.
fn report(arms: &[&str], lost: &[u64]) -> (Value, String) {
    let scratch = tempfile::tempdir().unwrap();
    let (data, out) = (pictures(scratch.path()), scratch.path().join("study"));
    let study = runner(arms, SEEDS, &data, &out);
    let mut results = VisionResults::open(&out.join("results")).unwrap();
    for (place, &arm) in study.arms().iter().enumerate() {
        for seed in 1..=SEEDS {
            let run = study.run_of(arm, profile().rates[0], seed).unwrap();
            let noise = [0.0, 1.0, 0.5][(place + seed as usize) % 3];
            let error = 20.0 + 4.0 * place as f64 + 2.0 * seed as f64 + noise;
            let is_lost = arm.name == "exp-l1" && lost.contains(&seed);
            let error = (!is_lost).then_some(error);
            results.add(result(&run, error)).unwrap();
        }
    }
    let page = runner(arms, SEEDS, &data, &out).report().unwrap();
    let json = fs::read_to_string(out.join("study.json")).unwrap();
    let page = fs::read_to_string(page).unwrap();
    (serde_json::from_str(&json).unwrap(), page)
}

#[test]
fn an_arm_that_diverged_widens_no_interval_and_is_named() {
    let (without, page) = report(&["tokenformer", "vit", "grown"], &[]);
    assert_eq!(without["contrasts"].as_array().unwrap().len(), 2);
    assert_eq!(without["diverged"], Value::Array(Vec::new()));
    assert!(!page.contains("Runs that diverged"), "{page}");

    let arms = ["tokenformer", "vit", "grown", "exp-l1"];
    let (with, page) = report(&arms, &[2]);
    assert_eq!(with["contrasts"], without["contrasts"]);
    let diverged = &with["diverged"].as_array().unwrap()[..];
    let [only] = diverged else {
        panic!("{diverged:?}");
    };
    assert_eq!((&only["arm"], &only["seed"]), (&"exp-l1".into(), &2.into()));
    assert_eq!(only["reason"], "the loss is not <finite>");
    for part in ["the loss is not &lt;finite&gt;", "2 of 3"] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    // The row has the seeds that ended, in their places, and says nothing of the lost one.
    let row = &with["rows"][3];
    assert_eq!(row["arm"], "exp-l1");
    assert_eq!(row["test_errors"][1], Value::Null);
    assert!(row["test_errors"][2].as_f64().unwrap() > 20.0);
    let (first, _) = report(&arms, &[1]);
    let row = &first["rows"][3];
    assert_eq!((&row["params"], &row["flops"]), (&5000.into(), &4e9.into()));

    // Without the arm that all others are compared with there is no difference; nothing at all is left of a single seed.
    let (all, page) = report(&["tokenformer", "exp-l1"], &[1, 2, 3]);
    assert_eq!(all["contrasts"], Value::Array(Vec::new()));
    assert_eq!(all["diverged"].as_array().unwrap().len(), 3);
    assert!(page.contains("0 of 3"), "{page}");
}

#[test]
fn a_report_of_a_part_of_the_runs_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, out) = (pictures(scratch.path()), scratch.path().join("study"));
    let study = runner(&["tokenformer", "vit"], 1, &data, &out);
    fs::create_dir(&out).unwrap();
    let mut results = VisionResults::open(&out.join("results")).unwrap();
    for (done, &arm) in study.arms().iter().enumerate() {
        let page = runner(&["tokenformer", "vit"], 1, &data, &out).report();
        let page = fs::read_to_string(page.unwrap()).unwrap();
        let part = format!("{done} of 2 runs are done");
        assert!(page.contains(&part), "no {part:?} in {page}");
        let run = study.run_of(arm, profile().rates[0], 1).unwrap();
        results.add(result(&run, Some(20.0))).unwrap();
    }
    let page = runner(&["tokenformer", "vit"], 1, &data, &out).report();
    let page = fs::read_to_string(page.unwrap()).unwrap();
    assert!(!page.contains("runs are done"), "{page}");
}

/// Hears nothing.
struct Deaf;

impl VisionWatcher for Deaf {
    fn step(&mut self, _: &str, _: (usize, usize), _: &Progress) {}
    fn ended(&mut self, _: &VisionResult) {}
    fn note(&mut self, _: &str) {}
}

/// Accuracies on fewer pictures than the dataset has cannot be compared.
#[test]
fn a_test_picture_that_cannot_be_read_ends_the_study() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, out) = (indexed(scratch.path()), scratch.path().join("study"));
    let file = scratch.path().join("tree/test/fractal-1/7.png");
    let good = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let go = AtomicBool::new(false);
    let mut study = runner(&["tokenformer"], 1, &data, &out);
    let error = study.run(&mut Deaf, &go).unwrap_err().to_string();
    for part in ["7.png: cannot be read", "put the file back"] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    // With the file back, the run goes on from its end and is tested on all.
    fs::write(&file, good).unwrap();
    study.run(&mut Deaf, &go).unwrap();
    let run = study
        .run_of(study.arms()[0], profile().rates[0], 1)
        .unwrap();
    let test = study.result(&run).unwrap().test.unwrap();
    assert_eq!(test.map(|measured| measured.pictures), [10, 10]);
}

#[test]
fn an_arm_that_is_named_twice_is_run_once_and_an_unknown_one_has_a_nearest_name() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let found = named(&names(&["vit", "tokenformer", "vit"])).unwrap();
    let found: Vec<&str> = found.iter().map(|arm| arm.name).collect();
    assert_eq!(found, ["vit", "tokenformer"]);
    let error = named(&names(&["affine-norm"])).unwrap_err().to_string();
    assert!(error.contains("did you mean affine-norms?"), "{error}");
}
