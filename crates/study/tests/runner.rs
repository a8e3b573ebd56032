//! A small study end to end: what is run, what is not run again, and that a stop changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::Device;
use tokenformer_cpu::Cpu;
use tokenformer_store::RunLock;
use tokenformer_study::corpus::{Source, second_source, source};
use tokenformer_study::profile::{Scratch, Stage, Tuning};
use tokenformer_study::runner::Standing;
use tokenformer_study::{Corpus, NodeResult, Profile, Runner, Settings, Watcher, arms};
use tokenformer_train::{Outcome, Progress};

/// The smoke profile, ten times smaller.
fn profile() -> Profile {
    let stage = |factor| Stage {
        factor,
        steps: 6,
        decay: 3,
    };
    Profile {
        layers: 1,
        width: 16,
        context: 16,
        batch: 2,
        base_steps: 24,
        stages: vec![stage(4), stage(16)],
        scratch: vec![Scratch {
            width: 16,
            ends: vec![10],
        }],
        warmup_steps: 2,
        tuning: Tuning {
            rates: vec![2e-3, 4e-3],
            steps: 6,
            widenings: 0,
        },
        eval: (4, 64),
        held_out_bytes: 8000,
        ..Profile::named("smoke").unwrap()
    }
}

fn device() -> Arc<dyn Device> {
    Cpu::new(Some(1))
}

fn runner(data: &Path, out: &Path, more: Option<&Path>, names: &[&str]) -> Runner {
    let profile = profile();
    match source(&profile, None, data).unwrap() {
        Source::Ready(dir) => assert_eq!(dir, data),
        Source::Prepare(options) => {
            tokenformer_data::prepare(&options, |_| {}).unwrap();
        }
    }
    let corpus = Corpus::open(data, profile.context).unwrap();
    let dir = data.with_file_name("second");
    let found = second_source(&profile, (&corpus, None), None, &dir).unwrap();
    if let Some(Source::Prepare(options)) = found {
        tokenformer_data::prepare(&options, |_| {}).unwrap();
    }
    let second = Some(Corpus::open(&dir, profile.context).unwrap());
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let settings = Settings {
        corpus: corpus.id.clone(),
        second: second.as_ref().map(|second| second.id.clone()),
        vocab: corpus.dataset.tokenizer.vocab_size(),
        profile,
        seeds: 1,
        arms: arms::named(&names).unwrap(),
    };
    Runner::new(settings, corpus, second, &device(), out, more).unwrap()
}

/// Counts updates and runs, and asks to stop after a number of updates.
#[derive(Default)]
struct Count<'a> {
    updates: u64,
    ended: Vec<String>,
    stop: Option<(u64, &'a AtomicBool)>,
    stop_at_note: Option<&'a AtomicBool>,
}

impl Watcher for Count<'_> {
    fn step(&mut self, standing: &Standing<'_>, _: &Progress) {
        self.updates += 1;
        assert!((0.0..=1.0).contains(&standing.share));
        if let Some((after, stop)) = self.stop
            && self.updates == after
        {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn ended(&mut self, result: &NodeResult) {
        self.ended.push(result.label.clone());
    }

    fn note(&mut self, text: &str) {
        if let Some(stop) = self.stop_at_note {
            assert!(text.contains("Waiting for other processes"), "{text}");
            stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs to the end, with a stop after every `after` updates if that is given.
fn finish(runner: &mut Runner, after: Option<u64>) -> Vec<String> {
    let mut ended = Vec::new();
    for _ in 0..1000 {
        let stop = AtomicBool::new(false);
        let mut count = Count {
            stop: after.map(|after| (after, &stop)),
            ..Count::default()
        };
        let outcome = runner.run(&mut count, &stop).unwrap();
        ended.extend(count.ended);
        if outcome == Outcome::Finished {
            return ended;
        }
    }
    panic!("no end");
}

/// The result files of a study by name, without the times in them.
fn files(out: &Path) -> Vec<(String, NodeResult)> {
    let mut found: Vec<(String, NodeResult)> = std::fs::read_dir(out.join("results"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read(&path).unwrap();
            let mut result: NodeResult = serde_json::from_slice(&text).unwrap();
            result.seconds = 0.0;
            (path.file_name().unwrap().to_string_lossy().into(), result)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

const ARMS: [&str; 5] = ["base", "t-seg", "t-rel", "g-ffn", "n-t-frozen"];

#[test]
fn a_study_that_is_stopped_again_and_again_has_the_same_results() {
    let scratch = tempfile::tempdir().unwrap();
    let [data, whole, parts] = ["data", "whole", "parts"].map(|name| scratch.path().join(name));
    let ended = finish(&mut runner(&data, &whole, None, &ARMS), None);
    assert!(
        ended.iter().any(|label| label == "s1/t-seg-x16/36-decayed"),
        "{ended:?}"
    );
    finish(&mut runner(&data, &parts, None, &ARMS), Some(7));
    let (whole, parts) = (files(&whole), files(&parts));
    assert_eq!(whole.len(), ended.len());
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_eq!(whole, parts);
    }
    assert_eq!(whole.len(), parts.len());

    let of = |label: &str| &whole.iter().find(|(_, r)| r.label == label).unwrap().1;
    let grown = of("s1/t-seg-x4/27");
    assert_eq!(grown.growth.as_ref().unwrap().max_logit_diff, 0.0);
    assert!(of("s1/t-rel-x4/30").growth.as_ref().unwrap().max_logit_diff > 0.0);
    let end = of("s1/t-seg-x16/36-decayed");
    assert_eq!((end.tokens, end.from_step), (36 * 32, 33));
    let held_out = end.held_out.as_ref().unwrap();
    assert!(held_out.documents.len() > 1 && held_out.bits_per_byte.is_finite());
    assert!(end.second_held_out.is_none());
    let shifted = of("s1/n-t-frozen/30-decayed");
    let both = [&shifted.held_out, &shifted.second_held_out];
    let losses = both.map(|held_out| held_out.as_ref().unwrap().loss);
    assert!(losses[0] != losses[1] && losses.iter().all(|loss| loss.is_finite()));
    assert_eq!(
        of("s1/n-t-frozen/27")
            .growth
            .as_ref()
            .unwrap()
            .max_logit_diff,
        0.0
    );
    // What is frozen has no gradients: the formula agrees with the count, without the probe of the growth.
    let flat = of("s1/n-t-frozen/27");
    let own = [
        shifted.counted_flops - flat.counted_flops,
        shifted.flops - flat.flops,
    ];
    assert!((own[0] / own[1] - 1.0).abs() < 0.01, "{own:?}");
    // The formula leaves out what is done once per update, and the probes of growths.
    let counted = end.counted_flops / end.flops;
    assert!((0.9..1.2).contains(&counted), "{counted}");
}

#[test]
fn what_has_a_result_is_not_run_again() {
    let scratch = tempfile::tempdir().unwrap();
    let [data, first, second] = ["data", "first", "second"].map(|name| scratch.path().join(name));
    let names = ["base", "t-seg"];
    finish(&mut runner(&data, &first, None, &names), None);
    let results = first.join("results");
    // The checkpoints of ended runs are gone: no run needs them.
    let left = std::fs::read_dir(first.join("work")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    let of_ladder = |name: &std::ffi::OsString| name.to_string_lossy().contains("t-seg");
    assert!(!left.iter().any(of_ladder), "{left:?}");

    let ended = finish(&mut runner(&data, &second, Some(&results), &names), None);
    assert_eq!(ended, Vec::<String>::new());

    // Without the last end, what leads to it has to be run again, and nothing else.
    let end = files(&first)
        .into_iter()
        .find(|(_, r)| r.label == "s1/t-seg-x16/36-decayed")
        .unwrap();
    std::fs::remove_file(results.join(&end.0)).unwrap();
    let ended = finish(&mut runner(&data, &second, Some(&results), &names), None);
    let path = [
        "s1/t-base/19",
        "s1/t-base/24",
        "s1/t-seg-x4/27",
        "s1/t-seg-x4/30",
        "s1/t-seg-x16/33",
        "s1/t-seg-x16/36-decayed",
    ];
    assert_eq!(ended, path);
    let again = files(&second)
        .into_iter()
        .find(|(name, _)| *name == end.0)
        .unwrap();
    assert_eq!(again, end);
}

#[test]
fn two_processes_share_a_study() {
    let scratch = tempfile::tempdir().unwrap();
    let [data, alone, shared] = ["data", "alone", "shared"].map(|name| scratch.path().join(name));
    let ended = finish(&mut runner(&data, &alone, None, &ARMS), None);
    let runners = [(); 2].map(|()| runner(&data, &shared, None, &ARMS));
    let both: Vec<Vec<String>> = std::thread::scope(|scope| {
        let runs = runners.map(|mut runner| scope.spawn(move || finish(&mut runner, Some(50))));
        runs.map(|run| run.join().unwrap()).into()
    });
    assert!(both.iter().all(|ended| !ended.is_empty()), "{both:?}");
    // Nothing was run twice.
    let mut together = both.concat();
    together.sort();
    let mut ended = ended;
    ended.sort();
    assert_eq!(together, ended);
    assert_eq!(files(&shared), files(&alone));
}

#[test]
fn what_another_process_runs_is_waited_for() {
    let scratch = tempfile::tempdir().unwrap();
    let [data, out] = ["data", "out"].map(|name| scratch.path().join(name));
    let mut runner = runner(&data, &out, None, &["base"]);
    let plan = runner.plan().unwrap();
    let mut locks = Vec::new();
    for node in plan.graph.nodes() {
        let claim = out.join("work/claims").join(&node.key);
        locks.push(RunLock::acquire(&claim, &mut |_| {}).unwrap());
    }
    let stop = AtomicBool::new(false);
    let mut count = Count {
        stop_at_note: Some(&stop),
        ..Count::default()
    };
    let outcome = runner.run(&mut count, &stop).unwrap();
    assert_eq!((outcome, count.updates), (Outcome::Interrupted, 0));
    drop(locks);
    let stop = AtomicBool::new(false);
    assert_eq!(
        runner.run(&mut Count::default(), &stop).unwrap(),
        Outcome::Finished
    );
}

#[test]
fn a_result_of_another_name_or_form_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let [data, out] = ["data", "out"].map(|name| scratch.path().join(name));
    std::fs::create_dir_all(out.join("results")).unwrap();
    // A process was killed while it wrote this.
    std::fs::write(out.join("results/.tmp-x.json"), "{").unwrap();
    runner(&data, &out, None, &["base"]);
    std::fs::write(out.join("results/x.json"), "{}").unwrap();
    runner(&data, &scratch.path().join("other"), None, &["base"]);
    let read = tokenformer_study::Results::open(&out.join("results"), None);
    let message = read.unwrap_err().to_string();
    assert!(
        message.contains("x.json") && message.contains("not the result of a run"),
        "{message}"
    );
}
